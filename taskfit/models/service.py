"""Models behind a service: how a user names one, and what stands in for the loaded model.

A service's model is named by one text: the service's base address, options in its query, the model behind ``#``::

    http://localhost:8000/v1#my-model
    https://api.example.com/v1?key=EXAMPLE_API_KEY&max_usd=5&usd_in=0.2&usd_out=0.8#big-model

The options are the fields of :class:`Service`. A key is never part of a name: ``key`` says in which variable of the
environment it stands.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, cast, get_args
from urllib.parse import parse_qsl, urlsplit

from taskfit.errors import Faults, ModelError, nearest
from taskfit.models.language_model import LanguageModel

__all__ = ["Service", "ServiceModel", "is_service_name", "read_service_name"]

Style = Literal["chat", "completions"]
Scores = Literal["auto", "echo", "top", "none"]
Switch = Literal["auto", "on", "off"]

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_LOCAL = re.compile(r"localhost|.*\.localhost|127(\.\d{1,3}){3}|::1")
_NO_WEIGHTS = {"module", "tokenizer", "dtype", "device"}


@dataclass(frozen=True)
class Service:
    """A service that speaks OpenAI's protocol, the model asked there, and how far it may be used.

    Attributes:
        base_url: address up to and with ``/v1``, without query.
        model: the model's name there.
    """

    base_url: str
    model: str
    key: str = ""
    """Variable of the environment that holds the key; empty: none is sent."""
    style: Style = "chat"
    """``chat``: chat completions. ``completions``: plain text, for base models."""
    scores: Scores = "auto"
    """Where scores come from: ``echo`` (log-probabilities of the prompt; any continuation), ``top`` (the likeliest
    first tokens; continuations of one token), ``none``; ``auto``: what the service turns out to offer."""
    usd_in: float | None = None
    """US dollars per million tokens read; goes before the price table."""
    usd_out: float | None = None
    """US dollars per million tokens written."""
    max_usd: float | None = None
    """Most money that one loaded model (one trial, one fit, one predict) may spend, whoever asks it."""
    max_tokens: int | None = None
    """Most tokens that one loaded model may be billed for, in and out together."""
    concurrency: int = 8
    """Most calls under way at once."""
    requests_per_minute: int | None = None
    """Most calls in any minute."""
    tokens_per_minute: int | None = None
    """Most tokens in any minute, as estimated before each call."""
    timeout_s: float = 120.0
    """Seconds after which a call is given up, and tried again."""
    cache: Switch = "auto"
    """Keep answers on this machine: ``auto`` does for services elsewhere, which cost money."""

    @property
    def host(self) -> str:
        """The host's name, without port."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_local(self) -> bool:
        """Whether the service runs on this machine."""
        return bool(_LOCAL.fullmatch(self.host))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what decides the answers: address, model, style, source of scores.

        Nobody outside a service can see its weights: where it changes them under the same name, this stays the same.
        """
        parts = ["service", self.base_url, self.model, self.style, self.scores]
        return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()


_NUMBERS = {
    "usd_in": float,
    "usd_out": float,
    "max_usd": float,
    "timeout_s": float,
    "max_tokens": int,
    "concurrency": int,
    "requests_per_minute": int,
    "tokens_per_minute": int,
}
_WORDS: dict[str, Any] = {"style": Style, "scores": Scores, "cache": Switch}
_OPTIONS = [field.name for field in fields(Service) if field.default is not MISSING]
_MAY_BE_ZERO = ("usd_in", "usd_out")


def is_service_name(name: object) -> bool:
    """Tell whether a model's name is a service's address."""
    return isinstance(name, str) and name.lower().startswith(("http://", "https://"))


def read_service_name(name: str) -> Service:
    """Read a service's name; see the top of this module.

    Raises:
        ModelError: it is none; all faults together. What might be a secret is not repeated.
    """
    faults = Faults("model")
    try:
        parts = urlsplit(name)
        host, port = parts.hostname, parts.port
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:  # its words repeat what stands there, which may be a key
        raise ModelError("a service's address cannot be read: host, port or options are malformed", _HINT) from None
    if parts.username is not None or parts.password is not None:
        faults.add("a service's address must hold no user and no password")
    if not host:
        faults.add("a service's address must name a host")
    if not parts.fragment:
        faults.add("a service's address must end in # and the model's name there")
    values = _options(options, faults)
    faults.raise_as(ModelError, _HINT)
    where = f"[{host}]" if ":" in str(host) else str(host)
    base_url = f"{parts.scheme.lower()}://{where}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
    service = Service(base_url, parts.fragment, **values)
    if service.key and base_url.startswith("http://") and not service.is_local:
        raise ModelError(
            f"the key in {service.key} would go to {service.host} unencrypted",
            "Give an address that begins with https.",
        )
    return service


_HINT = "Write it as http://localhost:8000/v1#model, or https://host/v1?key=NAME_OF_A_VARIABLE#model"


def _options(given: list[tuple[str, str]], faults: Faults) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in given:
        if name not in _OPTIONS:
            faults.add(f"unknown option {name[:30]!r} of a service{nearest(name, _OPTIONS)}")
        elif name in values:
            faults.add(f"option {name} of a service stands twice")
        elif name == "key":
            values[name] = text
            if not _VARIABLE.fullmatch(text):
                faults.add("key must name a variable of the environment, such as EXAMPLE_API_KEY; never the key itself")
        elif name in _WORDS:
            values[name] = text
            if text not in get_args(_WORDS[name]):
                faults.add(f"{name} must be one of {', '.join(get_args(_WORDS[name]))} (got {text[:30]!r})")
        else:
            values[name] = _number(name, text, faults)
    return values


def _number(name: str, text: str, faults: Faults) -> float | int | None:
    try:
        number = _NUMBERS[name](text)
    except ValueError:
        number = -1
    if not (0 < number < float("inf") or (number == 0 and name in _MAY_BE_ZERO)):
        faults.add(f"{name} must be a {'whole ' if _NUMBERS[name] is int else ''}number above 0 (got {text[:30]!r})")
        return None
    return cast("float | int", number)


class ServiceModel(LanguageModel):
    """Stands where a language model does, and has no weights: strategies that only prompt can use it.

    Args:
        name: as the user gave it.

    Attributes:
        service: what the name says.
        usd_per_mtok: US dollars per million tokens in and out, as the name says; None where it does not, until
            somebody who has a price table sets it.
        limits: what was spent and how fast, shared by all engines of this model; the first one sets it.
        context: 0: only the service knows.

    Raises:
        ModelError: the name is none of a service.
    """

    def __init__(self, name: str) -> None:
        self.service = read_service_name(name)
        self.name = name
        self.folder = Path()
        self.architecture = "service"
        self.context = 0
        self.fingerprint = self.service.fingerprint
        self.has_chat_template = self.service.style == "chat"
        self.end_token_ids = ()
        self.usd_per_mtok: tuple[float, float] | None = None
        if self.service.usd_in is not None or self.service.usd_out is not None:
            self.usd_per_mtok = (self.service.usd_in or 0.0, self.service.usd_out or 0.0)
        self.limits: object | None = None

    def __repr__(self) -> str:
        return f"ServiceModel({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServiceModel) and other.name == self.name

    def __getattr__(self, name: str) -> NoReturn:
        if name in _NO_WEIGHTS:
            raise ModelError(
                f"model {self.name!r} is a service: its {name} cannot be reached",
                "Use a strategy that only prompts, or a model on this machine.",
            )
        raise AttributeError(name)
