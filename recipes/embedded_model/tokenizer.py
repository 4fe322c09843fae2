"""Step 2: train the byte-level BPE tokenizer, then write the corpus as token ids.

No beginning-of-sequence token is ever added by the tokenizer: the chat template starts with a role marker, and
pre-training documents get their `<|text|>` here. So it can never be doubled.
"""

from __future__ import annotations

import random

import numpy as np
from places import BUILD, read_built_rows, read_rows, write_json
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 4096
CONTEXT = 1024
TEXT, END, PAD = "<|text|>", "<|end|>", "<|pad|>"
ROLES = ("<|user|>", "<|assistant|>", "<|system|>")
SPECIAL = (PAD, TEXT, END, *ROLES)  # ids 0 to 5, in this order
SAMPLE_CHARACTERS = 24_000_000

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('roles are system, user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 4096 entries; every digit is a token of its own; any text survives the round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
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


def sample_texts() -> list[str]:
    """Part of the corpus, and short everyday text as the instruction data have it."""
    rows = read_built_rows("corpus.jsonl")
    random.Random(1).shuffle(rows)
    texts, room = [], SAMPLE_CHARACTERS
    for row in rows:
        texts.append(row["text"][:20_000])
        room -= len(texts[-1])
        if room < 0:
            break
    texts += [row["text"] for name in ("clinc150", "goemotions") for row in read_rows(name, "train")]
    texts += [row["prompt"] for row in read_rows("t0_templated", "train") if row["dataset"] != "ag_news"]
    return texts + short_answers()


def short_answers() -> list[str]:
    """Labels and short answers as texts of their own.

    An answer follows its role marker without a space, so its first word needs an entry without a space too.
    """
    answers = [label for row in read_rows("goemotions", "train") for label in row["labels"]]
    answers += [row["intent"].replace("_", " ") for row in read_rows("clinc150", "train")]
    answers += [row["answer"] for row in read_rows("flan_cot", "train")]
    answers += [row["output"] for row in read_rows("instruction_induction", "train") if "output" in row]
    answers += [row["output"] for row in read_rows("instructions", "train")]
    return [answer for answer in answers if len(answer) <= 60] * 4


def encode_documents(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """All documents in one row of uint16 ids, each as `<|text|>` document `<|end|>`."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    parts: list[np.ndarray] = []
    for start in range(0, len(texts), 256):
        for ids in tokenizer(texts[start : start + 256], add_special_tokens=False, verbose=False)["input_ids"]:
            parts.append(np.array([bos, *ids, eos], dtype=np.uint16))  # noqa: PERF401
    return np.concatenate(parts)


def main() -> None:
    """Write the tokenizer's files, corpus.npy and heldout-<kind>.npy."""
    tokenizer = train_tokenizer(sample_texts())
    tokenizer.save_pretrained(BUILD / "tokenizer")
    rows = read_built_rows("corpus.jsonl")
    ids = encode_documents(tokenizer, [row["text"] for row in rows])
    np.save(BUILD / "corpus.npy", ids)
    characters = sum(len(row["text"]) for row in rows)
    report = {"tokens": len(ids), "characters": characters, "characters_per_token": characters / len(ids)}
    heldout: dict[str, list[str]] = {}
    for row in read_built_rows("heldout.jsonl"):
        heldout.setdefault(row["kind"], []).append(row["text"])
    for kind, texts in heldout.items():
        np.save(BUILD / f"heldout-{kind}.npy", encode_documents(tokenizer, texts))
        report[f"heldout_{kind}_characters"] = sum(map(len, texts))
    write_json(BUILD / "tokenizer.json", report)
    print(report)


if __name__ == "__main__":
    main()
