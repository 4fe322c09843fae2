"""Step 3: render the instruction families as conversations, without evaluation text, and write them as token ids.

Shares are examples-proportional with a cap (Wei et al. 2022, section 2.4): a family gives as many conversations as it
has items, but no more than its cap.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from evaluation_text import EvaluationText
from families import Family, Item, families
from network import CONTEXT, TEXT, as_stream, load_tokenizer
from places import Places, options, run_step, say, write_json, write_rows
from text_hashes import WordHashes

from taskfit.errors import DataError
from taskfit.files import write_bytes

__all__ = ["build", "conversation"]

SEED = 0
WITH_OPTIONS = (
    "{ask}\nOptions: {comma}\n\n{named}",
    "{ask}\nOptions: {comma}\n{named}\nAnswer:",
    "{ask}\nChoose one of: {comma}.\n\n{text}",
    "{ask}\nAnswer with one of: {comma}.\n\n{named}\nLabel:",
    "{ask}\n\nOptions:\n{dashes}\n\n{named}",
    "{ask}\nLabels:\n{dashes}\n\n{named}\nLabel:",
    "{ask}\nLabels:\n{lines}\n\n{named}",
    "{named}\n\n{ask}\nOptions:\n{dashes}",
    "{named}\n\n{ask} Answer with one of these labels: {comma}",
    "{text}\n\n{ask}\nChoose one of: {comma}",
    "{ask} ({slashes})\n{text}",
    "{named}\n{ask}\nPossible answers: {quoted}.",
    "The labels are: {comma}.\n{ask} Answer with the label only.\n\n{named}",
)
WITHOUT_OPTIONS = (
    "{ask}\n\n{text}",
    "{ask}\n{named}",
    "{ask}\n\n{named}\nOutput:",
    "{ask}\n{named}\nAnswer:",
    "{named}\n\n{ask}",
    "{text}\n{ask}",
)
SYMBOLS = (
    ("A", "B", "C", "D", "E", "F"),
    ("1", "2", "3", "4", "5", "6"),
    ("red", "blue", "green", "white", "black", "brown"),
    ("apple", "river", "stone", "cloud", "horse", "table"),
)


@dataclass(frozen=True)
class Style:
    """How one conversation asks: wording, layout, options and the names of the labels in it."""

    ask: str
    layout: str
    options: tuple[str, ...]
    names: dict[str, str]

    def name(self, label: str) -> str:
        """The label as this conversation writes it."""
        return self.names.get(label, label)


def prompt(family: Family, style: Style, item: Item, layout: str | None = None) -> str:
    """The user's message for one item."""
    options = [style.name(option) for option in item.options or style.options]
    named = f"{family.heading}: {item.text}" if family.heading else item.text
    filled = (layout or style.layout).format(
        ask=style.ask,
        text=item.text,
        named=named,
        comma=", ".join(options),
        dashes="\n".join(f"- {option}" for option in options),
        lines="\n".join(options),
        slashes=" / ".join(options),
        quoted=", ".join(f'"{option}"' for option in options),
    )
    return filled.strip()


def label_names(rng: random.Random, labels: tuple[str, ...], is_symbolic: bool) -> dict[str, str]:
    """How the labels are written: as they are, with spaces, with capitals, or as symbols without meaning."""
    if is_symbolic:
        symbols = rng.sample(rng.choice(SYMBOLS), len(labels))
        return dict(zip(labels, symbols, strict=True))
    way = rng.choice(("same", "same", "spaces", "spaces", "title"))
    if way == "same":
        return {}
    spaced = {label: label.replace("_", " ") for label in labels}
    return spaced if way == "spaces" else {label: text.capitalize() for label, text in spaced.items()}


def choose_labels(rng: random.Random, family: Family) -> tuple[str, ...]:
    """Some of the family's labels, in random order: few more often than many."""
    limit = min(len(family.labels), 24)
    if limit <= 3:
        return tuple(rng.sample(family.labels, limit))
    count = rng.choice((2, 2, 3, 3, 4, 5, 6, 8, rng.randint(2, limit), rng.randint(2, limit)))
    return tuple(rng.sample(family.labels, min(count, limit)))


def conversation(rng: random.Random, family: Family) -> list[dict[str, str]]:
    """One conversation of one to five items of the family, the last of which is the question proper."""
    is_symbolic = bool(family.labels) and rng.random() < 0.08
    shots = rng.choice((3, 4)) if is_symbolic else rng.choice((0, 0, 0, 0, 0, 2, 2, 3, 4))
    options: tuple[str, ...] = ()
    if family.labels:
        options = choose_labels(rng, family)[: 2 if is_symbolic else None]
        items = [rng.choice(family.by_label[rng.choice(options)]) for _ in range(shots + 1)]
    else:
        items = rng.sample(family.items, min(shots + 1, len(family.items)))
        items = [shuffled_options(rng, item) for item in items]
    has_options = bool(options or items[-1].options)
    layout = rng.choice(WITH_OPTIONS if has_options else WITHOUT_OPTIONS)
    if has_options and family.labels and shots >= 2 and rng.random() < 0.25:
        layout = rng.choice(WITHOUT_OPTIONS)  # the labels are to be learned from the examples
    names = label_names(rng, options, is_symbolic) if options else {}
    style = Style(rng.choice(family.instructions), "{text}" if family.has_own_prompt else layout, options, names)
    if family.has_own_prompt or len(items) == 1 or rng.random() < 0.6:
        return as_turns(rng, family, style, items)
    return inline(rng, family, style, items)


