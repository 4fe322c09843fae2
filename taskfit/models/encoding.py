"""From prompts and answers to token ids: one way for training, scoring and generating.

Rules, in this order:

1. A tokenizer with a chat template gets turns: system, then question and answer of every shot, then the question; the
   answer follows the opened assistant turn. Where the template has no system turn, the system text goes in front of
   the first question, with a blank line between.
2. Without a template the text is: system text, blank line, every shot followed by a blank line, the question. An
   answer follows its question after one space, or directly when the question ends in whitespace or the answer begins
   with it.
3. Prompt and answer are tokenised together. Where the tokenizer merges across the boundary, the prompt's tokens end
   earlier, for all answers of the call alike, and ``is_merged`` says so.
4. BOS is in front exactly once in families that want one, whoever writes it. The end token is behind an answer
   exactly once, and only when asked for. Control tokens inside the texts themselves are read as ordinary text.
5. A prompt that is too long loses whole shots, the first ones first, then the middle of its question, of which both
   ends are kept around " ... ". Encoders (see :func:`encode_texts`) keep the head of a text, as is their rule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from taskfit.errors import EngineError
from taskfit.models.joint import Joint, disarm, join_answers, label_ids, token_ids, token_spans
from taskfit.models.plain_text import plain_text, separator
from taskfit.models.text_format import Message, TextFormat, render_chat, text_format

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.prompt import Prompt

__all__ = ["Encoded", "Fitted", "encode", "encode_texts", "fit_prompt"]

_GAP = " ... "


@dataclass(frozen=True)
class Encoded:
    """A prompt and its possible answers as token ids.

    Attributes:
        prompt: ids of the prompt; for encoder-decoders the encoder's input, EOS included; for encoders with one mask
            at the place of the answer. Never empty.
        answers: ids of each answer: what follows ``prompt``, or the decoder's labels for encoder-decoders, or what
            stands at the mask.
        cut_tokens: tokens of the question left out because the context is too short.
        dropped_shots: whole worked examples left out for the same reason (their tokens are not in ``cut_tokens``).
        is_merged: the tokenizer merged the prompt's end with an answer's start.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    cut_tokens: int = 0
    dropped_shots: int = 0
    is_merged: bool = False


def encode(
    model: LanguageModel, prompt: Prompt, answers: Sequence[str] = (), *, with_end: bool = False, room: int = 0
) -> Encoded:
    """Turn a prompt and its possible answers into token ids, by the rules at the top of this module.

    Args:
        model: for an encoder the rules are those of :mod:`taskfit.models.cloze`.
        prompt: question, shots, system text.
        answers: texts that may follow; all share the prompt's ids.
        with_end: put the end token (chat: end of turn) behind every answer, as training needs it.
        room: tokens to keep free behind the prompt, besides the longest answer (for generating).

    Raises:
        EngineError: the model is an encoder without a masked-token head; an answer is empty; the context holds no
            question at all.
    """
    if model.architecture == "encoder":
        from taskfit.models.cloze import encode_cloze

        return encode_cloze(model, prompt, answers)
    if model.architecture == "encoder-decoder":
        return _encode_both_sides(model, prompt, answers, with_end, room)
    end = model.end_token_ids[:1] if with_end else ()
    reserved = len(end) + room

    joint = _joint(model, prompt, answers)

    def excess(candidate: Prompt) -> int:
        nonlocal joint
        if candidate is not prompt:
            joint = _joint(model, candidate, answers)
        return len(joint.prompt) + max(map(len, joint.answers), default=0) + reserved - model.context

    fitted = fit_prompt(model, prompt, excess)
    if fitted.prompt is not prompt:
        joint = _joint(model, fitted.prompt, answers)
    _check_answers(model, answers, joint.answers, with_end)
    return Encoded(
        prompt=joint.prompt,
        answers=tuple((*ids, *end) for ids in joint.answers),
        cut_tokens=fitted.cut_tokens,
        dropped_shots=fitted.dropped_shots,
        is_merged=joint.is_merged,
    )


def encode_texts(
    model: LanguageModel, texts: Sequence[str], *, limit: int | None = None
) -> tuple[list[tuple[int, ...]], list[int]]:
    """Turn texts into token ids with the special tokens around them ([CLS] text [SEP]), as encoders read them.

    A text that is too long keeps its head.

    Args:
        model: usually an encoder.
        texts: one a row.
        limit: most tokens of a text, special ones included; the model's context when None or larger.

    Returns:
        (ids of each text; number of tokens that each text lost)

    Raises:
        EngineError: the limit leaves no room between the special tokens.
    """
    form = text_format(model.tokenizer)
    most = min(model.context, limit or model.context) - len(form.head) - len(form.tail)
    if most < 1:
        raise EngineError(f"a limit of {limit} tokens leaves no room between the special tokens; raise it")
    bodies = [token_ids(model.tokenizer, disarm(text, form.control)) for text in texts]
    ids = [(*form.head, *body[:most], *form.tail) for body in bodies]
    return ids, [max(0, len(body) - most) for body in bodies]


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits, and what it lost (see :class:`Encoded`)."""

    prompt: Prompt
    cut_tokens: int = 0
    dropped_shots: int = 0


def fit_prompt(model: LanguageModel, prompt: Prompt, excess: Callable[[Prompt], int]) -> Fitted:
    """Drop shots, then cut the question's middle, until there is no excess (in tokens) any more."""
    if excess(prompt) <= 0:
        return Fitted(prompt)
    numbers = range(len(prompt.shots) + 1)
    dropped = bisect_left(numbers, True, key=lambda number: excess(_without_shots(prompt, number)) <= 0)
    dropped = min(dropped, len(prompt.shots))
    return replace(_cut_question(model, _without_shots(prompt, dropped), excess), dropped_shots=dropped)


