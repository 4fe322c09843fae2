"""Small changes of the input that leave the right answer as it is, and the worst case over them.

A change depends on the seed, its name, the row's id and the text alone: the same rows are changed in the same way
whatever their order, and whatever else is changed. The changes are meant for English; other scripts pass unchanged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from taskfit.errors import ConfigError, DataError, nearest
from taskfit.evaluation.metrics import metric, per_row
from taskfit.evaluation.outcomes import Outcomes, check_same_rows
from taskfit.evaluation.word_pairs import AMERICAN, COLLOQUIAL, GENDERED, SYNONYMS

if TYPE_CHECKING:
    from taskfit.tasks.task import Row

__all__ = [
    "PERTURBATIONS",
    "SWAPS",
    "Perturbation",
    "perturb",
    "perturbed_rows",
    "read_word_list",
    "worst_case",
]

Item = TypeVar("Item")

_WORD = re.compile(r"[A-Za-z]+")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LARGEST_LIST = 32 * 2**20  # bytes
_SHORT_FORMS = {
    **{f"{word} not": f"{word}n't" for word in ("is", "are", "was", "were", "do", "does", "did", "has", "have", "had")},
    **{f"{word} not": f"{word}n't" for word in ("could", "should", "would", "must", "need")},
    "cannot": "can't",
    "will not": "won't",
    "i am": "i'm",
    "let us": "let's",
    **{f"{word} are": f"{word}'re" for word in ("you", "we", "they")},
    **{f"{word} have": f"{word}'ve" for word in ("i", "you", "we", "they")},
    **{f"{word} will": f"{word}'ll" for word in ("i", "you", "he", "she", "it", "we", "they")},
    **{f"{word} is": f"{word}'s" for word in ("he", "she", "it", "that", "there", "what", "who", "where", "how")},
}


@dataclass(frozen=True)
class Perturbation:
    """A way to change a text.

    Attributes:
        name: as reports write it.
        change: the changed text, from the text and a source of chance.
        summary: one line.
    """

    name: str
    change: Callable[[str, Random], str]
    summary: str


def perturb(text: str, how: Perturbation | str, row_id: str, *, seed: int = 0) -> str:
    """Return a text changed in the way named.

    Raises:
        ConfigError: no such way; the message names the nearest.
    """
    known = _known(how)
    digest = hashlib.sha256(json.dumps([seed, known.name, row_id, text]).encode()).digest()
    return known.change(text, Random(int.from_bytes(digest[:8], "big")))


def perturbed_rows(
    rows: Iterable[Row], fields: Sequence[str], how: Perturbation | str, *, seed: int = 0
) -> tuple[Row, ...]:
    """Return rows whose named fields are changed; ids, labels and all other fields stay.

    Args:
        rows: of a task.
        fields: names of the input's fields; values that are no text stay as they are.
        how: a way, or the name of one of ``PERTURBATIONS`` or ``SWAPS``.
        seed: of the chances.

    Raises:
        ConfigError: no such way. DataError: a row lacks a field.
    """
    changed = []
    for row in rows:
        missing = [name for name in fields if name not in row.fields]
        if missing:
            raise DataError(f"row {row.id!r} has no field {missing[0]!r} to change; it has {', '.join(row.fields)}")
        texts = {name: value for name in fields if isinstance(value := row.fields[name], str)}
        new = {name: perturb(text, how, f"{row.id}/{name}", seed=seed) for name, text in texts.items()}
        changed.append(replace(row, fields={**row.fields, **new}))
    return tuple(changed)


def read_word_list(path: Path, *, name: str, chance: float = 1.0) -> Perturbation:
    """Return the change that replaces words by those of a list: misspellings, synonyms, another dialect.

    Args:
        path: JSON Lines; each line an object with ``word`` and one other field, which holds a word or a list of words.
        name: for reports and, with the seed, for the chances.
        chance: that a word of the list is replaced where it occurs; of several words one is drawn.

    Raises:
        ConfigError: chance not above 0 and at most 1.
        DataError: the file cannot be read, is larger than 32 MB, or a line is of another form; says which.
    """
    if not 0 < chance <= 1:
        raise ConfigError(f"chance must be above 0 and at most 1 (got {chance})")
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise DataError(f"{path} is larger than {_LARGEST_LIST // 2**20} MB; a word list is expected")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    words = dict(_entry(path, number, line) for number, line in enumerate(lines, start=1) if line.strip())
    if not words:
        raise DataError(f"{path} holds no words; expected lines such as {{'word': 'film', 'synonyms': ['movie']}}")

    def change(text: str, random: Random) -> str:
        def swap(match: re.Match[str]) -> str:
            others = words.get(match[0].lower())
            return _like(_draw(others, random), match[0]) if others and random.random() < chance else match[0]

        return _WORD.sub(swap, text)

    return Perturbation(name, change, f"words of {path.name}, each with chance {chance:g}")


def worst_case(name: str, original: Outcomes, changed: Mapping[str, Outcomes]) -> Outcomes:
    """Return, for each row, the answer that scored worst: to the row as it is, or to one of its changed forms.

    They are outcomes like any other, so their score has an interval and can be paired with that of the original; a
    row counts as right only where it stays right however it is changed. The more changes, the lower.

    Args:
        name: a metric that has a value per row.
        original: of the rows as they are.
        changed: name of a change to the outcomes of the changed rows, with the same ids and right answers.

    Raises:
        ConfigError: the metric has no value per row. DataError: the runs are not over the same rows.
    Source: Liang et al. 2023, section 4.5 (worst case over transformations of an instance).
    """
    versions = [original, *changed.values()]
    check_same_rows(versions)
    sign = 1.0 if metric(name).higher_is_better else -1.0
    worst = np.argmin([sign * per_row(name, version) for version in versions], axis=0)
    none = (None,) * len(original)
    has_shares = all(version.probabilities is not None for version in versions)
    return replace(
        original,
        answers=tuple(versions[number].answers[row] for row, number in enumerate(worst)),
        is_parsed=np.array([versions[number].is_parsed[row] for row, number in enumerate(worst)]),
        probabilities=tuple((versions[number].probabilities or ())[row] for row, number in enumerate(worst))
        if has_shares
        else None,
        choices=tuple((versions[number].choices or none)[row] for row, number in enumerate(worst)),
        _memo={},
    )


def _known(how: Perturbation | str) -> Perturbation:
    if isinstance(how, Perturbation):
        return how
    known = PERTURBATIONS | SWAPS
    if how not in known:
        raise ConfigError(f"unknown change {how!r}{nearest(how, known)}; known are {', '.join(known)}")
    return known[how]


def _typos(text: str, random: Random) -> str:
    return _WORD.sub(lambda match: _typo(match[0], random) if random.random() < 0.1 else match[0], text)


def _typo(word: str, random: Random) -> str:
    """Return a word of four letters or more with two inner letters swapped, or one dropped, doubled or mistaken."""
    if len(word) < 4:
        return word
    place = 1 + int(random.random() * (len(word) - 3))
    before, letter, after = word[:place], word[place], word[place + 1 :]
    forms = (before + after[0] + letter + after[1:], before + after, before + letter * 2 + after)
    return _draw((*forms, before + _beside(letter, random) + after), random)


def _beside(letter: str, random: Random) -> str:
    """Return the letter on a key beside this one's."""
    keys = next((row for row in _KEYS if letter.lower() in row), letter)
    place = keys.find(letter.lower())
    near = [keys[at] for at in (place - 1, place + 1) if 0 <= at < len(keys)]
    return _like(_draw(near or [letter], random), letter)


