"""Data sets of a few rows in the form of the shared ones; sentences are made from word lists, so none repeats."""

from __future__ import annotations

import gzip
import json
import lzma
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WORDS = [
    "river",
    "stone",
    "garden",
    "winter",
    "morning",
    "letter",
    "window",
    "market",
    "teacher",
    "doctor",
    "engine",
    "village",
    "mountain",
    "music",
    "silver",
    "bread",
    "horse",
    "candle",
    "summer",
    "ocean",
    "forest",
    "paper",
    "road",
    "bridge",
    "answer",
    "question",
    "evening",
    "kitchen",
    "island",
    "captain",
    "story",
    "number",
    "school",
    "train",
    "flower",
    "shadow",
    "basket",
    "button",
    "carpet",
    "desert",
    "feather",
    "hammer",
    "jacket",
    "ladder",
    "mirror",
    "needle",
    "orange",
    "pencil",
    "rabbit",
    "sailor",
    "ticket",
    "valley",
    "wagon",
    "yellow",
    "author",
    "banker",
    "cousin",
    "driver",
    "editor",
    "farmer",
    "guard",
    "hunter",
    "judge",
    "king",
    "lawyer",
    "miller",
]

LEAKED = "the quiet captain carried eleven silver ladders across the frozen valley before morning came again"
"""A text of 15 words that stands in a test split and in a document."""


def sentence(rng: random.Random, count: int = 14) -> str:
    """Return words in a random order, with a capital and a full stop."""
    return " ".join(rng.choices(WORDS, k=count)).capitalize() + "."


def paragraphs(rng: random.Random, count: int = 6) -> list[str]:
    """Return paragraphs of three sentences."""
    return [" ".join(sentence(rng) for _ in range(3)) for _ in range(count)]


