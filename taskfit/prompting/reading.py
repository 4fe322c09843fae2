r"""Reading an answer out of generated text: an option, a number, or a short text.

The rules, in this order, for every form:

1. Marks of emphasis (``*``, ``_``, backquotes, ``$`` around ``\boxed``) are taken off. ``\boxed{…}`` is the answer.
2. Else, unless the text is reasoning (``needs_cue``), a first line that is an answer and nothing else counts: a model
   without chat turns may go on with questions of its own, and cues in them.
   Else what follows the last cue is read: "the answer is", "final answer:", "answer:", "A:" at the start of a line,
   "####". Without a cue the whole text is read, then its first line, then its last line; of reasoning nothing is, for
   a chain that broke off has not answered.
3. An *option* is read as the whole of it, as a letter ("(B)", "B.", "option B"), as what it begins with, or as the
   only option it mentions. White space, quotes and the punctuation around it do not count, nor does case, but where
   only it tells two options apart; a mention right after "not" is none. "(A) or (B)" is no answer. Texts go before
   values: where a text is another option's value, it is read as a text.
4. A *number* is the first one after the cue, or the one behind the last "=" there; without a cue the last one of the
   text. Currency, units, percent signs and separators of thousands are taken off: "$1,250.00 a day" is 1250.
   ``\frac{1}{2}`` is 1/2.
5. A *text* is what follows the cue to the end of its line, without quotes and a final full stop; without a cue there
   is none.

What cannot be read is None: counted, shown and scored as wrong by the callers, never dropped.

Sources of the cues: Kojima et al. 2022, section 3 and appendix A.6; Suzgun et al. 2022, section 3; Cobbe et al. 2021.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from taskfit.tasks.task import Option

__all__ = ["AnswerForm", "cued", "plain_number", "read_number", "read_option", "read_text"]

AnswerForm = Literal["option", "number", "text"]
"""What is to be read: one of the row's options, a number, or a short text."""

_CUE = re.compile(
    r"(?:\b(?:final |correct |right |best )?(?:answer|option|choice)(?: to (?:this|the) question)?(?: is|:| should be)"
    r"(?: therefore| thus| that)?:?|^[ \t]*A:|####)[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_FRACTION = re.compile(r"(?<!\d)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_EMPHASIS = re.compile(r"\*\*|__|`|(?<!\w)\*|\*(?!\w)")
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-+−])?\s?[$€£¥]?\s?(?P<digits>\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+)(?P<rest>\.\d+)?(?P<over>/\d+)?"
    r"|(?<![\w.])(?P<point>[-+−]?\.\d+)"
)
_LETTER = re.compile(r"\s*(?:option|choice|answer)?\s*[\(\[]?\s*([A-Z])\s*(?:[\)\].:,]|$|\s*[-–]\s)", re.IGNORECASE)
_AND_MORE = re.compile(r"[\s)\]]*(?:or|and|/|,|&)(?!\w)")
_AND_ANOTHER = re.compile(r"\s*(?:or|and|/|,|&)?\s*[\(\[]?[A-Z](?:[\)\].,]|$)", re.IGNORECASE)
_BRACKETED = re.compile(r"[\(\[]\s*([A-Z])\s*[\)\]]")
_EDGES = " \t\r\n\"'“”‘’«».,;:!?"
_BRACKETS = "()[]"


def cued(text: str) -> str | None:
    r"""Return what the text gives as its answer: inside the last ``\boxed{…}``, else behind the last cue; else None."""
    boxes = _BOXED.findall(text)
    if boxes:
        return str(boxes[-1]).replace("\\text{", "").replace("}", "").strip()
    found = list(_CUE.finditer(text))
    return text[found[-1].end() :].strip() if found else None


def read_option(text: str, options: Sequence[Option], *, needs_cue: bool = False) -> str | None:
    """Return the value of the option that the text answers with, or None where it is unclear.

    Args:
        text: as generated.
        options: what may be answered, in the order in which letters count them.
        needs_cue: read only what follows a cue.

    >>> from taskfit.tasks.task import Option
    >>> read_option("So the answer is (B).", [Option("yes", "yes"), Option("no", "no")])
    'no'
    """
    plain = _EMPHASIS.sub("", text).strip()
    part = cued(plain)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    if not needs_cue and lines and not _BOXED.search(plain):
        exact = _whole(lines[0], options)
        if exact is not None:
            return exact
    loose = [] if needs_cue else [plain, *lines[:1], *lines[-1:]]
    for piece in [part.split("\n\n")[0]] if part else loose:
        found = _option_in(piece, options)
        if found is not None:
            return found
    return None


def read_number(text: str, *, needs_cue: bool = False) -> str | None:
    """Return the number that the text answers with, as plain digits, or None where there is none.

    Args:
        text: as generated.
        needs_cue: read only what follows a cue; otherwise the last number of a text without a cue counts.

    >>> read_number("She makes 9 * 2 = $18 every day. The answer is $1,018.50.")
    '1018.5'
    """
    plain = _FRACTION.sub(r"\1/\2", _EMPHASIS.sub("", text).replace("\\$", "$").replace("\\,", ""))
    first = plain.strip().partition("\n")[0].rstrip(".")
    if not needs_cue and plain_number(first) is not None and not _BOXED.search(plain):
        return plain_number(first)
    part = cued(plain)
    if part:
        line = part.splitlines()[0]
        found = _numbers(line.rpartition("=")[2]) or _numbers(line)
        if found:
            return found[0]
    numbers = [] if needs_cue else _numbers(plain)
    return numbers[-1] if numbers else None