def _spaces(text: str, random: Random) -> str:
    return re.sub(" ", lambda _: " " * (1 + int(random.random() * 3)), text)


def _replaced(forms: Mapping[str, str]) -> Callable[[str, Random], str]:
    """Return the change that replaces every form by the other, whatever its case."""
    pattern = re.compile(
        r"\b(" + "|".join(sorted(map(re.escape, forms), key=len, reverse=True)) + r")\b", re.IGNORECASE
    )

    def swap(match: re.Match[str]) -> str:
        other = forms.get(match[0].lower())  # none where a letter is alike without case only: the dotted I, the long s
        return match[0] if other is None else _like(other, match[0])

    return lambda text, _: pattern.sub(swap, text)


def _some(forms: Mapping[str, str], chance: float) -> Callable[[str, Random], str]:
    """Return the change that replaces each listed word by the other, by chance."""

    def change(text: str, random: Random) -> str:
        def swap(match: re.Match[str]) -> str:
            other = forms.get(match[0].lower())
            return _like(other, match[0]) if other is not None and random.random() < chance else match[0]

        return _WORD.sub(swap, text)

    return change


def _swap_gender(text: str, _: Random) -> str:
    """Swap words for men and women; *her* before a word is taken for *his*, else for *him*."""

    def swap(match: re.Match[str]) -> str:
        word = match[0].lower()
        if word in ("his", "him"):
            return _like("her", match[0])
        if word == "her":
            return _like("his" if re.match(r"\s+[A-Za-z]", match.string[match.end() :]) else "him", match[0])
        return _like(GENDERED[word], match[0]) if word in GENDERED else match[0]

    return _WORD.sub(swap, text)