def write_rows(folder: Path, split: str, rows: Iterable[dict[str, Any]], ending: str = "jsonl") -> None:
    """Write a split, packed as its ending says."""
    folder.mkdir(parents=True, exist_ok=True)
    opener = {"jsonl": open, "jsonl.gz": gzip.open, "jsonl.xz": lzma.open}[ending]
    with opener(folder / f"{split}.{ending}", "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def documents(rng: random.Random) -> list[dict[str, str]]:
    """Return documents of all kinds; a near copy and a leaked paragraph among them."""
    sources = ("global-asp/asp", "standardebooks/a", "openstax/osbooks-algebra", "18F/handbook", "rust-lang/book")
    found = []
    for number in range(40):
        source = sources[number % len(sources)]
        text = "A Heading\n\n" + "\n\n".join(paragraphs(rng))
        found.append({"source": f"{source} {number}", "licence": "CC0-1.0", "text": text})
    near = found[3]["text"].replace("river", "canal", 1).replace("A Heading", "Another Heading")
    found.append({"source": "18F/handbook copy", "licence": "CC0-1.0", "text": near})
    body = paragraphs(rng)
    leaked = "\n\n".join([*body[:3], f"It is said that {LEAKED}, and so on.", *body[3:]])
    found.append({"source": "rust-lang/book leaked", "licence": "CC0-1.0", "text": leaked})
    return found


def write_data(folder: Path) -> Path:
    """Write every set that the recipe reads."""
    rng = random.Random(0)
    texts = documents(rng)
    held = [{"source": "18F/handbook held", "licence": "CC0-1.0", "text": "\n\n".join(paragraphs(rng))}]
    write_rows(folder / "plain_text", "validation", held, "jsonl.xz")
    write_rows(folder / "plain_text", "train", [*texts, {**held[0], "source": "18F/handbook again"}], "jsonl.xz")
    for split in ("train", "validation"):
        peps = [{"pep": str(at), "text": "\n\n".join(paragraphs(rng))} for at in range(3)]
        write_rows(folder / "corpus_peps", split, peps)
    _write_open_sets(folder, rng)
    _write_instruction_sets(folder, rng)
    _write_evaluation_sets(folder, rng)
    return folder


def _write_open_sets(folder: Path, rng: random.Random) -> None:
    intents = ("transfer", "balance", "translate")
    clinc = [{"text": sentence(rng, 7), "intent": intents[at % 3], "domain": "banking"} for at in range(60)]
    write_rows(folder / "clinc150", "train", clinc, "jsonl.gz")
    labels = ("joy", "anger", "neutral")
    write_rows(
        folder / "goemotions", "train", [{"text": sentence(rng, 8), "labels": [labels[at % 3]]} for at in range(60)]
    )
    names = ("entailment", "neutral", "contradiction")
    mnli = [{"premise": sentence(rng), "hypothesis": sentence(rng, 6), "label": names[at % 3]} for at in range(30)]
    write_rows(folder / "mnli", "train", mnli)
    boolq = [{"passage": sentence(rng, 30), "question": "is it so", "label": at % 2 == 0} for at in range(30)]
    write_rows(folder / "boolq", "train", boolq)
    yes = [{"question": sentence(rng, 8), "answer": "yes", "explanation": sentence(rng)} for _ in range(20)]
    write_rows(folder / "strategyqa", "train", yes)
    write_rows(folder / "gsm8k", "train", [{"question": sentence(rng), "answer": "4 + 4 = 8"} for _ in range(20)])
    aqua = [{"input": sentence(rng), "rationale": sentence(rng), "answer": "(A)"} for _ in range(20)]
    write_rows(folder / "aqua", "train", aqua)
    svamp = [{"input": sentence(rng), "llm_rationale": sentence(rng)} for _ in range(20)]
    write_rows(folder / "distill_svamp", "train", svamp)
    choices = [{"label": letter, "text": word} for letter, word in zip("ABC", WORDS, strict=False)]
    asked = [{"answerKey": "B", "question": {"stem": sentence(rng), "choices": choices}} for _ in range(20)]
    write_rows(folder / "commonsense_qa", "train", asked)


def _write_instruction_sets(folder: Path, rng: random.Random) -> None:
    flan = [{"task": "creak", "input": sentence(rng), "answer": "yes", "rationale": sentence(rng)} for _ in range(12)]
    write_rows(folder / "flan_cot", "train", flan)
    tasks = ("sum", "sentiment")
    write_rows(folder / "instruction_induction", "tasks", [{"task": t, "annotations": ["Do it."]} for t in tasks])
    rows = [{"task": tasks[at % 2], "input": f"{at} {at}", "output": str(2 * at)} for at in range(20)]
    write_rows(folder / "instruction_induction", "train", rows)
    t0 = [{"dataset": d, "prompt": sentence(rng), "completion": "river"} for d in ("quartz", "ag_news", "trec") * 5]
    write_rows(folder / "t0_templated", "train", t0)
    seeds = [{"instruction": sentence(rng), "instances": [{"input": "", "output": sentence(rng, 5)}]} for _ in range(5)]
    write_rows(folder / "self_instruct_seeds", "train", seeds)
    facts = [
        ("task1_open_writing", ["CC BY 4.0"], "x", "Misc"),
        ("task2_closed_writing", ["CC BY-NC 4.0"], "x", "Misc"),
        ("task3_silent_writing", None, "x", "Misc"),
        ("task4_yelp_stars", ["MIT"], "yelp", "Misc"),
        ("task5_wellformed", ["MIT"], "google", "Text Quality Evaluation"),
    ]
    listed = [{"task": t, "instance_licence": own, "source": s, "category": c} for t, own, s, c in facts]
    write_rows(folder / "instructions", "tasks", listed, "jsonl.xz")
    asked = [
        {"task": t, "category": c, "definition": f"Do {t}.", "input": sentence(rng, 8), "output": "river"}
        for t, _, _, c in facts
        for _ in range(6)
    ]
    write_rows(folder / "instructions", "train", asked, "jsonl.xz")
    sample = [{"task": "task9_chat", "Source": ["chat"], "Definition": ["Say."], "Instance License": ["MIT"]}]
    write_rows(folder / "super_natural_instructions", "tasks", sample)
    said = [{"task": "task9_chat", "input": sentence(rng), "output": [sentence(rng, 4)]} for _ in range(6)]
    write_rows(folder / "super_natural_instructions", "train", said)
    jinja = "{{ passage }}\nIs it true that {{ question }}? ||| {{ answer_choices[label] }}"
    template = {"dataset": "super_glue", "subset": "boolq", "jinja": jinja, "answer_choices": "No ||| Yes"}
    write_rows(folder / "promptsource_templates", "templates", [template], "jsonl.gz")
    flan_way = {"dataset": "mnli", "input": "{premise}\n{hypothesis}\n{options_}", "target": "{answer}"}
    write_rows(folder / "flan_templates", "templates", [flan_way])


def _write_evaluation_sets(folder: Path, rng: random.Random) -> None:
    reviews = [{"sentence": sentence(rng, 9), "label": at % 2} for at in range(40)]
    write_rows(folder / "sst2", "train", reviews)
    write_rows(folder / "sst2", "validation", [{"sentence": sentence(rng, 9), "label": at % 2} for at in range(12)])
    write_rows(folder / "banking77", "test", [{"text": LEAKED, "category": "card_arrival"}])
