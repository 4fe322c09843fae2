"""Services among strategies: the engine that asks one, and when a folder may name one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from taskfit.errors import ModelError, NoScoresError, PredictorError
from taskfit.models.service import is_service_name, read_service_name
from taskfit.strategy.table import load_class, strategy_entry, strategy_names

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine, Request, Response
    from taskfit.models.language_model import LanguageModel
    from taskfit.models.service import ServiceModel
    from taskfit.models.work import Work

__all__ = ["check_may_ask", "generating_strategies", "service_engine"]


def service_engine(model: LanguageModel, *, cache: Path | None = None) -> Engine:
    """Return the engine of a service: priced, and with the user's cache where its name asks for one.

    Answers of services elsewhere are kept by default, for they cost money and are asked for again whenever a study is
    repeated; those of a service on this machine are not, for its model may change under its name.

    Args:
        model: a service's.
        cache: a file to keep the answers in instead, whatever the name says.
    """
    from taskfit.costs.prices import load_prices
    from taskfit.costs.service_prices import find_service_price
    from taskfit.inference.http_engine import HttpEngine
    from taskfit.inference.response_cache import CachedEngine, default_cache

    of_service = cast("ServiceModel", model)
    service = of_service.service
    if of_service.usd_per_mtok is None:
        price = find_service_price(service, load_prices())
        of_service.usd_per_mtok = None if price is None else (price.usd_per_mtok_in, price.usd_per_mtok_out)
    engine = HttpEngine(of_service)
    if cache is not None:
        return _Advising(CachedEngine(engine, cache))
    is_kept = service.cache == "on" or (service.cache == "auto" and not service.is_local)
    return _Advising(CachedEngine(engine, default_cache()) if is_kept else engine)


def generating_strategies() -> list[str]:
    """Return the programs that need no log-probabilities, as a user would write them."""
    found = []
    for name in strategy_names():
        if strategy_entry(name).part != "program":
            continue
        kind = load_class(name)
        answer = [field for field in fields(kind) if field.name == "answer"] if is_dataclass(kind) else []
        if not answer:
            found.append(name)
        elif answer[0].default == "score":
            found.append(f"{name}(answer=generate)")
        else:
            found.append(name)
    return found


def check_may_ask(folder: Path, name: str) -> None:
    """Check that a predictor's folder may send rows, and a key, where it says: only to this machine, of itself.

    Folders come from anywhere. Whoever names the service on the command line means it.

    Raises:
        PredictorError: it names a service elsewhere, or none.
    """
    try:
        service = read_service_name(name) if is_service_name(name) else None
    except ModelError as error:
        raise PredictorError(f"{folder}: base: {error.message}", error.hint) from error
    if service is None:
        raise PredictorError(f"{folder}: base: {name!r} is no service's address")
    if service.key or not service.is_local:
        key = f" and the key in {service.key}" if service.key else ""
        raise PredictorError(
            f"{folder} asks the service {service.host}: the rows{key} would be sent there",
            f"If you mean it, name the model yourself: --model {shlex.quote(name)}",
        )


class _Advising:
    """Lets an engine answer; where it cannot score, says which strategies still work."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def work(self) -> Work:
        return self._engine.work

    def run(self, requests: Sequence[Request]) -> list[Response]:
        try:
            return self._engine.run(requests)
        except NoScoresError as error:
            names = ", ".join(generating_strategies())
            raise NoScoresError(error.message, f"Strategies that generate still work: {names}") from error
