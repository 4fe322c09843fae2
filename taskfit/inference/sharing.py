"""Finding out, by trying, how a decoder's rows can be shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from taskfit.errors import EngineError
from taskfit.models.encoding import Encoded

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel

__all__ = ["Sharing", "cache_bytes", "declared_window", "find_sharing"]

_PROMPTS = (tuple(range(7, 16)), (*range(7, 13), 20), (7, 8, 9, 19, 18))  # beginnings of 3 and, inside, of 6 tokens
_ANSWERS = ((20, 21, 22), (20, 23), (24,))
_CACHE_BYTES = {"cpu": 1 << 30, "cuda": 8 << 30}


@dataclass(frozen=True)
class Sharing:
    """How a model's rows can be shared.

    Attributes:
        has_plain_head: logits are one linear layer of the hidden states.
        bytes_per_token: keys and values of one position in all layers.
        windows: how far layers see that do not see everything, as they said when they were asked.
    """

    has_plain_head: bool
    bytes_per_token: int
    windows: frozenset[int] = frozenset()

    def reaches(self, window: float, longest: int) -> bool:
        """Whether rows of this length are scored rightly by a model that declares this window.

        A window is applied where layers say it; an architecture that has one and does not say it is trusted only as
        far as the window.
        """
        return longest <= window or bool(self.windows)


def cache_bytes(device: torch.device) -> int:
    """Return how much memory keys and values of shared beginnings may take on this device."""
    return _CACHE_BYTES["cuda" if device.type == "cuda" else "cpu"]


def find_sharing(model: LanguageModel) -> Sharing | None:
    """Try on a few tokens whether packed rows behind shared beginnings score as separate sequences do.

    Returns:
        None where they do not: position biases by distance, recurrent layers, attention that cannot be replaced,
        tokens that the tuning method puts in front. Those are scored one answer at a time: slower, and right.
    """
    from taskfit.inference.forward import evaluating
    from taskfit.inference.score_decoder import score_separately
    from taskfit.inference.score_shared import score_shared

    trial = [Encoded(prompt, _ANSWERS) for prompt in _PROMPTS]
    with evaluating(model.module):
        try:
            sharing = _measure(model)
            together, _ = score_shared(model, trial, 4096, sharing, cache_bytes=1 << 30, worth_sharing=2)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, EngineError):
            return None
        apart, _ = score_separately(model, trial, 4096)
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.03
    is_same = all(
        abs(a - b) <= tolerance * max(1.0, abs(b))
        for row, other in zip(together, apart, strict=True)
        for a, b in zip(row, other, strict=True)
    )
    return sharing if is_same else None


def _measure(model: LanguageModel) -> Sharing:
    from taskfit.inference.cascade import Piece, cascading, pack
    from taskfit.inference.forward import hidden_states, long_tensor
    from taskfit.inference.vocabulary import has_plain_head

    tuning: Any = getattr(model.module, "active_peft_config", None)
    if getattr(tuning, "is_prompt_learning", False):
        raise EngineError("tokens in front have positions and keys of their own")
    packed = pack([Piece(_PROMPTS[0], None, ())], model.device, keeps=True)
    with cascading(model.module, packed):
        inputs = {"input_ids": packed.ids, "position_ids": packed.positions, "use_cache": False}
        hidden_states(model.module, long_tensor([], model.device), **inputs)
    if not packed.kept:
        raise EngineError("its attention cannot be replaced")
    stored = sum(states.numel() * states.element_size() for pair in packed.kept for states in pair)
    return Sharing(has_plain_head(model.module), stored // len(_PROMPTS[0]), frozenset(packed.windows))


def declared_window(model: LanguageModel) -> float:
    """The most positions that every layer sees; infinite without windows, 0 where layers differ in it."""
    module: Any = model.module
    config = module.config.get_text_config()
    try:
        declared = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size")]
    except RuntimeError:  # transformers refuses to name one window for layers that differ
        return 0
    is_used = getattr(config, "use_sliding_window", True)
    return min((window for window in declared if isinstance(window, int) and is_used), default=float("inf"))
