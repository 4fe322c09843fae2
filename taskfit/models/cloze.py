"""Prompts for encoders: a text with a mask at the place of the answer.

A wording writes ``[MASK]`` (or the tokenizer's own mask token) where the answer stands: "{{ text }} It was [MASK]."
Worked examples of the same wording have their answer there. A question without a mask gets one behind it, after a
space, where an answer would follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from taskfit.errors import EngineError
from taskfit.models.encoding import Encoded, fit_prompt
from taskfit.models.joint import disarm, label_ids, token_ids
from taskfit.models.text_format import text_format

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.prompt import Prompt, Shot

__all__ = ["MASK", "encode_cloze"]

MASK = "[MASK]"
"""What a wording writes where the answer stands, whatever the model's own mask is called."""


def encode_cloze(model: LanguageModel, prompt: Prompt, answers: Sequence[str]) -> Encoded:
    """Turn a prompt and its possible answers into token ids; the prompt's ids hold the mask once.

    Each answer is tokenised as the text that it would be at the mask. A prompt that is too long loses whole shots, the
    first ones first, then the middle of the longer side of its question, never the mask.

    Args:
        model: an encoder with a masked-token head.
        prompt: question, shots, system text.
        answers: at least one, none empty.

    Raises:
        EngineError: the model has no masked-token head; the question has more than one mask; an answer has no tokens;
            the context holds no question at all.
    """
    if not model.has_masked_head:
        raise EngineError(
            f"model {model.name!r} is an encoder without a masked-token head: it has no answers to score",
            "Use a strategy that puts a head on it ('encoder'), or a model saved with its masked-token head.",
        )
    before, after = _around_mask(model.tokenizer, prompt.text)
    space = " " if before[-1:].isspace() else ""
    labels = tuple(label_ids(model.tokenizer, space + _disarm(model.tokenizer, answer)) for answer in answers)
    for answer, tokens in zip(answers, labels, strict=True):
        if not tokens:
            raise EngineError(f"answer {answer!r} has no tokens for {model.name!r}; an answer must have at least one")
    room = max(map(len, labels)) - 1
    is_before = len(before) >= len(after)

    def read(candidate: Prompt) -> tuple[int, ...]:
        sides = (candidate.text, after) if is_before else (before, candidate.text)
        return _ids(model.tokenizer, candidate, *sides)

    longer = replace(prompt, text=before if is_before else after)
    fitted = fit_prompt(model, longer, lambda candidate: len(read(candidate)) + room - model.context)
    return Encoded(read(fitted.prompt), labels, fitted.cut_tokens, fitted.dropped_shots)


def _around_mask(tokenizer: Any, text: str) -> tuple[str, str]:
    """Return what stands before the mask and after it."""
    parts = text.replace(tokenizer.mask_token, MASK).split(MASK)
    if len(parts) > 2:
        raise EngineError(f"a question may hold one {MASK}, at the place of its answer (got {len(parts) - 1})")
    if len(parts) == 2:
        return parts[0], parts[1]
    return (text if not text or text[-1].isspace() else text + " "), ""


def _ids(tokenizer: Any, prompt: Prompt, before: str, after: str) -> tuple[int, ...]:
    form = text_format(tokenizer)
    parts = [prompt.system] if prompt.system else []
    parts += [_shown(tokenizer, shot) for shot in prompt.shots]
    text, after = _disarm(tokenizer, "\n\n".join([*parts, before])), _disarm(tokenizer, after)
    mask = tokenizer.added_tokens_decoder.get(tokenizer.mask_token_id)
    if getattr(mask, "lstrip", False):  # RoBERTa's kind: the white space before a mask belongs to it
        text = text.rstrip()
    if getattr(mask, "rstrip", False):
        after = after.lstrip()
    ahead, behind = token_ids(tokenizer, text), token_ids(tokenizer, after)
    return (*form.head, *ahead, int(tokenizer.mask_token_id), *behind, *form.tail)


def _shown(tokenizer: Any, shot: Shot) -> str:
    """A worked example with its answer in place."""
    before, after = _around_mask(tokenizer, shot.question)
    return before + shot.answer + after


def _disarm(tokenizer: Any, text: str) -> str:
    """Let no text become a control token, a mask least of all."""
    return disarm(text, text_format(tokenizer).control).replace(tokenizer.mask_token, MASK.lower())
