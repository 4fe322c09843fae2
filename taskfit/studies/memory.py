"""What a fit makes a model forget: one look before it, one after it, outside of what the fit is charged for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, TaskfitError
from taskfit.studies.events import ignore_line

if TYPE_CHECKING:
    from taskfit.evaluation.forgetting import Forgetting, Look
    from taskfit.evaluation.retained import Retained
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Predictor, Strategy
    from taskfit.studies.compare import Comparison
    from taskfit.studies.result import TrialResult

__all__ = ["Memory", "check_retained", "forgetting_lines", "remember", "retained_identity", "worst_forgetting"]

NOT_ASKED = "none"
"""The name that switches the measurement off."""


@dataclass(frozen=True)
class Memory:
    """What the base model made of what it should retain.

    Attributes:
        found: the answer where there is nothing to compare: no weight changes, or nothing can be measured.
        parts, before: what was asked, and what it gave.
        is_reversible: whether the change can be taken off.
    """

    found: Forgetting | None = None
    parts: tuple[Retained, ...] = ()
    before: tuple[Look, ...] = ()
    is_reversible: bool = False

    def compared_with(self, predictor: Predictor, say: Callable[[str], None] = ignore_line) -> Forgetting:
        """Ask the fitted model the same again, and return what it has lost; ``say`` takes a line of progress."""
        from taskfit.evaluation.forgetting import forgotten, look, unmeasured

        if self.found is not None:
            return self.found
        model: LanguageModel | None = getattr(predictor, "model", None)
        if model is None:
            return unmeasured("the predictor holds no model that can be asked", is_reversible=self.is_reversible)
        say(f"asking the tuned model again for {_named(self.parts)}")
        try:
            after = look(model, self.parts)
        except TaskfitError as error:
            return unmeasured(error.message, is_reversible=self.is_reversible)
        return forgotten(self.parts, self.before, after, is_reversible=self.is_reversible)


def check_retained(names: Sequence[str]) -> None:
    """Read what forgetting will be measured on, so that a fault is told before anything runs.

    Raises:
        ConfigError: ``none`` beside others, or a name twice. DataError, TaskError: a file cannot be used.
    """
    _read(names)


def retained_identity(names: Sequence[str]) -> list[str]:
    """Return what forgetting will be measured on, each with the beginning of its fingerprint; nothing for the default.

    Raises:
        As :func:`check_retained`.
    """
    return [f"{part.name} ({part.fingerprint[:12]})" for part in _read(names)] or [*names] if names else []


def remember(
    strategy: Strategy,
    model: LanguageModel | None,
    names: Sequence[str],
    say: Callable[[str], None] = ignore_line,
) -> Memory:
    """Ask a model, before a fit, for what it should retain.

    Args:
        strategy: what will be fitted; one that changes no weight is not measured: it forgets exactly nothing.
        model: freshly loaded, or None. Its weights and the random state stay as they are.
        names: as :func:`taskfit.evaluation.retained.read_retained` reads them, or ``none``.
        say: takes a line of progress.

    Raises:
        ConfigError, DataError, TaskError: what is named cannot be used.
    """
    from taskfit.evaluation.forgetting import look, nothing_changed, unmeasured
    from taskfit.models.language_model import LanguageModel

    parts = _read(names)
    if model is None:
        return Memory(nothing_changed("the strategy uses no language model"))
    if getattr(strategy, "leaves_model", False):
        return Memory(nothing_changed("the strategy changes no weight of the model"))
    weights = getattr(strategy, "weights", getattr(strategy, "method", None))
    if weights is None and hasattr(strategy, "weights"):
        return Memory(nothing_changed("the strategy changes no weight of the model"))
    is_reversible = getattr(weights, "trains", "all") == "adapter"
    if not parts:
        return Memory(unmeasured("it was switched off (retain: none)", is_reversible=is_reversible))
    if model.architecture not in ("decoder", "encoder-decoder") or not isinstance(model, LanguageModel):
        reason = f"a model of architecture {model.architecture} gives no probability of a text"
        return Memory(unmeasured(reason, is_reversible=is_reversible))
    asked = tuple(part for part in parts if model.architecture == "decoder" or not _is_plain_text(part))
    if not asked:
        return Memory(unmeasured("only a decoder gives the probability of a plain text", is_reversible=is_reversible))
    say(f"asking the base model for what it should not forget: {_named(asked)}")
    try:
        return Memory(None, asked, look(model, asked), is_reversible)
    except TaskfitError as error:
        return Memory(unmeasured(error.message, is_reversible=is_reversible))


def worst_forgetting(results: Iterable[TrialResult]) -> Forgetting | None:
    """Return what the seed that forgot most has forgotten; one that was not measured counts as the worst.

    Args:
        results: finished trials of one candidate.

    Returns:
        None where a trial holds no such finding: it was run by an earlier version.
    """
    from taskfit.evaluation.forgetting import Forgetting

    stored = [result.findings.get("forgetting") for result in results]
    found = [Forgetting.from_json(values) for values in stored if isinstance(values, dict)]
    if not found or len(found) < len(stored):
        return None
    return max(found, key=lambda each: math.inf if each.loss is None else each.loss)


def forgetting_lines(comparison: Comparison) -> list[str]:
    """Return a heading and a line for each candidate that changed weights; nothing where none did."""
    lines = []
    for candidate in comparison.candidates:
        found = worst_forgetting(candidate.results)
        if found is not None and found.status != "none":
            lines.append(f"  {candidate.label}: {_short(found)}")
    return ["", "Forgotten (above 0 is lost; the worst part of the worst seed):", *lines] if lines else []


def _short(found: Forgetting) -> str:
    if found.loss is None or found.low is None or found.high is None:
        return f"not measured: {found.reason}"
    part = next(part for part in found.parts if part.name == found.worst)
    of = f"{part.metric} of {part.name}, points" if part.kind == "task" else f"perplexity of {part.name}, %"
    figures = f"{found.loss * 100:+.1f} ({found.low * 100:+.1f} to {found.high * 100:+.1f}), {of}"
    return f"{figures}; can be taken off" if found.is_reversible else figures


def _read(names: Sequence[str]) -> tuple[Retained, ...]:
    from taskfit.evaluation.retained import read_retained

    if NOT_ASKED not in names:
        return read_retained(names)
    if len(names) > 1:
        raise ConfigError(f"retain: {NOT_ASKED} stands alone (got {', '.join(names)})")
    return ()


def _named(parts: Iterable[Retained]) -> str:
    return ", ".join(part.name for part in parts)


def _is_plain_text(part: Retained) -> bool:
    from taskfit.evaluation.retained import RetainedText

    return isinstance(part, RetainedText)
