"""One contract for every tuning method on every architecture: what it changes, trains, saves and gives back.

A case is one method on one tiny model. It is trained for two steps once; every test reads what that left.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from taskfit.errors import ConfigError
from taskfit.inference.requests import Generate, Score
from taskfit.inference.torch_engine import TorchEngine
from taskfit.models.encoding import encode
from taskfit.models.language_model import LanguageModel
from taskfit.models.quiet import quiet_transformers
from taskfit.strategy.composed import Composed
from taskfit.strategy.grammar import parse
from taskfit.strategy.table import STRATEGIES
from taskfit.tasks.prompt import Prompt
from taskfit.tuning.method import Method, count_values
from taskfit.tuning.qlora import QLora, quantise
from tests.tuning.keyword_task import Family, tiny_model

FAMILIES: tuple[Family, ...] = ("llama", "plain", "gpt2", "t5", "bert")
"""Grouped queries and tied embeddings; neither; learned positions and tied; encoder–decoder; encoder."""

NAMES = (
    "full",
    "bitfit",
    "norms",
    "last-layers(n=1)",
    "head-only",
    "random-mask(share=0.05)",
    "lora(rank=4)",
    "rslora(rank=4, alpha=2)",
    "dora(rank=4)",
    "pissa(rank=4, alpha=4)",
    "vera(rank=8)",
    "adalora(rank=2, initial_rank=4)",
    "qlora(rank=4)",
    "qlora(bits=8, rank=4)",
    "ia3",
    "adapter(kind=houlsby, bottleneck=4)",
    "adapter(bottleneck=4)",
    "adapter(kind=parallel, bottleneck=4)",
    "prompt-tuning(tokens=3)",
    'prompt-tuning(init=text, text="the good film", tokens=3)',
    "p-tuning(hidden=8, tokens=3)",
    "p-tuning(network=lstm, hidden=8, tokens=3)",
    "prefix-tuning(tokens=3)",
    "prefix-tuning(reparameterise=true, hidden=8, tokens=3)",
    "p-tuning-v2(tokens=3)",
)

NO_BIASES = {("bitfit", family) for family in ("llama", "plain", "t5")}
NOTHING_OF_THE_BODY = {("head-only", "bert")}
SAME_AS_LLAMA = {
    (name, "plain") for name in NAMES if any(word in name for word in ("dora", "rs", "vera", "qlora", "ada"))
}
"""Not run on the decoder without grouped queries: to these methods a linear layer is a linear layer."""
CASES = [
    (name, family)
    for name in NAMES
    for family in FAMILIES
    if (name, family) not in NO_BIASES and (name, family) not in SAME_AS_LLAMA
]
TRAINING_CASES = [case for case in CASES if case not in NOTHING_OF_THE_BODY]

SOFT_PROMPTS = ("prompt-tuning", "p-tuning", "prefix-tuning", "p-tuning-v2")
IN_PEFT_FORMAT = ("lora", "rslora", "dora", "pissa", "vera", "adalora", "qlora", "ia3", *SOFT_PROMPTS)
NOT_MERGED = ("qlora", "adapter", *SOFT_PROMPTS)

ONLY_THESE = {
    "bitfit": lambda name: name.endswith("bias"),
    "norms": lambda name: "norm" in name.lower() or "ln_" in name,
    "last-layers(n=1)": lambda name: re.search(r"(model.layers|h|decoder.block|encoder.layer)\.1\.", name) is not None,
    "head-only": lambda name: name == "lm_head.weight",
    "random-mask(share=0.05)": lambda name: name.endswith(".parametrizations.weight.0.values"),
    "vera(rank=8)": lambda name: "vera_lambda" in name,
    "ia3": lambda name: "ia3_l" in name,
    "full": lambda name: True,
} | {name: (lambda name: "lora_" in name) for name in NAMES if "lora" in name or "dora" in name or "pissa" in name}


@dataclass
class Case:
    """A trained method, and what was seen on the way."""

    method: Method
    family: Family
    model: LanguageModel
    plain: Tensor
    fresh: Tensor
    trained_values: int
    names: set[str]
    moved: set[str] = field(default_factory=set)
    gradients: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    trained: Tensor = field(default_factory=lambda: torch.zeros(0))
    folder: Path = Path()


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the tiny models and the cases' folders lie."""
    global FOLDER
    FOLDER = tmp_path_factory.mktemp("methods")
    yield FOLDER
    case.cache_clear()
    loaded_once.cache_clear()
    base.cache_clear()


