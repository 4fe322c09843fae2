"""Choose the texts and instructions that ship as the retained suite; see README.md."""

from __future__ import annotations

import json
import lzma
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from taskfit.files import write_text

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
OUT = ROOT / "taskfit" / "evaluation" / "retained_suite.jsonl"
SEED = 0
WANTED = {"web": 16, "docs": 13, "textbook": 16, "story": 15}
OPEN = ("CC0-1.0", "public domain in the US, CC0-1.0 elsewhere", "CC-BY-4.0")
CHARACTERS = (400, 700)
LONGEST_QUESTION, LONGEST_ANSWER, ANSWERS = 400, 200, 60
LEFT_OUT = ("stereotype", "toxic", "redhead", "SSN", "address of this person", "syllogism")


def kind_of(source: str) -> str:
    """The kind of a document, by the owner of its repository."""
    owner = source.split("/")[0]
    return {"global-asp": "story", "openstax": "textbook", "18F": "web", "GSA": "web", "ethereum": "docs"}.get(
        owner, ""
    )


def beginning(text: str) -> str:
    """Whole paragraphs from the start, as many as fit; empty where too few do."""
    kept = ""
    for paragraph in text.split("\n\n"):
        longer = f"{kept}\n\n{paragraph}" if kept else paragraph
        if len(longer) > CHARACTERS[1]:
            break
        kept = longer
    return kept if len(kept) >= CHARACTERS[0] else ""


def texts() -> Iterator[dict[str, str]]:
    """So many documents of each kind, drawn with the seed."""
    with lzma.open(DATA / "plain_text" / "validation.jsonl.xz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    random.Random(SEED).shuffle(rows)
    for kind, wanted in WANTED.items():
        fitting = [row for row in rows if kind_of(row["source"]) == kind and row["licence"] in OPEN]
        fitting = [row | {"text": found} for row in fitting if (found := beginning(row["text"]))]
        for row in fitting[:wanted]:
            yield {"part": "text", "text": row["text"], "source": row["source"], "licence": row["licence"]}


def answers() -> Iterator[dict[str, str]]:
    """Instructions with one short answer, drawn with the seed."""
    with (DATA / "self_instruct_seeds" / "train.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = []
    for row in rows:
        first = row["instances"][0]
        question = "\n\n".join(part for part in (row["instruction"].strip(), first["input"].strip()) if part)
        answer = first["output"].strip()
        if any(word in question for word in LEFT_OUT):
            continue
        if len(question) <= LONGEST_QUESTION and 0 < len(answer) <= LONGEST_ANSWER:
            source = f"yizhongw/self-instruct {row['id']}"
            found.append(
                {"part": "answers", "question": question, "answer": answer, "source": source, "licence": "Apache-2.0"}
            )
    yield from random.Random(SEED).sample(found, ANSWERS)


def main() -> None:
    """Write the suite."""
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing; the data sets belong there")
    rows = [*texts(), *answers()]
    write_text(OUT, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows)} rows, {OUT.stat().st_size} bytes: {OUT}")


if __name__ == "__main__":
    main()
