"""The contract that every row of the strategy table keeps: fit, predict, save, load, on every architecture and kind.

A row is tried on each architecture and kind of task it says it can use, on tiny random models.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from taskfit.models import load
from taskfit.strategy.contract import Budget, Strategy
from taskfit.strategy.grammar import full_name, parse
from taskfit.strategy.parameters import parameters_of
from taskfit.strategy.predictor import load_predictor
from taskfit.strategy.table import STRATEGIES, load_class
from tests.strategy.small_tasks import small_task

_SHORT = {
    "epochs": 1,
    "batch": 4,
    "min_steps": 1,
    "k": 2,
    "n": 2,
    "max_tokens": 4,
    "parts": 1,
    "rounds": 1,
    "budget": 8,
}
"""Values that keep a fit short, for parameters of these names."""

_REQUIRED = {"tune": "strategy=linear, tries=2"}
"""Parameters of rows that have some without a default."""

_ARCHITECTURES = ("decoder", "encoder-decoder", "encoder", None)
_KINDS = ("classification", "choice", "generation")

_NEEDS_OTHER_MODELS = ("bitfit", "distil", "step-by-step")
"""Rows that refuse these tiny models: they have no biases, and as teachers they say always the same, or nothing valid.
The contract of tuning methods and the tests of distillation try them on others."""


def _strategy(name: str) -> Strategy:
    """Return the strategy of a row, with what keeps its fit short."""
    parts = []
    for part in name.split("+"):
        known = parameters_of(load_class(part))
        short = [f"{key}={value}" for key, value in _SHORT.items() if key in known and known[key].default != 0]
        parts.append(f"{part}({', '.join([*_required(part), *short])})")
    return parse("+".join(parts))


def _required(name: str) -> list[str]:
    return [_REQUIRED[name]] if name in _REQUIRED else []


def _missing(name: str) -> bool:
    """Return whether the row's module is not written yet."""
    targets = [STRATEGIES[part].target.partition(":")[0] for part in name.split("+")]
    root = Path(__file__).parents[2]
    return not all((root / f"{target.replace('.', '/')}.py").is_file() for target in targets)


def _suits(strategy: Strategy, architecture: str | None, kind: str) -> bool:
    """Return whether the strategy says it can; one that needs no model is tried without one."""
    fits = architecture in strategy.architectures if strategy.architectures else architecture is None
    fits = fits and not (architecture == "encoder" and kind == "generation")  # encoders fill masks, and write nothing
    return fits and kind in strategy.kinds


def _cases() -> list[tuple[str, str | None, str]]:
    names = [name for name in [*STRATEGIES, "lora+few-shot"] if not _missing(name) and name not in _NEEDS_OTHER_MODELS]
    return [(n, a, k) for n in names for a in _ARCHITECTURES for k in _KINDS if _suits(_strategy(n), a, k)]


def _model(tiny_folders, architecture):
    return None if architecture is None else load(tiny_folders[architecture], dtype="float32", device="cpu")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_row_is_a_strategy_whose_name_parses_back(name):
    """The bare name builds a strategy with all that the contract asks, equal to the parse of its own name."""
    if _missing(name):
        pytest.skip("not written yet")
    strategy = parse(f"{name}({', '.join(_required(name))})")
    assert isinstance(strategy, Strategy)
    assert parse(strategy.name) == strategy
    assert parse(full_name(strategy)) == strategy
    assert strategy.kinds <= set(_KINDS)
    assert strategy.architectures <= {*_ARCHITECTURES, "service"}
    assert STRATEGIES[name].summary


@pytest.mark.parametrize(("name", "architecture", "kind"), _cases(), ids=str)
def test_fit_predict_save_load(name, architecture, kind, tiny_folders, tmp_path):
    """One prediction a row, in order, the same alone, in company, and after loading; probabilities sum to 1."""
    strategy = _strategy(name)
    task = small_task(kind, train=8, validation=4, test=5)
    fitted = strategy.fit(_model(tiny_folders, architecture), task, seed=1, budget=Budget())
    predictions = list(fitted.predict(iter(task.test)))

    assert [p.row_id for p in predictions] == [row.id for row in task.test]
    assert fitted.strategy == strategy.name
    for row, prediction in zip(task.test, predictions, strict=True):
        _check_prediction(task.definition, row, prediction)

    alone = [next(iter(fitted.predict([row]))) for row in reversed(task.test)][::-1]
    _check_same(alone, predictions)
    fitted.save(tmp_path / "p")
    assert not [path for path in (tmp_path / "p").rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".joblib"}]
    loaded = load_predictor(tmp_path / "p")
    _check_same(list(loaded.predict(task.test)), predictions)
    assert loaded.fit_work == fitted.fit_work
    assert loaded.definition == task.definition


def _check_prediction(definition, row, prediction):
    """Check that the answer is one of the valid ones, and the likeliest of them, or that it could not be read.

    Programs that generate may give no probabilities; shares of votes are some, also for free texts.
    """
    assert prediction.is_parsed == bool(prediction.answer)
    shares = prediction.probabilities
    values = {option.value for option in definition.options(row)}
    if definition.kind != "generation" and prediction.is_parsed:
        assert prediction.answer in values
    if shares is None:
        assert definition.kind == "generation" or prediction.raw or not prediction.is_parsed
        return
    assert definition.kind == "generation" or set(shares) == values
    assert math.fsum(shares.values()) == pytest.approx(1, abs=1e-6)
    assert shares[prediction.answer] == max(shares.values())


def _check_same(left, right):
    """Check that predictions are the same, probabilities to the rounding of single precision."""
    for one, other in zip(left, right, strict=True):
        assert (one.row_id, one.answer, one.tokens_in, one.tokens_out) == (
            other.row_id,
            other.answer,
            other.tokens_in,
            other.tokens_out,
        )
        if one.probabilities is not None:
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
