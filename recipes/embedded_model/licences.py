"""Which terms allow text to be trained on and the weights to be given away."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["is_open"]

OPEN = (
    "apache",
    "mit",
    "bsd",
    "cc0",
    "public domain",
    "librivox: public domain",
    "cc by ",
    "cc by-sa ",
    "cdla permissive",
)
NARROW = ("nc", "nd", "race", "unknown", "research")
"""Words in a licence that make it narrower: non-commercial, no derivatives, research only."""


def is_open(licences: Sequence[str] | None) -> bool:
    """Return whether every one of the licences is open; none stated is not."""
    return bool(licences) and all(_is_open(one.lower()) for one in licences or ())


def _is_open(licence: str) -> bool:
    words = licence.replace("-", " ").replace("(", " ").split()
    return licence.startswith(OPEN) and not any(word in NARROW for word in words)