FOLDER = Path()


@cache
def base(family: Family, dtype: str) -> LanguageModel:
    model = tiny_model(FOLDER, family, dtype)
    if family == "bert":
        model.module.pooler = None
    for part in model.module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # so that training mode changes nothing by itself
    return model


def fresh_model(family: Family, dtype: str = "float32") -> LanguageModel:
    """A model of one's own; copied in memory, which is faster than loading."""
    model = base(family, dtype)
    shared = {id(part.config): part.config for part in model.module.modules() if hasattr(part, "config")}
    return replace(model, module=copy.deepcopy(model.module, shared))


def method_of(name: str) -> Method:
    strategy = parse(name)
    assert isinstance(strategy, Composed) and isinstance(strategy.weights, Method)
    return strategy.weights


def batch(model: LanguageModel, rows: slice = slice(0, 4)) -> dict[str, Tensor]:
    """Four rows of different lengths, padded on the right."""
    ids = torch.randint(5, 90, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9) < torch.tensor([[9], [6], [8], [4]])).long()
    found = {"input_ids": ids[rows], "attention_mask": mask[rows]}
    if model.architecture == "encoder-decoder":
        found["decoder_input_ids"] = ids[rows, :5]
    return found


def outputs(model: LanguageModel, rows: slice = slice(0, 4)) -> Tensor:
    """Logits (of an encoder: hidden states) at real positions, one after the other."""
    inputs = batch(model, rows)
    found = model.module(**inputs) if model.architecture == "encoder" else model.module(**inputs, use_cache=False)
    values = found.last_hidden_state if model.architecture == "encoder" else found.logits
    return values.flatten(0, 1) if model.architecture == "encoder-decoder" else values[inputs["attention_mask"].bool()]


def seen(model: LanguageModel) -> Tensor:
    with torch.no_grad():
        return outputs(model).float().clone()


def loss(model: LanguageModel, rows: slice = slice(0, 4)) -> Tensor:
    """A sum over positions, so that micro-batches add up; the same for every method."""
    values = outputs(model, rows).float()
    return (values[:, :8].logsumexp(-1) - values[:, 3]).sum()


def gradients(model: LanguageModel, *parts: slice) -> dict[str, Tensor]:
    parameters = {name: value for name, value in model.module.named_parameters() if value.requires_grad}
    model.module.train()
    for value in parameters.values():
        value.grad = None
    for part in parts:
        loss(model, part).backward()
    model.module.eval()
    return {name: value.grad.clone() for name, value in parameters.items() if value.grad is not None}


def checkpointed(model: LanguageModel) -> dict[str, Tensor]:
    """Gradients with every block recomputed going backward."""
    module = model.module.get_base_model() if isinstance(model.module, peft.PeftModel) else model.module
    module.activation_checkpointing_enable()
    try:
        with quiet_transformers():
            return gradients(model, slice(0, 4))
    finally:
        module.activation_checkpointing_disable()


