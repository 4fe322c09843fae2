"""Does the test set stand in what a model was trained on? Overlap of texts, row by row.

The test rows are indexed and the other texts stream past, so a corpus may be of any size. Four kinds are told apart,
from the surest to the weakest: the same text, runs of 13 words in common, most runs of 8 words in common, and texts
that are nearly the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.intervals import Interval, metric_interval
from taskfit.evaluation.outcomes import Outcomes, check_same_rows

__all__ = ["KINDS", "CleanScore", "Leak", "LeakKind", "LeakReport", "find_leaks", "score_without", "words_of"]

LeakKind = Literal["same", "13-gram", "8-gram", "near"]

KINDS: tuple[LeakKind, ...] = ("same", "13-gram", "8-gram", "near")
"""From the surest to the weakest."""

# Scripts written without spaces: each sign is taken for a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_COMMON = 10  # a run of words that so many test rows share is a turn of phrase, not a leak
_SHINGLE = 5  # letters
_PERMUTATIONS = 128


@dataclass(frozen=True)
class Leak:
    """A test row that stands elsewhere.

    Attributes:
        row_id: of the test row.
        kind: ``same``: equal word for word. ``13-gram``: 13 words on end in common. ``8-gram``: as many runs of 8
            words in common as asked for. ``near``: letter for letter nearly equal.
        share: of the row's words that stand in a common run; for ``near`` the similarity; for ``same`` 1.
        source: id of the text where it was first found, the one with the largest share for ``near``.
        text: the longest common run of words, normalised; for ``near`` the beginning of the other text.
    """

    row_id: str
    kind: LeakKind
    share: float
    source: str
    text: str


@dataclass(frozen=True)
class LeakReport:
    """All leaks found, by row and kind.

    Attributes:
        rows: number of test rows looked at.
        texts: number of other texts looked at.
        leaks: in the order of row ids and ``KINDS``; a row may have several.
        short_rows: rows of fewer than 8 words, in which runs of words cannot be found.
    """

    rows: int
    texts: int
    leaks: tuple[Leak, ...]
    short_rows: int

    def dirty(self, *kinds: LeakKind) -> frozenset[str]:
        """Return the ids of rows with a leak of one of these kinds; of any kind where none is named."""
        return frozenset(leak.row_id for leak in self.leaks if not kinds or leak.kind in kinds)

    @property
    def counts(self) -> Mapping[LeakKind, int]:
        """Number of rows with each kind of leak."""
        return {kind: len(self.dirty(kind)) for kind in KINDS}


def words_of(text: str) -> list[str]:
    """Return a text's words, without case, punctuation and differences of Unicode form; what leaks are judged by."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def find_leaks(
    test: Mapping[str, str],
    others: Iterable[tuple[str, str]],
    *,
    share: float = 0.7,
    similarity: float = 0.8,
    seed: int = 0,
) -> LeakReport:
    """Look for test rows in other texts: training rows, or any corpus.

    Args:
        test: row id to its text, without the prompt around it (which all rows share).
        others: ids and texts, in any order; read once.
        share: of a row's runs of 8 words that must be found for an ``8-gram`` leak.
        similarity: share of runs of 5 letters in common, of all in either text (Jaccard), for a ``near`` leak.
        seed: of the hashes that find candidates for ``near``. Candidates are then compared exactly; about one in a
            thousand pairs at the limit is missed, more similar ones practically never.

    Raises:
        ConfigError: share or similarity not above 0 and at most 1.
        DataError: no test rows.
    Source: Brown et al. 2020, appendix C (13 words; runs that more than 10 rows share are passed over); Chowdhery et
    al. 2022, section 8 (70 % of the runs of 8 words); Broder 1997 (similar texts by smallest hashes).
    """
    for name, value in (("share", share), ("similarity", similarity)):
        if not 0 < value <= 1:
            raise ConfigError(f"{name} must be above 0 and at most 1 (got {value})")
    if not test:
        raise DataError("expected at least one test row to look for, got none")
    ids = sorted(test)
    rows = [words_of(test[row_id]) for row_id in ids]
    wholes, runs, near = _Wholes(rows), [_Runs(rows, 13), _Runs(rows, 8)], _Near(rows, similarity, seed)
    texts = 0
    for source, text in others:
        texts += 1
        words = words_of(text)
        wholes.look(source, words)
        near.look(source, words)
        for run in runs:
            run.look(source, words)
    leaks = [
        *((row, Leak(ids[row], "same", 1.0, source, " ".join(rows[row]))) for row, source in wholes.found.items()),
        *runs[0].leaks(ids, "13-gram", lambda found, _: found > 0),
        *runs[1].leaks(ids, "8-gram", lambda found, all_: found >= share * all_ > 0),
        *((row, Leak(ids[row], "near", *best)) for row, best in near.found.items()),
    ]
    leaks.sort(key=lambda pair: (pair[0], KINDS.index(pair[1].kind)))
    return LeakReport(len(ids), texts, tuple(leak for _, leak in leaks), sum(len(words) < 8 for words in rows))


@dataclass(frozen=True)
class CleanScore:
    """A figure with and without the rows that leaked.

    Attributes:
        rows, dirty_rows: how many there are, and how many of them leaked.
        all_rows: the figure on all rows.
        clean: on those that did not leak; None where all did.
        dirty: on those that did; None where none did.
    """

    rows: int
    dirty_rows: int
    all_rows: Interval
    clean: Interval | None
    dirty: Interval | None


