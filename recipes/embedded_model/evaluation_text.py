"""The texts that nothing may be trained on: every split for evaluation of every data set in the folder.

No list of names is kept: whatever split is not plainly for training counts, so a data set that is added later is
looked at without a change here. Two corpora are held out by text instead (see ``corpus.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from places import ENDINGS, Places, read_lines, say
from text_hashes import Hashes, WordHashes, run_hashes, stands_in

from taskfit.errors import DataError
from taskfit.files import appearing

__all__ = ["COMMON", "LENGTH", "EvaluationText", "evaluation_files"]

FORMAT = 1
LENGTH = 13
"""Words on end that two texts must share to count as the same (Brown et al. 2020, appendix C)."""

COMMON = 10
"""A run that more rows than this share is a turn of phrase (a question asked of every row), not a leak."""

SHORTEST_WHOLE = 4
"""A line of so many words or more that is the whole of an evaluation text counts too; rows can be short."""

TRAINING_SPLITS = ("train", "templates", "tasks")
NO_EVALUATION = {
    "plain_text": "held out by document and near duplicates",
    "corpus_peps": "the same",
    "corpus_biomed": "the same; it has no licence and is not trained on",
    "perturbation_lists": "single words",
    "promptsource_templates": "wordings",
    "flan_templates": "wordings",
}
"""Folders whose further splits are no texts of evaluation, and why."""


def evaluation_files(data: Path) -> list[Path]:
    """Return all files of rows that models are evaluated on, in a fixed order.

    Raises:
        DataError: the folder is not there or has none.
    """
    if not data.is_dir():
        raise DataError(f"expected the data sets in {data}, which is no folder", "Name their folder with --data.")
    files = [path for folder in sorted(data.iterdir()) if folder.is_dir() for path in sorted(folder.iterdir())]
    found = [path for path in files if path.name.endswith(ENDINGS) and _is_evaluation(path)]
    if not found:
        raise DataError(
            f"{data} holds no split for evaluation, so nothing could be kept from training", "Check --data."
        )
    return found


@dataclass(frozen=True)
class EvaluationText:
    """All evaluation texts as hashes, asked for overlaps.

    Attributes:
        runs: of every run of 13 words, sorted.
        wholes: of every text of 4 to 12 words, whole, sorted.
    """

    runs: Hashes
    wholes: Hashes

    @classmethod
    def read(cls, places: Places, words: WordHashes) -> EvaluationText:
        """Return those of the data folder; kept in ``evaluation.npz`` as long as its files are the same."""
        files = evaluation_files(places.data)
        listed = [[str(path.relative_to(places.data)), path.stat().st_size] for path in files]
        mark = hashlib.blake2b(json.dumps([FORMAT, LENGTH, COMMON, listed]).encode()).hexdigest()
        kept = places.build / "evaluation.npz"
        if kept.exists():
            with np.load(kept) as found:
                if str(found["mark"]) == mark:
                    return cls(found["runs"], found["wholes"])
        read = [_hashes_of(path, words) for path in files]
        known = cls(*(np.unique(np.concatenate(one)) for one in zip(*read, strict=True)))
        with appearing(kept) as partial, partial.open("wb") as file:
            np.savez(file, runs=known.runs, wholes=known.wholes, mark=np.array(mark))
        say(f"{len(known.runs)} runs of {LENGTH} words, {len(known.wholes)} short texts of {len(files)} files")
        return known

    def run_starts(self, words: Hashes) -> list[int]:
        """Return the places of all runs of 13 words that stand in an evaluation text."""
        return [int(place) for place in np.flatnonzero(stands_in(run_hashes(words, LENGTH), self.runs))]

    def is_whole(self, words: Hashes) -> bool:
        """Return whether a short text is the whole of an evaluation text."""
        if not SHORTEST_WHOLE <= len(words) < LENGTH:
            return False
        return bool(stands_in(np.array([_whole(words)], dtype=np.uint64), self.wholes)[0])

    def holds(self, text: str, words: WordHashes) -> bool:
        """Return whether a row shares a run with an evaluation text, or one of its lines is a whole one."""
        if self.run_starts(words.of(text)):
            return True
        return any(self.is_whole(words.of(line)) for line in text.splitlines())


def _hashes_of(path: Path, words: WordHashes) -> tuple[Hashes, Hashes]:
    """Return hashes of a file's runs that few rows share, and of its short texts."""
    rows = [[words.of(text) for text in _texts(row)] for row in read_lines(path)]
    runs = [np.unique(np.concatenate([run_hashes(text, LENGTH) for text in texts])) for texts in rows if texts]
    values, counts = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *runs]), return_counts=True)
    short = [_whole(text) for texts in rows for text in texts if SHORTEST_WHOLE <= len(text) < LENGTH]
    return values[counts <= COMMON], np.array(short, dtype=np.uint64)


def _is_evaluation(path: Path) -> bool:
    split = path.name.split(".")[0]
    is_for_training = split in TRAINING_SPLITS or split.endswith("_train")
    return path.parent.name not in NO_EVALUATION and not is_for_training


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _whole(words: Hashes) -> int:
    return int(run_hashes(words, len(words))[0])
