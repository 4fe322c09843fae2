"""An encoder with a linear layer on top: logits of classes for batches of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

__all__ = ["EncoderClassifier", "Pool", "TextBatch", "class_loss", "collate_texts"]

Pool = Literal["mean", "cls"]
"""How one vector is made of a text's hidden states: their mean, or the first one."""

TextBatch = dict[str, Tensor]
"""``input_ids`` and ``attention_mask``, shape (batch, length), and in training ``labels``, shape (batch,), or
``targets``, shape (batch, classes): what each row's class may be, together the row's weight."""


class EncoderClassifier(torch.nn.Module):
    """Encoder, pooling, dropout, linear layer (Devlin et al. 2019, section 4.1).

    Args:
        encoder: gives ``last_hidden_state`` of shape (batch, length, width).
        width: of the hidden states.
        classes: number of classes.
        pool: see :data:`Pool`.
        dropout: share of the pooled values dropped in training.
    """

    def __init__(self, encoder: torch.nn.Module, width: int, classes: int, pool: Pool, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(width, classes)
        torch.nn.init.normal_(self.head.weight, std=0.02)
        torch.nn.init.zeros_(self.head.bias)
        self.pool: Pool = pool

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Whether the encoder's layers can be computed twice to save memory."""
        return bool(getattr(self.encoder, "supports_gradient_checkpointing", False))

    def activation_checkpointing_enable(self) -> None:
        """Let them, from now on."""
        cast("Any", self.encoder).activation_checkpointing_enable()

    def activation_checkpointing_disable(self) -> None:
        """Let them no longer."""
        cast("Any", self.encoder).activation_checkpointing_disable()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits, shape (batch, classes)."""
        logits: Tensor = self.head(self.dropout(self.pooled(input_ids, attention_mask)))
        return logits

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return one vector a text, in the head's number format, shape (batch, width)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pool == "cls":
            pooled: Tensor = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch, length, 1)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        return pooled.to(self.head.weight.dtype)


def class_loss(module: torch.nn.Module, batch: TextBatch) -> tuple[Tensor, int]:
    """Cross-entropy of the right classes, in nats, summed over the rows; and the number of rows.

    Against soft targets it is their weighted sum, as in Hinton et al. 2015, section 2, at temperature 1.
    """
    logits = module(batch["input_ids"], batch["attention_mask"])
    if "targets" in batch:
        targets = batch["targets"]
        return -(targets * logits.float().log_softmax(-1)).sum(), len(targets)
    labels = batch["labels"]
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum"), len(labels)


def collate_texts(
    texts: Sequence[Sequence[int]], pad_id: int, device: torch.device, labels: Sequence[int] = ()
) -> TextBatch:
    """Return a batch padded on the right to its longest text; with ``labels`` where there are any."""
    longest = max(len(ids) for ids in texts)
    padded = [[*ids, *[pad_id] * (longest - len(ids))] for ids in texts]
    mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts]
    batch = {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}
    if labels:
        batch["labels"] = torch.tensor(list(labels))
    return {name: tensor.to(device) for name, tensor in batch.items()}
