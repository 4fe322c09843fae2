"""The text that the model may read, document by document: open licences only, and nothing that is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from places import Places

__all__ = ["HELD_OUT_SHARE", "KINDS", "SHORT_SOURCES", "Document", "documents"]

KINDS = ("story", "book", "textbook", "web", "docs", "peps", "short")
"""Kinds of text; each has held-out documents of its own."""

ROWS_A_DOCUMENT = 20
"""Short rows of one source that make a document together: alone they would be mostly markers."""

HELD_OUT_SHARE = 50
"""Every so manieth document of short rows is held out."""

SHORT_SOURCES = {
    "clinc150": ("CC BY 3.0", "{text}"),
    "goemotions": ("Apache-2.0", "{text}"),
    "boolq": ("CC BY-SA 3.0", "{passage}"),
    "gsm8k": ("MIT", "{question}\n{answer}"),
    "aqua": ("Apache-2.0", "{input}\n{rationale}"),
    "strategyqa": ("MIT", "{question}\n{explanation}"),
    "mnli": ("OANC and other open terms per genre", "{premise}"),
    "distill_svamp": ("Apache-2.0, MIT", "{input}\n{llm_rationale}"),
}
"""Training splits of open data sets: licence, and which of their texts. Left out: banking77, on which tuning is
measured with training rows of its own, and offensive text (hate_speech_offensive)."""


@dataclass(frozen=True)
class Document:
    """A text with what is to be known of it.

    Attributes:
        source: where it comes from.
        licence: its terms.
        kind: one of ``KINDS``.
        text: paragraphs with an empty line between them.
        is_held_out: whether it is for measuring, not for training.
    """

    source: str
    licence: str
    kind: str
    text: str
    is_held_out: bool


def documents(places: Places) -> Iterator[Document]:
    """Yield every document of the data folder, in a fixed order, one in memory at a time.

    Raises:
        DataError: the folder or one of the data sets is not there.
    """
    for split in ("validation", "train"):  # held-out documents first: what repeats them is then dropped
        for row in places.rows("plain_text", split):
            yield Document(row["source"], row["licence"], _kind_of(row), row["text"], split == "validation")
    for split in ("validation", "train"):
        for row in places.rows("corpus_peps", split):
            licence = "public domain or CC0-1.0"
            yield Document(f"python/peps {row['pep']}", licence, "peps", row["text"], split == "validation")
    for name, (licence, pattern) in SHORT_SOURCES.items():
        texts = (pattern.format(**row).strip() for row in places.rows(name, "train"))
        for number, text in enumerate(_joined(texts)):
            yield Document(f"{name} {number}", licence, "short", text, number % HELD_OUT_SHARE == 0)


def _joined(texts: Iterator[str]) -> Iterator[str]:
    """Yield texts of several rows each, without repeats among neighbours."""
    gathered: dict[str, None] = {}
    for text in texts:
        gathered[text] = None
        if len(gathered) == ROWS_A_DOCUMENT:
            yield "\n\n".join(gathered)
            gathered = {}
    if gathered:
        yield "\n\n".join(gathered)


def _kind_of(row: dict[str, Any]) -> str:
    """Return the kind of a document of ``plain_text``, by its repository."""
    source = str(row["source"])
    if source.startswith("global-asp/"):
        return "story"
    if source.startswith("standardebooks/"):
        return "book"
    if source.startswith("openstax/"):
        return "textbook"
    return "web" if source.startswith(("18F/", "GSA/", "github/opensource.guide")) else "docs"
