"""Is the number right? Numbers found in texts, with separators, currencies, percent signs and fractions."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from taskfit.evaluation.outcomes import Outcomes
from taskfit.evaluation.overlap import normalise_answer

__all__ = ["last_number", "numeric_match", "numeric_note"]

_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{(\d{1,15})\}\{(\d{1,15})\}")
_GAPS = " \u00a0\u2009\u202f'’_"  # between groups of three digits, besides comma and point
_DIGITS = rf"\d{{1,3}}(?:[{_GAPS}]\d{{3}})+(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)*|[.]\d+"
_NUMBER = re.compile(
    r"(?<![\w./])(?P<minus>(?<![\d)][ ])[-−])?[ ]?(?:[$€£¥₹][ ]?)?"
    rf"(?P<digits>{_DIGITS})(?:[eE](?P<power>[-+]?\d{{1,3}})(?!\d))?"
    r"(?:(?:[ ](?P<top>\d+))?[ ]?[/⁄][ ]?(?P<below>\d+)(?![\d/]))?"
)
_RELATIVE_TOLERANCE = 1e-6


def numeric_match(outcomes: Outcomes) -> NDArray[np.float64]:
    """1 where the answer's last number is the last number of a right answer, else 0, shape (rows,).

    Equal means: apart by at most a millionth of the right number. Where the right answer holds no number, the texts
    are compared as in exact match. An answer without a number is wrong.
    """
    rows = zip(outcomes.answers, outcomes.golds, outcomes.is_parsed, strict=True)
    return np.array([float(parsed and any(_is_same(answer, gold) for gold in golds)) for answer, golds, parsed in rows])


def last_number(text: str) -> float | None:
    r"""Return the last number that a text names, or None.

    The rules: a minus counts unless it stands between two numbers. A currency sign before and a unit or percent sign
    behind are passed over, so "60%" is 60 and not 0.6. "3/4", "1 3/4" and "\frac{3}{4}" are fractions, "1e3" is
    1000. "1,234,567", "1 234 567" and "1'234'567" are one number each. Of a comma and a point in one number the later
    one is the decimal sign. A lone comma is a decimal sign unless exactly three digits follow it ("1,5" is 1.5 but
    "1,500" is 1500, and "0,500" is 0.5); a lone point always is one, and two points separate groups of three digits.
    Digits behind a letter ("H2", "v3") are no number, and of a date with slashes only the first part is read.

    >>> last_number("That makes $1,234.50 in all.")
    1234.5
    """
    plain = _LATEX_FRACTION.sub(r" \1/\2 ", text)
    found = [value for match in _NUMBER.finditer(plain) if (value := _value(match)) is not None]
    return found[-1] if found else None


def numeric_note(outcomes: Outcomes) -> str | None:
    """Say where right answers hold no number, so that texts are compared."""
    without = sum(all(last_number(gold) is None for gold in golds) for golds in outcomes.golds)
    if not without:
        return None
    return f"{without} of {len(outcomes)} right answers hold no number; there numeric_match compares the texts"


def _is_same(answer: str, gold: str) -> bool:
    right = last_number(gold)
    if right is None:
        return normalise_answer(answer) == normalise_answer(gold)
    found = last_number(answer)
    return found is not None and math.isclose(found, right, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-12)


def _value(match: re.Match[str]) -> float | None:
    """Return the number a match stands for; None where it is none, is too large, or divides by 0."""
    plain = _plain_digits(match["digits"])
    if plain is None:
        return None
    value = float(f"{plain}e{match['power'] or 0}")
    if match["below"]:
        below = float(match["below"])
        if below == 0:
            return None
        value = value + float(match["top"]) / below if match["top"] else value / below
    if not math.isfinite(value):
        return None
    return -value if match["minus"] else value


def _plain_digits(digits: str) -> str | None:
    """Return digits with a decimal point at most, or None where the separators make no number."""
    digits = re.sub(rf"[{_GAPS}]", "", digits)
    commas, points = digits.count(","), digits.count(".")
    if commas and points:
        decimal, group = (",", ".") if digits.rfind(",") > digits.rfind(".") else (".", ",")
    elif commas + points > 1:
        decimal, group = "", "," if commas else "."
    elif commas and re.fullmatch(r"[1-9]\d{0,2},\d{3}", digits):
        decimal, group = "", ","
    else:
        decimal, group = "," if commas else ".", ""
    whole, _, part = digits.partition(decimal) if decimal else (digits, "", "")
    if group and not re.fullmatch(rf"\d{{1,3}}(?:[{group}]\d{{3}})*", whole):
        return None
    if not re.fullmatch(r"\d*", part):
        return None
    return f"{whole.replace(group, '') if group else whole}.{part}"