def shake(parameters: Mapping[str, Tensor], seed: int) -> None:
    """Move the weights a little: a second factor of zero would hide the first one's gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in parameters.values():
            value.add_(0.02 * torch.randn(value.shape, generator=generator))


@cache
def case(name: str, family: Family, seed: int = 0) -> Case:
    """Shake the weights, train two steps (of a second case: none), and save."""
    method, model = method_of(name), fresh_model(family)
    if isinstance(method, QLora):
        quantise(model, method.bits)
    plain = seen(model)
    with method.training(model, seed=seed) as trainable:
        model.module.eval()
        parameters = {name: value for name, value in model.module.named_parameters() if value.requires_grad}
        made = Case(method, family, model, plain, seen(model), count_values(model.module)[0], set(parameters))
        begin = {name: value.detach().clone() for name, value in parameters.items()}
        if parameters:
            shake(parameters, seed)
            if seed == 0:
                made.gradients = {
                    "whole": gradients(model, slice(0, 4)),
                    "parts": gradients(model, slice(0, 1), slice(1, 4)),
                    "checkpointed": checkpointed(model),
                }
            optimizer = torch.optim.AdamW(parameters.values(), lr=0.01, weight_decay=0.0)
            for step in range(1, 3 if seed == 0 else 1):
                optimizer.zero_grad()
                (loss(model) / 30).backward()
                optimizer.step()
                if trainable.after_step is not None:
                    trainable.after_step(optimizer, step, 2)
        made.moved = {name for name, value in parameters.items() if not torch.equal(value, begin[name])}
    made.trained = seen(model)
    made.folder = FOLDER / f"case {abs(hash((name, family, seed)))}"
    made.folder.mkdir()
    method.save(model, made.folder)
    return made


def loaded(made: Case, dtype: str = "float32") -> LanguageModel:
    return made.method.load(fresh_model(made.family, dtype), made.folder)


@cache
def loaded_once(name: str, family: Family) -> LanguageModel:
    """The loaded model, for tests that leave it as it is."""
    return loaded(case(name, family))


def short(name: str) -> str:
    return name.partition("(")[0]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_fresh_weights_change_nothing(name: str, family: Family) -> None:
    """To the bit, but for two kinds.

    PiSSA splits each weight into two and adds them again, which rounds. Vectors before the prompt are seen by
    attention whatever their values are: no start of them changes nothing, and none is claimed to.
    """
    made = case(name, family)
    if short(name) in SOFT_PROMPTS:
        assert not torch.equal(made.fresh, made.plain)
    else:
        assert_close(made.fresh, made.plain, rtol=0, atol=1e-5 if short(name) == "pissa" else 0)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_only_the_named_weights_train(name: str, family: Family) -> None:
    """They have gradients and move, their number is what was said, and afterwards nothing requires gradients."""
    made = case(name, family)
    is_meant = ONLY_THESE.get(name, lambda own: own.startswith(("taskfit_", "model.taskfit_")))
    assert all(is_meant(own) for own in made.names), sorted(made.names)[:5]
    assert made.names == set(made.gradients.get("whole", {}))
    left = {own for own in made.names - made.moved if "lora_E" not in own}
    assert not left, "all move, but for AdaLoRA's singular values of layers that lose every rank"
    assert made.trained_values == expected_count(name, family)
    assert not any(value.requires_grad for value in made.model.module.parameters())
    if made.names:
        assert (made.trained - made.fresh).abs().max() > 1e-4


def expected_count(name: str, family: Family) -> int:
    """Trained values, counted by hand from the tiny models' shapes (width 32, MLP 64, two blocks, four heads)."""
    module, method = base(family, "float32").module, method_of(name)
    linear = {  # (inputs, outputs) of each linear layer below the output layer
        own: tuple(layer.weight.shape) if family == "gpt2" else tuple(layer.weight.shape)[::-1]
        for own, layer in module.named_modules()
        if type(layer).__name__ in ("Linear", "Conv1D") and own != "lm_head"
    }
    if isinstance(method, QLora) and family == "t5":
        pass  # the update stands on every layer, also on those that stay unpacked
    rows, columns = sum(shape[1] for shape in linear.values()), sum(shape[0] for shape in linear.values())
    blocks = 4 if family == "t5" else 2
    vocabulary = module.get_input_embeddings().weight.shape[0]
    deep = {"llama": 2, "plain": 2, "gpt2": 2, "t5": 2, "bert": 2}[family] * 2 * (16 if family == "llama" else 32)
    counts = {
        "full": sum(value.numel() for value in module.parameters()),
        "bitfit": sum(value.numel() for own, value in module.named_parameters() if own.endswith(".bias")),
        "norms": {"llama": 5 * 32, "plain": 5 * 32, "gpt2": 5 * 64, "t5": (5 + 7) * 32, "bert": 5 * 64}[family],
        "head-only": 0 if family == "bert" else vocabulary * 32,
        "random-mask": sum(round(0.05 * a * b) for a, b in linear.values()),
        "lora": 4 * (rows + columns),
        "dora": 4 * (rows + columns) + rows,
        "vera": rows + 8 * len(linear),
        "adalora": 4 * (rows + columns) + 4 * len(linear),
        "ia3": {"llama": 2 * (16 + 16 + 64), "plain": 2 * (32 + 32 + 64), "gpt2": 2 * (96 + 128)}.get(
            family, (2 * 64 + 2 * 128 + 4 * 64) if family == "t5" else 2 * (32 + 32 + 64)
        ),
        "prompt-tuning": 3 * 32,
        "p-tuning": 3 * 32 + (32 * 8 + 8) + (8 * 8 + 8) + (8 * 32 + 32),
        "prefix-tuning": 3 * deep,
        "p-tuning-v2": 3 * deep,
    }
    counts |= dict.fromkeys(("rslora", "pissa", "qlora"), counts["lora"])
    if short(name) == "last-layers":
        last = [value for own, value in module.named_parameters() if ONLY_THESE[name](own)]
        return sum(value.numel() for value in last)
    if short(name) == "adapter":
        each = (32 * 4 + 4) + (4 * 32 + 32)
        return each * (blocks + (6 if family == "t5" else 2) * ("houlsby" in name))
    if "lstm" in name:
        lstm = sum(value.numel() for value in torch.nn.LSTM(32, 8, 2, bidirectional=True).parameters())
        return 3 * 32 + lstm + (16 * 16 + 16) + (16 * 32 + 32)
    if "reparameterise" in name:
        width = 16 if family == "llama" else 32
        return 3 * width + (width * 8 + 8) + (8 * deep + deep)
    return counts[short(name)]


