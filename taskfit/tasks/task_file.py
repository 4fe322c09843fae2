"""The task file: what it may say, read and checked as a whole before any row is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from taskfit.errors import Faults, TaskError, TaskfitError, nearest
from taskfit.files import named_path
from taskfit.tasks.chat import chat_sources
from taskfit.tasks.definition import Wording
from taskfit.tasks.metric_names import DEFAULT_METRICS, METRIC_NAMES
from taskfit.tasks.mixture import Mixture, read_mixture
from taskfit.tasks.sources import Source
from taskfit.tasks.task import Kind, Split
from taskfit.tasks.task_file_data import DEFAULT_SHARES, read_data, read_shares, read_sources
from taskfit.tasks.task_file_wordings import checked_source, read_labels, read_options, read_wordings
from taskfit.tasks.yaml_file import read_yaml

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["TASK_KEYS", "TaskFile", "read_task_file"]

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
        labels, label_texts = read_labels(self.values.get("labels"), "labels", self.faults)
        shares, seed = read_shares(self.values.get("split"), sources, self.faults)
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
            templates=(Wording("chat", asked, answered, {}),) if asked else self._wordings(label_texts),
            promptsource=self._beside(promptsource) if promptsource else None,
            labels=labels,
            label_texts=label_texts,
            options=read_options(self.values.get("options"), "options", self.faults),
            references=self._references(),
            metrics=self._metrics(kind),
            instruction=(self._text("instruction") or "").strip() or None,
            rationale=self._template("rationale"),
            group=self._text("groups"),
            unlabelled=self._unlabelled(),
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
        return None if text is None else checked_source(text, key, self.faults)

    def _beside(self, name: str) -> Path:
        """Return a path relative to the task file."""
        return self.path.parent / named_path(name)

    def _data(self) -> tuple[dict[Split, tuple[Source, ...]], tuple[Source, ...]]:
        data = self.values.get("data")
        if data is not None:
            return read_data(data, self.path, self.faults)
        if "unlabelled" not in self.values:  # without any answer, rows can still be labelled by a teacher
            self.faults.add(f"data is missing: {TASK_KEYS['data']}")
        return {}, ()

    def _unlabelled(self) -> tuple[Source, ...]:
        if "unlabelled" not in self.values:
            return ()
        return read_sources(self.values["unlabelled"], "unlabelled", self.path, self.faults)

    def _wordings(self, label_texts: dict[str, str]) -> tuple[Wording, ...]:
        return read_wordings(self.values.get("templates"), label_texts, self.values.get("options"), self.faults)

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
        return tuple(checked_source(str(item), "references", self.faults) for item in items)

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
