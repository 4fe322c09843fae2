"""The test rows that strategies answer differently, each with every one's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.studies.predictions import StoredPrediction
    from taskfit.studies.test_rows import TestRow
    from taskfit.tasks.task import Value

__all__ = ["Disagreement", "Said", "cut_text", "disagreements", "rows_data"]

_MOST_ROWS = 300
_MOST_TEXT = 400
_MOST_ANSWER = 160
_MOST_BYTES = 250_000  # of all rows together, so that a page of long texts stays small


@dataclass(frozen=True)
class Said:
    """One candidate's answer to one row; its first seed's.

    Attributes:
        is_right: None for generated text, which is more or less right.
    """

    key: str
    answer: str
    is_right: bool | None


@dataclass(frozen=True)
class Disagreement:
    """A test row that candidates answer differently."""

    row_id: str
    text: str
    gold: str
    said: tuple[Said, ...]


def disagreements(
    keys: Mapping[str, str],
    predictions: Mapping[str, Sequence[StoredPrediction]],
    test: Sequence[TestRow],
    kind: str,
) -> tuple[Disagreement, ...]:
    """Return the rows with different answers: first those that split the candidates most evenly into right and wrong.

    At most 300 rows, and no more than 250 kB of text.

    Args:
        keys: label to key of the candidates to show, in order.
        predictions: label of a candidate to its first seed's predictions, in the order of ``test``.
        test: the test rows.
        kind: the task's.
    """
    found: list[tuple[int, int, Disagreement]] = []
    for place, row in enumerate(test):
        said = tuple(_said(key, predictions[label][place], kind) for label, key in keys.items())
        if len({one.answer for one in said}) > 1:
            right = sum(bool(one.is_right) for one in said)
            gold = cut_text(" | ".join(row.gold), _MOST_ANSWER)
            shown = Disagreement(row.row_id, cut_text(row.text, _MOST_TEXT), gold, said)
            found.append((abs(2 * right - len(said)), place, shown))
    found.sort(key=lambda item: item[:2])
    return tuple(_within([shown for _, _, shown in found[:_MOST_ROWS]]))


def _within(rows: Sequence[Disagreement]) -> list[Disagreement]:
    kept, size = [], 0
    for row in rows:
        size += len(row.text) + len(row.gold) + sum(len(said.answer) for said in row.said if said.is_right is None)
        if size > _MOST_BYTES:
            break
        kept.append(row)
    return kept


def rows_data(rows: Sequence[Disagreement]) -> dict[str, Value]:
    """Return the rows as JSON values, each different answer written once."""
    answers = list(dict.fromkeys(said.answer for row in rows for said in row.said))
    place = {answer: number for number, answer in enumerate(answers)}
    records: list[Value] = [
        {
            "id": row.row_id,
            "text": row.text,
            "gold": row.gold,
            "said": [[place[s.answer], None if s.is_right is None else int(s.is_right)] for s in row.said],
        }
        for row in rows
    ]
    return {"answers": [*answers], "rows": records}


def _said(key: str, prediction: StoredPrediction, kind: str) -> Said:
    answer = prediction.answer if prediction.is_parsed else "(none)"
    is_right = None if kind == "generation" else prediction.is_parsed and answer in prediction.gold
    return Said(key, cut_text(answer, _MOST_ANSWER), is_right)


def cut_text(text: str, most: int) -> str:
    """Put a text on one line and keep its first ``most`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
