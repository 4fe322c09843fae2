"""Task files are checked as a whole, and mean what people mean."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from taskfit.errors import TaskError
from taskfit.tasks.metric_names import DEFAULT_METRICS, METRIC_NAMES
from taskfit.tasks.sources import FileSource, HubSource
from taskfit.tasks.task_file import TASK_KEYS, TaskFile, read_task_file
from taskfit.tasks.yaml_file import read_yaml

BASE = "name: t\nkind: classification\ndata: rows.jsonl\ninput: text\ntarget: label\n"
CHOICE = "name: t\nkind: choice\ndata: rows.jsonl\ninput: text\ntarget: label\n"


@pytest.fixture
def read(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Read a task file given as text."""

    def read_text(text: str) -> TaskFile:
        path = tmp_path / "task.yaml"
        path.write_text(text, encoding="utf-8")
        return read_task_file(path)

    return read_text


def test_all_faults_are_reported_together(read) -> None:  # type: ignore[no-untyped-def]
    """One reading tells all that is to be mended."""
    with pytest.raises(TaskError) as caught:
        read("name: t\nkind: clasification\nmetrix: [accuracy]\ndata: {trian: a.jsonl}\ninput: '{{ a'\nlabels: [a]\n")
    for said in (
        "unknown key 'metrix' (did you mean 'metrics'?)",
        "kind must be one of classification, choice, generation (got 'clasification') (did you mean 'classification'?)",
        "unknown split 'trian' (did you mean 'train'?)",
        "`train` is missing",
        "is no Jinja2 template",
        "`target` missing",
        "at least 2 labels",
    ):
        assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "must be a mapping"),
        ("version: 2\n" + BASE, "version must be 1"),
        ("name: t\nkind: generation\ninput: a\ntarget: b\n", "data is missing"),
        (BASE + "metrics: [rouge_l]\n", "'rouge_l' is for kind generation"),
        (BASE + "metrics: [acuracy]\n", "'acuracy' is unknown (did you mean 'accuracy'?)"),
        (BASE + "metrics: []\n", "metrics must be a list"),
        (BASE + "metrics: [accuracy, accuracy]\n", "there twice"),
        (BASE + "labels: [a, b, a]\n", "two labels have the same value 'a'"),
        (BASE + "labels: {a: yes, b: }\n", "labels.b must be the text of a label (got None)"),
        (BASE + "labels: {a: yes, b: [no]}\n", "labels.b must be the text of a label (got ['no'])"),
        (
            "name: t\nkind: classification\ndata: a.jsonl\n"
            "templates: [{name: w, prompt: '{{ a }}', target: '{{ b }}', labels: [good, bad]}]\n",
            "templates[0].labels must map each label value to its text",
        ),
        ('name: "\\ud800"\n', "half of a surrogate pair"),
        (BASE.replace("rows.jsonl", '"rows\\0.jsonl"'), "a text holds NUL"),
        (BASE + "labels: {a: x, b: x}\n", "two labels have the same text 'x'"),
        (BASE + "labels: {a: x, b: ''}\n", "a label text is empty"),
        (BASE + "labels: 7\n", "labels must be a list"),
        (BASE + "options: choices\n", "`options` belongs to kind choice"),
        (CHOICE, "kind choice needs `options`"),
        (CHOICE + "options: {a: b}\n", "options must be a field"),
        (CHOICE + "options: c\nlabels: [a, b]\n", "`labels` belongs to kind classification"),
        (BASE + "split: {test: 1.5}\n", "split.test must be a share between 0 and 1"),
        (BASE + "split: {test: 0.6, validation: 0.5}\n", "nothing is left for train"),
        (BASE + "split: {tset: 0.1}\n", "unknown key 'tset' (did you mean 'test'?)"),
        (BASE + "split: {seed: a}\n", "split.seed must be a whole number"),
        (BASE + "split: 0.3\n", "split must be a mapping"),
        (BASE.replace("rows.jsonl", "{train: a, test: b}") + "split: {test: 0.1}\n", "`data` gives this split already"),
        (BASE + "max_answer_tokens: 0\n", "max_answer_tokens must be a whole number of at least 1"),
        (BASE + "faulty_rows: ignore\n", "faulty_rows must be one of refuse, drop"),
        (BASE + "groups: []\n", "groups must be a text"),
        (BASE + "references: []\n", "references must be a list"),
        (BASE + "templates: []\n", "templates must be a list"),
        (BASE + "templates: [{name: a, prompt: x}]\n", "`target` must be a Jinja2 text"),
        (
            BASE + "templates: [{name: a, prompt: x, target: y, label: {}}]\n",
            "unknown key 'label' (did you mean 'labels'?)",
        ),
        (BASE + "templates: [{name: a, prompt: x, target: y}, {name: a, prompt: x, target: y}]\n", "two wordings have"),
        (BASE + "templates: [{name: a, prompt: x, target: y}]\npromptsource: p.yaml\n", "not both"),
        (BASE.replace("rows.jsonl", "{hub: a/b, spilt: x}"), "unknown key 'spilt' (did you mean 'split'?)"),
        (BASE.replace("rows.jsonl", "{hub: [a]}"), "data.hub must be a text"),
        (BASE.replace("rows.jsonl", "[7]"), "data must be a file name"),
        (BASE + "name: u\n", "the key 'name' is there twice"),
        (BASE + "labels: {a: x, a: y}\n", "the key 'a' is there twice"),
        (BASE + "labels: !!python/object/apply:os.getcwd []\n", "broken YAML"),
        ("name: [\n", "broken YAML"),
        ("? [a]\n: b\n", "a key must be a text"),
        ("a: !Template 7\n", "expected a mapping"),
    ],
)
def test_a_faulty_task_file_says_what_is_wrong(read, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    """Every fault has its sentence."""
    with pytest.raises(TaskError) as caught:
        read(text)
    assert said in caught.value.message


def test_defaults_are_filled_in(read) -> None:  # type: ignore[no-untyped-def]
    """The smallest file is enough."""
    found = read(BASE)
    assert found.metrics == ("macro_f1", "accuracy")
    assert (found.input, found.target, found.labels) == ("{{ text }}", "{{ label }}", None)
    assert (dict(found.shares), found.split_seed) == ({"validation": 0.1, "test": 0.2}, 0)


def test_labels_such_as_no_and_007_stay_what_they_are(read) -> None:  # type: ignore[no-untyped-def]
    """YAML 1.1 would make them False and 7; dates and times stay texts too."""
    found = read(BASE + "labels: [yes, no, on, 007, 12:30, 2024-01-01, 1, 0.5, 1_000]\n")
    assert found.labels == ("yes", "no", "on", "007", "12:30", "2024-01-01", "1", "0.5", "1_000")


def test_a_mapping_gives_label_values_and_texts(read) -> None:  # type: ignore[no-untyped-def]
    """Numbers as keys are label values like any other."""
    found = read(BASE + "labels: {0: negative, 1: positive}\n")
    assert (found.labels, found.label_texts) == (("0", "1"), {"0": "negative", "1": "positive"})


def test_sources_are_relative_to_the_task_file(read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Files, lists and hub sources stand side by side; a hub source of a split takes that split."""
    found = read(BASE.replace("rows.jsonl", "{train: [a.csv, b/*.jsonl], test: {hub: o/n, config: c, revision: r}}"))
    assert found.sources["train"] == (FileSource(str(tmp_path / "a.csv")), FileSource(str(tmp_path / "b/*.jsonl")))
    assert found.sources["test"] == (HubSource("o/n", "c", "test", "r"),)


def test_options_may_list_fields(read) -> None:  # type: ignore[no-untyped-def]
    """A list of fields, or of texts with fields, gives one option each."""
    assert read(CHOICE + "options: [a, b c]\n").options == '{{ [a, row["b c"]] }}'
    assert read(CHOICE + "options: ['{{ a }}!', b]\n").options == "{{ a }}!|||{{ b }}"


def test_a_missing_or_unreadable_task_file_is_a_task_error(tmp_path: Path) -> None:
    """The nearest file is named."""
    (tmp_path / "task.yaml").write_text(BASE)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    (tmp_path / "large.yaml").write_bytes(b"#" * 10_000_001)
    for name, said in (
        ("taks.yaml", "did you mean 'task.yaml'"),
        ("latin.yaml", "not UTF-8"),
        ("large.yaml", "larger than"),
        (".", "cannot be read"),
    ):
        with pytest.raises(TaskError, match=said):
            read_task_file(tmp_path / name)


def test_plain_scalars_are_read_as_yaml_1_2(tmp_path: Path) -> None:
    """Only true and false are booleans, numbers are decimal; merge keys work."""
    (tmp_path / "a.yaml").write_text(
        "a: [true, False, null, ~, -3, 1.5, 1e3, 0x1F, off]\nb: &b {x: 1}\nc: {<<: *b, y: 2}\n"
    )
    expected = {"a": [True, False, None, None, -3, 1.5, 1000.0, "0x1F", "off"], "b": {"x": 1}, "c": {"x": 1, "y": 2}}
    assert read_yaml(tmp_path / "a.yaml") == expected


def test_every_default_metric_is_known_for_its_kind() -> None:
    """The tables agree."""
    assert all(kind in METRIC_NAMES[name] for kind, names in DEFAULT_METRICS.items() for name in names)


def test_every_key_is_documented() -> None:
    """The table of keys is what the reference prints."""
    assert all(TASK_KEYS.values())


@pytest.mark.parametrize(
    "bomb", ["- &a [x, x]\n" + "".join(f"- &{b} [{f'*{a}, ' * 10}]\n" for a, b in pairwise("abcdefghi")), "- &a [*a]\n"]
)
def test_aliases_that_stand_for_too_much_are_refused(tmp_path: Path, bomb: str) -> None:
    """A message that shows such a value would otherwise take all memory."""
    path = tmp_path / "task.yaml"
    path.write_text(bomb, encoding="utf-8")
    with pytest.raises(TaskError, match="aliases make more than"):
        read_yaml(path)