def read_text(text: str) -> str | None:
    """Return the short text that follows the cue, or None where there is no cue or nothing behind it.

    >>> read_text("We sort them. So the answer is bee wasp.")
    'bee wasp'
    """
    part = cued(_EMPHASIS.sub("", text))
    if not part:
        return None
    line = part.splitlines()[0].strip()
    line = line[:-1].rstrip() if line.endswith(".") and not line.endswith("..") else line
    if len(line) > 1 and line[0] in "\"'“‘" and line[-1] in "\"'”’":
        line = line[1:-1].strip()
    return line or None


def plain_number(text: str) -> str | None:
    """Return a text that is a number, and nothing but a number, as plain digits; else None.

    Currency in front, a percent sign behind and separators of thousands are allowed.

    >>> plain_number("$1,250.00"), plain_number("3 apples")
    ('1250', None)
    """
    stripped = text.strip().removesuffix("%").rstrip()
    match = _NUMBER.fullmatch(stripped)
    return _digits(match) if match else None


def _numbers(text: str) -> list[str]:
    return [_digits(match) for match in _NUMBER.finditer(text)]


def _digits(match: re.Match[str]) -> str:
    """Write a number with neither separators nor closing zeros; a fraction stays as it is."""
    if match["point"]:
        return _shortest(match["point"])
    sign = "-" if match["sign"] in ("-", "−") else ""
    whole = re.sub(r"[, ]", "", match["digits"])
    if match["over"] and not match["rest"]:
        return f"{sign}{whole}{match['over']}"
    return _shortest(f"{sign}{whole}{match['rest'] or ''}")


def _shortest(digits: str) -> str:
    try:
        value = Decimal(digits.replace("−", "-"))
    except InvalidOperation:  # longer than any number anybody means
        return digits
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _option_in(piece: str, options: Sequence[Option]) -> str | None:
    """Try the readings of a piece of text from the strictest to the loosest."""
    exact = _whole(piece, options)
    if exact is not None:
        return exact
    folded, whole = _folded(piece), _by_name(options)
    lettered = _lettered(piece, options)
    if lettered is not None:
        return lettered
    mentioned = _mentioned(folded, whole)
    first = max((name for name in whole if re.match(rf"{re.escape(name)}(?!\w)", folded)), key=len, default=None)
    if first is not None and not (len(mentioned) > 1 and _AND_MORE.match(folded[len(first) :])):
        return whole[first]
    return mentioned.pop() if len(mentioned) == 1 else None


def _whole(piece: str, options: Sequence[Option]) -> str | None:
    """Read a piece that is an option's text or value and nothing else; case counts where only it tells two apart."""
    exact = _named(options, _trimmed).get(_trimmed(piece))
    return exact if exact is not None else _by_name(options).get(_folded(piece))


def _by_name(options: Sequence[Option]) -> dict[str, str]:
    """Return what options are called, without case, to their values; a name that two share is none."""
    return _named(options, _folded)


def _named(options: Sequence[Option], written: Callable[[str], str]) -> dict[str, str]:
    """Return names to values: the texts, which a model was asked for, and the values that are no other's text."""
    texts = _unshared((written(option.text), option.value) for option in options)
    taken = {written(option.text) for option in options}
    values = _unshared((written(option.value), option.value) for option in options)
    return {**texts, **{name: value for name, value in values.items() if name not in taken}}


def _unshared(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for name, value in names:
        found.setdefault(name, set()).add(value)
    return {name: next(iter(values)) for name, values in found.items() if name and len(values) == 1}


def _lettered(piece: str, options: Sequence[Option]) -> str | None:
    """Read "(B)" or "B." as the second option, or as the option whose value is that letter."""
    match = _LETTER.match(piece)
    letters = {match[1].upper()} if match else {letter.upper() for letter in _BRACKETED.findall(piece)}
    if len(letters) != 1:
        return None
    is_word = match is not None and match[1].islower() and not piece.lstrip().startswith(("(", "["))
    if match is not None and (is_word or _AND_ANOTHER.match(piece[match.end() :])):
        return None
    letter = letters.pop()
    by_value = [option.value for option in options if option.value.strip(_EDGES + _BRACKETS).upper() == letter]
    if by_value:
        return by_value[0]
    place = ord(letter) - ord("A")
    return options[place].value if place < len(options) else None


def _mentioned(folded: str, whole: dict[str, str]) -> set[str]:
    """Return the values of the options named anywhere in the text; a name inside a longer name is none."""
    taken: list[tuple[int, int]] = []
    values: set[str] = set()
    for name in sorted(whole, key=len, reverse=True):
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", folded):
            if any(start <= match.start() and match.end() <= end for start, end in taken):
                continue
            taken.append(match.span())
            if not re.search(r"\bnot (?:a |an |the )?$", folded[: match.start()]):
                values.add(whole[name])
    return values


def _folded(text: str) -> str:
    """Return the text without case, edge punctuation and runs of white space; brackets that enclose all of it go."""
    return _trimmed(text).casefold()


def _trimmed(text: str) -> str:
    """Return the text as :func:`_folded` does, but with its case."""
    text = " ".join(text.split()).strip(_EDGES)
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]" and not set(text[1:-1]) & set(_BRACKETS):
        return text[1:-1].strip(_EDGES)
    return text
