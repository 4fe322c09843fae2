"""Step 1: the text to pre-train on: cleaned, without evaluation text, without repeats, with held-out documents."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from cleaning import Piece, pieces_of
from duplicates import near_duplicates
from evaluation_text import EvaluationText, evaluation_files
from numpy.typing import NDArray
from places import Places, options, read_lines, run_step, say, write_json, write_rows
from sources import Document, documents
from text_hashes import Hashes, WordHashes

from taskfit.files import appearing, remove_unfinished, write_text

__all__ = ["build"]

PART_DOCUMENTS = 500
"""Documents read between two moments at which a killed run goes on."""

SEED = 0
DISK_FACTOR, MEMORY_BYTES = 12, 3e9
"""Disk as a multiple of the packed sources, measured with some room; memory mostly of the evaluation hashes."""


def build(places: Places, share: float = 1.0) -> dict[str, object]:
    """Write ``corpus.jsonl``, ``heldout.jsonl`` and ``corpus.json``, going on where a killed run was.

    Args:
        places: the folders.
        share: of the documents, drawn by their sources; below 1 for a trial of all steps.

    Raises:
        DataError: data sets are missing. ResourceError: there is too little room.
    """
    evaluation_files(places.data)  # without them nothing could be kept out
    size = sum(path.stat().st_size for path in places.data.glob("plain_text/*.xz")) + 40e6
    places.check_room("the corpus", disk_bytes=DISK_FACTOR * size * share, memory_bytes=max(1e9, MEMORY_BYTES * share))
    parts = places.build / "corpus-parts"
    _begin(parts, share)
    _read_parts(places, parts, share)
    report = _join(places, parts)
    write_json(places.build / "corpus.json", report)
    return report


def _begin(parts: Path, share: float) -> None:
    """Start anew where the parts there belong to other settings."""
    own, mark = {"share": share, "part_documents": PART_DOCUMENTS, "format": 1}, parts / "settings.json"
    if parts.is_dir() and (not mark.exists() or json.loads(mark.read_text(encoding="utf-8")) != own):
        for path in parts.iterdir():
            path.unlink()
    parts.mkdir(parents=True, exist_ok=True)
    remove_unfinished(parts)
    write_text(mark, json.dumps(own))


def _read_parts(places: Places, parts: Path, share: float) -> None:
    """Clean all documents, a part at a time; parts that are there already are not made again."""
    words, evaluated = WordHashes(), None
    chosen = (document for document in documents(places) if _is_in(document, share))
    for number in range(10**6):
        part = list(islice(chosen, PART_DOCUMENTS))
        if not part:
            break
        path = parts / f"{number:04d}.jsonl"
        if path.exists() and path.with_suffix(".npz").exists():
            continue
        if evaluated is None:
            evaluated = EvaluationText.read(places, words)
        _write_part(path, part, evaluated, words)
        say(f"corpus: {(number + 1) * PART_DOCUMENTS} documents read")
    for path in parts.glob("*.jsonl"):  # parts of a longer run over other data
        if int(path.stem) >= number:
            path.unlink()


def _write_part(path: Path, part: list[Document], evaluated: EvaluationText, words: WordHashes) -> None:
    """Write the pieces of some documents, and their hashes beside them."""
    rows, pieces = [], []
    for document in part:
        dropped: Counter[str] = Counter()
        own = pieces_of(document.text, evaluated, words, dropped)
        for number, piece in enumerate(own or [None]):
            facts = {"source": document.source, "licence": document.licence, "kind": document.kind}
            row = {**facts, "is_held_out": document.is_held_out, "dropped": dict(dropped) if number == 0 else {}}
            rows.append({**row, "paragraphs": list(piece.paragraphs) if piece else []})
            if piece:
                pieces.append(piece)
    with appearing(path.with_suffix(".npz")) as partial, partial.open("wb") as file:
        np.savez(file, signatures=_signatures(pieces), paragraphs=_paragraphs(pieces))
    write_rows(path, rows)  # last: a part counts once both files are there


def _signatures(pieces: list[Piece]) -> Hashes:
    return np.stack([piece.signature for piece in pieces]) if pieces else np.zeros((0, 0), dtype=np.uint64)


def _paragraphs(pieces: list[Piece]) -> Hashes:
    return np.concatenate([np.zeros(0, dtype=np.uint64), *(piece.hashes for piece in pieces)])


def _join(places: Places, parts: Path) -> dict[str, object]:
    """Leave out repeats over all parts, and write training and held-out documents in an order drawn once."""
    files = sorted(parts.glob("*.jsonl"))
    arrays = [np.load(path.with_suffix(".npz")) for path in files]
    marks = [one["signatures"] for one in arrays if len(one["signatures"])]
    is_near = near_duplicates(np.concatenate(marks)) if marks else np.zeros(0, dtype=bool)
    is_new = _first_of_each(np.concatenate([one["paragraphs"] for one in arrays]))
    counts: dict[str, Counter[str]] = {"dropped": Counter(), "documents": Counter(), "characters": Counter()}
    licences: Counter[str] = Counter()
    sources: set[str] = set()
    kept: dict[bool, list[dict[str, object]]] = {False: [], True: []}
    for row in _unrepeated(files, is_near, is_new, counts["dropped"]):
        kept[bool(row.pop("is_held_out"))].append(row)
    random.Random(SEED).shuffle(kept[False])
    for name, rows in (("corpus", kept[False]), ("heldout", kept[True])):
        write_rows(places.build / f"{name}.jsonl", rows)
        for row in rows:
            counts["documents"][f"{name} {row['kind']}"] += 1
            counts["characters"][f"{name} {row['kind']}"] += len(str(row["text"]))
    for row in kept[False]:
        licences[str(row["licence"])] += len(str(row["text"]))
        sources.add(str(row["source"]).split(" ")[0])
    return {
        "documents": len(kept[False]),
        "held_out_documents": len(kept[True]),
        "characters": sum(licences.values()),
        "documents_by_kind": dict(sorted(counts["documents"].items())),
        "characters_by_kind": dict(sorted(counts["characters"].items())),
        "characters_by_licence": dict(licences.most_common()),
        "characters_dropped": dict(counts["dropped"].most_common()),
        "sources": sorted(sources),
    }


def _unrepeated(
    files: list[Path], is_near: NDArray[np.bool_], is_new: NDArray[np.bool_], dropped: Counter[str]
) -> Iterator[dict[str, object]]:
    """Yield the documents that are no repeats, without paragraphs that are; ``dropped`` counts characters."""
    piece = place = 0
    for path in files:
        for row in read_lines(path):
            dropped.update(row.pop("dropped"))
            paragraphs = row.pop("paragraphs")
            if not paragraphs:
                continue
            fresh = [text for text, new in zip(paragraphs, is_new[place:], strict=False) if new]
            near, place, piece = bool(is_near[piece]), place + len(paragraphs), piece + 1
            everything, length = sum(map(len, paragraphs)), sum(map(len, fresh))
            dropped["near duplicate" if near else "repeated paragraph"] += everything if near else everything - length
            if fresh and not near:
                yield {**row, "text": "\n\n".join(fresh)}


def _first_of_each(hashes: Hashes) -> NDArray[np.bool_]:
    """Return which values come for the first time; 0 always counts as new."""
    _, first = np.unique(hashes, return_index=True)
    is_new: NDArray[np.bool_] = hashes == 0
    is_new[first] = True
    return is_new


def _is_in(document: Document, share: float) -> bool:
    digest = hashlib.blake2b(document.source.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") < share * 2**32


def _step(chosen: argparse.Namespace, places: Places) -> None:
    report = build(places, chosen.share)
    print(json.dumps({key: value for key, value in report.items() if key != "sources"}, indent=1))


def parser_of() -> argparse.ArgumentParser:
    """Return the step's command."""
    parser = options(__doc__ or "")
    parser.add_argument("--share", type=float, default=1.0, help="share of the documents, for a trial (default: 1)")
    return parser


if __name__ == "__main__":
    run_step(parser_of(), _step)
