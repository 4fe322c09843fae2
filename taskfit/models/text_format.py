"""What a tokenizer and its chat template do to text: found out once per tokenizer, by trying."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from taskfit.errors import ModelError

__all__ = ["Message", "TextFormat", "end_of_turn", "render_chat", "text_format"]

Message = dict[str, str]
"""A turn of a chat: its ``role`` and ``content``."""

_PROBE = "qqprobeqq"
_FIXED_DATE = "26 Jul 2024"
"""What templates that write today's date are told: a prompt must be the same tomorrow."""


@dataclass(frozen=True)
class TextFormat:
    """What must be known of a tokenizer to put tokens together rightly.

    Attributes:
        head: special tokens that belong in front of a text (BOS, [CLS]); empty for families without any.
        tail: special tokens that belong behind a text (EOS of encoder-decoders, [SEP]).
        start: a token to begin with where there is no text at all and no head: BOS or EOS; None without either.
        takes_system: whether the chat template shows a system turn.
        control: matches text that the tokenizer would read as a control token.
    """

    head: tuple[int, ...]
    tail: tuple[int, ...]
    start: int | None
    takes_system: bool
    control: re.Pattern[str]


def text_format(tokenizer: Any) -> TextFormat:
    """Return the format of a tokenizer; found out when first asked, and again when its chat template has changed."""
    return _find_text_format(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=16)
def _find_text_format(tokenizer: Any, chat_template: str) -> TextFormat:
    head, tail = _special_around(tokenizer)
    bos = tokenizer.bos_token_id
    if not head and bos is not None and getattr(tokenizer, "add_bos_token", False):
        head = (bos,)
    return TextFormat(
        head=head,
        tail=tail,
        start=bos if bos is not None else tokenizer.eos_token_id,
        takes_system=tokenizer.chat_template is not None and _takes_system(tokenizer),
        control=_control_pattern(tokenizer),
    )


def render_chat(tokenizer: Any, messages: list[Message], *, with_reply_start: bool) -> str:
    """Return the chat template's text for messages.

    Templates that can think aloud are told not to, and templates that write the date get a fixed one.

    Args:
        tokenizer: has a chat template.
        messages: ``role`` and ``content`` of each turn.
        with_reply_start: also open the assistant's next turn.

    Raises:
        ModelError: the template refuses these messages.
    """
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=with_reply_start,
            enable_thinking=False,
            date_string=_FIXED_DATE,
            chat_template=_without_today(tokenizer.get_chat_template()),
        )
    except Exception as error:  # a template is a program of the model's folder: it raises whatever it does
        roles = ", ".join(message["role"] for message in messages)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"the chat template refuses the turns {roles}: {reason}") from error
    return str(text)


def end_of_turn(tokenizer: Any) -> int | None:
    """Return the control token that the chat template writes after an assistant's turn, or None."""
    if tokenizer.chat_template is None:
        return None
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": _PROBE}]
    after = render_chat(tokenizer, messages, with_reply_start=False).rpartition(_PROBE)[2]
    control = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    control.update(tokenizer.all_special_ids)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return next((int(token) for token in ids if token in control), None)


def _without_today(template: str) -> str:
    """Let the template's function for today's date give the fixed one."""
    if "strftime_now" not in template:
        return template
    return f"{{%- macro strftime_now(form) -%}}{_FIXED_DATE}{{%- endmacro -%}}{template}"


def _special_around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    raise ModelError(f"the tokenizer reads a text differently with special tokens around it: {bare} became {full}")


def _takes_system(tokenizer: Any) -> bool:
    messages = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "q"}]
    try:
        return _PROBE in render_chat(tokenizer, messages, with_reply_start=True)
    except ModelError:
        return False


def _control_pattern(tokenizer: Any) -> re.Pattern[str]:
    """All special tokens, the longest first, except [SEP] and [MASK], which a template for an encoder may write."""
    tokens = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens |= set(tokenizer.all_special_tokens)
    if tokenizer.mask_token is not None:
        tokens -= {tokenizer.mask_token, tokenizer.sep_token}
    ordered = sorted((token for token in tokens if token), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
