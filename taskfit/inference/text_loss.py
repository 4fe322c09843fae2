"""The log-probability of plain texts, read from their first token on: what perplexity is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import EngineError
from taskfit.models.encoding import Encoded
from taskfit.models.joint import disarm, token_ids
from taskfit.models.text_format import text_format

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel

__all__ = ["TextLoss", "text_losses"]


@dataclass(frozen=True)
class TextLoss:
    """What a model makes of a text.

    Attributes:
        nats: minus the natural log-probability of its tokens, each given those before it.
        tokens: how many were predicted, at least 1.
    """

    nats: float
    tokens: int


def text_losses(model: LanguageModel, texts: Sequence[str], *, batch_tokens: int | None = None) -> list[TextLoss]:
    """Return the loss of each text, in order; it does not depend on the other texts.

    A text begins with the tokenizer's beginning of text where it has one; else its first token is only read. A text
    longer than the context is cut into pieces, each read from a beginning of its own. No chat template is used.

    Args:
        model: a decoder, tuned or not.
        texts: none may be empty.
        batch_tokens: most positions that go through the model at once; chosen by device when None.

    Raises:
        EngineError: the model is no decoder, a text has no token to predict, or the model gives NaN.
    """
    from taskfit.inference.batches import default_batch_tokens
    from taskfit.inference.forward import evaluating
    from taskfit.inference.score_decoder import score_separately

    if model.architecture != "decoder":
        raise EngineError(f"{model.name!r} is no decoder: it gives no probability of a plain text")
    pieces = [_pieces(model, text) for text in texts]
    rows = [piece for parts in pieces for piece in parts]
    with evaluating(model.module):
        scores, _ = score_separately(model, rows, batch_tokens or default_batch_tokens(model.device))
    values = iter(zip(rows, scores, strict=True))
    return [_total([next(values) for _ in parts]) for parts in pieces]


def _pieces(model: LanguageModel, text: str) -> list[Encoded]:
    form = text_format(model.tokenizer)
    ids = token_ids(model.tokenizer, disarm(text, form.control))
    start = form.head or (() if form.start is None else (form.start,))
    room = max(1, model.context - max(1, len(start)))
    first = 0 if start else 1
    if len(ids) <= first:
        raise EngineError(f"a text has no token to predict (got {text[:40]!r})")
    return [Encoded(start or ids[at - 1 : at], (ids[at : at + room],)) for at in range(first, len(ids), room)]


def _total(parts: Sequence[tuple[Encoded, tuple[float, ...]]]) -> TextLoss:
    return TextLoss(-sum(score[0] for _, score in parts), sum(len(piece.answers[0]) for piece, _ in parts))