def _without_shots(prompt: Prompt, number: int) -> Prompt:
    return replace(prompt, shots=prompt.shots[number:])


def _cut_question(model: LanguageModel, prompt: Prompt, excess: Callable[[Prompt], int]) -> Fitted:
    spans = token_spans(model.tokenizer, prompt.text)
    kept, candidate = len(spans), prompt
    while (over := excess(candidate)) > 0:
        kept -= over
        if kept < 2:
            raise EngineError(
                f"the context of {model.name!r} ({model.context} tokens) is too short: with the answer, the system "
                f"text and what is kept free, {kept} of {len(spans)} tokens of the question would be left",
                "Lower max_tokens, shorten answers or instruction, or take a model with a longer context.",
            )
        candidate = replace(prompt, text=_without_middle(prompt.text, spans, kept))
    return Fitted(candidate, cut_tokens=len(spans) - kept)


def _without_middle(text: str, spans: Sequence[tuple[int, int]], kept: int) -> str:
    head, tail = (kept + 1) // 2, kept // 2
    return text[: spans[head - 1][1]] + _GAP + text[spans[len(spans) - tail][0] :]


def _joint(model: LanguageModel, prompt: Prompt, answers: Sequence[str]) -> Joint:
    """Render and tokenise, with BOS in front exactly once."""
    form = text_format(model.tokenizer)
    text = _chat_text(model, prompt, form) if model.has_chat_template else disarm(plain_text(prompt), form.control)
    followers = [disarm(answer, form.control) for answer in answers]
    if not model.has_chat_template:
        followers = [separator(text, answer) + answer for answer in followers]
    joint = join_answers(model.tokenizer, text, followers)
    if form.head and joint.prompt[: len(form.head)] != form.head:
        joint = replace(joint, prompt=(*form.head, *joint.prompt))
    if not joint.prompt:
        if form.start is None:
            raise EngineError("the prompt is empty, and the tokenizer has neither BOS nor EOS to begin with")
        joint = replace(joint, prompt=(form.start,))
    return joint


def _chat_text(model: LanguageModel, prompt: Prompt, form: TextFormat) -> str:
    messages: list[Message] = []
    for shot in prompt.shots:
        messages.append({"role": "user", "content": disarm(shot.question, form.control)})
        messages.append({"role": "assistant", "content": disarm(shot.answer, form.control)})
    messages.append({"role": "user", "content": disarm(prompt.text, form.control)})
    if prompt.system:
        system = disarm(prompt.system, form.control)
        if form.takes_system:
            messages.insert(0, {"role": "system", "content": system})
        else:
            messages[0]["content"] = f"{system}\n\n{messages[0]['content']}"
    return render_chat(model.tokenizer, messages, with_reply_start=True)


def _encode_both_sides(
    model: LanguageModel, prompt: Prompt, answers: Sequence[str], with_end: bool, room: int
) -> Encoded:
    form = text_format(model.tokenizer)

    def read(candidate: Prompt) -> tuple[int, ...]:
        return (*form.head, *token_ids(model.tokenizer, disarm(plain_text(candidate), form.control)), *form.tail)

    fitted = fit_prompt(model, prompt, lambda candidate: len(read(candidate)) - model.context)
    labels = [label_ids(model.tokenizer, disarm(answer, form.control)) for answer in answers]
    _check_answers(model, answers, labels, with_end)
    end = (form.tail or model.end_token_ids[:1]) if with_end else ()
    ids = tuple((*form.head, *label, *end) for label in labels)
    if max(map(len, ids), default=0) + room > model.context:
        raise EngineError(
            f"an answer of {max(map(len, ids), default=0)} tokens and {room} more do not fit into "
            f"the context of {model.name!r} ({model.context} tokens)"
        )
    return Encoded(read(fitted.prompt), ids, fitted.cut_tokens, fitted.dropped_shots)


def _check_answers(
    model: LanguageModel, answers: Sequence[str], ids: Sequence[tuple[int, ...]], with_end: bool
) -> None:
    for answer, tokens in zip(answers, ids, strict=True):
        if not tokens and not with_end:
            raise EngineError(f"answer {answer!r} has no tokens for {model.name!r}; an answer must have at least one")
