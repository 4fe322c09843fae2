"""What a trial will send through its model, from sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.costs.architecture import Architecture
    from taskfit.costs.trial_facts import TrialFacts

__all__ = ["asked_work", "expected_work"]

_PADDING = 1.15  # computed tokens for each real one, batches cut from length buckets


def expected_work(architecture: Architecture, facts: TrialFacts) -> tuple[Work, Work]:
    """Return what fitting and predicting will about send through the model.

    Worked examples are computed once for all rows that share them when predicting, and with every row when training.
    """
    shot_tokens = facts.shots * (facts.row_tokens + facts.answer_tokens)
    fit = Work()
    if facts.trains != "nothing":
        read = shot_tokens + facts.row_tokens
        trained = _pass(architecture, facts.rows_seen, 0.0, read, facts.answer_tokens)
        tokens = trained.computed_tokens
        is_all = facts.trains == "all"
        trained += Work(trained_tokens=tokens if is_all else 0, trained_frozen_tokens=0 if is_all else tokens)
        fit = trained + _pass(architecture, facts.rows_checked, 0.0, read, facts.answer_tokens)
    if facts.fit_requests:
        fit += asked_work(architecture, facts, facts.fit_requests, shot_tokens)
    return fit, asked_work(architecture, facts, facts.rows_test * facts.requests, shot_tokens)


def asked_work(architecture: Architecture, facts: TrialFacts, requests: float, shot_tokens: float) -> Work:
    """Count so many requests: each reads the question and its share of the earlier text, and answers its share."""
    earlier = facts.thinking_tokens / facts.requests if facts.requests > 1 else 0.0
    answered = (facts.thinking_tokens + max(1, facts.options) * facts.answer_tokens) / facts.requests
    if facts.options:  # scored in every request
        answered = facts.thinking_tokens / facts.requests + facts.options * facts.answer_tokens
    if facts.virtual_tokens and facts.options and architecture.kind == "decoder":  # behind vectors nothing is shared
        read = facts.row_tokens + shot_tokens + earlier + facts.virtual_tokens
        return _pass(architecture, requests * facts.options, 0.0, read, answered / facts.options)
    own = 0.0 if facts.are_shots_shared else shot_tokens
    shared = min(facts.shared_tokens, facts.row_tokens - 1) if facts.requests <= 1 else 0.0
    return _pass(
        architecture, requests, shot_tokens - own + shared, facts.row_tokens - shared + earlier + own, answered
    )


def _pass(architecture: Architecture, rows: float, shared: float, read: float, answered: float) -> Work:
    """Count one forward pass over ``rows`` texts, of which ``shared`` tokens are the same and computed once."""
    is_decoder, is_paired = architecture.kind == "decoder", architecture.kind == "encoder-decoder"
    before = shared if is_decoder else 0.0  # only decoders can share a beginning
    own = read + answered if is_decoder else read + shared
    computed = rows * own * _PADDING + before
    pairs = rows * own * _PADDING * (before + own * (0.5 if is_decoder else 1.0)) + before * before / 2
    if is_paired:
        pairs += rows * answered * (answered / 2 + own)
    return Work(
        prompt_tokens=round(rows * (read + shared)),
        answer_tokens=round(rows * answered),
        computed_tokens=round(computed),
        attended_pairs=round(pairs),
        head_tokens=round(rows * answered) if architecture.vocabulary else 0,
        decoder_tokens=round(rows * answered) if is_paired else 0,
    )
