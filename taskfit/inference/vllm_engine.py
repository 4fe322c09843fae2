"""The engine that runs a model with vLLM, for GPUs; needs the extra ``[gpu]``.

Written against the offline interface of vLLM 0.12 and later (``LLM.generate``, ``SamplingParams``), and tested against
a stand-in of its shape only: it has not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from taskfit.errors import EngineError, MissingExtraError
from taskfit.inference.replay import billed
from taskfit.inference.requests import Generate, Generated, Request, Response, Score, Scored
from taskfit.models.encoding import Encoded, encode
from taskfit.models.load import open_without_weights
from taskfit.models.source import find_folder
from taskfit.models.work import Work

__all__ = ["VllmEngine"]

_INSTALL = "the vLLM engine needs vllm, which is not installed. Run: pip install 'taskfit[gpu]'"


class VllmEngine:
    """Answers requests with vLLM, which batches and shares beginnings of prompts by itself.

    Prompts are tokenised here, by the same rules as for :class:`taskfit.inference.torch_engine.TorchEngine`, so both
    engines read the same tokens. Scores are log-probabilities of prompt tokens; vLLM computes such prompts anew,
    without its prefix cache, so scoring many labels costs more than it does with our own engine.

    Args:
        name_or_folder: a decoder, as for :func:`taskfit.models.load`.
        settings: further arguments of ``vllm.LLM``: ``tensor_parallel_size``, ``gpu_memory_utilization``, ``dtype``.

    Raises:
        MissingExtraError: vllm is not installed.
        EngineError: the model is no decoder. ModelError: it cannot be found or read.
    """

    kind = "vllm"

    def __init__(self, name_or_folder: str | Path, **settings: Any) -> None:
        try:
            import vllm
        except ImportError:
            raise MissingExtraError(_INSTALL) from None
        folder = find_folder(name_or_folder)
        self._model = open_without_weights(folder, name=str(name_or_folder))
        if self._model.architecture != "decoder":
            raise EngineError(f"vLLM answers with decoders (got {self._model.architecture} {name_or_folder})")
        self._vllm: Any = vllm
        self._settings = {"dtype": "auto", "enable_prefix_caching": True, "seed": 0} | settings
        self._llm: Any = vllm.LLM(
            model=str(folder), tokenizer=str(folder), max_model_len=self._model.context, **self._settings
        )
        self._work = Work()

    @property
    def work(self) -> Work:
        """Everything this engine has computed so far; attended pairs and the output layer are not counted."""
        return self._work

    def identity(self) -> Mapping[str, str]:
        """Return what decides the answers, for :class:`taskfit.inference.response_cache.CachedEngine`."""
        settings = {name: str(value) for name, value in sorted(self._settings.items())}
        return {"engine": f"vllm {self._vllm.__version__}", "model": self._model.fingerprint, **settings}

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests, in order.

        Raises:
            EngineError: a request asks for nothing, or vLLM gives no number for a token.
        """
        encoded = [self._encode(request) for request in requests]
        prompts: list[tuple[int, ...]] = []
        parameters: list[Any] = []
        for request, row in zip(requests, encoded, strict=True):
            if isinstance(request, Score):
                prompts += [row.prompt + answer for answer in row.answers]
                parameters += [self._scoring()] * len(row.answers)
            else:
                prompts.append(row.prompt)
                parameters.append(self._sampling(request))
        outputs = iter(self._generate(prompts, parameters))
        responses: list[Response] = []
        for request, row in zip(requests, encoded, strict=True):
            if isinstance(request, Score):
                responses.append(_scored(row, [next(outputs) for _ in row.answers]))
            else:
                responses.append(_generated(row, next(outputs)))
        for response in responses:
            self._work += billed(response)
        return responses

    def _encode(self, request: Request) -> Encoded:
        if isinstance(request, Score):
            if not request.continuations or "" in request.continuations:
                raise EngineError(
                    f"a Score request needs continuations, none of them empty (got {request.continuations})"
                )
            return encode(self._model, request.prompt, request.continuations, room=1)
        if request.max_tokens < 1 or "" in request.stop:
            raise EngineError("a Generate request needs max_tokens of at least 1, and no empty stop text")
        return encode(self._model, request.prompt, room=request.max_tokens)

    def _generate(self, prompts: Sequence[tuple[int, ...]], parameters: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs: list[Any] = self._llm.generate(asked, list(parameters), use_tqdm=False)
        for prompt, output in zip(prompts, outputs, strict=True):
            computed = len(prompt) + len(output.outputs[0].token_ids) - (output.num_cached_tokens or 0)
            self._work += Work(computed_tokens=computed)
        return outputs

    def _scoring(self) -> Any:
        # One token is generated and thrown away: vLLM generates at least one. 0 asks for the prompt's own tokens only.
        return self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)

    def _sampling(self, request: Generate) -> Any:
        return self._vllm.SamplingParams(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=list(request.stop),
            stop_token_ids=list(self._model.end_token_ids),
            logprobs=0,
            **self._constraint(request),
        )

    def _constraint(self, request: Generate) -> dict[str, Any]:
        """The texts or the schema that the answer must be of, in vLLM's terms."""
        choices, schema = request.choices, request.json_schema
        if not choices and not schema:
            return {}
        from vllm.sampling_params import StructuredOutputsParams

        given = {"choice": list(choices)} if choices else {"json": schema}
        return {"structured_outputs": StructuredOutputsParams(**given)}


def _scored(row: Encoded, outputs: Sequence[Any]) -> Scored:
    logprobs = tuple(
        sum(_logprob(output, len(row.prompt) + at, token) for at, token in enumerate(answer))
        for answer, output in zip(row.answers, outputs, strict=True)
    )
    return Scored(
        logprobs=logprobs,
        tokens=tuple(map(len, row.answers)),
        prompt_tokens=len(row.prompt),
        cut_tokens=row.cut_tokens,
        dropped_shots=row.dropped_shots,
        is_merged=row.is_merged,
    )


def _logprob(output: Any, position: int, token: int) -> float:
    entry = output.prompt_logprobs[position]
    value = float(entry[token].logprob) if entry and token in entry else float("nan")
    if value != value:
        raise EngineError(f"vLLM gives no log-probability for token {token} at position {position} of the prompt")
    return value


def _generated(row: Encoded, output: Any) -> Generated:
    answer = output.outputs[0]
    finish: Literal["end", "stop", "length"] = "end"
    if answer.finish_reason == "length":
        finish = "length"
    elif isinstance(answer.stop_reason, str):
        finish = "stop"
    return Generated(
        text=answer.text,
        finish=finish,
        logprob=float(answer.cumulative_logprob),
        tokens=len(answer.token_ids),
        prompt_tokens=len(row.prompt),
        cut_tokens=row.cut_tokens,
        dropped_shots=row.dropped_shots,
    )
