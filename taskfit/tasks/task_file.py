"""The task file: what it may say, read and checked as a whole before any row is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from taskfit.errors import Faults, TaskError, TaskfitError, nearest
from taskfit.files import named_path
from taskfit.tasks.chat import chat_sources
from taskfit.tasks.definition import Wording
from taskfit.tasks.metric_names import DEFAULT_METRICS, METRIC_NAMES
from taskfit.tasks.mixture import Mixture, read_mixture
from taskfit.tasks.sources import FileSource, HubSource, Source
from taskfit.tasks.task import Kind, Split
from taskfit.tasks.template import check_template, field_source
from taskfit.tasks.yaml_file import read_yaml

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["DEFAULT_SHARES", "TASK_KEYS", "TaskFile", "read_task_file"]

DEFAULT_SHARES: Mapping[Split, float] = {"validation": 0.1, "test": 0.2}
"""Share of the rows that a split gets when it has to be cut."""

TASK_KEYS: Mapping[str, str] = {
    "version": "version of this format: 1",
    "name": "name of the task",
    "kind": "classification, choice or generation",
    "data": "a source, a list of sources, or a mapping of train, validation and test to sources",
    "input": "field, or Jinja2 text, of the input",
    "target": "field, or Jinja2 text, of the answer: label value, option or text",
    "templates": "list of wordings: name, prompt, target, and optionally labels and options",
    "promptsource": "a promptsource YAML file with wordings",
    "labels": "list of label values, or mapping of label value to the text a model gives",
    "options": "for choice: field, Jinja2 text, or list of fields, that gives the row's options",
    "references": "list of fields or Jinja2 texts of the right answers; default: target",
    "metrics": "list of metrics; the first decides",
    "instruction": "plain text that stands before the input",
    "messages": "field, or Jinja2 expression, of a conversation (a list of role and content), for input and target",
    "rationale": "field, or Jinja2 text, of the reasons for the answer",
    "groups": "field whose equal values belong together and are never cut apart",
    "unlabelled": "sources of rows without an answer",
    "retain": "files that a tuned model should not forget: task files and texts, or suite, or none",
    "mixture": "other task files to train with, and how much of each; or a YAML file that says it",
    "id": "field that holds the row's id",
    "split": "shares of the splits to cut (validation: 0.1, test: 0.2) and the seed",
    "faulty_rows": "refuse (the default) the task, or drop the rows, when rows do not fit the task file",
    "max_answer_tokens": "most tokens to generate for an answer",
}
"""Every key of a task file and what it says."""

_WORDING_KEYS = ("name", "prompt", "target", "labels", "options")
_HUB_KEYS = ("hub", "config", "split", "revision")
_SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class TaskFile:
    """A task file as read: templates are Jinja2 sources, sources have full paths, defaults are filled in.

    Attributes:
        sources: split to sources; empty where ``pool`` holds all rows.
        pool: sources of rows that are to be cut into splits.
        input: source of the input, or None where only wordings are given.
        target: source of the answer, or None where only wordings are given.
        templates: wordings given in the file; empty where the default wording is to be made.
        labels: label values; None when they are to be read from the rows.
        shares: share of the rows for each split that may have to be cut.
        split_seed: seeds that cut.
        messages: source of the conversation that each row holds, or None.
        mixture: other tasks to train with, or None.
        may_drop_faulty_rows: faulty rows are dropped and reported; otherwise they are an error.
    """

    name: str
    kind: Kind
    path: Path
    sources: Mapping[Split, tuple[Source, ...]] = field(default_factory=dict)
    pool: tuple[Source, ...] = ()
    input: str | None = None
    target: str | None = None
    templates: tuple[Wording, ...] = ()
    promptsource: Path | None = None
    labels: tuple[str, ...] | None = None
    label_texts: Mapping[str, str] = field(default_factory=dict)
    options: str | None = None
    references: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    instruction: str | None = None
    rationale: str | None = None
    group: str | None = None
    unlabelled: tuple[Source, ...] = ()
    retain: tuple[str, ...] = ()
    id_field: str | None = None
    shares: Mapping[Split, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    split_seed: int = 0
    may_drop_faulty_rows: bool = False
    max_answer_tokens: int = 64
    messages: str | None = None
    mixture: Mixture | None = None


def read_task_file(path: Path) -> TaskFile:
    """Read and check the task file at ``path``.

    Raises:
        TaskError: with all faults of the file together.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise TaskError(f"{path}: a task file must be a mapping with name, kind, data (got {type(values).__name__})")
    reader = _Reader(values, path, Faults(str(path)))
    task_file = reader.read()
    reader.faults.raise_as(TaskError)
    return task_file


