"""Instruction data by family: a family is one task with its items and wordings.

Sources are of open licence only (``licences.py``), and nothing of what ``held_out.py`` lists is among them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from held_out import is_held_out
from licences import is_open
from places import Places, read_lines
from wordings import worded_rows

__all__ = ["Family", "Item", "families"]


@dataclass(frozen=True)
class Item:
    """One example of a family."""

    text: str
    answer: str
    options: tuple[str, ...] = ()
    """Options of this item alone (multiple choice); empty where the family's labels apply, or nothing."""


@dataclass
class Family:
    """One task: its examples, the ways to ask for it, and where it comes from."""

    name: str
    source: str
    licence: str
    instructions: tuple[str, ...]
    items: list[Item]
    heading: str = "Text"
    labels: tuple[str, ...] = ()
    cap: int = 1500
    has_own_prompt: bool = False
    """True when the items' texts are whole prompts already."""
    by_label: dict[str, list[Item]] = field(default_factory=dict)

    def group_by_label(self) -> None:
        """Sort the items by their answers; labels that no item has are no labels."""
        self.by_label = {}
        for item in self.items:
            self.by_label.setdefault(item.answer, []).append(item)
        self.labels = tuple(label for label in self.labels if label in self.by_label)


NOT_FROM_INDUCTION = ("translation", "common_concept")  # not English, and without one right answer
NOT_FROM_T0 = ("amazon_polarity", "wiki_hop")  # licences narrower or unclear
LONGEST_OUTPUT, LONGEST_DEFINITION = 300, 900  # characters

CLASSIFY = (
    "Classify the text.",
    "Which label fits the text best?",
    "Choose the right label for this text.",
    "Assign one label to the text.",
    "Pick the category of the following text.",
    "What is this about? Answer with one label only.",
)
INTENT = (
    "What does the user want?",
    "Classify the intent of the message.",
    "Which intent does this request have?",
    "Decide which intent the customer's message has.",
    "Assign the user's message to one intent.",
    "Choose the intent that matches the query.",
    *CLASSIFY,
)
EMOTION = (
    "Which emotion does the comment express?",
    "What does the writer feel?",
    "Classify the emotion of this text.",
    "Choose the feeling that fits the message best.",
    *CLASSIFY,
)
ENTAILMENT = (
    "Does the premise entail the hypothesis?",
    "Decide how the second sentence follows from the first.",
    "What is the relation between premise and hypothesis?",
    "Is the hypothesis true, given the premise?",
    "Natural language inference: choose the right label.",
)
QUESTION = (
    "Answer the question.",
    "Choose the best answer.",
    "Which option is right?",
    "Pick the correct answer to the question.",
    "Answer with one of the options.",
)
TITLE = (
    "Write a title for this text.",
    "Give the text a short title.",
    "What would be a good heading for the following text?",
    "Summarise the text in a few words.",
    "Say in a few words what the text is about.",
    "Find a headline for this passage.",
)
LEAD = (
    "Which sentence opens the text?",
    "Summarise the text in one sentence.",
    "Write the most important sentence of the text.",
    "Give the main point of the text in one sentence.",
    "Write a one-sentence summary.",
)
CLOZE = (
    "Which word is missing?",
    "Fill the gap with one of the words.",
    "Choose the word that belongs into the gap.",
    "Complete the sentence with the right word.",
)


def families(places: Places) -> Iterator[Family]:
    """Yield all families that may be trained on, in a fixed order.

    Raises:
        DataError: a data set is missing.
    """
    for family in _all(places):
        if family.items and not is_held_out(family.name, family.source):
            yield family


def _all(places: Places) -> Iterator[Family]:
    yield from clinc(places)
    yield from goemotions(places)
    yield from inference(places)
    yield from multiple_choice(places)
    yield from rationales(places)
    yield from induction(places)
    yield from worded(places)
    yield from ready_prompts(places)
    yield from natural_instructions(places)
    yield from more_natural_instructions(places)
    yield from from_corpus(places)


def clinc(places: Places) -> Iterator[Family]:
    """User requests: 150 intents, and their 10 domains."""
    rows = [row for row in places.rows("clinc150", "train") if row["intent"] not in ("oos", "out_of_scope")]
    intents = tuple(sorted({row["intent"] for row in rows}))
    domains = tuple(sorted({row["domain"] for row in rows}))
    items = [Item(row["text"], row["intent"]) for row in rows]
    yield Family("clinc150 intent", "clinc150", "CC BY 3.0", INTENT, items, "Message", intents, 4500)
    items = [Item(row["text"], row["domain"]) for row in rows]
    yield Family("clinc150 domain", "clinc150", "CC BY 3.0", INTENT[:1] + CLASSIFY, items, "Message", domains)


