"""How figures are written in words and tables."""

from __future__ import annotations

__all__ = ["bytes_text", "count", "figure", "metric_name", "money", "points", "seconds"]

_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mcc": "Matthews correlation",
    "balanced_accuracy": "balanced accuracy",
    "exact_match": "exact match",
    "numeric_match": "numeric match",
    "token_f1": "token F1",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "rouge_lsum": "ROUGE-Lsum",
    "rouge1_unstemmed": "ROUGE-1 (no stemming)",
    "rouge2_unstemmed": "ROUGE-2 (no stemming)",
    "rouge_l_unstemmed": "ROUGE-L (no stemming)",
    "rouge_lsum_unstemmed": "ROUGE-Lsum (no stemming)",
    "labels_f1": "F1 of labels",
    "labels_micro_f1": "micro F1 of labels",
    "labels_macro_f1": "macro F1 of labels",
    "bleu": "BLEU",
    "chrf": "chrF",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece_10": "calibration error (10 bins)",
    "ece_15": "calibration error (15 bins)",
    "ece_adaptive": "calibration error (adaptive bins)",
    "aurc": "area under risk and coverage",
}


def metric_name(name: str) -> str:
    """Return a metric's name as people write it."""
    return _NAMES.get(name, name.replace("_", " "))


def figure(value: float) -> str:
    """Write a metric: three decimals."""
    return f"{value:.3f}"


def points(value: float) -> str:
    """Write a difference of metrics in points: hundredths."""
    size = abs(value) * 100
    return f"{size:.2f} points" if size < 1 else f"{size:.1f} points"


def money(usd: float) -> str:
    """Write US dollars with two digits that mean something; below a hundredth of a cent it says so."""
    if usd == 0:
        return "$0"
    if usd < 0.0001:
        return "under $0.0001"
    if usd < 0.1:
        return f"${usd:.2g}" if usd >= 0.001 else f"${usd:.4f}"
    return f"${usd:,.2f}" if usd < 1000 else f"${usd:,.0f}"


def seconds(value: float) -> str:
    """Write a time span: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bytes_text(value: float) -> str:
    """Write bytes with a unit of a thousand: 12 kB, 3.4 MB, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:  # what is rounded to a thousand takes the next unit
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: 1 row, 2 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