def as_turns(rng: random.Random, family: Family, style: Style, items: list[Item]) -> list[dict[str, str]]:
    """Examples as earlier turns; at times the instruction is the system's and the items stand alone."""
    messages: list[dict[str, str]] = []
    layout = None
    if not family.has_own_prompt and not items[0].options and rng.random() < 0.25:
        listed = rng.choice(("{ask}\nOptions: {comma}", "{ask}\nLabels:\n{dashes}", "{ask} Choose one of: {comma}."))
        listed = listed if style.options else "{ask}"
        messages.append({"role": "system", "content": prompt(family, style, Item("", ""), listed)})
        layout = rng.choice(("{text}", "{named}"))
    for item in items:
        messages.append({"role": "user", "content": prompt(family, style, item, layout)})
        messages.append({"role": "assistant", "content": style.name(item.answer)})
    return messages


def inline(rng: random.Random, family: Family, style: Style, items: list[Item]) -> list[dict[str, str]]:
    """Examples and question in one message of the user."""
    sign = rng.choice(("Answer:", "Label:", "Output:"))
    has_listed = bool(style.options) and rng.random() < 0.8
    head = prompt(family, style, Item("", ""), "{ask}\nOptions: {comma}" if has_listed else "{ask}")
    own = "{named}\nOptions: {comma}" if items[0].options else "{named}"
    parts = [f"{prompt(family, style, item, own)}\n{sign} {style.name(item.answer)}" for item in items[:-1]]
    parts.append(f"{prompt(family, style, items[-1], own)}\n{sign}")
    text = "\n\n".join([head, *parts])
    return [{"role": "user", "content": text}, {"role": "assistant", "content": style.name(items[-1].answer)}]


def shuffled_options(rng: random.Random, item: Item) -> Item:
    """The item with its own options in another order."""
    return Item(item.text, item.answer, tuple(rng.sample(item.options, len(item.options))))


def render_all(places: Places, evaluated: EvaluationText, share: float, dropped: Counter[str]) -> list[dict[str, Any]]:
    """Return all conversations of all families, shuffled; ``dropped`` counts items left out, by reason.

    Args:
        places: the folders.
        evaluated: the texts of evaluation.
        share: of each family's conversations; below 1 for a trial.
        dropped: added to.
    """
    rows: list[dict[str, Any]] = []
    words = WordHashes()
    for family in families(places):
        rng = random.Random(f"{SEED}/{family.name}")
        known = [item for item in family.items if item.text.strip() and item.answer.strip()]
        known = rng.sample(known, min(len(known), 4 * family.cap))
        family.items = [item for item in known if not evaluated.holds(item.text, words)]
        dropped["overlap with an evaluation set"] += len(known) - len(family.items)
        if not family.items:
            continue
        family.group_by_label()
        facts = {"family": family.name, "source": family.source, "licence": family.licence}
        count = max(1, round(share * min(family.cap, len(family.items))))
        rows += [{**facts, "messages": conversation(rng, family)} for _ in range(count)]
        say(f"{family.name}: {len(family.items)} items")
    random.Random(SEED).shuffle(rows)
    return rows


def build(places: Places, share: float = 1.0) -> dict[str, Any]:
    """Write instructions.jsonl (ids and roles), instructions.bin (texts one behind the other) and tasks.json.

    Raises:
        DataError: data sets or the tokenizer are missing, or nothing is left to train on.
    """
    places.check_room("the instruction data", disk_bytes=3e8 * share, memory_bytes=2.5e9)
    tokenizer = load_tokenizer(places.need("tokenizer", "tokenizer.py"))
    dropped: Counter[str] = Counter()
    rows = render_all(places, EvaluationText.read(places, WordHashes()), share, dropped)
    texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    kept = [{**row, "ids": ids} for row, ids in zip(rows, encoded, strict=True) if len(ids) < CONTEXT]
    dropped["longer than the context"] += len(rows) - len(kept)
    if not kept:
        raise DataError("no conversation is left to train on", "Check the data folder.")
    write_rows(places.build / "instructions.jsonl", kept)
    stream = as_stream([[TEXT, *row["ids"]] for row in kept])
    write_bytes(places.build / "instructions.bin", stream.tobytes())
    report = {
        "conversations": len(kept),
        "tokens": len(stream),
        "families": len({row["family"] for row in kept}),
        "dropped": dict(dropped),
        "by_source": dict(Counter(row["source"] for row in kept).most_common()),
        "licences": sorted({(row["source"], row["licence"]) for row in kept}),
    }
    write_json(places.build / "tasks.json", report)
    return report


def _step(chosen: argparse.Namespace, places: Places) -> None:
    report = build(places, chosen.share)
    print(json.dumps({key: value for key, value in report.items() if key != "licences"}))


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--share", type=float, default=1.0, help="share of the conversations, for a trial (default: 1)")
    run_step(parser, _step)
