"""Step 2: the byte-level BPE tokenizer, and the corpus as token ids. With ``--compare``: a table of three sizes.

No beginning-of-sequence token is ever added by the tokenizer: the chat template starts with a role marker, and
pre-training documents get their ``<|text|>`` here. So it can never be doubled.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from network import CONTEXT, SHAPES, as_stream, load_tokenizer
from places import Places, options, read_lines, run_step, say, write_json
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from taskfit.errors import ConfigError
from taskfit.files import appearing

__all__ = ["build", "compare", "encode", "train_tokenizer"]

TEXT, END, PAD = "<|text|>", "<|end|>", "<|pad|>"
ROLES = ("<|user|>", "<|assistant|>", "<|system|>")
SPECIAL = (PAD, TEXT, END, *ROLES)  # ids 0 to 5, in this order
SIZES = (4096, 8192, 16384)
SAMPLE_CHARACTERS = 24_000_000
SHORT_ANSWERS = (("clinc150", "intent"), ("flan_cot", "answer"), ("instruction_induction", "output"))

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('roles are system, user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a BPE tokenizer over bytes; every digit is a token of its own, and any text survives the round trip.

    Args:
        texts: to learn from.
        vocabulary: entries, those of single bytes and of the markers included.

    Raises:
        ConfigError: fewer entries than bytes and markers, or more than two bytes can number.
    """
    least = 256 + len(SPECIAL)
    if not least <= vocabulary <= 2**16:
        raise ConfigError(f"expected a vocabulary of {least} to {2**16} entries, got {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=TEXT,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        model_max_length=CONTEXT,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], path: Path) -> int:
    """Write all texts as one row of two-byte ids, each as ``<|text|>`` text ``<|end|>``; return the number of ids.

    The file appears whole or not at all; a few hundred texts are in memory at a time.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    count = 0
    with appearing(path) as partial, partial.open("wb") as file:
        for some in _batches(texts, 256):
            ids = tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]
            stream = as_stream([[bos, *one, eos] for one in ids])
            stream.tofile(file)
            count += len(stream)
    return count


def compare(places: Places, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """Return for each size: characters a token on held-out text, and the embedding's part of a model's work.

    Work is told per character, as what counts is the text that a budget reads: fewer, longer tokens against a wider
    output layer.
    """
    sample = list(_sample(places))
    heldout = [row["text"] for row in read_lines(places.need("heldout.jsonl", "corpus.py"))]
    characters = sum(map(len, heldout))
    rows = []
    for size in sizes:
        tokenizer = train_tokenizer(sample, size)
        tokens = sum(len(ids) for ids in tokenizer(heldout, add_special_tokens=False, verbose=False)["input_ids"])
        row: dict[str, Any] = {"entries": size, "characters_per_token": round(characters / tokens, 3)}
        for name in ("4m", "6m", "15m"):
            shape = SHAPES[name]
            work = shape.flops_per_token(size, 512)
            row[f"{name}: output layer's share of work"] = round(6 * size * shape.width / work, 3)
            row[f"{name}: work a character, MFLOP"] = round(work * tokens / characters / 1e6, 2)
        rows.append(row)
        say(f"tokenizer of {size} entries: {row['characters_per_token']} characters a token")
    return rows


def build(places: Places, vocabulary: int) -> dict[str, Any]:
    """Train the tokenizer, then write ``corpus.bin``; a tokenizer that is there already is kept."""
    corpus = places.need("corpus.jsonl", "corpus.py")
    size = corpus.stat().st_size
    places.check_room("the tokenizer", disk_bytes=size, memory_bytes=1.5e9 + 4 * min(size, SAMPLE_CHARACTERS))
    folder = places.build / "tokenizer"
    if not folder.exists():
        with appearing(folder) as partial:
            train_tokenizer(_sample(places), vocabulary).save_pretrained(partial)
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) != vocabulary:
        raise ConfigError(
            f"{folder} has {len(tokenizer)} entries, not {vocabulary}", "Delete the folder to train it anew."
        )
    tokens = encode(tokenizer, (row["text"] for row in read_lines(corpus)), places.build / "corpus.bin")
    characters = places.built("corpus.json", "corpus.py")["characters"]
    report = {"entries": vocabulary, "tokens": tokens, "characters_per_token": round(characters / tokens, 3)}
    write_json(places.build / "tokenizer.json", report)
    return report


def _sample(places: Places) -> Iterator[str]:
    """Yield part of the corpus, which is shuffled already, then labels and short answers as texts of their own.

    An answer follows its role marker without a space, so its first word needs an entry without a space too.
    """
    room = SAMPLE_CHARACTERS
    for row in read_lines(places.need("corpus.jsonl", "corpus.py")):
        text = row["text"][:20_000]
        yield text
        room -= len(text)
        if room < 0:
            break
    answers = [label for row in places.rows("goemotions", "train") for label in row["labels"]]
    for name, field in SHORT_ANSWERS:
        answers += [str(row[field]).replace("_", " ") for row in places.rows(name, "train") if field in row]
    random.Random(1).shuffle(answers)
    yield from (answer for answer in answers * 3 if len(answer) <= 60)


def _batches(texts: Iterable[str], count: int) -> Iterator[list[str]]:
    some: list[str] = []
    for text in texts:
        some.append(text)
        if len(some) == count:
            yield some
            some = []
    if some:
        yield some


def _step(chosen: argparse.Namespace, places: Places) -> None:
    if chosen.compare:
        rows = compare(places)
        write_json(places.build / "tokenizer-compare.json", rows)
        print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join(str(value) for value in row.values()) + " |")
        return
    print(json.dumps(build(places, chosen.vocabulary)))


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--vocabulary", type=int, default=8192, help="entries (default: 8192)")
    parser.add_argument("--compare", action="store_true", help="only compare 4096, 8192 and 16384 entries")
    run_step(parser, _step)
