"""What the strategies that classify with an encoder have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from taskfit.strategy.grammar import part_name

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture
    from taskfit.tasks.task import Kind

__all__ = ["EncoderStrategy"]


class EncoderStrategy:
    """Name, models and tasks of such a strategy, which is a dataclass of its parameters."""

    @property
    def name(self) -> str:
        """The canonical name."""
        return part_name(cast("Any", self))

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Encoders."""
        return frozenset({"encoder"})

    @property
    def kinds(self) -> frozenset[Kind]:
        """Classification."""
        return frozenset({"classification"})
