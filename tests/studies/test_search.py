"""The search: halving, resuming, what it bought, and that it looks at validation rows only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from taskfit.errors import ConfigError, ResourceError, StudyError, TrainingError
from taskfit.models.work import Work
from taskfit.strategy.contract import Budget, StrategyEntry
from taskfit.strategy.grammar import parse, part_name
from taskfit.strategy.manifest import new_manifest, read_manifest
from taskfit.strategy.predictor import load_predictor
from taskfit.strategy.space import OneOf, Space, Times
from taskfit.strategy.table import STRATEGIES
from taskfit.studies.search import Tune, with_search
from taskfit.studies.search_plan import LEAST_STEPS, Round, effort, rounds, survivors, tries_within
from taskfit.tuning.baselines import BaselinePredictor
from tests.strategy.small_tasks import small_task

TASK = small_task("classification", train=40, validation=40, test=10)
FITS: list[str] = []
FAIL_AT: list[int] = []


@dataclass(frozen=True)
class Pretend:
    """Its share of right answers is known: best at rate 0.03, better with more steps; it diverges above 0.05."""

    learning_rate: float | None = None
    width: int = 1
    epochs: int = 2
    max_steps: int | None = None

    space: ClassVar[Space] = {"learning_rate": Times(0.1, 10.0), "width": OneOf((1, 2))}
    architectures: ClassVar[frozenset[str]] = frozenset()
    kinds: ClassVar[frozenset[str]] = frozenset({"classification"})
    name = property(part_name)

    def steps(self, rows: int, labels: int = 0) -> int:
        """Return a step a row and pass."""
        return min(self.epochs * rows, self.max_steps or 10**9)

    def rate(self, model: object) -> float:
        """Return the default rate."""
        return self.learning_rate or 0.01

    def fit(self, model, task, *, seed, budget):
        """Note that it was called, and answer rightly as often as the parameters deserve."""
        FITS.append(self.name)
        if len(FITS) in FAIL_AT:
            raise KeyboardInterrupt
        if self.rate(None) > 0.05:
            raise TrainingError("the loss is nan")
        budget.say("step 1 of 1: loss 1.0")
        steps = self.steps(len(task.train))
        work = Work(trained_tokens=steps)
        state = {"share": _share(self.rate(None), steps)}
        return self._predictor(
            new_manifest(self, task, seed=seed, model=None, needs_base=False, state=state, fit_work=work)
        )

    def restore(self, model, folder, manifest):
        """Build it again."""
        return self._predictor(manifest)

    def _predictor(self, manifest):
        definition, share = manifest.definition, float(manifest.state["share"])

        def guess(rows):
            assert {row.id for row in rows} <= {row.id for row in TASK.validation}, "only validation rows may be seen"
            return [(_answer(definition, row, share), None) for row in rows]

        return BaselinePredictor(manifest, guess, lambda folder: None)


def _share(rate: float, steps: int) -> float:
    import math

    return max(0.0, 0.9 - 0.3 * abs(math.log(rate / 0.03)) - 4 / steps)


def _answer(definition, row, share: float) -> str:
    right = definition.gold(row)[0]
    number = int(row.id.removeprefix("row-"))
    return right if (number * 7 % 40) / 40 < share else next(label for label in definition.labels if label != right)


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(STRATEGIES, "pretend", StrategyEntry(f"{__name__}:Pretend", "whole", "for these tests"))
    FITS.clear()
    FAIL_AT.clear()
    yield


def _fit(name: str, budget: Budget | None = None, task=TASK):
    return parse(name).fit(None, task, seed=0, budget=budget or Budget())


# The plan


def test_half_go_on_with_twice_the_steps_until_two_are_trained_whole() -> None:
    """Every round of eight costs two trainings; very short ones are lengthened, never beyond the whole."""
    assert rounds(8, 96) == (Round(8, 24), Round(4, 48), Round(2, 96))
    assert rounds(5, 100) == (Round(5, 25), Round(3, 50), Round(2, 100))
    assert rounds(16, 60) == (Round(16, LEAST_STEPS), Round(8, 15), Round(4, 30), Round(2, 60))
    assert rounds(8, 4) == (Round(8, 4), Round(4, 4), Round(2, 4))
    assert rounds(1, 96) == (Round(1, 96),)
    assert rounds(2, 96) == (Round(2, 96),)
    assert rounds(8, None) == (Round(8, None),)


def test_effort_is_two_trainings_a_round() -> None:
    """And as many as there are tries where nothing can be shortened."""
    assert effort(8, has_steps=True) == 6.0
    assert effort(1, has_steps=True) == 1.0
    assert effort(8, has_steps=False) == 8.0
    assert Tune(parse("lora"), 8).effort == 6.0
    assert Tune(parse("linear"), 8).effort == 8.0


def test_a_time_buys_the_most_tries_that_fit_into_it() -> None:
    """One where nothing fits."""
    for seconds in (1.0, 5.0, 6.0, 20.0, 1e9):
        tries = tries_within(seconds, 1.0, has_steps=True)
        assert tries == 1 or effort(tries, has_steps=True) <= seconds
        assert tries == 64 or effort(tries + 1, has_steps=True) > seconds


def test_the_default_always_goes_on_and_of_equals_the_first() -> None:
    """So the last round can say what the search bought."""
    scores = {0: (0.1, 0.0), 1: (0.5, -1.0), 2: (0.5, -0.5), 3: (0.5, -1.0)}
    assert survivors(scores, 2) == [0, 2]
    assert survivors(scores, 3) == [0, 2, 1]
    assert survivors({1: (0.5, 0.0), 0: (0.5, 0.0)}, 1) == [0]


# The search


def test_the_search_comes_near_the_known_optimum_and_says_what_it_bought() -> None:
    """Rate 0.03 is best; the default, 0.01, is right a third of the time less often."""
    said: list[str] = []
    fitted = _fit("tune(strategy=pretend, tries=8)", Budget(say=said.append))
    search = fitted.manifest.search
    assert 0.015 < search["chosen"]["learning_rate"] <= 0.05
    assert search["bought"]["best"] > search["bought"]["default"]
    assert search["bought"]["low"] <= search["bought"]["best"] - search["bought"]["default"] <= search["bought"]["high"]
    assert "validation rows" in said[-1]
    assert "with the defaults" in said[-1]
    assert fitted.strategy == "tune(strategy=pretend, tries=8)"


def test_every_try_counts_as_work_of_the_fit() -> None:
    """Those of the last round too, and the default's, though only one predictor is delivered."""
    fitted = _fit("tune(strategy=pretend, tries=4)")
    tries = fitted.manifest.search["tries"]
    assert len(tries) == len(FITS) == 6  # the whole default, four at half of the steps, its best rival whole
    assert fitted.fit_work.trained_tokens == sum(one["steps"] for one in tries if not one["failed"])