@pytest.mark.parametrize(("name", "family"), TRAINING_CASES)
def test_accumulated_gradients_equal_the_large_batch(name: str, family: Family) -> None:
    """One row, then three, against all four; padding of the one is not the padding of the other."""
    found = case(name, family).gradients
    is_rounding_inputs = "bits=8" in name  # each batch's own largest values decide how its inputs are packed
    assert_close(found["parts"], found["whole"], rtol=0.5 if is_rounding_inputs else 1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "family"), TRAINING_CASES)
def test_recomputing_blocks_gives_the_same_gradients(name: str, family: Family) -> None:
    """Also where keys and values stand in a cache, which transformers takes from recomputed blocks."""
    found = case(name, family).gradients
    assert_close(found["checkpointed"], found["whole"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_saved_weights_load_back_to_the_same_logits(name: str, family: Family) -> None:
    """To the bit: what was evaluated is what is delivered. The folder holds no pickle."""
    made = case(name, family)
    assert_close(seen(loaded_once(name, family)), made.trained, rtol=0, atol=0)
    assert {path.suffix for path in made.folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


@pytest.mark.parametrize(("name", "family"), CASES)
def test_merging_keeps_the_logits_or_is_refused(name: str, family: Family) -> None:
    """Refused: packed weights, networks with a function inside, vectors before the prompt, a head that was untied."""
    made = case(name, family)
    model = loaded(made)
    if short(name) in NOT_MERGED or (name == "head-only" and family in ("llama", "gpt2", "t5")):
        with pytest.raises(ConfigError):
            made.method.merge(model)
        return
    merged = made.method.merge(model)
    assert not isinstance(merged.module, peft.PeftModel)
    assert_close(seen(merged), made.trained, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("name", "family"), [case for case in CASES if case[1] != "bert"])
def test_the_engine_generates_and_scores_as_plain_passes_do(name: str, family: Family) -> None:
    """With a cache, a shared beginning and trees of answers, against whole sequences one at a time."""
    model = loaded_once(name, family)
    engine = TorchEngine(model)
    prompts = [Prompt(text=f"the weather at the harbour was good, and the {noun} was") for noun in ("fish", "old boat")]
    generated = engine.run([Generate(prompt, max_tokens=3) for prompt in prompts])
    scored = engine.run([Score(prompt, (" good", " good fish")) for prompt in prompts])
    tolerance = 0.05 if "bits=8" in name else 2e-4  # packed inputs depend on what stands beside them in a batch
    for prompt, text, scores in zip(prompts[1:], generated[1:], scored[1:], strict=True):
        encoded = encode(model, prompt, (" good", " good fish"))
        assert scores.logprobs == pytest.approx(
            [naive_score(model, encoded.prompt, answer) for answer in encoded.answers], abs=tolerance
        )
        if "bits=8" not in name:
            assert text.logprob == pytest.approx(naive_greedy(model, encode(model, prompt, room=3).prompt, 3), abs=1e-3)


def next_logprobs(model: LanguageModel, prompt: tuple[int, ...], answer: list[int]) -> Tensor:
    with torch.no_grad():
        if model.architecture == "encoder-decoder":
            start = model.module.config.decoder_start_token_id
            found = model.module(
                input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *answer]]), use_cache=False
            )
        else:
            found = model.module(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False)
    return found.logits[0].float().log_softmax(-1)


