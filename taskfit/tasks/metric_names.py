"""The names of metrics that a task file may use; the room ``evaluation`` computes them."""

from __future__ import annotations

from collections.abc import Mapping

from taskfit.tasks.task import Kind

__all__ = ["DEFAULT_METRICS", "METRIC_NAMES"]

_CLASSIFICATION: frozenset[Kind] = frozenset({"classification"})
_GENERATION: frozenset[Kind] = frozenset({"generation"})

METRIC_NAMES: Mapping[str, frozenset[Kind]] = {
    "accuracy": frozenset({"classification", "choice"}),
    "accuracy_raw": frozenset({"choice"}),
    "accuracy_normalised": frozenset({"choice"}),
    "macro_f1": _CLASSIFICATION,
    "micro_f1": _CLASSIFICATION,
    "mcc": _CLASSIFICATION,
    "balanced_accuracy": _CLASSIFICATION,
    "exact_match": _GENERATION,
    "numeric_match": _GENERATION,
    "token_f1": _GENERATION,
    "rouge1": _GENERATION,
    "rouge1_unstemmed": _GENERATION,
    "rouge2": _GENERATION,
    "rouge2_unstemmed": _GENERATION,
    "rouge_l": _GENERATION,
    "rouge_l_unstemmed": _GENERATION,
    "rouge_lsum": _GENERATION,
    "rouge_lsum_unstemmed": _GENERATION,
    "labels_f1": _GENERATION,
    "labels_micro_f1": _GENERATION,
    "labels_macro_f1": _GENERATION,
    "bleu": _GENERATION,
    "chrf": _GENERATION,
}
"""Metric name to the kinds of tasks it scores."""

DEFAULT_METRICS: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("macro_f1", "accuracy"),
    "choice": ("accuracy", "accuracy_raw", "accuracy_normalised"),
    "generation": ("rouge_l", "token_f1", "exact_match"),
}
"""What a task file that names no metrics gets; the first decides."""