def test_more_tries_never_end_below_the_default() -> None:
    """It is among the last two."""
    for tries in (1, 2, 3, 5, 8):
        bought = _fit(f"tune(strategy=pretend(epochs=1), tries={tries})").manifest.search["bought"]
        assert bought["best"] >= bought["default"]


def test_a_good_default_stays_and_the_search_says_that_it_bought_nothing() -> None:
    """Of equal scores the default's counts."""
    said: list[str] = []
    _fit("tune(strategy=pretend, tries=1)", Budget(say=said.append))
    assert said[-1].startswith("search over 1 try bought nothing")


def test_tries_that_diverge_lose_and_are_told() -> None:
    """They are no reason to stop."""
    said: list[str] = []
    fitted = _fit("tune(strategy=pretend, tries=8)", Budget(say=said.append))
    failed = [one for one in fitted.manifest.search["tries"] if one["failed"]]
    assert failed
    assert all(one["values"]["learning_rate"] > 0.05 for one in failed)
    assert any("failed: the loss is nan" in line for line in said)


def test_a_try_that_does_not_fit_into_memory_loses_but_a_default_that_does_not_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A search over ranks must not end at the largest one."""

    def fit(self, model, task, *, seed, budget):
        if self.width > 1:
            raise ResourceError("training ran out of memory")
        return whole(self, model, task, seed=seed, budget=budget)

    whole = Pretend.fit
    monkeypatch.setattr(Pretend, "fit", fit)
    failed = [one for one in _fit("tune(strategy=pretend, tries=8)").manifest.search["tries"] if one["failed"]]
    assert any(one["values"]["width"] == 2 for one in failed)
    with pytest.raises(ResourceError, match="ran out of memory"):
        _fit("tune(strategy=pretend(width=2), tries=2)")


def test_when_every_try_fails_the_reason_is_told() -> None:
    """Nothing is delivered."""
    with pytest.raises(TrainingError, match="all tries failed, the first so: the loss is nan"):
        _fit("tune(strategy=pretend(learning_rate=0.9), tries=2)")


@pytest.mark.parametrize("killed_at", [1, 2, 4, 6, 8])
def test_a_killed_search_goes_on_and_ends_the_same(tmp_path: Path, killed_at: int) -> None:
    """No finished try is repeated."""
    name = "tune(strategy=pretend, tries=8)"
    whole = _fit(name).manifest.search
    count = len(FITS)
    FITS.clear()
    FAIL_AT.append(killed_at)
    with pytest.raises(KeyboardInterrupt):
        _fit(name, Budget(folder=tmp_path))
    FAIL_AT.clear()
    resumed = _fit(name, Budget(folder=tmp_path)).manifest.search
    assert len(FITS) == count + 1  # the one it was killed in is begun again
    for one in (*whole["tries"], *resumed["tries"]):
        one.pop("wall_s")
    assert resumed["tries"] == whole["tries"]
    assert resumed["bought"] == whole["bought"]


def test_a_search_over_other_texts_does_not_go_on_with_the_old_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the strategy learns besides the task's rows has changed since the folder was begun."""
    monkeypatch.setattr(Pretend, "other_data", lambda self, task: "old text", raising=False)
    _fit("tune(strategy=pretend, tries=2)", Budget(folder=tmp_path))
    monkeypatch.setattr(Pretend, "other_data", lambda self, task: "new text", raising=False)
    with pytest.raises(StudyError, match="other data is 'new text', there 'old text'"):
        _fit("tune(strategy=pretend, tries=2)", Budget(folder=tmp_path))


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """The message says what differs."""
    _fit("tune(strategy=pretend, tries=2)", Budget(folder=tmp_path))
    with pytest.raises(StudyError, match=r"belongs to another search: strategy is .*tries=3.*there.*tries=2"):
        _fit("tune(strategy=pretend, tries=3)", Budget(folder=tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1, "tries": []}',
        json.dumps({"format": 1, "search": "SAME", "tries": [{"point": "0"}]}),
        json.dumps({"format": 1, "search": "SAME", "tries": ["try"]}),
    ],
)
def test_a_damaged_ledger_is_named(tmp_path: Path, text: str) -> None:
    """It is never taken for an empty one."""
    _fit("tune(strategy=pretend, tries=1)", Budget(folder=tmp_path))
    path = tmp_path / "search.json"
    same = json.dumps(json.loads(path.read_text())["search"])
    path.write_text(text.replace('"SAME"', same))
    with pytest.raises(StudyError, match=r"search\.json"):
        _fit("tune(strategy=pretend, tries=1)", Budget(folder=tmp_path))


