"""The engine that runs a model in this process, with torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taskfit import __version__
from taskfit.errors import EngineError
from taskfit.inference.requests import Generate, Request, Response, Score, Scored
from taskfit.models.content import ModelContent
from taskfit.models.encoding import Encoded, encode
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel

__all__ = ["TorchEngine"]

_PROBE_PROMPTS = (tuple(range(7, 19)), tuple(range(7, 16)))
_PROBE_ANSWERS = ((20, 21, 22), (20, 23), (24,), (25, 21, 20))


class TorchEngine:
    """Answers requests with a language model in memory.

    Answers do not depend on the order or number of requests (to rounding: about 1e-5 in float32, 1e-2 in bfloat16).
    Dropout is off while it runs; the model is left in the mode it was found in.

    Args:
        model: a decoder or encoder-decoder, tuned or not.
        batch_tokens: most positions, padding included, that go through the model at once; chosen by device when None.
            Where memory runs out, batches are halved.
    """

    def __init__(self, model: LanguageModel, *, batch_tokens: int | None = None) -> None:
        from taskfit.inference.batches import default_batch_tokens

        if model.architecture == "encoder":
            raise EngineError(
                f"model {model.name!r} is an encoder: it neither scores nor generates text",
                "Use the strategy 'encoder', which puts a head on it, or give a decoder or encoder-decoder.",
            )
        if batch_tokens is not None and batch_tokens < 1:
            raise EngineError(f"batch_tokens must be at least 1 (got {batch_tokens})")
        self._model = model
        self._batch_tokens = batch_tokens or default_batch_tokens(model.device)
        self._work = Work()
        self._content = ModelContent(model)
        self._takes_trees: bool | None = None

    @property
    def work(self) -> Work:
        """Everything this engine has computed so far."""
        return self._work

    def identity(self) -> Mapping[str, str]:
        """Return what decides the answers, for :class:`taskfit.inference.response_cache.CachedEngine`."""
        from importlib.metadata import version

        versions = {name: version(name) for name in ("torch", "transformers")} | {"taskfit": __version__}
        return {"engine": "torch", "model": self._content.fingerprint(), "device": self._model.device.type, **versions}

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests, in order.

        Raises:
            EngineError: a continuation is empty, two of one request have the same tokens, a number is out of its
                range, nothing is left of the context, or the model gives NaN.
            ResourceError: memory runs out on a single request.
        """
        from taskfit.inference.forward import evaluating

        encoded = [_encode(self._model, request) for request in requests]
        answers: dict[int, Response] = {}
        with evaluating(self._model.module):
            scored = [(number, request) for number, request in enumerate(requests) if isinstance(request, Score)]
            asked = [(number, request) for number, request in enumerate(requests) if isinstance(request, Generate)]
            answers.update(self._score([number for number, _ in scored], encoded))
            answers.update(self._generate(asked, encoded))
        self._count(encoded, answers)
        return [answers[number] for number in range(len(requests))]

    def _score(self, numbers: Sequence[int], encoded: Sequence[Encoded]) -> dict[int, Response]:
        chosen = [encoded[number] for number in numbers]
        if not chosen:
            return {}
        scores, work = self._scorer(chosen)(self._model, chosen, self._batch_tokens)
        self._work += work
        return {
            number: Scored(
                logprobs=logprobs,
                tokens=tuple(map(len, row.answers)),
                prompt_tokens=len(row.prompt),
                cut_tokens=row.cut_tokens,
                dropped_shots=row.dropped_shots,
                is_merged=row.is_merged,
            )
            for number, row, logprobs in zip(numbers, chosen, scores, strict=True)
        }

    def _scorer(self, encoded: Sequence[Encoded]) -> Callable[..., tuple[list[tuple[float, ...]], Work]]:
        from taskfit.inference.score_decoder import score_separately, score_trees
        from taskfit.inference.score_encoder_decoder import score_encoder_decoder

        if self._model.architecture == "encoder-decoder":
            return score_encoder_decoder
        longest = max(len(row.prompt) + max(map(len, row.answers)) for row in encoded)
        return score_trees if self._can_share(longest) else score_separately

    def _generate(self, asked: Sequence[tuple[int, Generate]], encoded: Sequence[Encoded]) -> dict[int, Response]:
        from taskfit.inference.generate import generate

        if not asked:
            return {}
        _check_can_generate(self._model)
        longest = max(len(encoded[number].prompt) + request.max_tokens for number, request in asked)
        texts, work = generate(
            self._model,
            [(request, encoded[number]) for number, request in asked],
            2 * self._batch_tokens,
            can_share=self._model.architecture == "decoder" and self._can_share(longest),
        )
        self._work += work
        return {number: text for (number, _), text in zip(asked, texts, strict=True)}

    def _can_share(self, longest: int) -> bool:
        """Whether one mask and one cache may serve several answers: tried once, and no window is shorter."""
        if self._takes_trees is None:
            self._takes_trees = _takes_trees(self._model)
        return self._takes_trees and longest <= _window(self._model)

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
        _check_numbers(request)
        return encode(model, request.prompt, room=request.max_tokens)
    if not request.continuations:
        raise EngineError("a Score request needs at least one continuation (got none)")
    if "" in request.continuations:
        raise EngineError(f"a continuation is empty: {request.continuations}; there is nothing to score")
    encoded = encode(model, request.prompt, request.continuations)
    if len(set(encoded.answers)) < len(encoded.answers):
        _refuse_same_tokens(request.continuations, encoded)
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


def _refuse_same_tokens(continuations: Sequence[str], encoded: Encoded) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for text, tokens in zip(continuations, encoded.answers, strict=True):
        if tokens in seen:
            raise EngineError(
                f"continuations {seen[tokens]!r} and {text!r} have the same tokens; the model cannot tell them apart",
                "Word the labels or options differently.",
            )
        seen[tokens] = text


def _check_can_generate(model: LanguageModel) -> None:
    module: Any = model.module
    config = getattr(module, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise EngineError(f"{type(config).__name__} puts tokens in front; generating with it is not supported yet")


def _window(model: LanguageModel) -> float:
    """The most positions that every layer sees; infinite without sliding windows, 0 where layers differ in it."""
    module: Any = model.module
    config = module.config.get_text_config()
    try:
        window = getattr(config, "sliding_window", None)
    except RuntimeError:  # transformers refuses to name one window for layers that differ
        return 0
    is_used = getattr(config, "use_sliding_window", True)
    return window if isinstance(window, int) and is_used else float("inf")


def _takes_trees(model: LanguageModel) -> bool:
    """Try on a few tokens whether trees behind a shared cache score as separate sequences do."""
    from taskfit.inference.score_decoder import score_separately, score_trees

    trial = [Encoded(prompt, _PROBE_ANSWERS) for prompt in _PROBE_PROMPTS]
    try:
        together, _ = score_trees(model, trial, 4096, worth_sharing=4)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return False  # the architecture refuses our mask or cache: one answer at a time is slower, and right
    apart, _ = score_separately(model, trial, 4096)
    tolerance = 1e-3 if str(model.dtype) == "torch.float32" else 0.03
    return all(
        abs(a - b) <= tolerance * max(1.0, abs(b))
        for row, other in zip(together, apart, strict=True)
        for a, b in zip(row, other, strict=True)
    )
