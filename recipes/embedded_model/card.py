"""Step 7: the model card, from the reports of all steps; with ``--ship``, into the package with the weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation_text import COMMON, LENGTH
from held_out import DATA_SETS, TYPES
from network import CONTEXT, SHIPPED_WEIGHTS, copy_files, shape_named
from places import ROOT, Places, options, run_step, say
from tables import ask_table, table, text_table, tune_table

from taskfit.errors import ResourceError
from taskfit.files import write_text

__all__ = ["card", "ship"]

PACKAGED = ROOT / "taskfit" / "models" / "embedded"
LARGEST_BYTES = 2 * SHIPPED_WEIGHTS + 100_000
"""What the repository may hold as weights, with their names."""

TABLES = {
    "text": ("Held-out text, bits per character (95 % intervals over documents)", text_table),
    "ask": ("Asked without training: accuracy (95 % intervals), held-out types and data sets", ask_table),
    "tune": ("As a base for tuning (95 % intervals over rows and seeds)", tune_table),
}
SAMPLES = (
    "Give the text a short title.\n\nPlants make their own food from light, water and air. The green parts of the leaf "
    "catch the light, and sugar is made from it.",
    "Summarise the text in one sentence.\n\nAnna: Shall we meet at the station tomorrow?\nBen: Yes, at nine. Bring the "
    "tickets, please.\nAnna: I have them already.",
    "What is the opposite of cold?",
)


def card(places: Places) -> str:
    """Return the text of CARD.md; a measurement that was not made is said to be missing.

    Raises:
        DataError: a step was not run.
    """
    steps = ("corpus", "tokenizer", "tasks", "pretrain", "instruct")
    made = {name: places.built(f"{name}.json", f"{name}.py") for name in steps}
    parts = [_form(made), _training(made), _measured(places), _samples(places), _data(made), _limits()]
    return "\n".join(line for part in parts for line in part) + "\n"


def ship(places: Places, folder: Path) -> None:
    """Replace the packaged model and its card by those made here.

    Raises:
        ResourceError: the weights are larger than the repository may hold; nothing was replaced.
        DataError: a step was not run.
    """
    source, text = places.need("instructed", "instruct.py"), card(places)
    size = (source / "model.safetensors").stat().st_size
    if size > LARGEST_BYTES:
        raise ResourceError(f"the weights have {size / 1e6:.1f} MB, the repository may hold {LARGEST_BYTES / 1e6:.0f}")
    copy_files(source, folder)
    write_text(folder / "CARD.md", text)
    say(f"{folder} holds the new model: {size / 1e6:.1f} MB")


def _form(made: dict[str, dict[str, Any]]) -> Iterator[str]:
    shape, weights = shape_named(made["pretrain"]["plan"]["size"]), made["pretrain"]["parameters"]
    heads = f"{shape.heads} heads ({shape.key_heads} of keys and values)"
    yield "# taskfit-tiny\n"
    yield f"A decoder of {weights / 1e6:.1f} million parameters that ships with taskfit, so that every command runs on"
    yield "a fresh machine without a network: to try the library, to test it, and as a small base to tune."
    yield "Made from nothing by `recipes/embedded_model` in the repository; licence Apache-2.0.\n"
    yield "## Form\n"
    yield f"Llama architecture: {shape.layers} layers, width {shape.width}, {heads}, gated inner width {shape.inner},"
    yield f"tied embeddings, rotary positions, context {CONTEXT}; weights in bfloat16."
    yield f"Byte-level BPE of {made['tokenizer']['entries']} entries, digits apart; any text survives the round trip."
    yield "Chat template: each turn is `<|system|>`, `<|user|>` or `<|assistant|>`, the content, `<|end|>`; no white"
    yield "space is added, and no beginning-of-sequence token."
    yield "`<|text|>` began every document; the tokenizer never adds it, so it cannot be doubled.\n"


def _training(made: dict[str, dict[str, Any]]) -> Iterator[str]:
    plan, tuned, tasks, read = (made[name] for name in ("pretrain", "instruct", "tasks", "tokenizer"))
    plan, losses = plan["plan"], plan["losses"]
    work = shape_named(plan["size"]).flops_per_token(read["entries"], plan["length"]) * plan["tokens"]
    yield "## Training\n"
    yield f"Pre-training: {plan['tokens'] / 1e6:.1f} million tokens ({work:.1e} FLOPs) out of "
    yield f"{read['tokens'] / 1e6:.1f} million, {plan['optimizer']}, peak rate {plan['rate']}; constant, then down to"
    yield f"zero over the last {plan['decay_share']:.0%}; of its rows {plan['instruction_share']:.0%} hold tasks."
    yield f"Instruction tuning: {tuned['epochs']} epochs of {tasks['conversations']} conversations of "
    yield f"{tasks['families']} tasks; loss on answers only: {tuned['learnt_nats_per_token']} nats a token, on"
    yield f"conversations that were not read {tuned['unseen_nats_per_token']}."
    places = sorted({round(at * (len(losses) - 1) / 9) for at in range(10)})
    curve = [(f"{100 * place / max(1, len(losses) - 1):.0f} %", f"{losses[place]:.3f}") for place in places]
    yield "\n" + table(["steps of pre-training", "loss, nats a token"], curve)


def _measured(places: Places) -> Iterator[str]:
    yield "## Measured\n"
    yield "`second` is this model, `untuned` the same before instruction tuning, `first` the model shipped before it,"
    yield "`random` the same shape with random weights.\n"
    for part, (title, shown) in TABLES.items():
        path = places.build / f"evaluation-{part}.json"
        yield f"{title}:\n"
        yield shown(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else "Not measured.\n"


def _samples(places: Places) -> Iterator[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = places.need("instructed", "instruct.py")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    yield "Greedy answers, as they come:\n"
    for prompt in SAMPLES:
        turn = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        out = model.generate(ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=40)
        answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        yield f"- {' / '.join(prompt.splitlines())}\n  → {' / '.join(answer.splitlines()) or '(nothing)'}"


def _data(made: dict[str, dict[str, Any]]) -> Iterator[str]:
    corpus, tasks = made["corpus"], made["tasks"]
    yield "\n## Data\n"
    licences = "; ".join(f"{name} {count / 1e6:.1f}" for name, count in corpus["characters_by_licence"].items())
    yield f"Pre-training text by licence (million characters): {licences}."
    yield "The books are in the public domain in the United States. Textbooks: OpenStax, openstax.org."
    yield f"Sources: {', '.join(_attributed(corpus['sources']))}."
    dropped = "; ".join(f"{name} {count / 1e6:.2f}" for name, count in corpus["characters_dropped"].items())
    yield f"Left out (million characters): {dropped}.\n"
    by_source: dict[str, set[str]] = {}
    for source, licence in tasks["licences"]:
        by_source.setdefault(source, set()).add(licence.split(" (http")[0])
    listed = "; ".join(f"{source}, {' / '.join(sorted(found))}" for source, found in sorted(by_source.items()))
    yield f"Instruction data (source, licence): {listed}.\n"
    yield f"Held out of instruction tuning: the types {', '.join(TYPES)}; the data sets {', '.join(DATA_SETS)}."
    yield f"No text that shares {LENGTH} words on end with an evaluation split of any data set was trained on, but for"
    yield f"runs that more than {COMMON} rows of a split share, such as a question that is asked of every row.\n"


def _limits() -> Iterator[str]:
    yield "## Limits\n"
    yield "- It knows little and does not reason; compare whatever is tuned from it with a linear baseline."
    yield "- Where a table above shows no more than majority, its choice carries no information."
    yield f"- English only; at most {CONTEXT} tokens."
    yield "- Parts of the instruction data (comments, questions) contain rude text, so the model may too."


def _attributed(sources: list[str]) -> list[str]:
    """Return repositories by name; the many of one owner as a count."""
    owners: dict[str, list[str]] = {}
    for source in sources:
        owners.setdefault(source.split("/")[0], []).append(source)
    return [names[0] if len(names) == 1 else f"{owner} ({len(names)} sources)" for owner, names in owners.items()]


def _step(chosen: argparse.Namespace, places: Places) -> None:
    if chosen.ship is not None:
        ship(places, chosen.ship)
        return
    write_text(places.build / "CARD.md", card(places))
    print(places.build / "CARD.md")


if __name__ == "__main__":
    parser = options(__doc__ or "")
    told = "replace the model there (default: taskfit/models/embedded)"
    parser.add_argument("--ship", type=Path, nargs="?", const=PACKAGED, metavar="FOLDER", help=told)
    run_step(parser, _step)