def test_the_folder_is_the_chosen_points_and_predicts_the_same(tmp_path: Path) -> None:
    """It can be loaded, saved again and told apart by what it says of the search."""
    fitted = _fit("tune(strategy=pretend, tries=8)")
    fitted.save(tmp_path / "p")
    manifest = read_manifest(tmp_path / "p")
    assert manifest.strategy == "tune(strategy=pretend, tries=8)"
    chosen = manifest.search["chosen"]["learning_rate"]
    assert f"learning_rate={chosen!r}" in manifest.strategy_in_full
    loaded = load_predictor(tmp_path / "p")
    assert list(loaded.predict(TASK.validation)) == list(fitted.predict(TASK.validation))
    assert loaded.strategy == fitted.strategy


def test_seconds_buy_tries_by_how_long_the_default_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default of two seconds and twelve seconds: ten tries, which cost six trainings; one second: none but it."""
    from taskfit.studies import search_run

    ticks = iter(range(0, 10**6, 2))
    monkeypatch.setattr(search_run.time, "monotonic", lambda: float(next(ticks)))
    assert len({one["point"] for one in _fit("tune(strategy=pretend, seconds=12)").manifest.search["tries"]}) == 10
    assert len(_fit("tune(strategy=pretend, seconds=1)").manifest.search["tries"]) == 1


def test_when_the_fits_time_is_up_the_default_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is said."""
    said: list[str] = []
    fitted = _fit("tune(strategy=pretend, tries=8)", Budget(wall_s=0.0, say=said.append))
    assert fitted.manifest.search["chosen"] == {}
    assert any("the search stops: 0 s were allowed" in line for line in said)


