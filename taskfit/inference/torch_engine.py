"""The engine that runs a model in this process, with torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from taskfit import __version__
from taskfit.errors import EngineError
from taskfit.inference.requests import Generate, Request, Response, Score, Scored
from taskfit.models.content import ModelContent
from taskfit.models.encoding import Encoded, encode
from taskfit.models.work import Work, take_hidden_work

if TYPE_CHECKING:
    from taskfit.inference.sharing import Sharing
    from taskfit.inference.trie import Ids
    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.prompt import Prompt

__all__ = ["TorchEngine"]


class TorchEngine:
    """Answers requests with a language model in memory.

    Answers do not depend on the order or number of requests (to rounding: about 1e-5 in float32, 1e-2 in bfloat16).
    Dropout is off while it runs; the model is left in the mode it was found in.

    Args:
        model: tuned or not; an encoder scores with its masked-token head and generates nothing.
        batch_tokens: most positions, padding included, that go through the model at once; chosen by device when None.
            Where memory runs out, batches are halved.
    """

    def __init__(self, model: LanguageModel, *, batch_tokens: int | None = None) -> None:
        from taskfit.inference.batches import default_batch_tokens, default_pack_tokens

        if model.architecture == "encoder" and not model.has_masked_head:
            raise EngineError(
                f"model {model.name!r} is an encoder without a masked-token head: it neither scores nor generates text",
                "Use the strategy 'encoder', which puts a head on it, or give a decoder or encoder-decoder.",
            )
        if batch_tokens is not None and batch_tokens < 1:
            raise EngineError(f"batch_tokens must be at least 1 (got {batch_tokens})")
        self._model = model
        self._batch_tokens = batch_tokens or default_batch_tokens(model.device)
        self._pack_tokens = batch_tokens or default_pack_tokens(model.device)
        self._work = Work()
        self._content = ModelContent(model)
        self._notes: dict[str, None] = {}
        self._has_tried = False
        self._sharing: Sharing | None = None
        self._window = float("inf")
        self._slot_bytes: int | None = None  # 0 where slots cannot be used

    @property
    def work(self) -> Work:
        """Everything this engine has computed so far."""
        return self._work

    def identity(self) -> Mapping[str, str]:
        """Return what decides the answers, for :class:`taskfit.inference.response_cache.CachedEngine`."""
        from importlib.metadata import version

        versions = {name: version(name) for name in ("torch", "transformers")} | {"taskfit": __version__}
        return {"engine": "torch", "model": self._content.fingerprint(), "device": self._model.device.type, **versions}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the answers so far, in sentences, each once."""
        return tuple(self._notes)

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests, in order.

        Raises:
            EngineError: a continuation is empty, two of one request have the same tokens, a number is out of its
                range, nothing is left of the context, an encoder is asked for a text, or the model gives NaN.
            ResourceError: memory runs out on a single request.
        """
        from taskfit.inference.forward import evaluating

        encoded = [_encode(self._model, request) for request in requests]
        answers: dict[int, Response] = {}
        take_hidden_work(self._model.module)  # what was trained before is not this engine's
        with evaluating(self._model.module):
            scored = [(number, request) for number, request in enumerate(requests) if isinstance(request, Score)]
            asked = [(number, request) for number, request in enumerate(requests) if isinstance(request, Generate)]
            answers.update(self._score([number for number, _ in scored], encoded))
            answers.update(self._generate(asked, encoded))
        self._count(encoded, answers)
        return [answers[number] for number in range(len(requests))]

    def _score(self, numbers: Sequence[int], encoded: Sequence[Encoded]) -> dict[int, Response]:
        if not numbers:
            return {}
        distinct = list(dict.fromkeys((encoded[number].prompt, encoded[number].answers) for number in numbers))
        scores, work = self._scores([Encoded(prompt, answers) for prompt, answers in distinct])
        self._work += work + take_hidden_work(self._model.module)
        found = dict(zip(distinct, scores, strict=True))
        return {number: self._scored(encoded[number], found) for number in numbers}

    def _scores(self, encoded: Sequence[Encoded]) -> tuple[list[tuple[float, ...]], Work]:
        from taskfit.inference.score_decoder import score_separately
        from taskfit.inference.score_encoder import score_encoder
        from taskfit.inference.score_encoder_decoder import score_encoder_decoder
        from taskfit.inference.score_shared import score_shared
        from taskfit.inference.sharing import cache_bytes

        model = self._model
        if model.architecture == "encoder":
            return score_encoder(model, encoded, self._batch_tokens)
        if model.architecture == "encoder-decoder":
            return score_encoder_decoder(model, encoded, self._batch_tokens)
        sharing = self._find_sharing()
        longest = max(len(row.prompt) + max(map(len, row.answers)) for row in encoded)
        if sharing is None or not sharing.reaches(self._window, longest):
            self._note(
                f"{model.name}: answers are scored one by one, because its attention does not let rows share what they "
                "have in common; scores are the same, only slower"
            )
            return score_separately(model, encoded, self._batch_tokens)
        return score_shared(model, encoded, self._pack_tokens, sharing, cache_bytes=cache_bytes(model.device))

    def _scored(self, row: Encoded, found: Mapping[tuple[Ids, tuple[Ids, ...]], tuple[float, ...]]) -> Scored:
        has_prefix_pair = _has_prefix_pair(row.answers)
        if has_prefix_pair:
            self._note(
                "one answer begins with another: the shorter one is scored without its end, so it can only be likelier"
            )
        if row.is_merged:
            self._note(
                "the tokenizer merges the end of a prompt with the start of an answer: their joint tokens are scored"
            )
        return Scored(
            logprobs=found[row.prompt, row.answers],
            tokens=tuple(map(len, row.answers)),
            prompt_tokens=len(row.prompt),
            cut_tokens=row.cut_tokens,
            dropped_shots=row.dropped_shots,
            is_merged=row.is_merged,
            has_prefix_pair=has_prefix_pair,
        )

    def _note(self, sentence: str) -> None:
        self._notes.setdefault(sentence)

    def _generate(self, asked: Sequence[tuple[int, Generate]], encoded: Sequence[Encoded]) -> dict[int, Response]:
        from taskfit.inference.answers import room
        from taskfit.inference.continuous import generate_continuously, slot_bytes, tokens_to_keep
        from taskfit.inference.generate import generate
        from taskfit.inference.packed_linears import packed_linears
        from taskfit.inference.sharing import declared_window

        if not asked:
            return {}
        pairs = [(request, encoded[number]) for number, request in asked]
        if self._slot_bytes is None:
            self._slot_bytes = (slot_bytes(self._model) if self._model.architecture == "decoder" else None) or 0
            take_hidden_work(self._model.module)  # of the trial
        with packed_linears(self._model.module, max(room(request, row) for request, row in pairs)):
            if self._slot_bytes:
                longest = max(len(row.prompt) + request.max_tokens for request, row in pairs)
                kept = tokens_to_keep(self._model, self._batch_tokens, self._slot_bytes)
                can_share = longest <= declared_window(self._model)
                texts, work = generate_continuously(self._model, pairs, kept, can_share=can_share)
            else:
                texts, work = generate(self._model, pairs, 2 * self._batch_tokens)
        self._work += work + take_hidden_work(self._model.module)
        return {number: text for (number, _), text in zip(asked, texts, strict=True)}

    def _find_sharing(self) -> Sharing | None:
        """How rows can be shared; tried once."""
        from taskfit.inference.sharing import declared_window, find_sharing

        if not self._has_tried:
            self._sharing, self._window, self._has_tried = find_sharing(self._model), declared_window(self._model), True
            take_hidden_work(self._model.module)  # of the trial
        return self._sharing

    def _count(self, encoded: Sequence[Encoded], answers: dict[int, Response]) -> None:
        for number, row in enumerate(encoded):
            response = answers[number]
            tokens = sum(response.tokens) if isinstance(response, Scored) else response.tokens
            self._work += Work(
                prompt_tokens=len(row.prompt),
                answer_tokens=tokens,
                cut_tokens=row.cut_tokens,
                cut_rows=int(row.cut_tokens > 0),
                dropped_shots=row.dropped_shots,
            )


def _encode(model: LanguageModel, request: Request) -> Encoded:
    if isinstance(request, Generate):
        _check_can_generate(model)
        _check_numbers(request)
        _check_constraints(model, request)
        if not request.choices:
            return encode(model, request.prompt, room=request.max_tokens)
        return _encode_answers(model, request.prompt, request.choices)
    if not request.continuations:
        raise EngineError("a Score request needs at least one continuation (got none)")
    if "" in request.continuations:
        raise EngineError(f"a continuation is empty: {request.continuations}; there is nothing to score")
    return _encode_answers(model, request.prompt, request.continuations)


def _encode_answers(model: LanguageModel, prompt: Prompt, answers: tuple[str, ...]) -> Encoded:
    encoded = encode(model, prompt, answers)
    if len(set(encoded.answers)) < len(encoded.answers):
        _refuse_same_tokens(answers, encoded)
    return encoded


def _check_numbers(request: Generate) -> None:
    if request.max_tokens < 1:
        raise EngineError(f"max_tokens must be at least 1 (got {request.max_tokens})")
    if not 0 <= request.temperature < float("inf"):
        raise EngineError(f"temperature must be at least 0 and finite (got {request.temperature})")
    if not 0 < request.top_p <= 1:
        raise EngineError(f"top_p must be above 0 and at most 1 (got {request.top_p})")
    if "" in request.stop:
        raise EngineError("a stop text is empty; it would end every answer before it begins")


def _check_constraints(model: LanguageModel, request: Generate) -> None:
    if bool(request.choices) + bool(request.json_schema) + bool(request.stop) > 1:
        raise EngineError("choices, json_schema and stop exclude each other; give one of them")
    if "" in request.choices:
        raise EngineError(f"a choice is empty: {request.choices}; there is nothing to write")
    if request.json_schema:
        from taskfit.inference.constraints import check_schema

        check_schema(model, request.json_schema)


def _refuse_same_tokens(continuations: Sequence[str], encoded: Encoded) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for text, tokens in zip(continuations, encoded.answers, strict=True):
        if tokens in seen:
            raise EngineError(
                f"continuations {seen[tokens]!r} and {text!r} have the same tokens; the model cannot tell them apart",
                "Word the labels or options differently.",
            )
        seen[tokens] = text


def _has_prefix_pair(answers: Sequence[Ids]) -> bool:
    """Whether one answer begins with another; in sorted order it would be its neighbour."""
    ranked = sorted(answers)
    return any(other[: len(one)] == one for one, other in pairwise(ranked))


def _check_can_generate(model: LanguageModel) -> None:
    if model.architecture == "encoder":
        raise EngineError(
            f"model {model.name!r} is an encoder: it scores answers, and generates no text",
            "Give a decoder or encoder-decoder.",
        )
    module: Any = model.module
    config = getattr(module, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise EngineError(f"{type(config).__name__} puts tokens in front; generating with it is not supported yet")
