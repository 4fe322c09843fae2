"""Which rows are labelled: by text and seed, never by order; random ones are kept apart."""

from __future__ import annotations

import random

import numpy as np
import pytest

from taskfit.distillation.choosing import choose_rows
from taskfit.errors import ConfigError, DataError
from taskfit.models import load
from taskfit.tasks.task import Row
from taskfit.testing import tiny_encoder
from tests.strategy.small_tasks import small_task

TASK = small_task("classification", train=12)
THEMES = ("soup bread cheese", "drum violin song", "snow rain wind", "goal match referee", "seed root leaf")


def _pool(count: int = 200) -> list[Row]:
    return [
        Row(f"p{n}", {"text": f"{THEMES[n % 5] if n < count - 3 else 'zebra quagga'} number {n}"}) for n in range(count)
    ]


def _choose(rows, count=20, **options):  # type: ignore[no-untyped-def]
    options = {"audit": 5, "select": "random", "labelled": TASK.train, **options}
    return choose_rows(TASK.definition, rows, count, **options)


@pytest.mark.parametrize("select", ["random", "diverse", "uncertain", "mixed"])
def test_the_choice_hangs_on_texts_and_seed_alone(select: str) -> None:
    """Another order of the rows gives the same choice, another seed another audit; none is chosen twice."""
    rows = _pool()
    turned = random.Random(1).sample(rows, len(rows))
    found = _choose(rows, select=select)
    assert _choose(turned, select=select) == found
    assert (len(found.train), len(found.audit)) == (15, 5)
    assert len({row.id for row in (*found.train, *found.audit)}) == 20
    assert _choose(rows, select=select, seed=1).audit != found.audit


def test_options_tell_choice_rows_with_one_input_apart() -> None:
    """A question such as "Which is likelier?" stands on every row; what is asked stands in the options."""
    rows = [Row(f"p{n}", {"text": "Which?", "options": [f"this {n // 2}", "that"]}) for n in range(6)]
    definition = small_task("choice").definition
    found = choose_rows(definition, rows, 10, audit=0, select="random", taken=[rows[0]])
    assert (len(found.train), found.pool, found.seen) == (2, 2, 2)


@pytest.mark.parametrize("select", ["diverse", "uncertain", "mixed"])
def test_the_audit_rows_are_the_same_whatever_the_selection(select: str) -> None:
    """They are drawn before it, from all rows."""
    assert _choose(_pool(), select=select).audit == _choose(_pool()).audit


def test_audit_rows_are_a_fair_sample() -> None:
    """Over many seeds every row is drawn about as often as every other."""
    rows = _pool(40)
    drawn = np.zeros(40)
    for seed in range(400):
        for row in _choose(rows, count=11, audit=10, seed=seed).audit:
            drawn[int(row.id[1:])] += 1
    expected = 400 * 10 / 40
    assert ((drawn - expected) ** 2 / (expected * 0.75)).sum() < 80  # chi-square with 39 degrees, p < 0.0002


def test_diverse_rows_reach_what_is_rare() -> None:
    """Three rows of 200 speak of zebras: clusters find one of them far more often than chance does."""

    def found(select: str) -> int:
        chosen = [_choose(_pool(), audit=0, select=select, seed=seed).train for seed in range(8)]
        return sum(any("zebra" in str(row.fields["text"]) for row in rows) for rows in chosen)

    assert found("diverse") >= found("random") + 2


def test_diverse_takes_the_vectors_of_an_encoder(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Where one is given."""
    encoder = load(tiny_encoder(tmp_path / "encoder"), dtype="float32", device="cpu")
    found = _choose(_pool(60), select="diverse", encoder=encoder)
    assert len(found.train) == 15


def test_uncertain_rows_lie_between_labels() -> None:
    """A text with words of two labels comes before texts with words of one."""
    texts = [f"a great great film {n}" for n in range(20)] + [f"a great awful film {n}" for n in range(5)]
    rows = [Row(f"t{n}", {"text": text}) for n, text in enumerate(texts)]
    labelled = [row for row in TASK.train if row.fields["label"] in ("good", "bad")]
    found = _choose(rows, count=5, audit=0, select="uncertain", labelled=labelled)
    assert all("awful" in str(row.fields["text"]) for row in found.train)


def test_equal_texts_and_texts_of_the_task_are_left_out() -> None:
    """A student must not learn from what it is tested on."""
    rows = [Row("a", {"text": "one"}), Row("b", {"text": "one"}), Row("c", {"text": TASK.test[0].fields["text"]})]
    found = _choose(rows, count=5, audit=0, taken=TASK.test)
    assert len(found.train) == 1
    assert (found.pool, found.seen) == (1, 1)
    with pytest.raises(DataError, match="no row is left to label, 1 of them with a text of the task's own"):
        _choose(rows[2:], taken=TASK.test)


def test_one_id_on_two_texts_is_refused() -> None:
    """The ledger could not tell them apart."""
    with pytest.raises(DataError, match="the id 'a' stands on two rows"):
        _choose([Row("a", {"text": "one"}), Row("a", {"text": "two"})])


def test_texts_without_any_word_can_be_clustered() -> None:
    """Digits and signs alone."""
    rows = [Row(f"n{n}", {"text": "!" * (n + 1)}) for n in range(30)]
    assert len(_choose(rows, count=5, audit=1, select="diverse").train) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be at least 1"),
        ({"count": 5, "audit": 5}, "audit must be between 0 and count - 1 = 4"),
        ({"select": "uncertain", "labelled": ()}, "needs labelled training rows with two labels"),
    ],
)
def test_what_cannot_be_chosen_is_refused(options: dict, message: str) -> None:  # type: ignore[type-arg]
    """Before anything is read."""
    with pytest.raises(ConfigError, match=message):
        _choose(_pool(), **options)
