"""From a task file to a task: read the rows, give them ids, part them, check them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from taskfit.errors import DataError, TaskError, TaskfitError
from taskfit.tasks.building import build_definition
from taskfit.tasks.checks import check_rows
from taskfit.tasks.definition import TaskDefinition
from taskfit.tasks.identity import DEFAULT_ID_FIELD, fingerprint, identified, identify
from taskfit.tasks.reading import RawRow
from taskfit.tasks.sources import FileSource, HubSource, Source, hub_split_names, read_source
from taskfit.tasks.splitting import cut_splits
from taskfit.tasks.task import DataReport, Row, Split, Task
from taskfit.tasks.task_file import TASK_KEYS, TaskFile, read_task_file

__all__ = ["load_task", "rows_from", "unlabelled_rows"]

_POOL = "all"
_PRECEDENCE = ("test", "validation", "train", _POOL)
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def load_task(path: str | Path, *, needs_rows: bool = True) -> Task:
    """Read a task file and its rows, and check all of it.

    Rows with the same input text stand in one split only: in test rather than validation, in validation rather than
    train, so that a test set never shrinks because of train. (For kind ``choice`` the options belong to the input.)
    Missing splits are cut by a hash of the input text, stratified by label. What was dropped, cut and decided stands in
    ``task.report``.

    Args:
        path: the task file.
        needs_rows: false: a file without ``data`` gives a task whose splits are empty.

    Raises:
        TaskError: the task file or its templates are wrong; all faults together.
        DataError: the rows are wrong; all faults together.
        MissingExtraError: the rows are on the hub and ``datasets`` is not installed.
    """
    task_file = read_task_file(Path(path))
    if not task_file.sources and not task_file.pool:
        return _without_rows(task_file, needs_rows)
    parts, files = _read_parts(task_file)
    found = identify(parts, task_file.id_field)
    first_part = found.parts.get("train") or found.parts.get(_POOL) or ()
    definition, notes = build_definition(task_file, first_part, [row for rows in found.parts.values() for row in rows])
    facts = _Facts.of(definition, found.parts)
    kept, moved = _without_repeated_inputs(found.parts, facts)
    splits, made = _all_splits(kept, facts, task_file)
    splits, dropped, found_notes = check_rows(
        definition, splits, found.places, subject=str(path), may_drop=task_file.may_drop_faulty_rows
    )
    notes += found_notes
    notes += [found.note] if found.note else []
    notes += _group_notes(splits, facts, made)
    report = DataReport(
        files=files,
        duplicate_rows=found.duplicates,
        conflicting_rows=_conflicts(splits, facts),
        made_splits=made,
        moved_rows=(*found.moved, *moved),
        dropped_rows=dropped,
        notes=tuple(notes),
    )
    return Task(
        definition,
        splits,
        fingerprint(definition, splits),
        report,
        Path(path),
        task_file.unlabelled,
        task_file.retain,
        task_file.mixture,
    )


def _without_rows(task_file: TaskFile, needs_rows: bool) -> Task:
    """Return the task of a file that names unlabelled rows only."""
    if needs_rows:
        raise TaskError(f"{task_file.path}: data is missing: {TASK_KEYS['data']}")
    if task_file.kind == "classification" and not task_file.labels:
        raise TaskError(
            f"{task_file.path}: without `data`, `labels` must be listed: there are no rows to read them from"
        )
    definition, notes = build_definition(task_file, (), ())
    splits: dict[Split, tuple[Row, ...]] = dict.fromkeys(_SPLITS, ())
    report = DataReport(notes=tuple(notes))
    return Task(definition, splits, fingerprint(definition, splits), report, task_file.path, task_file.unlabelled)


def rows_from(source: str | Path | Source, *, id_field: str = DEFAULT_ID_FIELD) -> Iterator[Row]:
    """Yield rows of a file, a glob or a hub source, streamed in constant memory: what predictors run over.

    Args:
        source: a path or glob, or a source as :mod:`taskfit.tasks.sources` has them.
        id_field: the field that holds the id. A row without it gets a hash of its content, as in a task; that ids are
            unique is not checked, as that would need memory for all of them.

    Raises:
        DataError: a file is missing or broken; rows before the broken line are yielded first.
    """
    found = source if isinstance(source, FileSource | HubSource) else FileSource(str(source))
    yield from identified(read_source(found), id_field)


def unlabelled_rows(task: Task) -> Iterator[Row]:
    """Yield the rows of the task file's ``unlabelled`` sources, streamed; none where it names no source."""
    for source in task.unlabelled:
        yield from rows_from(source)


@dataclass(frozen=True)
class _Facts:
    """What the definition says of each row, by row id. A template that fails gives an empty text; checks report it.

    Attributes:
        inputs: the input text, with the options where they belong to the question.
        golds: the right answers.
        groups: the group, or None for all rows where the task has no groups.
    """

    inputs: Mapping[str, str]
    golds: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, str] | None

    @classmethod
    def of(cls, definition: TaskDefinition, parts: Mapping[str, Sequence[Row]]) -> _Facts:
        inputs: dict[str, str] = {}
        golds: dict[str, tuple[str, ...]] = {}
        groups: dict[str, str] = {}
        for row in (row for rows in parts.values() for row in rows):
            inputs[row.id] = _input_key(definition, row)
            golds[row.id] = _gold(definition, row)
            groups[row.id] = str(row.fields.get(definition.group or "", row.id))
        return cls(inputs, golds, groups if definition.group is not None else None)