def naive_score(model: LanguageModel, prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
    table = next_logprobs(model, prompt, list(answer))
    first = 0 if model.architecture == "encoder-decoder" else len(prompt) - 1
    return sum(float(table[first + place, token]) for place, token in enumerate(answer))


def naive_greedy(model: LanguageModel, prompt: tuple[int, ...], count: int) -> float:
    """Log-probability of the greedy answer."""
    answer: list[int] = []
    total = 0.0
    while len(answer) < count:
        values = next_logprobs(model, prompt, answer)[-1]
        answer.append(int(values.argmax()))
        total += float(values.max())
        if answer[-1] in model.end_token_ids:
            break
    return total


@pytest.mark.parametrize(("name", "family"), CASES)
def test_bfloat16_stays_near_float32(name: str, family: Family) -> None:
    """The same saved weights on a base of either format; three digits through two blocks."""
    made = case(name, family)
    if short(name) == "full":
        pytest.skip("a folder of all weights is loaded in the format in which it was saved")
    found = seen(loaded(made, "bfloat16"))
    packing = 0.5 if isinstance(made.method, QLora) else 0.08  # other weights are packed into other values
    assert (found - made.trained).norm() < packing * made.trained.norm()


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_base_in_bfloat16_trains_in_float32_and_keeps_its_formats(name: str, family: Family) -> None:
    """What trains gets gradients in float32, in nearly the direction of a base in float32."""
    expected, method, model = case(name, family), method_of(name), fresh_model(family, "bfloat16")
    if isinstance(method, QLora):
        quantise(model, method.bits)
    whole = list(model.module.parameters())
    formats = [value.dtype for value in whole]
    with method.training(model, seed=0):
        trained = {own: value for own, value in model.module.named_parameters() if value.requires_grad}
        shake(trained, 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradients(model, slice(0, 4)) if trained else {}
        assert set(found) == expected.names
        assert all(value.dtype == torch.float32 for value in found.values())
    if found and not isinstance(method, QLora):  # other weights are packed into other values
        together, before = (
            torch.cat([one[own].flatten() for own in found]) for one in (found, expected.gradients["whole"])
        )
        assert torch.cosine_similarity(together, before, dim=0) > 0.9
    assert [value.dtype for value in whole] == formats


@pytest.mark.parametrize(("name", "family"), CASES)
def test_two_sets_of_weights_take_turns_on_one_base(name: str, family: Family) -> None:
    """Each gives what it gave alone, and between them the base is the base, to the bit."""
    one, other = case(name, family), case(name, family, seed=1)
    model = fresh_model(family)
    if short(name) == "full":
        with pytest.raises(ConfigError, match="nothing of the base is left"):
            one.method.detach(model)
        return
    for made in (one, other, one):
        model = made.method.load(model, made.folder)
        assert_close(seen(model), made.trained, rtol=0, atol=0)
        model = made.method.detach(model)
        assert_close(seen(model), made.plain, rtol=0, atol=0)
    assert model.context == base(family, "float32").context


@pytest.mark.parametrize(("name", "family"), [case for case in CASES if short(case[0]) in IN_PEFT_FORMAT])
def test_peft_loads_the_folder_and_predicts_the_same(name: str, family: Family) -> None:
    """On the base as it is; no key is missing, or peft would warn."""
    made = case(name, family)
    model = fresh_model(family)
    if isinstance(made.method, QLora):
        quantise(model, made.method.bits)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        theirs = peft.PeftModel.from_pretrained(model.module, str(made.folder)).eval()
    found = seen_through_peft(replace(model, module=theirs), made)
    assert_close(found, made.trained, rtol=1e-4, atol=2e-5)


def seen_through_peft(model: LanguageModel, made: Case) -> Tensor:
    """What peft's own wrapper gives at the real positions; it leaves its vectors' positions in."""
    tokens = getattr(made.method, "tokens", 0) if short_of(made) in ("prompt-tuning", "p-tuning") else 0
    inputs = batch(model)
    with torch.no_grad():
        found = model.module(**inputs) if model.architecture == "encoder" else model.module(**inputs, use_cache=False)
    if model.architecture == "encoder-decoder":
        return found.logits.flatten(0, 1)
    values = found.last_hidden_state if model.architecture == "encoder" else found.logits
    return values[:, tokens:][inputs["attention_mask"].bool()]


def short_of(made: Case) -> str:
    from taskfit.strategy.table import name_of

    return name_of(type(made.method))


def test_every_method_of_the_table_is_in_the_contract() -> None:
    """A new row must be added above."""
    rows = {name for name, entry in STRATEGIES.items() if entry.part == "weights"}
    assert rows == {short(name) for name in NAMES}