def test_lower_is_better_where_the_metric_says_so() -> None:
    """The Brier score of two strengths."""
    task = replace(TASK, definition=replace(TASK.definition, metrics=("brier",)))
    search = parse("tune(strategy=linear, tries=8)").fit(None, task, seed=0, budget=Budget()).manifest.search
    assert search["bought"]["best"] == min(one["score"] for one in search["tries"])
    assert search["bought"]["best"] < max(one["score"] for one in search["tries"])


# Bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tune(strategy=majority)", "majority has nothing to search: no space of parameters is declared for it"),
        ("tune(strategy=zero-shot)", "zero-shot has nothing to search"),
        ("tune(strategy=bitfit(learning_rate=0.1))", "its name sets all of learning_rate"),
        ("tune(strategy=lora, tries=0)", "tries must be between 1 and 64 .got 0"),
        ("tune(strategy=lora, tries=65)", "tries must be between 1 and 64 .got 65"),
        ("tune(strategy=lora, seconds=0)", "seconds must be above 0 and finite .got 0"),
        ("tune(strategy=lora, tries=4, seconds=9)", "give tries or seconds, not both"),
        ("tune(strategy=tune(strategy=lora))", "strategy is searched already"),
        ("tune(tries=4)", "strategy must be given"),
        ("tune(strategy=lora)+few-shot", "tune stands alone"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason(text: str, message: str) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_a_task_without_validation_rows_is_refused() -> None:
    """Training rows would choose what remembers best."""
    task = replace(TASK, splits={**TASK.splits, "validation": ()})
    with pytest.raises(ConfigError, match="chooses on validation rows, and the task has none"):
        _fit("tune(strategy=pretend)", task=task)


def test_a_default_that_does_not_suit_is_the_users_mistake() -> None:
    """It is raised at once, not counted as a failed try."""
    with pytest.raises(ConfigError, match="needs a model"):
        parse("tune(strategy=lora)").fit(None, TASK, seed=0, budget=Budget())


# Names


def test_a_search_goes_around_every_strategy_that_has_something_to_search() -> None:
    """The rest stays as it is, so that whoever reads a wrong name says what is wrong."""
    assert with_search("lora", tries=4, seconds=None) == "tune(strategy=lora, tries=4)"
    assert with_search("lora+few-shot(k=2)", tries=None, seconds=60.0) == (
        "tune(strategy=lora+few-shot(k=2), seconds=60.0)"
    )
    assert with_search("lora", tries=None, seconds=None) == "lora"
    for name in ("majority", "zero-shot", "prompt-search", "tune(strategy=lora, tries=2)", "lorra"):
        assert with_search(name, tries=4, seconds=None) == name
    with pytest.raises(ConfigError, match="tries must be between"):
        with_search("lora", tries=0, seconds=None)


def test_a_study_sees_through_the_search() -> None:
    """What a plan asks of a strategy, it is told of the searched one."""
    tuned = parse("tune(strategy=lora+few-shot(k=3), tries=4)")
    plain = parse("lora+few-shot(k=3)")
    assert (tuned.weights, tuned.program) == (plain.weights, plain.program)
    assert (tuned.architectures, tuned.kinds) == (plain.architectures, plain.kinds)
    assert isinstance(tuned, Tune)


# With real models


def test_a_tuned_model_is_searched_and_its_folder_predicts_the_same(tmp_path: Path) -> None:
    """Each try begins from the base as its files have it."""
    from taskfit.models import load
    from taskfit.testing import tiny_decoder

    model = load(tiny_decoder(tmp_path / "m"), dtype="float32", device="cpu")
    task = small_task("classification", train=12, validation=6, test=5)
    name = "tune(strategy=lora(rank=2, epochs=1, min_steps=20, batch=4), tries=3)"
    fitted = parse(name).fit(model, task, seed=0, budget=Budget())
    search = fitted.manifest.search
    assert [one["steps"] for one in search["tries"]] == [20, 10, 10, 10, 20]
    fitted.save(tmp_path / "p")
    loaded = load_predictor(tmp_path / "p")
    assert [p.answer for p in loaded.predict(task.test)] == [p.answer for p in fitted.predict(task.test)]
    alone = parse("lora(rank=2, epochs=1, min_steps=20, batch=4)").fit(
        load(tmp_path / "m", dtype="float32", device="cpu"), task, seed=0, budget=Budget()
    )
    from taskfit.studies.predictions import stored
    from taskfit.studies.search_score import judged

    answers = [
        stored(p, task.definition.gold(r)) for r, p in zip(task.validation, alone.predict(task.validation), strict=True)
    ]
    assert judged(task.definition, answers)[0] == search["bought"]["default"]