def goemotions(places: Places) -> Iterator[Family]:
    """Comments with one emotion of 28; nothing that groups them by sentiment, a type that is held out."""
    rows = [(row["text"], row["labels"][0]) for row in places.rows("goemotions", "train") if len(row["labels"]) == 1]
    items = [Item(text, label) for text, label in rows if len(text) >= 10]
    labels = tuple(sorted({item.answer for item in items}))
    yield Family("goemotions emotion", "goemotions", "Apache-2.0", EMOTION, items, "Comment", labels, 4000)


def inference(places: Places) -> Iterator[Family]:
    """Entailment in two vocabularies; yes or no questions on passages and on general knowledge."""
    rows = list(places.rows("mnli", "train"))
    texts = [f"Premise: {row['premise']}\nHypothesis: {row['hypothesis']}" for row in rows]
    items = [Item(text, row["label"]) for text, row in zip(texts, rows, strict=True)]
    licence = "OANC and other open terms per genre"
    names = ("entailment", "neutral", "contradiction")
    yield Family("mnli", "mnli", licence, ENTAILMENT, items, "", names, 1500)
    spoken = dict(zip(names, ("yes", "maybe", "no"), strict=True))
    items = [Item(item.text, spoken[item.answer]) for item in items]
    yield Family("mnli spoken", "mnli", licence, ENTAILMENT, items, "", ("yes", "maybe", "no"), 800)
    items = [
        Item(f"{row['passage'][:900]}\nQuestion: {row['question']}?", "yes" if row["label"] else "no")
        for row in places.rows("boolq", "train")
    ]
    yield Family("boolq", "boolq", "CC BY-SA 3.0", QUESTION, items, "Passage", ("yes", "no"), 1200)
    items = [Item(row["question"], row["answer"]) for row in places.rows("strategyqa", "train")]
    yield Family("strategyqa", "strategyqa", "MIT", QUESTION, items, "Question", ("yes", "no"), 700)


def multiple_choice(places: Places) -> Iterator[Family]:
    """Commonsense questions, answered with the option's text or its letter."""
    items, letters = [], []
    for row in places.rows("commonsense_qa", "train"):
        question = row["question"]
        options = tuple(choice["text"] for choice in question["choices"])
        answer = next(choice["text"] for choice in question["choices"] if choice["label"] == row["answerKey"])
        items.append(Item(question["stem"], answer, options))
        lines = "\n".join(f"{choice['label']}. {choice['text']}" for choice in question["choices"])
        letters.append(Item(f"{question['stem']}\n{lines}", row["answerKey"]))
    yield Family("commonsense_qa", "commonsense_qa", "MIT", QUESTION, items, "Question", (), 1500)
    asked = ("Answer with the letter of the right option.", "Which letter is right?", "Give the letter only.")
    yield Family("commonsense_qa letter", "commonsense_qa", "MIT", asked, letters, "Question", (), 500)


def rationales(places: Places) -> Iterator[Family]:
    """Questions answered at once, and with the reason before the answer."""
    for task in ("creak", "ecqa", "sensemaking", "qasc"):
        rows = [row for row in places.rows("flan_cot", "train") if row["task"] == task]
        items = [Item(row["input"].strip(), row["answer"]) for row in rows]
        yield Family(f"flan_cot {task}", "flan_cot", "Apache-2.0", ("",), items, "", (), 600, True)
        items = [Item(row["input"].strip(), f"{row['rationale']} So the answer is {row['answer']}.") for row in rows]
        asked = ("Explain, then answer.", "Give a reason first, then the answer.", "Think step by step.")
        yield Family(f"flan_cot {task} with reason", "flan_cot", "Apache-2.0", asked, items, "", (), 200)


def induction(places: Places) -> Iterator[Family]:
    """Small text tasks with people's own wordings."""
    wordings = {row["task"]: tuple(row["annotations"]) for row in places.rows("instruction_induction", "tasks")}
    grouped: dict[str, list[Item]] = {}
    for row in places.rows("instruction_induction", "train"):
        if "output" in row and not row["task"].startswith(NOT_FROM_INDUCTION):
            grouped.setdefault(row["task"], []).append(Item(row["input"], row["output"]))
    for task, items in grouped.items():
        yield Family(
            f"induction {task}", "instruction_induction", "Apache-2.0", wordings[task], items, "Input", (), 200
        )


def ready_prompts(places: Places) -> Iterator[Family]:
    """Prompts as their sources have them: T0's, the seeds of self-instruct, and Super-NaturalInstructions."""
    grouped: dict[str, list[Item]] = {}
    for row in places.rows("t0_templated", "train"):
        if row["dataset"] not in NOT_FROM_T0 and row["completion"].strip():
            prompt = re.sub(r"\n{3,}", "\n\n", row["prompt"]).strip()
            grouped.setdefault(row["dataset"], []).append(Item(prompt, row["completion"].strip()))
    for name, items in grouped.items():
        yield Family(f"t0 {name}", "t0_templated", "Apache-2.0 carrier, open texts", ("",), items, "", (), 300, True)
    seeds = [
        Item(f"{row['instruction']}\n\n{case['input']}".strip(), case["output"])
        for row in places.rows("self_instruct_seeds", "train")
        for case in row["instances"]
    ]
    yield Family("self_instruct_seeds", "self_instruct_seeds", "Apache-2.0", ("",), seeds, "", (), 200, True)


