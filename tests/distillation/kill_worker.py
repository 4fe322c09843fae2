"""A worker that the tests kill: everything heavy is imported before it is forked."""

from __future__ import annotations

from pathlib import Path

import httpx2  # noqa: F401  (preloaded, as are the next ones)
import jinja2  # noqa: F401

import taskfit.costs.service_prices
import taskfit.distillation.report
import taskfit.evaluation.intervals
import taskfit.inference.http_engine
import taskfit.inference.response_cache
import taskfit.prompting.shots  # noqa: F401
from taskfit.distillation.annotate import annotate
from taskfit.distillation.config import AnnotateConfig
from taskfit.distillation.teacher import name_teacher
from taskfit.models import load


def work(task: Path, out: Path, model: str, count: int) -> None:
    """Annotate as the command does."""
    teacher = name_teacher("zero-shot(answer=generate)", lambda strategy: load(model), None)
    annotate(task, teacher, out, AnnotateConfig(count=count, human=0, audit=0))
