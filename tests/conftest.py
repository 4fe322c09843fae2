"""Applies to every test: one computing thread, no hub, no cache of the user's."""

from __future__ import annotations

import os
import tempfile

# Tiny models run faster on one thread, and two threads on busy cores mostly wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="taskfit-tests-")
