"""The vLLM engine against a stand-in of vLLM's shape that computes with transformers; no GPU was there."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from taskfit.errors import EngineError, MissingExtraError
from taskfit.inference.requests import Generate, Generated, Request, Score, Scored
from taskfit.inference.torch_engine import TorchEngine
from taskfit.inference.vllm_engine import VllmEngine
from taskfit.models import LanguageModel
from taskfit.tasks.prompt import Prompt, Shot

Tiny = Callable[[str], LanguageModel]


@dataclass
class SamplingParams:
    """The parameters that are used, with vLLM's names; any other is refused."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    structured_outputs: Any = None


@dataclass
class StructuredOutputsParams:
    choice: list[str] | None = None
    json: str | None = None


@pytest.fixture
def vllm(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module named vllm whose LLM computes greedily with the tiny model."""
    import torch

    loaded = {str(tiny(kind).folder): tiny(kind) for kind in ("llama", "chat")}
    module: Any = types.ModuleType("vllm")
    module.settings, module.parameters = [], []

    class LLM:
        def __init__(self, model: str, tokenizer: str, max_model_len: int, **settings: Any) -> None:
            module.settings.append(settings)
            self.model = loaded[model]
            assert (tokenizer, max_model_len) == (model, self.model.context)

        def generate(self, prompts: list[Any], parameters: list[SamplingParams], use_tqdm: bool) -> list[Any]:
            assert not use_tqdm
            module.parameters += parameters
            return [self.one(p["prompt_token_ids"], params) for p, params in zip(prompts, parameters, strict=True)]

        def logprobs(self, ids: list[int]) -> torch.Tensor:
            with torch.inference_mode():
                return self.model.module(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)

        def one(self, prompt: list[int], params: SamplingParams) -> Any:
            scores = self.logprobs(prompt)
            rows = [None, *({t: types.SimpleNamespace(logprob=float(scores[n, t]))} for n, t in enumerate(prompt[1:]))]
            ids, total, finish, stopped = list(prompt), 0.0, "length", None
            for _ in range(params.max_tokens):
                row = self.logprobs(ids)[-1]
                token = int(row.argmax())
                ids.append(token)
                total += float(row[token])
                if token in params.stop_token_ids:
                    finish = "stop"
                    break
            text = self.model.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
            for stop in params.stop:
                if stop in text:
                    text, finish, stopped = text[: text.index(stop)], "stop", stop
            answer = types.SimpleNamespace(
                text=text,
                token_ids=ids[len(prompt) :],
                cumulative_logprob=total,
                finish_reason=finish,
                stop_reason=stopped,
            )
            has_rows = params.prompt_logprobs is not None
            return types.SimpleNamespace(
                prompt_logprobs=rows if has_rows else None, outputs=[answer], num_cached_tokens=None
            )

    module.LLM, module.SamplingParams, module.__version__ = LLM, SamplingParams, "0.0-stand-in"
    sampling_params: Any = types.ModuleType("vllm.sampling_params")
    sampling_params.StructuredOutputsParams = StructuredOutputsParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling_params)
    return module


PROMPTS = [Prompt("Is the answer yes or no?"), Prompt("Label:", (Shot("Sentence: good", "positive"),), "Be brief.")]


@pytest.mark.parametrize("kind", ["llama", "chat"])
def test_answers_are_those_of_our_own_engine(tiny: Tiny, vllm: Any, kind: str) -> None:
    requests: list[Request] = [Score(prompt, ("yes", "no", "not at all")) for prompt in PROMPTS]
    requests += [Generate(prompt, 6) for prompt in PROMPTS]
    engine = VllmEngine(tiny(kind).folder)
    own = TorchEngine(tiny(kind)).run(requests)
    for ours, theirs in zip(own, engine.run(requests), strict=True):
        if isinstance(ours, Scored) and isinstance(theirs, Scored):
            assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-4)
            assert (theirs.tokens, theirs.prompt_tokens) == (ours.tokens, ours.prompt_tokens)
        elif isinstance(ours, Generated) and isinstance(theirs, Generated):
            assert theirs.tokens == ours.tokens
            assert theirs.text.strip() == ours.text.strip()
            assert theirs.logprob == pytest.approx(ours.logprob, abs=1e-3)
            assert theirs.finish == ours.finish
    assert engine.work.prompt_tokens == sum(answer.prompt_tokens for answer in own)
    assert engine.work.computed_tokens > engine.work.prompt_tokens
    assert engine.run([]) == []


def test_parameters_go_over_with_each_requests_own_seed(tiny: Tiny, vllm: Any) -> None:
    engine = VllmEngine(tiny("llama").folder, tensor_parallel_size=2)
    engine.run([Generate(PROMPTS[0], 3, ("\n",), 0.7, 0.9, seed) for seed in (4, 5)])
    assert vllm.settings == [{"dtype": "auto", "enable_prefix_caching": True, "seed": 0, "tensor_parallel_size": 2}]
    assert [(p.seed, p.temperature, p.top_p, p.stop) for p in vllm.parameters] == [
        (s, 0.7, 0.9, ["\n"]) for s in (4, 5)
    ]
    assert vllm.parameters[0].stop_token_ids == list(tiny("llama").end_token_ids)


def test_constraints_go_over(tiny: Tiny, vllm: Any) -> None:
    engine = VllmEngine(tiny("llama").folder)
    free = types.SimpleNamespace(choices=(), json_schema="")
    one_of = types.SimpleNamespace(choices=("yes", "no"), json_schema="")
    schema = types.SimpleNamespace(choices=(), json_schema='{"type": "object"}')
    found = [engine._constraint(request) for request in (free, one_of, schema)]  # type: ignore[arg-type]
    assert found[0] == {}
    assert found[1]["structured_outputs"].choice == ["yes", "no"]
    assert found[2]["structured_outputs"].json == '{"type": "object"}'


def test_what_decides_answers_is_in_the_identity(tiny: Tiny, vllm: Any) -> None:
    identities = [
        VllmEngine(tiny("llama").folder).identity(),
        VllmEngine(tiny("chat").folder).identity(),
        VllmEngine(tiny("llama").folder, dtype="float16").identity(),
    ]
    assert len({repr(one) for one in identities}) == 3


def test_a_stop_text_is_told_from_the_end(tiny: Tiny, vllm: Any) -> None:
    engine = VllmEngine(tiny("llama").folder)
    (whole,) = engine.run([Generate(PROMPTS[0], 6)])
    assert isinstance(whole, Generated)
    (cut,) = engine.run([Generate(PROMPTS[0], 6, stop=(whole.text[-1],))])
    assert isinstance(cut, Generated) and cut.finish == "stop"


@pytest.mark.parametrize(
    "request_",
    [Score(PROMPTS[0], ()), Score(PROMPTS[0], ("",)), Generate(PROMPTS[0], 0), Generate(PROMPTS[0], 1, stop=("",))],
)
def test_requests_that_ask_for_nothing_are_refused(tiny: Tiny, vllm: Any, request_: Request) -> None:
    with pytest.raises(EngineError):
        VllmEngine(tiny("llama").folder).run([request_])


def test_a_token_without_a_number_is_an_error(tiny: Tiny, vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = VllmEngine(tiny("llama").folder)
    real = vllm.LLM.one

    def without(self: Any, prompt: list[int], params: Any) -> Any:
        output = real(self, prompt, params)
        output.prompt_logprobs[-1] = {}
        return output

    monkeypatch.setattr(vllm.LLM, "one", without)
    with pytest.raises(EngineError, match="no log-probability for token"):
        engine.run([Score(PROMPTS[0], ("yes",))])


def test_models_that_are_no_decoders_are_refused(tiny: Tiny, vllm: Any) -> None:
    with pytest.raises(EngineError, match="got encoder-decoder"):
        VllmEngine(tiny("t5").folder)


def test_without_vllm_the_extra_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"taskfit\[gpu\]"):
        VllmEngine(tiny("llama").folder)
