"""The model's shape, its loss, held-out bits per character, and export as an ordinary transformers folder."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from places import BUILD, need
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

CONTEXT = 1024
KINDS = ("story", "book", "textbook", "web", "docs")


def load_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of step 2."""
    return AutoTokenizer.from_pretrained(need(BUILD / "tokenizer", "run tokenizer.py first"))


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A fresh model of 3.1 million parameters, in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=512,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).float()


def loss_function(is_compiled: bool) -> Callable[[torch.nn.Module, Tensor, Tensor], Tensor]:
    """Summed next-token loss in nats of (inputs, targets), both (batch, length); targets of -100 do not count."""

    def summed(module: torch.nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = module(input_ids=inputs, use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")

    return torch.compile(summed, dynamic=False) if is_compiled else summed


def windows(ids: np.ndarray, length: int) -> np.ndarray:
    """Starts of all whole windows of ``length`` inputs and their targets."""
    return np.arange(0, len(ids) - length, length)


def window_batch(ids: np.ndarray, starts: np.ndarray, length: int) -> Tensor:
    """Windows of ``length + 1`` tokens, shape (windows, length + 1)."""
    return torch.from_numpy(np.stack([ids[start : start + length + 1] for start in starts]).astype(np.int64))


def heldout_bits(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tokens_per_kind: int = 16_384, length: int = 512
) -> dict[str, float]:
    """Bits per character of the first held-out tokens of each kind of text, in windows of ``length``."""
    model.eval()
    bits = {}
    for kind in KINDS:
        ids = np.load(BUILD / f"heldout-{kind}.npy", mmap_mode="r")[: tokens_per_kind + 1]
        nats, characters = 0.0, 0
        for starts in np.array_split(windows(ids, length), 8):
            batch = window_batch(ids, starts, length)
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(input_ids=batch[:, :-1], use_cache=False).logits
            nats += F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
            characters += sum(map(len, tokenizer.batch_decode(batch[:, 1:], skip_special_tokens=True)))
        bits[kind] = round(nats / math.log(2) / characters, 4)
    return bits


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model (bfloat16) and tokenizer into ``folder``, file by file, each replaced atomically."""
    logging.disable_progress_bar()
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    copy = deepcopy(model).to(torch.bfloat16)
    copy.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    copy.save_pretrained(temporary)
    for entry in ("is_local", "local_files_only"):  # how this process found the tokenizer is nobody's business
        tokenizer.init_kwargs.pop(entry, None)
    tokenizer.save_pretrained(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for path in temporary.iterdir():
        path.chmod(0o644)
        path.replace(folder / path.name)
    temporary.rmdir()
