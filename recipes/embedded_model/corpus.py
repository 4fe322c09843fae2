"""Step 1: choose, decontaminate and shuffle the pre-training text."""

from __future__ import annotations

import random
from collections import Counter

from overlap import EvaluationText
from places import BUILD, read_rows, write_json, write_rows

# Characters wanted per kind. All stories and web articles; as much of the rest as the token budget can use.
WANTED = {"story": 2_000_000, "web": 14_000_000, "textbook": 20_000_000, "book": 20_000_000, "docs": 8_000_000}
SEED = 0


def kind_of(row: dict[str, str]) -> str:
    """The kind of a document, read off its source repository."""
    source = row["source"]
    if source.startswith("global-asp/"):
        return "story"
    if source.startswith("standardebooks/"):
        return "book"
    if source.startswith("openstax/"):
        return "textbook"
    if source.startswith(("18F/", "GSA/", "github/opensource.guide")):
        return "web"
    return "docs"


def main() -> None:
    """Write corpus.jsonl, heldout.jsonl and corpus.json."""
    evaluated = EvaluationText()
    rows = [{**row, "kind": row.get("kind") or kind_of(row)} for row in read_rows("plain_text", "train")]
    random.Random(SEED).shuffle(rows)
    room, kept, dropped = Counter(WANTED), [], Counter()
    licences: Counter[str] = Counter()
    for row in rows:
        if room[row["kind"]] <= 0:
            continue
        if evaluated.overlaps(row["text"]):
            dropped[row["kind"]] += 1
            continue
        room[row["kind"]] -= len(row["text"])
        licences[row["licence"]] += len(row["text"])
        kept.append(row)
    write_rows(BUILD / "corpus.jsonl", kept)
    heldout = [{**row, "kind": row.get("kind") or kind_of(row)} for row in read_rows("plain_text", "validation")]
    write_rows(BUILD / "heldout.jsonl", heldout)
    characters = Counter()
    for row in kept:
        characters[row["kind"]] += len(row["text"])
    report = {
        "documents": len(kept),
        "characters": sum(characters.values()),
        "characters_by_kind": characters,
        "characters_by_licence": licences,
        "documents_dropped_for_overlap_by_kind": dropped,
        "sources": sorted({row["source"].split(" ")[0] for row in kept}),
    }
    write_json(BUILD / "corpus.json", report)
    print({key: value for key, value in report.items() if key != "sources"})


if __name__ == "__main__":
    main()
