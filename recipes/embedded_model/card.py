"""Step 6: measure the finished model and write its CARD.md."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from families import NEGATIVE, POSITIVE
from places import BUILD, MODEL, need, read_rows, write_json
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

ROWS = 300
SEED = 7
Case = tuple[str, list[str], str]  # prompt, options, answer


def label_scores(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, options: list[str]
) -> list[float]:
    """Log-likelihood of each option with its `<|end|>` as the assistant's whole answer."""
    head = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    start = tokenizer(head, add_special_tokens=False)["input_ids"]
    answers = [
        [*tokenizer(option, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for option in options
    ]
    width = len(start) + max(map(len, answers))
    rows = torch.full((len(answers), width), tokenizer.pad_token_id)
    for row, answer in enumerate(answers):
        rows[row, : len(start) + len(answer)] = torch.tensor(start + answer)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=rows, logits_to_keep=width - len(start) + 1).logits
    logs = logits.float().log_softmax(-1)
    return [sum(logs[row, at, token].item() for at, token in enumerate(answer)) for row, answer in enumerate(answers)]


def question(ask: str, text: str, options: list[str]) -> str:
    """A plain prompt with the options in a list."""
    return f"{ask}\nOptions: {', '.join(options)}\n\n{text}"


def with_ten(rng: random.Random, rows: list[dict[str, Any]], key: str, ask: str) -> Iterator[Case]:
    """Rows with their label and nine others, in random order."""
    labels = sorted({row[key] for row in rows})
    for row in rng.sample(rows, ROWS):
        others = rng.sample([label for label in labels if label != row[key]], 9)
        options = rng.sample([row[key], *others], 10)
        yield question(ask, f"Message: {row['text']}", options), options, row[key]


def with_all(rng: random.Random, rows: list[tuple[str, str]], ask: str) -> Iterator[Case]:
    """Rows of (text, label) with all labels in random order, an equal number of rows per label."""
    labels = sorted({label for _, label in rows})
    for label in labels:
        own = [row for row in rows if row[1] == label]
        for text, answer in rng.sample(own, min(len(own), ROWS // len(labels))):
            options = rng.sample(labels, len(labels))
            yield question(ask, text, options), options, answer


def tests() -> dict[str, Callable[[random.Random], Iterator[Case]]]:
    """The tests by name; none uses a row that was trained on, the last two use data sets never trained on."""

    def emotions() -> list[tuple[str, str]]:
        single = [row for row in read_rows("goemotions", "validation") if len(row["labels"]) == 1]
        pairs = [(f"Review: {row['text']}", row["labels"][0]) for row in single]
        positive = [(text, "positive") for text, label in pairs if label in POSITIVE]
        return positive + [(text, "negative") for text, label in pairs if label in NEGATIVE]

    def inference() -> list[tuple[str, str]]:
        rows = read_rows("mnli", "validation")
        return [(f"Premise: {row['premise']}\nHypothesis: {row['hypothesis']}", row["label"]) for row in rows]

    def commonsense(rng: random.Random) -> Iterator[Case]:
        for row in rng.sample(list(read_rows("commonsense_qa", "validation")), ROWS):
            choices = {choice["label"]: choice["text"] for choice in row["question"]["choices"]}
            options = list(choices.values())
            yield question("Answer the question.", row["question"]["stem"], options), options, choices[row["answerKey"]]

    def passages() -> list[tuple[str, str]]:
        rows = read_rows("boolq", "validation")
        texts = ((f"Passage: {row['passage'][:900]}\nQuestion: {row['question']}?", row["label"]) for row in rows)
        return [(text, "yes" if label else "no") for text, label in texts]

    def reviews() -> list[tuple[str, str]]:
        names = {0: "negative", 1: "positive"}
        return [(f"Review: {row['sentence']}", names[row["label"]]) for row in read_rows("sst2", "validation")]

    def known(name: str) -> list[dict[str, Any]]:
        return [row for row in read_rows(name, "validation") if row["intent"] != "oos"]

    def banking() -> list[dict[str, Any]]:
        return list(read_rows("banking77", "train"))

    intent = "Classify the intent of the message."
    sentiment = "Classify the sentiment."
    relation = "What is the relation between premise and hypothesis?"
    return {
        "clinc150 validation, intent among 10": lambda rng: with_ten(rng, known("clinc150"), "intent", intent),
        "clinc150 validation, domain of 10": lambda rng: with_ten(rng, known("clinc150"), "domain", intent),
        "goemotions validation, positive or negative": lambda rng: with_all(rng, emotions(), sentiment),
        "mnli validation": lambda rng: with_all(rng, inference(), relation),
        "boolq validation": lambda rng: with_all(rng, passages(), "Answer the question."),
        "commonsense_qa validation": commonsense,
        "sst2 validation (never trained on)": lambda rng: with_all(rng, reviews(), sentiment),
        "banking77, intent among 10 (never trained on)": lambda rng: with_ten(rng, banking(), "category", intent),
    }


def accuracies(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> dict[str, dict[str, float]]:
    """Accuracy of the likeliest option per test, with chance and the half width of a 95 % interval."""
    report = {}
    for name, cases in tests().items():
        hits, chance, rows = 0, 0.0, 0
        for prompt, options, answer in cases(random.Random(SEED)):
            scores = label_scores(model, tokenizer, prompt, options)
            hits += options[scores.index(max(scores))] == answer
            chance += 1 / len(options)
            rows += 1
        share = hits / rows
        half = 1.96 * math.sqrt(share * (1 - share) / rows)
        report[name] = {"accuracy": share, "interval": half, "chance": chance / rows, "rows": rows}
        print(name, report[name], flush=True)
    return report


def samples(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, str]]:
    """What the model writes to a few prompts, greedily."""
    prompts = (
        "Give the text a short title.\n\nPlants make their own food from light, water and air. The green parts of the "
        "leaf catch the light, and sugar is made from it.",
        "Summarise the text in one sentence.\n\nAnna: Shall we meet at the station tomorrow?\nBen: Yes, at nine. "
        "Bring the tickets, please.\nAnna: I have them already.",
        "What is the opposite of cold?",
    )
    found = []
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40)
        found.append((prompt, tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)))
    return found


def read_report(name: str) -> dict[str, Any]:
    """A figure file of an earlier step."""
    path = need(BUILD / f"{name}.json", "run the earlier steps first (see README.md)")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def card(measured: dict[str, Any]) -> str:
    """The text of CARD.md."""
    corpus, tokens, tasks = read_report("corpus"), read_report("tokenizer"), read_report("tasks")
    pre, tuned = read_report("pretrain"), read_report("instruct")
    bits = tuned["heldout_bits_per_character"]
    lines = [
        "# taskfit-tiny",
        "",
        f"A decoder of {pre['parameters'] / 1e6:.1f} million parameters that ships with taskfit, so that every command "
        "runs on a fresh machine without a network.",
        "It is there to try the library, to test it, and as a small base to tune; it is not a good model.",
        "Made from nothing by `recipes/embedded_model` in the repository; licence Apache-2.0.",
        "",
        "## Form",
        "",
        "Llama architecture: 6 layers, width 192, 6 heads (2 key and value heads), gated inner width 512, "
        "tied embeddings, rotary positions, context 1024; weights in bfloat16.",
        "Byte-level BPE of 4096 entries, digits apart; any text survives the round trip.",
        "Chat template: each turn is `<|system|>`, `<|user|>` or `<|assistant|>`, the content, `<|end|>`; "
        "no white space is added, and no beginning-of-sequence token.",
        "`<|end|>` ends a sequence, `<|pad|>` pads. `<|text|>` began every pre-training document; the tokenizer never "
        "adds it, so it cannot be doubled.",
        "",
        "## Training",
        "",
        f"Pre-training: {pre['tokens'] / 1e6:.1f} million tokens, in less than two hours on two shared CPU cores, "
        f"from {tokens['tokens'] / 1e6:.1f} million tokens ({corpus['characters'] / 1e6:.0f} million characters).",
        "Constant rate first, then down to zero with a quarter of the windows from the instruction text.",
        f"Instruction tuning: {tuned['tokens'] / 1e6:.1f} million tokens, {tuned['epochs']} epochs of "
        f"{tasks['conversations']} conversations of {tasks['families']} tasks, {tuned['wall_s'] / 60:.0f} minutes; "
        "loss on the answers only, the closing `<|end|>` included.",
        "",
        "Validation loss during instruction tuning (nats per answer token): "
        + ", ".join(f"{value:.3f} after {step} steps" for step, value in tuned["validation"])
        + ".",
        "",
        "## Measured",
        "",
        "Held-out text, bits per character (windows of 512):",
        "",
        "| text | after pre-training | finished model |",
        "| --- | --- | --- |",
        *(f"| {kind} | {pre['heldout_bits_per_character'][kind]:.3f} | {bits[kind]:.3f} |" for kind in bits),
        "",
        "Choosing a label by likelihood, no examples in the prompt:",
        "",
        "| test | accuracy (95 % interval) | chance | rows |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {100 * row['accuracy']:.1f} ± {100 * row['interval']:.1f} % | {100 * row['chance']:.1f} % "
        f"| {row['rows']} |"
        for name, row in measured["accuracies"].items()
    ]
    lines += ["", "Greedy answers, as they come:", ""]
    for prompt, answer in measured["samples"]:
        lines += [f"- {' / '.join(prompt.splitlines())}", f"  → {' / '.join(answer.splitlines()) or '(nothing)'}"]
    lines += [
        "",
        "## Data",
        "",
        "Pre-training text by licence (million characters): "
        + "; ".join(f"{name} {count / 1e6:.1f}" for name, count in corpus["characters_by_licence"].items())
        + ".",
        "The books are in the public domain in the United States.",
        "Attribution for the textbooks: OpenStax, openstax.org.",
        "Repositories: " + ", ".join(attributed(corpus["sources"])) + ".",
        "",
        "Instruction data (source, licence): "
        + "; ".join(f"{source}, {licence}" for source, licence in grouped_licences(tasks["licences"]))
        + ".",
        "",
        "Never trained on: banking77, sst2, sst5, dialogsum, trec, ag_news, and no test split of anything. "
        "Documents that share 13 words in a row with the test splits of banking77, sst2 or dialogsum were dropped "
        f"({sum(corpus['documents_dropped_for_overlap_by_kind'].values())} documents, "
        f"{tasks['dropped'].get('overlap with an evaluation set', 0)} instruction rows).",
        "",
        "## Limits",
        "",
        "- This first version is short of training: a fraction of one epoch of its own data. It has not learned to "
        "pick an option from a list; where the table shows no more than chance, its choice carries no information.",
        "- It knows little and does not reason: use it as a start for tuning on examples, and compare with a linear "
        "baseline.",
        "- Its free text is short-breathed: it repeats itself and states falsehoods.",
        "- English only. At most 1024 tokens; beyond about 512 it has seen few texts.",
        "- Parts of the instruction data (comments, questions) contain rude or offensive text, so the model may too.",
        "",
    ]
    return "\n".join(lines)


def attributed(sources: list[str]) -> list[str]:
    """Repositories by name; the many of one owner as a count."""
    owners: dict[str, list[str]] = {}
    for source in sources:
        owners.setdefault(source.split("/")[0], []).append(source)
    return [names[0] if len(names) == 1 else f"{owner} ({len(names)} repositories)" for owner, names in owners.items()]


def grouped_licences(pairs: list[list[str]]) -> list[tuple[str, str]]:
    """Licences by source."""
    found: dict[str, set[str]] = {}
    for source, licence in pairs:
        found.setdefault(source, set()).add(licence.split(" (http")[0].split(" (see")[0])
    return [(source, " / ".join(sorted(licences))) for source, licences in sorted(found.items())]


def main() -> None:
    """Measure, then write CARD.md and card.json."""
    torch.set_num_threads(2)
    need(MODEL / "model.safetensors", "run instruct.py first")
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    measured = {
        "accuracies": accuracies(model, tokenizer),
        "samples": samples(model, tokenizer),
    }
    write_json(BUILD / "card.json", measured)
    (MODEL / "CARD.md").write_text(card(measured), encoding="utf-8")
    print(MODEL / "CARD.md")


if __name__ == "__main__":
    main()
