"""Which token comes next: the likeliest, or a draw that only the request's own seed decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from taskfit.inference.requests import Generate

__all__ = ["Chooser"]

_LIKELY = 256  # tokens that mostly hold the nucleus: finding these is much quicker than sorting all


class Chooser:
    """Chooses the tokens of one request.

    A draw takes one uniform number from the request's own generator and finds it in the cumulated probabilities; so
    neighbours in the batch cannot change it.
    """

    def __init__(self, request: Generate) -> None:
        self._temperature, self._top_p = request.temperature, request.top_p
        self._generator = torch.Generator().manual_seed(request.seed)

    def choose(self, logits: Tensor, likeliest: int) -> int:
        """Return the next token: its place in the logits.

        Args:
            logits: shape (tokens,), in float32: of the whole vocabulary, or of the tokens that are allowed.
            likeliest: the place of the largest of them.
        """
        if self._temperature == 0:
            return likeliest
        probabilities = (logits.double().cpu() / self._temperature).softmax(-1)
        if self._top_p == 1:
            return self._draw(probabilities)
        ordered, tokens = probabilities.topk(min(_LIKELY, len(probabilities)))
        if float(ordered.sum()) < self._top_p:
            ordered, tokens = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        kept = max(int((before < self._top_p).sum()), 1)  # the likeliest that reach top_p together
        return int(tokens[self._draw(ordered[:kept])])

    def _draw(self, weights: Tensor) -> int:
        cumulated = weights.cumsum(-1)
        number = torch.rand((), generator=self._generator, dtype=torch.float64) * cumulated[-1]
        return min(int(torch.searchsorted(cumulated, number, right=True)), len(cumulated) - 1)
