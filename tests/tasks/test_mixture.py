"""How much of each task, and which other tasks there are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfit.errors import DataError, TaskError
from taskfit.tasks import load_task
from taskfit.tasks.mixture import FLAN_CAP, Mixture, allot, load_mixture, mixing_rates
from tests.tasks.conftest import WriteTask, json_lines, sentiment_rows

TASK = "kind: classification\ninput: text\ntarget: label\ndata: {train: a.jsonl, validation: b.jsonl, test: c.jsonl}\n"

FLAN_ROWS = {"mnli": 30_000, "qnli": 30_000, "anli_r1": 16_746, "rte": 2_290, "wnli": 435, "cb": 200}
"""Training rows of natural language inference in FLAN: at most 30,000 a task, 200 taken off for validation."""


@pytest.fixture
def folder(write_task: WriteTask, tmp_path: Path) -> Path:
    """Three tasks of the same form beside each other: task, b, c, with 6, 8 and 10 training rows of their own."""
    files = {"a__jsonl": sentiment_rows(6), "b__jsonl": sentiment_rows(4, 100), "c__jsonl": sentiment_rows(4, 200)}
    write_task(TASK, **files)
    for name, start, count in (("b", 1000, 8), ("c", 2000, 10)):
        for split, at, number in (("a", start, count), ("b", start + 100, 2), ("c", start + 200, 2)):
            rows = sentiment_rows(number, at)
            (tmp_path / f"{name}{split}.jsonl").write_text(json_lines(rows), encoding="utf-8")
        text = TASK.replace("a.jsonl", f"{name}a.jsonl").replace(" b.jsonl", f" {name}b.jsonl")
        (tmp_path / f"{name}.yaml").write_text(text.replace(" c.jsonl", f" {name}c.jsonl"), encoding="utf-8")
    return tmp_path


def with_mixture(folder: Path, text: str) -> Path:
    path = folder / "task.yaml"
    path.write_text(f"{TASK}mixture: {text}\n", encoding="utf-8")
    return path


def test_flan_caps_at_three_thousand_rows() -> None:
    """More rows than the cap give no further weight, fewer count as they are (Wei et al. 2022, section 2.1)."""
    sizes = list(FLAN_ROWS.values())
    rates = mixing_rates(sizes, Mixture(()))
    whole = 3 * 3_000 + 2_290 + 435 + 200
    expected = [Fraction(min(size, 3_000), whole) for size in sizes]
    assert FLAN_CAP == 3_000
    assert rates == pytest.approx([float(share) for share in expected])
    assert rates[0] == rates[1] == rates[2] > rates[3]


def test_t5_capped_at_a_power_of_two_and_heated_by_two() -> None:
    """The square root of the capped numbers (Raffel et al. 2020, section 3.5.2), from a loop of its own."""
    sizes, cap = [392_702, 2_490, 250, 10_000_000], 2**19
    roots = [min(size, cap) ** 0.5 for size in sizes]
    heated = Mixture((), "temperature", cap, 2.0)
    assert mixing_rates(sizes, heated) == pytest.approx([root / sum(roots) for root in roots])
    assert mixing_rates(sizes, Mixture((), "temperature", cap, 1.0)) == mixing_rates(
        sizes, Mixture((), "proportional", cap)
    )
    assert mixing_rates(sizes, Mixture((), "temperature", cap, 1e9)) == pytest.approx([0.25] * 4)
    assert mixing_rates(sizes, Mixture((), "equal")) == (0.25,) * 4
    assert mixing_rates([1, 3], Mixture((), cap=None)) == (0.25, 0.75)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=12), st.integers(0, 10_000))
def test_rows_are_parted_whole_and_within_one_of_their_share(sizes: list[int], total: int) -> None:
    """Nothing is lost and nothing added."""
    rates = mixing_rates(sizes, Mixture((), cap=1000))
    parts = allot(rates, total)
    assert sum(parts) == total
    assert all(abs(part - rate * total) < 1 + 1e-6 for part, rate in zip(parts, rates, strict=True))


def test_a_mixture_lists_other_tasks(folder: Path) -> None:
    """Relative to the task file, globs too; the task itself does not count again."""
    task = load_task(with_mixture(folder, "{tasks: ['*.yaml'], sampling: equal}"))
    assert task.mixture is not None
    assert [path.name for path in task.mixture.tasks] == ["b.yaml", "c.yaml"]
    assert task.mixture.sampling == "equal"
    assert [len(other.train) for other in load_mixture(task)] == [8, 10]


def test_tasks_may_share_a_file_that_says_the_mixture(folder: Path) -> None:
    """Its paths are relative to itself, and its weights may name the task's own file."""
    (folder / "more").mkdir()
    text = "tasks: {../task.yaml: 3, ../b.yaml: 1}\n"
    (folder / "more" / "mix.yaml").write_text(text, encoding="utf-8")
    task = load_task(with_mixture(folder, "more/mix.yaml"))
    assert task.mixture is not None
    assert [path.name for path in task.mixture.tasks] == ["b.yaml"]
    files = [task.mixture.own, *task.mixture.tasks]
    assert mixing_rates([6, 8], task.mixture, files) == (0.75, 0.25)


