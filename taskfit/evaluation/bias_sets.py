"""Published sets that ask a model for its social bias, read from files or the hub; which one it is, its fields say.

They are not shipped: CrowS-Pairs (Nangia et al. 2020), WinoBias (Zhao et al. 2018), BBQ (Parrish et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from taskfit.tasks.reading import RawRow
    from taskfit.tasks.sources import Source

__all__ = ["MOST_ITEMS", "BiasSet", "Question", "SentencePair", "read_bias_sets"]

MOST_ITEMS = 2000
"""Pairs or questions of a set that are asked; of more, a sample that is always the same."""

_HUB = "hub:"
_NAMES = ("crows_pairs", "winobias", "bbq")
_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
_COMPRESSED = ("", ".gz", ".xz", ".bz2")


@dataclass(frozen=True)
class SentencePair:
    """Two sentences that differ in who is spoken of.

    Attributes:
        group: kind of bias, or of sentence.
    """

    stereotype: str
    other: str
    group: str


@dataclass(frozen=True)
class Question:
    """A question about a context, with three answers.

    Attributes:
        is_ambiguous: the context does not tell; the right answer is then the unknown one.
        right, unknown, biased: places among the answers; ``biased`` is the one that follows the stereotype.
        group: category.
    """

    context: str
    question: str
    answers: tuple[str, str, str]
    is_ambiguous: bool
    right: int
    unknown: int
    biased: int
    group: str


@dataclass(frozen=True)
class BiasSet:
    """One set.

    Attributes:
        name: ``crows_pairs``, ``winobias`` or ``bbq``.
        items: at least one.
        note: what a reader must know, or "".
    """

    name: str
    items: tuple[SentencePair, ...] | tuple[Question, ...]
    note: str = ""


def read_bias_sets(sources: Sequence[str | Path]) -> tuple[BiasSet, ...]:
    """Read sets from files, from folders that hold files or folders of their names, or from the hub.

    Args:
        sources: paths, or ``hub:OWNER/NAME`` (its test split; needs the extra ``[hub]``).

    Raises:
        ConfigError: the same set twice, or no source.
        DataError: nothing is there, or rows are of no known set or damaged; says which.
    """
    from taskfit.tasks.sources import FileSource, HubSource

    if not sources:
        raise ConfigError("expected at least one set of social bias, got none")
    places: list[tuple[str, Source]] = []
    for source in map(str, sources):
        if source.startswith(_HUB):
            places.append((source, HubSource(source.removeprefix(_HUB), split="test")))
        else:
            places.extend((str(path), FileSource(str(path))) for path in _files(Path(source)))
    found = [_read(name, source) for name, source in places]
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is there twice: {', '.join(name for name, _ in places)}", "name one of them")
    return tuple(found)


def _files(path: Path) -> list[Path]:
    """Return the file itself, or the files of the known sets in a folder."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder", f"name {', '.join(_NAMES)} or a folder that holds them")
    stems = [stem for name in _NAMES for stem in (path / name / "test", path / name)]
    if path.name in _NAMES:
        stems.append(path / "test")
    candidates = (Path(f"{stem}{end}{packed}") for stem in stems for end in _ENDINGS for packed in _COMPRESSED)
    found = [candidate for candidate in candidates if candidate.is_file()]
    if not found:
        raise DataError(f"{path} holds none of {', '.join(_NAMES)}", "expected, for example, crows_pairs/test.jsonl")
    return found


def _read(name: str, source: Source) -> BiasSet:
    from taskfit.tasks.sources import read_source

    rows = list(read_source(source))
    if not rows:
        raise DataError(f"{name} holds no rows")
    fields = rows[0].fields.keys()
    if {"sent_more", "sent_less"} <= fields:
        pairs = [
            SentencePair(_text(row, "sent_more"), _text(row, "sent_less"), str(row.fields.get("bias_type", "")))
            for row in rows
        ]
        return _sampled("crows_pairs", pairs, "pairs")
    if {"sentence", "stereotype"} <= fields:
        return _sampled("winobias", _winobias(name, rows), "pairs")
    if {"context", "question", "ans0", "ans1", "ans2", "label"} <= fields:
        return _sampled("bbq", [_question(row) for row in rows], "questions")
    raise DataError(f"{name} is no set that is known here: it has {', '.join(fields)}", f"known: {', '.join(_NAMES)}")


def _winobias(name: str, rows: Iterable[RawRow]) -> list[SentencePair]:
    """Join the two sentences that share ``id`` and ``type``."""
    halves: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        kind = _text(row, "stereotype")
        if kind not in ("pro", "anti"):
            raise DataError(f"{row.place}: stereotype must be pro or anti (got {kind!r})")
        key = (str(row.fields.get("type", "")), str(row.fields.get("id", "")))
        halves.setdefault(key, {})[kind] = _text(row, "sentence")
    whole = {key: pair for key, pair in halves.items() if len(pair) == 2}
    if not whole:
        raise DataError(f"{name}: no two sentences share `id` and `type`, so none can be compared")
    return [SentencePair(pair["pro"], pair["anti"], f"type {kind}") for (kind, _), pair in whole.items()]


def _question(row: RawRow) -> Question:
    answers = (_text(row, "ans0"), _text(row, "ans1"), _text(row, "ans2"))
    tags = [_tags(row, place) for place in range(3)]
    unknown = [place for place in range(3) if "unknown" in tags[place]]
    extra = row.fields.get("additional_metadata")
    listed = extra.get("stereotyped_groups") if isinstance(extra, dict) else None
    groups = {str(group).lower() for group in listed} if isinstance(listed, list) else set()
    meant = [place for place in range(3) if tags[place] & groups and place not in unknown]
    right, condition = row.fields.get("label"), row.fields.get("context_condition")
    polarity = row.fields.get("question_polarity")
    if isinstance(right, bool) or right not in (0, 1, 2):
        right = None
    if len(unknown) != 1 or len(meant) != 1 or right is None or len(set(answers)) < 3:
        raise DataError(f"{row.place}: a question needs three answers, one unknown and one that the stereotype names")
    if condition not in ("ambig", "disambig") or polarity not in ("neg", "nonneg"):
        raise DataError(f"{row.place}: context_condition or question_polarity is unknown ({condition!r}, {polarity!r})")
    other = ({0, 1, 2} - {unknown[0], meant[0]}).pop()
    return Question(
        context=_text(row, "context"),
        question=_text(row, "question"),
        answers=answers,
        is_ambiguous=condition == "ambig",
        right=(0, 1, 2).index(right),
        unknown=unknown[0],
        biased=meant[0] if polarity == "neg" else other,
        group=str(row.fields.get("category", "")),
    )


def _tags(row: RawRow, place: int) -> set[str]:
    info = row.fields.get("answer_info")
    tags = info.get(f"ans{place}") if isinstance(info, dict) else None
    return {str(tag).lower() for tag in tags} if isinstance(tags, list) else set()


def _text(row: RawRow, name: str) -> str:
    value = row.fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{row.place}: {name} must be a text (got {value!r})")
    return value


def _sampled(name: str, items: list[SentencePair] | list[Question], what: str) -> BiasSet:
    if len(items) <= MOST_ITEMS:
        return BiasSet(name, tuple(items))  # type: ignore[arg-type]
    places = sorted(Random(0).sample(range(len(items)), MOST_ITEMS))
    kept = tuple(items[place] for place in places)
    return BiasSet(name, kept, f"{name}: a sample of {MOST_ITEMS} of {len(items)} {what}")  # type: ignore[arg-type]
