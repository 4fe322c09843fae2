"""A weight of which some values train and the others stand still."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MaskedWeight"]


class MaskedWeight(torch.nn.Module):
    """Puts trained values into a frozen weight; a parametrisation in torch's sense.

    Args:
        weight: any shape; gives the values their start.
        places: indices into the flattened weight, without repetition, shape (values,).
    """

    places: Tensor

    def __init__(self, weight: Tensor, places: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", places, persistent=False)
        self.values = torch.nn.Parameter(weight.reshape(-1)[places].float())

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with the trained values at their places."""
        return weight.reshape(-1).index_copy(0, self.places, self.values.to(weight.dtype)).view_as(weight)