def test_a_task_without_weight_beside_weighed_ones_counts_once(folder: Path) -> None:
    """A weight of 1."""
    task = load_task(with_mixture(folder, "{tasks: {b.yaml: 4}}"))
    assert task.mixture is not None
    assert mixing_rates([6, 8], task.mixture, [task.mixture.own, *task.mixture.tasks]) == (0.2, 0.8)


def test_rows_that_stand_in_test_are_never_trained_on(folder: Path) -> None:
    """Another task may hold the very rows that this one is tested on."""
    path = folder / "ba.jsonl"
    path.write_text(json_lines([*sentiment_rows(4, 200), *sentiment_rows(3, 1000)]), encoding="utf-8")
    task = load_task(with_mixture(folder, "{tasks: b.yaml}"))
    (other,) = load_mixture(task)
    assert len(other.train) == 3
    assert other.report.notes == ("4 training rows of b stand in validation or test and are left out",)
    path.write_text(json_lines(sentiment_rows(4, 200)), encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.yaml: all training rows stand in validation or test"):
        load_mixture(task)


def test_a_task_of_another_kind_is_held_out_by_its_input_alone(write_task: WriteTask, tmp_path: Path) -> None:
    """It asks the same question without listing the options; another choice task must share them."""
    rows = [{"q": f"q {n // 2}", "o": [f"yes {n}", "no"], "a": f"yes {n}"} for n in range(8)]
    options = "templates: [{name: plain, prompt: '{{ q }}', options: '{{ o }}', target: '{{ a }}'}]\n"
    data = "data: {train: a.jsonl, validation: b.jsonl, test: c.jsonl}\n"
    parts = {"a__jsonl": rows[6:], "b__jsonl": rows[5:6], "c__jsonl": rows[:1]}
    path = write_task(f"kind: choice\ninput: q\n{options}{data}mixture: {{tasks: [d.yaml, e.yaml]}}\n", **parts)
    (tmp_path / "da.jsonl").write_text(json_lines(rows[:4]), encoding="utf-8")
    other = data.replace("c.jsonl", "a.jsonl").replace("train: a.jsonl", "train: da.jsonl")
    (tmp_path / "d.yaml").write_text(f"kind: choice\ninput: q\n{options}{other}", encoding="utf-8")
    (tmp_path / "e.yaml").write_text(f"kind: generation\ninput: q\ntarget: a\n{other}", encoding="utf-8")
    kept = [[row.fields["a"] for row in one.train] for one in load_mixture(load_task(path))]
    assert kept == [["yes 1", "yes 2", "yes 3"], ["yes 2", "yes 3"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{tasks: [], cap: 0}", r"(?s)must list task files.*cap must be a whole number"),
        ("{task: b.yaml}", r"(?s)unknown key 'task' .did you mean 'tasks'"),
        ("{tasks: [none.yaml]}", r"mixture\.tasks: no file .*none\.yaml"),
        ("{tasks: ['x*.yaml']}", "no file has a name like this"),
        ("{tasks: [task.yaml]}", "names no task but this one"),
        ("{tasks: [b.yaml], sampling: uniform}", "sampling must be one of proportional, equal, temperature"),
        ("{tasks: [b.yaml], temperature: 2}", "with `sampling: temperature` only"),
        ("{tasks: [b.yaml], sampling: temperature, temperature: 0.5}", "temperature must be a number of at least 1"),
        ("{tasks: {b.yaml: 0}}", "the weight of b.yaml must be a number above 0"),
        ("{tasks: {b.yaml: 2}, sampling: equal}", "not both"),
        ("7", "mixture must be a mapping with tasks"),
        ("none.yaml", "mixture: .*none.yaml"),
    ],
)
def test_a_faulty_mixture_is_refused(folder: Path, text: str, message: str) -> None:
    """When the task is loaded."""
    with pytest.raises(TaskError, match=message):
        load_task(with_mixture(folder, text))


def test_a_task_without_a_mixture_says_so(folder: Path) -> None:
    """There is nothing to load."""
    with pytest.raises(TaskError, match="has no mixture"):
        load_mixture(load_task(folder / "task.yaml"))