class _Reader:
    """Reads the keys one by one and collects what is wrong with each."""

    def __init__(self, values: dict[str, Value], path: Path, faults: Faults) -> None:
        self.values = values
        self.path = path
        self.faults = faults

    def read(self) -> TaskFile:
        for key in self.values:
            if key not in TASK_KEYS:
                self.faults.add(f"unknown key '{key}'{nearest(key, TASK_KEYS)}")
        if self.values.get("version", 1) != 1:
            self.faults.add(f"version must be 1 (got {self.values['version']!r}); a newer taskfit may know this file")
        kind = self._kind()
        sources, pool = self._data()
        labels, label_texts = self._labels(self.values.get("labels"), "labels")
        shares, seed = self._split(sources)
        self._check_combination(kind)
        promptsource = self._text("promptsource")
        messages, asked, answered = self._messages()
        return TaskFile(
            name=self._text("name") or self.path.stem,
            kind=kind,
            path=self.path,
            sources=sources,
            pool=pool,
            input=asked or self._template("input"),
            target=answered or self._template("target"),
            templates=(Wording("chat", asked, answered, {}),) if asked else self._templates(label_texts),
            promptsource=self._beside(promptsource) if promptsource else None,
            labels=labels,
            label_texts=label_texts,
            options=self._options(self.values.get("options"), "options"),
            references=self._references(),
            metrics=self._metrics(kind),
            instruction=(self._text("instruction") or "").strip() or None,
            rationale=self._template("rationale"),
            group=self._text("groups"),
            unlabelled=self._sources(self.values["unlabelled"], "unlabelled") if "unlabelled" in self.values else (),
            retain=self._retain(),
            id_field=self._text("id"),
            shares=shares,
            split_seed=seed,
            may_drop_faulty_rows=self._choice("faulty_rows", ("refuse", "drop")) == "drop",
            max_answer_tokens=self._count("max_answer_tokens", 64),
            messages=messages,
            mixture=read_mixture(self.values["mixture"], self.path, self.faults) if "mixture" in self.values else None,
        )

    def _kind(self) -> Kind:
        kind = self.values.get("kind")
        if kind in get_args(Kind):
            return cast("Kind", kind)
        got = f"got '{kind}'" if "kind" in self.values else "it is missing"
        self.faults.add(f"kind must be one of {', '.join(get_args(Kind))} ({got}){nearest(str(kind), get_args(Kind))}")
        return "generation"

    def _check_combination(self, kind: Kind) -> None:
        has = self.values.keys()
        if "templates" in has and "promptsource" in has:
            self.faults.add("give `templates` or `promptsource`, not both")
        elif "messages" in has:
            self._check_messages(kind)
        elif not {"templates", "promptsource"} & has:
            missing = [f"`{key}`" for key in ("input", "target") if key not in has]
            if missing:
                self.faults.add(
                    f"{' and '.join(missing)} missing: give `input` and `target`, or `templates`, or `promptsource`"
                )
            if kind == "choice" and "options" not in has:
                self.faults.add("kind choice needs `options`: the field that lists what a row's answer is chosen from")
        if "labels" in has and kind != "classification":
            self.faults.add(f"`labels` belongs to kind classification (kind is {kind})")
        if "options" in has and kind != "choice":
            self.faults.add(f"`options` belongs to kind choice (kind is {kind}); for classification use `labels`")

    def _check_messages(self, kind: Kind) -> None:
        if kind != "generation":
            self.faults.add(f"`messages` belongs to kind generation (kind is {kind})")
        for key in ("input", "target", "templates", "promptsource", "instruction"):
            if key in self.values:
                hint = "; make it the first message, with the role system" if key == "instruction" else ""
                self.faults.add(f"`messages` says what `{key}` would; give one of them{hint}")

    def _messages(self) -> tuple[str | None, str, str]:
        """Return the source of the conversation, and those of its question and its answer."""
        source = self._template("messages")
        if source is None:
            return None, "", ""
        try:
            return source, *chat_sources(source)
        except TaskfitError as error:
            self.faults.add(error.message)
            return None, "", ""

    def _text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and key in ("name", "id", "groups"):
            return str(value)
        if not isinstance(value, str) or not value.strip():
            self.faults.add(f"{key} must be a text ({TASK_KEYS.get(key, key)}; got {value!r})")
            return None
        return value

    def _template(self, key: str) -> str | None:
        text = self._text(key)
        return None if text is None else self._checked_source(text, key)

    def _checked_source(self, text: str, where: str, *, may_be_field: bool = True) -> str:
        source = field_source(text) if may_be_field else text
        try:
            check_template(source)
        except TaskfitError as error:
            self.faults.add(f"{where}: {error.message}")
        return source

    def _beside(self, name: str) -> Path:
        """Return a path relative to the task file."""
        return self.path.parent / named_path(name)

    def _data(self) -> tuple[dict[Split, tuple[Source, ...]], tuple[Source, ...]]:
        data = self.values.get("data")
        if data is None:
            if "unlabelled" not in self.values:  # without any answer, rows can still be labelled by a teacher
                self.faults.add(f"data is missing: {TASK_KEYS['data']}")
            return {}, ()
        if not isinstance(data, dict) or "hub" in data:
            return {}, self._sources(data, "data")
        sources: dict[Split, tuple[Source, ...]] = {}
        for key, value in data.items():
            if key in _SPLITS:
                sources[key] = self._sources(value, f"data.{key}", key)
            else:
                self.faults.add(f"data: unknown split '{key}'{nearest(key, _SPLITS)}; splits are {', '.join(_SPLITS)}")
        if "train" not in data:
            self.faults.add("data: `train` is missing; without splits of your own give one source, `data: rows.jsonl`")
        return sources, ()

    def _sources(self, value: Value, where: str, split: str | None = None) -> tuple[Source, ...]:
        if isinstance(value, list) and value:
            return tuple(source for item in value for source in self._sources(item, where, split))
        if isinstance(value, str) and value.strip():
            return (FileSource(str(self._beside(value))),)
        if isinstance(value, dict) and "hub" in value:
            for key, text in value.items():
                if key not in _HUB_KEYS:
                    self.faults.add(f"{where}: unknown key '{key}'{nearest(key, _HUB_KEYS)}")
                elif not isinstance(text, str | int) or isinstance(text, bool):
                    self.faults.add(f"{where}.{key} must be a text (got {text!r})")
            texts = {key: str(value[key]) for key in _HUB_KEYS if value.get(key) is not None}
            return (
                HubSource(texts.get("hub", ""), texts.get("config"), texts.get("split", split), texts.get("revision")),
            )
        self.faults.add(f"{where} must be a file name, a glob, `hub: name`, or a list of these (got {value!r})")
        return ()

    def _labels(self, value: Value, where: str) -> tuple[tuple[str, ...] | None, dict[str, str]]:
        """Return label values in order and the texts that differ from them."""
        if value is None:
            return None, {}
        texts: dict[str, str] = {}
        if isinstance(value, dict):
            for key, text in value.items():
                if not isinstance(text, str | int | float):
                    self.faults.add(f"{where}.{key} must be the text of a label (got {text!r})")
            texts = {key: str(text).strip() for key, text in value.items()}
            names = list(value)
        elif isinstance(value, list) and all(isinstance(item, str | int | float | bool) for item in value):
            names = [str(item).strip() for item in value]
        else:
            self.faults.add(
                f"{where} must be a list of label values, or a mapping of label value to text (got {value!r})"
            )
            return None, {}
        self._check_labels(names, texts, where)
        return tuple(names), texts

    def _check_labels(self, names: Sequence[str], texts: Mapping[str, str], where: str) -> None:
        if len(names) < 2:
            self.faults.add(f"{where}: at least 2 labels are needed (got {len(names)})")
        for kind, items in (("label", list(names)), ("label text", [texts.get(name, name) for name in names])):
            if any(not item for item in items):
                self.faults.add(f"{where}: a {kind} is empty")
            repeated = sorted({item for item in items if item and items.count(item) > 1})
            if repeated and (kind == "label" or texts):
                self.faults.add(f"{where}: two labels have the same {'text' if texts else 'value'} '{repeated[0]}'")

    def _options(self, value: Value, where: str) -> str | None:
        if value is None:
            return None
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            sources = [field_source(str(item)) for item in value]
            if all(source != item for source, item in zip(sources, value, strict=True)):  # fields only
                return "{{ [" + ", ".join(source[2:-2].strip() for source in sources) + "] }}"
            return self._checked_source("|||".join(sources), where)
        if isinstance(value, str) and value.strip():
            return self._checked_source(value, where)
        self.faults.add(f"{where} must be a field, a Jinja2 text or a list of these (got {value!r})")
        return None

    def _templates(self, label_texts: dict[str, str]) -> tuple[Wording, ...]:
        value = self.values.get("templates")
        if value is None:
            return ()
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            self.faults.add(f"templates must be a list of mappings with {', '.join(_WORDING_KEYS)}")
            return ()
        entries = cast("list[dict[str, Value]]", value)
        wordings = [self._wording(entry, number, label_texts) for number, entry in enumerate(entries)]
        names = [wording.name for wording in wordings]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.faults.add(f"templates: two wordings have the name '{name}'")
        return tuple(wordings)

    def _wording(self, entry: dict[str, Value], number: int, label_texts: dict[str, str]) -> Wording:
        where = f"templates[{number}]"
        for key in entry:
            if key not in _WORDING_KEYS:
                self.faults.add(f"{where}: unknown key '{key}'{nearest(key, _WORDING_KEYS)}")
        for key in ("prompt", "target"):
            if not isinstance(entry.get(key), str) or not str(entry[key]).strip():
                self.faults.add(f"{where}: `{key}` must be a Jinja2 text (got {entry.get(key)!r})")
        _, own_texts = self._labels(entry.get("labels"), f"{where}.labels")
        if isinstance(entry.get("labels"), list):
            self.faults.add(f"{where}.labels must map each label value to its text (got {entry['labels']!r})")
        return Wording(
            name=str(entry.get("name", f"wording {number + 1}")),
            prompt=self._checked_source(str(entry.get("prompt") or ""), f"{where}.prompt", may_be_field=False),
            target=self._checked_source(str(entry.get("target") or ""), f"{where}.target"),
            label_texts=own_texts or label_texts,
            options=self._options(entry.get("options", self.values.get("options")), f"{where}.options"),
        )

    def _references(self) -> tuple[str, ...]:
        value = self.values.get("references")
        if value is None:
            return ()
        items = [value] if isinstance(value, str) else value
        if (
            not isinstance(items, list)
            or not items
            or not all(isinstance(item, str) and item.strip() for item in items)
        ):
            self.faults.add(f"references must be a list of fields or Jinja2 texts (got {value!r})")
            return ()
        return tuple(self._checked_source(str(item), "references") for item in items)

    def _retain(self) -> tuple[str, ...]:
        """Return full paths, and the words ``suite`` and ``none`` as they are."""
        value = self.values.get("retain")
        items = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(items, list) or not all(isinstance(item, str) and item.strip() for item in items):
            self.faults.add(f"retain must be a file name, suite, none, or a list of these (got {value!r})")
            return ()
        if "none" in items and len(items) > 1:
            self.faults.add(f"retain: none stands alone (got {value!r})")
        return tuple(item if item in ("suite", "none") else str(self._beside(str(item))) for item in map(str, items))

    def _metrics(self, kind: Kind) -> tuple[str, ...]:
        value = self.values.get("metrics")
        if value is None:
            return DEFAULT_METRICS[kind]
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names:
            self.faults.add(f"metrics must be a list of names (got {value!r})")
            return ()
        fitting = sorted(name for name, kinds in METRIC_NAMES.items() if kind in kinds)
        for name in names:
            if name not in fitting:
                others = METRIC_NAMES.get(str(name))
                reason = f"is for kind {', '.join(sorted(others))}" if others else "is unknown"
                near = nearest(str(name), fitting)
                self.faults.add(f"metrics: '{name}' {reason}{near}; for {kind}: {', '.join(fitting)}")
        if len(set(map(str, names))) < len(names):
            self.faults.add("metrics: a name is there twice")
        return tuple(str(name) for name in names)

    def _split(self, sources: Mapping[Split, object]) -> tuple[dict[Split, float], int]:
        value = self.values.get("split")
        shares = dict(DEFAULT_SHARES)
        if value is None:
            return shares, 0
        if not isinstance(value, dict):
            self.faults.add("split must be a mapping with validation, test and seed")
            return shares, 0
        for key, share in value.items():
            if key not in ("validation", "test", "seed"):
                self.faults.add(f"split: unknown key '{key}'{nearest(key, ('validation', 'test', 'seed'))}")
            elif key == "seed":
                continue
            elif not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
                self.faults.add(f"split.{key} must be a share between 0 and 1 (got {share!r})")
            elif key in sources:
                self.faults.add(f"split.{key}: `data` gives this split already, nothing is cut for it")
            else:
                shares[cast("Split", key)] = float(share)
        cut = sum(share for split, share in shares.items() if split not in sources)
        if cut >= 1:
            self.faults.add(f"split: the shares add up to {cut:g}; nothing is left for train")
        seed = value.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool):
            self.faults.add(f"split.seed must be a whole number (got {seed!r})")
            return shares, 0
        return shares, seed

    def _choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """Return one of ``allowed``; the first is the default."""
        value = self.values.get(key, allowed[0])
        if value not in allowed:
            self.faults.add(f"{key} must be one of {', '.join(allowed)} (got {value!r})")
        return str(value)

    def _count(self, key: str, default: int) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.faults.add(f"{key} must be a whole number of at least 1 (got {value!r})")
            return default
        return value
