"""Libraries without their bars, reports and advice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_bitsandbytes", "quiet_transformers"]


def quiet_bitsandbytes() -> None:
    """Leave unsaid that a kernel is missing which nothing here uses: bitsandbytes says so whenever peft imports it."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Load or save without progress bars and load reports; what matters in them must be checked by the caller."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