def score_without(name: str, runs: Sequence[Outcomes], dirty: frozenset[str], *, level: float = 0.95) -> CleanScore:
    """Return a strategy's figure on all rows, on those that did not leak, and on those that did.

    A figure that is better on dirty rows than on clean ones by more than the intervals allow was partly learnt by
    heart; or the dirty rows are the easier ones, which only a model that has not seen them can tell.

    Args:
        name: the metric.
        runs: of one strategy's seeds, over the same rows.
        dirty: ids of rows that leaked, from ``LeakReport.dirty``.
        level: of the intervals.

    Raises:
        DataError: the runs are not over the same rows. ConfigError: the metric does not fit the task.
    """
    check_same_rows(runs)
    is_dirty = np.array([row_id in dirty for row_id in runs[0].row_ids])

    def figure(keep: Any) -> Interval | None:
        return metric_interval(name, [run.only(keep) for run in runs], level=level) if keep.any() else None

    whole = metric_interval(name, runs, level=level)
    return CleanScore(len(is_dirty), int(is_dirty.sum()), whole, figure(~is_dirty), figure(is_dirty))


class _Wholes:
    """Test rows that equal another text word for word."""

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        self.found: dict[int, str] = {}
        self._rows: dict[str, list[int]] = {}
        for row, words in enumerate(rows):
            if words:
                self._rows.setdefault(" ".join(words), []).append(row)

    def look(self, source: str, words: Sequence[str]) -> None:
        """Remember the rows that this text equals."""
        for row in self._rows.get(" ".join(words), ()):
            self.found.setdefault(row, source)


class _Runs:
    """Runs of so many words that test rows share with other texts."""

    def __init__(self, rows: Sequence[Sequence[str]], length: int) -> None:
        self._rows, self._length = rows, length
        self._places: dict[str, list[tuple[int, int]]] = {}
        for row, words in enumerate(rows):
            for start, run in enumerate(_runs(words, length)):
                self._places.setdefault(run, []).append((row, start))
        self._places = {run: at for run, at in self._places.items() if len({row for row, _ in at}) <= _COMMON}
        self._sources: dict[int, dict[int, str]] = {}  # row to start to the text where that run was found first

    def look(self, source: str, words: Sequence[str]) -> None:
        """Remember the runs that stand in this text."""
        for run in _runs(words, self._length):
            for row, start in self._places.get(run, ()):
                self._sources.setdefault(row, {}).setdefault(start, source)

    def leaks(
        self, ids: Sequence[str], kind: LeakKind, is_leak: Callable[[int, int], bool]
    ) -> Iterator[tuple[int, Leak]]:
        """Yield the rows of which enough runs were found: so many, of so many."""
        for row, sources in self._sources.items():
            words, length = self._rows[row], self._length
            if not is_leak(len(sources), len(words) - length + 1):
                continue
            covered = {place for start in sources for place in range(start, start + length)}
            start, end = _longest(sorted(sources), length)
            text = " ".join(words[start:end])
            yield row, Leak(ids[row], kind, len(covered) / len(words), sources[start], text)


class _Near:
    """Test rows that nearly equal another text: candidates by hashes, then compared exactly."""

    def __init__(self, rows: Sequence[Sequence[str]], similarity: float, seed: int) -> None:
        from datasketch import MinHashLSH

        self.found: dict[int, tuple[float, str, str]] = {}
        self._similarity, self._seed = similarity, seed
        self._shingles = [_shingles(words) for words in rows]
        sizes = [len(shingles) for shingles in self._shingles if shingles]
        # A text of another size altogether cannot be that similar to any row.
        self._sizes = (similarity * min(sizes, default=1), max(sizes, default=0) / similarity)
        # Candidates are sought well below the limit, so that hardly any pair above it is missed.
        self._index = MinHashLSH(threshold=max(0.05, similarity - 0.2), num_perm=_PERMUTATIONS)
        for row, shingles in enumerate(self._shingles):
            if shingles:
                self._index.insert(row, self._hashes(shingles))

    def look(self, source: str, words: Sequence[str]) -> None:
        """Remember the rows that this text nearly equals, each with the most similar text."""
        shingles = _shingles(words)
        if not self._sizes[0] <= len(shingles) <= self._sizes[1]:
            return
        for row in self._index.query(self._hashes(shingles)):
            mine = self._shingles[row]
            alike = len(mine & shingles) / len(mine | shingles)
            if alike >= self._similarity and alike > self.found.get(row, (0.0,))[0]:
                self.found[row] = (alike, source, " ".join(words)[:200])

    def _hashes(self, shingles: frozenset[str]) -> Any:
        from datasketch import MinHash

        hashes = MinHash(num_perm=_PERMUTATIONS, seed=self._seed + 1)
        hashes.update_batch([shingle.encode() for shingle in shingles])
        return hashes


def _runs(words: Sequence[str], length: int) -> Iterator[str]:
    return (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))


def _shingles(words: Sequence[str]) -> frozenset[str]:
    """Return the runs of letters of a text; the whole of a shorter one."""
    text = " ".join(words)
    return frozenset(text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))) - {""}


def _longest(starts: Sequence[int], length: int) -> tuple[int, int]:
    """Return beginning and end of the longest stretch of words that overlapping runs cover."""
    best = first = starts[0]
    end = best + length
    for start, before in zip(starts[1:], starts, strict=False):
        first = first if start == before + 1 else start
        if start + length - first > end - best:
            best, end = first, start + length
    return best, end