def _like(word: str, pattern: str) -> str:
    """Return a word in the case of another: all capitals, all small, a capital first, or else as it is."""
    if pattern.isupper() and len(pattern) > 1:
        return word.upper()
    if pattern.islower():
        return word.lower()
    return word[:1].upper() + word[1:] if pattern[:1].isupper() else word


def _draw(items: Sequence[Item], random: Random) -> Item:
    return items[int(random.random() * len(items))]


def _entry(path: Path, number: int, line: str) -> tuple[str, tuple[str, ...]]:
    """Read one line of a word list."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: expected a JSON object ({error})") from error
    others = [value for key, value in entry.items() if key != "word"] if isinstance(entry, dict) else []
    if len(others) != 1 or not isinstance(entry.get("word"), str):
        raise DataError(f"{path}, line {number}: expected an object with `word` and one other field")
    words = [others[0]] if isinstance(others[0], str) else others[0]
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise DataError(f"{path}, line {number}: expected a word or a list of words beside `word`")
    return entry["word"].lower(), tuple(words)


PERTURBATIONS: dict[str, Perturbation] = {
    each.name: each
    for each in (
        Perturbation("typos", _typos, "one letter of every tenth word swapped, dropped, doubled or mistaken"),
        Perturbation("lower", lambda text, _: text.lower(), "all letters small"),
        Perturbation("upper", lambda text, _: text.upper(), "all letters capital"),
        Perturbation("contract", _replaced(_SHORT_FORMS), "is not becomes isn't"),
        Perturbation(
            "expand", _replaced({short: long for long, short in _SHORT_FORMS.items()}), "isn't becomes is not"
        ),
        Perturbation("spaces", _spaces, "one to three spaces for each"),
        Perturbation("synonyms", _some(SYNONYMS, 0.5), "every second word of a list by one of like meaning"),
        Perturbation("spelling", _some(AMERICAN, 1.0), "American words and spellings by British ones, and back"),
        Perturbation("dialect", _replaced(COLLOQUIAL), "common words as many people speak them: going to, gonna"),
    )
}
"""Changes that need no file, by name: a robust strategy answers as before."""

SWAPS: dict[str, Perturbation] = {
    "gender": Perturbation("gender", _swap_gender, "words for men by those for women, and back: he, she")
}
"""Changes of who is spoken of, that need no file: a fair strategy answers as before."""