def _input_key(definition: TaskDefinition, row: Row) -> str:
    try:
        return definition.question_text(row)
    except TaskfitError:
        return f"\0{row.id}"  # equal to no other text


def _gold(definition: TaskDefinition, row: Row) -> tuple[str, ...]:
    try:
        return definition.gold(row)
    except TaskfitError:
        return ()


def _read_parts(task_file: TaskFile) -> tuple[dict[str, list[RawRow]], dict[str, int]]:
    """Return the rows of each part in order of precedence, and the number of rows of each file."""
    sources: dict[str, tuple[Source, ...]] = {str(split): named for split, named in task_file.sources.items()}
    sources = sources or _pool_sources(task_file)
    parts: dict[str, list[RawRow]] = {}
    files: dict[str, int] = {}
    for part in sorted(sources, key=_PRECEDENCE.index):
        parts[part] = list(_counted(sources[part], files))
    if not any(parts.values()):
        raise DataError(f"{task_file.path}: no rows in {', '.join(files) or 'the sources of `data`'}")
    return parts, files


def _pool_sources(task_file: TaskFile) -> dict[str, tuple[Source, ...]]:
    """One source for all rows; a hub data set named without a split brings its own splits."""
    if len(task_file.pool) == 1 and isinstance(task_file.pool[0], HubSource) and task_file.pool[0].split is None:
        source = task_file.pool[0]
        names = hub_split_names(source)
        if "train" in names:
            return {split: (replace(source, split=name),) for split, name in names.items()}
    return {_POOL: task_file.pool}


def _counted(sources: Iterable[Source], files: dict[str, int]) -> Iterator[RawRow]:
    for source in sources:
        for raw in read_source(source):
            name = raw.place.rpartition(":")[0] or raw.place.rpartition("[")[0]
            files[name] = files.get(name, 0) + 1
            yield raw


def _without_repeated_inputs(
    parts: Mapping[str, Sequence[Row]], facts: _Facts
) -> tuple[dict[str, list[Row]], list[str]]:
    """Drop rows whose input stands in a part that goes before; return what is kept and the ids dropped."""
    part_of: dict[str, str] = {}
    kept: dict[str, list[Row]] = {}
    moved: list[str] = []
    for part, rows in parts.items():
        kept[part] = []
        for row in rows:
            if part_of.setdefault(facts.inputs[row.id], part) == part:
                kept[part].append(row)
            else:
                moved.append(row.id)
    return kept, moved


def _all_splits(
    parts: Mapping[str, Sequence[Row]], facts: _Facts, task_file: TaskFile
) -> tuple[dict[Split, tuple[Row, ...]], tuple[str, ...]]:
    """Return the three splits, and the names of those that had to be cut from the training rows (or from all)."""
    pool = list(parts.get("train") or parts.get(_POOL) or ())
    missing: list[Split] = [split for split in ("test", "validation") if split not in parts]
    chosen = cut_splits(
        [facts.inputs[row.id] for row in pool],
        [_stratum(facts, row, task_file) for row in pool],
        None if facts.groups is None else [facts.groups[row.id] for row in pool],
        {split: task_file.shares[split] for split in missing},
        task_file.split_seed,
    )
    splits = {
        split: tuple(row for row, chosen_split in zip(pool, chosen, strict=True) if chosen_split == split)
        if split == "train" or split in missing
        else tuple(parts[split])
        for split in _SPLITS
    }
    made = tuple(missing) if _POOL not in parts else ("train", *missing)
    return splits, made


def _stratum(facts: _Facts, row: Row, task_file: TaskFile) -> str:
    return next(iter(facts.golds[row.id]), "") if task_file.kind == "classification" else ""


def _conflicts(splits: Mapping[Split, Sequence[Row]], facts: _Facts) -> tuple[tuple[str, str], ...]:
    """Pair each row with the first row of the same input when their answers differ."""
    first: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    for rows in splits.values():
        for row in rows:
            earlier = first.setdefault(facts.inputs[row.id], row.id)
            if set(facts.golds[earlier]) != set(facts.golds[row.id]):
                pairs.append((earlier, row.id))
    return tuple(pairs)


def _group_notes(splits: Mapping[Split, Sequence[Row]], facts: _Facts, made: Sequence[str]) -> list[str]:
    """Say when groups stand in two splits, which can only be where the task file gives both."""
    if facts.groups is None:
        return []
    groups = {split: {facts.groups[row.id] for row in rows} for split, rows in splits.items()}
    notes: list[str] = []
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = groups[cast("Split", first)] & groups[cast("Split", second)]
        if shared:
            notes.append(f"{len(shared)} groups stand in both {first} and {second}, as the task file gives them")
    return notes
