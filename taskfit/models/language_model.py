"""A loaded base model with its tokenizer and what must be known to use both rightly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

__all__ = ["Architecture", "LanguageModel"]

Architecture = Literal["decoder", "encoder-decoder", "encoder", "service"]
"""``service``: a model behind a network, of which only answers are seen (:mod:`taskfit.models.service`)."""


@dataclass
class LanguageModel:
    """A language model in memory.

    Attributes:
        name: as the user gave it (``taskfit-tiny``, a folder, a hub name).
        folder: where its files lie.
        architecture: decides which strategies can use it.
        module: the transformers model (in evaluation mode), or a PEFT wrapper of it after tuning.
        tokenizer: the transformers tokenizer (fast).
        dtype: number format of the weights.
        device: where the weights are.
        context: most tokens, prompt and answer together, that the model can read.
        fingerprint: SHA-256 over configuration, weights and tokenizer files: two models can never share one.
        has_chat_template: whether prompts become chat turns.
        end_token_ids: tokens any of which ends an answer (chat: end of turn; else end of sequence); never empty
            for models that generate.
    """

    name: str
    folder: Path
    architecture: Architecture
    module: torch.nn.Module
    tokenizer: Any  # transformers' fast tokenizers have no common typed base
    dtype: torch.dtype
    device: torch.device
    context: int
    fingerprint: str
    has_chat_template: bool
    end_token_ids: tuple[int, ...]

    @property
    def has_masked_head(self) -> bool:
        """Whether this is an encoder that can fill masks: its files hold the masked-token head, and it is loaded."""
        module: Any = self.module
        return self.architecture == "encoder" and module.get_output_embeddings() is not None