def natural_instructions(places: Places) -> Iterator[Family]:
    """Super-NaturalInstructions tasks whose instances state an open licence, with their definition as the wording."""
    facts = {row["task"]: row for row in places.rows("instructions", "tasks")}
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in places.rows("instructions", "train"):
        grouped.setdefault(row["task"], []).append(row)
    for name, rows in sorted(grouped.items()):
        licences, source = facts[name]["instance_licence"], str(facts[name]["source"])
        if not is_open(licences) or is_held_out(name, source, category=rows[0]["category"]):
            continue
        items = [Item(row["input"], row["output"]) for row in rows if len(row["output"]) <= LONGEST_OUTPUT]
        yield from _defined(name, "instructions", licences, rows[0]["definition"], items)


def more_natural_instructions(places: Places) -> Iterator[Family]:
    """The same collection's tasks in the form of the continual-learning sample, those of open licence."""
    facts = {row["task"]: row for row in places.rows("super_natural_instructions", "tasks")}
    grouped: dict[str, list[Item]] = {}
    for row in places.rows("super_natural_instructions", "train"):
        output = row["output"][0] if isinstance(row["output"], list) else row["output"]
        if len(output) <= LONGEST_OUTPUT:
            grouped.setdefault(row["task"], []).append(Item(row["input"], output))
    for name, items in sorted(grouped.items()):
        licences: list[str] = facts[name].get("Instance License") or []
        if is_open(licences) and not is_held_out(name, *facts[name]["Source"]):
            definition = " ".join(facts[name]["Definition"])
            yield from _defined(f"{name} (sample)", "super_natural_instructions", licences, definition, items)


def _defined(name: str, source: str, licences: list[str], definition: str, items: list[Item]) -> Iterator[Family]:
    if len(definition) <= LONGEST_DEFINITION and items:
        yield Family(name, source, ", ".join(licences), (definition,), items, "Input", (), 200)


def worded(places: Places) -> Iterator[Family]:
    """Open data sets in the wordings of promptsource and FLAN."""
    grouped: dict[tuple[str, str, str], list[Item]] = {}
    for row in worded_rows(places, 1500):
        found = grouped.setdefault((row.data_set, row.collection, row.licence), [])
        found.append(Item(row.prompt, row.answer))
    for (name, collection, licence), items in sorted(grouped.items()):
        terms = f"Apache-2.0 (wordings); {licence} (rows)"
        yield Family(f"{name} in {collection}", collection, terms, ("",), items, "", (), 800, True)


def from_corpus(places: Places) -> Iterator[Family]:
    """Tasks made from the pre-training text itself: subjects, titles, opening sentences, gaps."""
    rng = random.Random(5)
    subjects, titles, leads, gaps = [], [], [], []
    for row in read_lines(places.need("corpus.jsonl", "corpus.py")):
        paragraphs = [part for part in row["text"].split("\n\n") if part.strip()]
        bodies = [part for part in paragraphs if 120 <= len(part) <= 700]
        if not bodies:
            continue
        if row["kind"] == "textbook":
            subject = row["source"].split(" ")[0].split("osbooks-")[-1].replace("introduction-", "").replace("-", " ")
            subjects.append(Item(rng.choice(bodies)[:400], subject))
        if (
            row["kind"] in ("web", "textbook", "docs")
            and 8 <= len(paragraphs[0]) <= 70
            and paragraphs[0][-1] not in ".:"
        ):
            titles.append(Item(bodies[0], paragraphs[0]))
        body = rng.choice(bodies)
        first = re.split(r"(?<=[.!?])\s", body)[0]
        if 30 <= len(first) <= 160 < len(body) and first[-1] == ".":
            leads.append(Item(body, first))
        gap = with_gap(rng, body[:300])
        if gap is not None:
            gaps.append(gap)
    licence = "CC BY 4.0, CC0, public domain, Apache-2.0 (see the corpus)"
    labels = tuple(sorted({item.answer for item in subjects}))
    asked = ("Which school subject is this from?", "Name the subject of the passage.", "Choose the topic.", *CLASSIFY)
    yield Family("subjects", "plain_text", "CC BY 4.0", asked, subjects, "Passage", labels, 1500)
    yield Family("titles", "plain_text", licence, TITLE, titles, "Text", (), 1500)
    yield Family("opening sentences", "plain_text", licence, LEAD, leads, "Text", (), 800)
    yield Family("gaps", "plain_text", licence, CLOZE, gaps, "Text", (), 1000)


def with_gap(rng: random.Random, text: str) -> Item | None:
    """A gap in the text with the missing word and three others of the text as options."""
    found = sorted(set(re.findall(r"\b[a-z]{5,12}\b", text)))
    if len(found) < 5:
        return None
    options = tuple(rng.sample(found, 4))
    return Item(re.sub(rf"\b{options[0]}\b", "____", text), options[0], options)
