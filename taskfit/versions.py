"""Versions of what decides figures: Python, this package and the libraries that compute."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

__all__ = ["changed_versions", "versions"]

_LIBRARIES = ("taskfit", "torch", "transformers", "peft", "tokenizers", "scikit-learn", "numpy")


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide results, and of ``more`` of them.

    One that is not there is ``not installed``.
    """
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for library in (*_LIBRARIES, *more):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def changed_versions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say what has another version now, such as ``torch 2.12.0 is 2.13.0 now``; what one side lacks is passed over."""
    both = sorted(before.keys() & now.keys())
    return [f"{name} {before[name]} is {now[name]} now" for name in both if before[name] != now[name]]
