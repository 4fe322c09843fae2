"""How the threads that compute together wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["spin_briefly"]

_NAME = "GOMP_SPINCOUNT"


@contextmanager
def spin_briefly() -> Iterator[None]:
    """Let threads of a torch loaded inside the block soon sleep when they wait, unless the user chose otherwise.

    OpenMP's threads spin while they wait for each other. On a machine that anything else uses as well, that made
    training four times slower; a short spin is as fast on an idle machine. The variable is read when torch is loaded.
    """
    is_ours = _NAME not in os.environ and "OMP_WAIT_POLICY" not in os.environ
    if is_ours:
        os.environ[_NAME] = "3000"
    try:
        yield
    finally:
        if is_ours:
            os.environ.pop(_NAME, None)
