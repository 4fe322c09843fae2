"""What an answer must be: one of some texts, or a text that satisfies a JSON schema.

A constraint names the tokens that may come next; all others are left out before one is chosen, and the rest keep
their proportions. So every answer that ends by itself satisfies it, at any temperature.

Choices are followed as a tree of their own tokens, the very tokens that :class:`~taskfit.inference.requests.Score`
would score: this is exact for every tokenizer, also where a token reaches back over the prompt's end. Schemas are
llguidance's business (https://github.com/guidance-ai/llguidance), which follows bytes through any byte-level or
byte-fallback vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from taskfit.errors import EngineError
from taskfit.inference.forward import vocabulary_size
from taskfit.inference.trie import Ids

if TYPE_CHECKING:
    from taskfit.inference.requests import Generate
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["Constraint", "check_schema", "constraint_of"]

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Constraint(Protocol):
    """What may come next in one answer.

    Attributes:
        text: the whole answer, once it has ended by itself, where the constraint knows it better than its tokens do.
    """

    text: str | None

    def allowed(self) -> Tensor:
        """Return the tokens that may come next, in ascending order; never none."""
        ...

    def add(self, token: int) -> bool:
        """Take one of them; return whether the answer is complete and nothing else may follow."""
        ...


def constraint_of(model: LanguageModel, request: Generate, encoded: Encoded) -> Constraint | None:
    """Return a new constraint for an answer, or None where it is free.

    Raises:
        EngineError: the tokenizer cannot be constrained to a schema, or the schema is none.
    """
    if request.choices:
        return _Choices(request.choices, encoded.answers, model.end_token_ids)
    if request.json_schema:
        return _Schema(model, request.json_schema)
    return None


class _Choices:
    """The answer is one of some texts.

    Where a text is complete and goes on as another one, the model chooses between its end and going on; where nothing
    can follow, the answer ends without asking for the end.
    """

    def __init__(self, texts: Sequence[str], tokens: Sequence[Ids], ends: Ids) -> None:
        self._texts = dict(zip(tokens, texts, strict=True))
        self._ends = set(ends)
        self._so_far: Ids = ()
        self.text: str | None = None

    def allowed(self) -> Tensor:
        """Return the next tokens of all texts that begin with what there is, and the end where one is complete."""
        place = len(self._so_far)
        following = {tokens[place] for tokens in self._texts if len(tokens) > place and self._begins(tokens)}
        ends = self._ends if self._so_far in self._texts else set()
        return torch.tensor(sorted(following | ends))

    def add(self, token: int) -> bool:
        """Take a token."""
        self._so_far = (*self._so_far, token)
        self.text = self._texts.get(self._so_far)
        return self.text is not None and sum(map(self._begins, self._texts)) == 1

    def _begins(self, tokens: Ids) -> bool:
        return tokens[: len(self._so_far)] == self._so_far


class _Schema:
    """The answer satisfies a JSON schema; one space may stand in front of it."""

    text: str | None = None

    def __init__(self, model: LanguageModel, schema: str) -> None:
        from llguidance import LLMatcher

        size = vocabulary_size(model.module)
        self._matcher: Any = LLMatcher(_guide(model.tokenizer, size, model.end_token_ids), _grammar(schema))
        self._size = size
        self._raise_if_broken()

    def allowed(self) -> Tensor:
        """Return the tokens with which the text can still satisfy the schema."""
        bits = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        self._raise_if_broken()
        places = torch.arange(8, dtype=torch.uint8)
        allowed = (bits[:, None] >> places & 1).flatten()[: self._size].nonzero()[:, 0]
        if not len(allowed):
            raise EngineError("no token of the vocabulary can go on with the JSON text", "Take a simpler schema.")
        return allowed

    def add(self, token: int) -> bool:
        """Take a token."""
        self._matcher.consume_token(token)
        self._raise_if_broken()
        return bool(self._matcher.is_stopped())

    def _raise_if_broken(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"the JSON schema cannot be followed: {self._matcher.get_error()}")


def check_schema(model: LanguageModel, schema: str) -> None:
    """Check that answers of a model can be held to a JSON schema.

    Raises:
        EngineError: it is no JSON, no schema, uses what llguidance does not know, or the tokenizer is not supported.
    """
    from llguidance import LLMatcher

    problem = LLMatcher.validate_grammar(_grammar(schema))
    if problem:
        reason = problem.splitlines()[0]
        raise EngineError(f"json_schema cannot be followed: {reason}", "See json-schema.org for what a schema is.")
    _guide(model.tokenizer, vocabulary_size(model.module), model.end_token_ids)


@lru_cache(maxsize=64)
def _grammar(schema: str) -> str:
    from llguidance import LLMatcher

    try:
        parsed = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"json_schema must be JSON ({error}); got {schema[:60]!r}") from error
    if not isinstance(parsed, dict):
        raise EngineError(f'json_schema must be a JSON object, as in {{"type": "object"}} (got {schema[:60]!r})')
    text = json.dumps({**parsed, "x-guidance": _COMPACT})
    return str(LLMatcher.grammar_from_lark(f'start: " "? json\njson: %json {text}'))


@lru_cache(maxsize=4)
def _guide(tokenizer: Any, size: int, ends: Ids) -> Any:
    """Return what llguidance knows of a tokenizer: a second's work for a large one, so it is kept."""
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer, n_vocab=size, eos_token=list(ends))
    except Exception as error:  # the library does not say which types it raises
        raise EngineError(
            f"this tokenizer cannot be held to a JSON schema: {error}",
            "Take a model with a byte-level or byte-fallback tokenizer (most decoders), or `choices`.",
        ) from error
