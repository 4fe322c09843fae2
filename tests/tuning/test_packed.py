"""The packed loss: the same numbers and gradients as transformers and torch, and refused wherever it would not be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, scaled_dot_product_attention
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from taskfit.tuning import linear_loss
from taskfit.tuning.examples import Example, collate
from taskfit.tuning.linear_loss import linear_cross_entropy_sum
from taskfit.tuning.loss import choose_loss, gathered_loss
from taskfit.tuning.packed import is_packable, packed_loss
from taskfit.tuning.projection import Layouts, Projection, project
from taskfit.tuning.row_attention import attend, attend_back, blocks_of, fold, unfold

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GEMMA3: dict[str, Any] = {
    "head_dim": 8,
    "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 5,
    "initializer_range": 0.1,
}
KINDS = {
    "llama": lambda **more: LlamaConfig(**SHAPE | more),
    "mistral": lambda **more: MistralConfig(**SHAPE | {"sliding_window": None} | more),
    "window": lambda **more: MistralConfig(**SHAPE | {"sliding_window": 7} | more),
    "qwen3": lambda **more: Qwen3Config(**SHAPE | {"head_dim": 8} | more),
    "gemma": lambda **more: GemmaConfig(**SHAPE | {"head_dim": 8, "initializer_range": 0.1} | more),
    "gemma3": lambda **more: Gemma3TextConfig(**SHAPE | GEMMA3 | more),
    "qwen2": lambda **more: Qwen2Config(**SHAPE | {"tie_word_embeddings": True} | more),
}
LENGTHS = (5, 17, 2, 210)


def make(kind: str = "llama", **more: Any) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = AutoModelForCausalLM.from_config(KINDS[kind](**more)).double()
    for name, value in module.named_parameters():
        if "norm" in name or name.endswith("bias"):  # fresh ones hide mistakes: all 1, all 0
            nn.init.normal_(value, mean=0.8, std=0.3)
    return module


def with_lora(module: nn.Module, **more: Any) -> nn.Module:
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=3, lora_alpha=6, target_modules=names, task_type="CAUSAL_LM", **more)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        wrapped: nn.Module = get_peft_model(module, config).double()
    torch.manual_seed(1)
    for name, value in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(value, std=0.3)
    return wrapped


def batch_of(lengths: tuple[int, ...] = LENGTHS) -> dict[str, Tensor]:
    torch.manual_seed(2)
    width = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
    ids = torch.randint(1, 97, mask.shape) * mask
    is_learned = (torch.rand(mask.shape) < 0.4) & mask.bool()
    is_learned[:, 0], is_learned[:, 1] = False, True
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(is_learned, ids, -100)}


def own_loss(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The model's own summed loss, in its own number format."""
    logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapt", [lambda module: module, with_lora], ids=["full", "lora"])
def test_loss_and_every_gradient_equal_transformers(kind: str, adapt: Callable[[nn.Module], nn.Module]) -> None:
    """In float64, for all weights and for low-rank updates; transformers' norms are in float32 even so."""
    module, batch = adapt(make(kind)), batch_of()
    assert is_packable(module)
    own = own_loss(module, batch)
    found, tokens = packed_loss(module, batch)
    assert tokens == int((batch["labels"] != -100).sum())
    assert_close(found.double(), own, rtol=1e-6, atol=0)
    expected = gradients(module, own)
    for name, gradient in gradients(module, found).items():
        assert (gradient - expected[name]).norm() <= 3e-5 * expected[name].norm(), name


def test_only_some_weights_may_train() -> None:
    """Biases and norms alone get the gradients they get from transformers; the rest gets none."""
    module, batch = make("qwen2").requires_grad_(False), batch_of()
    for name, value in module.named_parameters():
        value.requires_grad_("norm" in name or name.endswith("bias"))
    expected = gradients(module, own_loss(module, batch))
    for name, gradient in gradients(module, packed_loss(module, batch)[0]).items():
        assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), name


def test_rows_do_not_see_each_other() -> None:
    """The loss of many rows is the sum of the losses of each alone."""
    module, batch = make(), batch_of()
    together = packed_loss(module, batch)[0].item()
    alone = [packed_loss(module, {name: value[[row]] for name, value in batch.items()})[0].item() for row in range(4)]
    assert together == pytest.approx(sum(alone), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_share_a_row_do_not_see_each_other(kind: str) -> None:
    """Rows packed of several texts give the loss and the gradients of these texts one by one, with padding or not."""
    module = make(kind).eval()
    end = 2
    documents = [((5, 6, 7, end), (8, 9, end)), ((10, 11, 12, 13, 14, 15, end),)]
    rows = [
        Example(
            str(number),
            texts[0][:1],
            (*texts[0][1:], *(token for text in texts[1:] for token in text)),
            read=tuple((len(texts[0]) - 1, len(texts[0])) for _ in texts[1:]),
            documents=tuple(map(len, texts)),
        )
        for number, texts in enumerate([*documents, ((20, 21, end), (22, end))])
    ]
    assert all(len(row.documents) >= 1 and sum(row.documents) == row.length for row in rows)
    batch = collate(rows, "decoder", 0)
    assert "attention_mask" not in batch
    found, count = packed_loss(module, batch)
    found.backward()
    gradients = [value.grad.clone() for value in module.parameters() if value.grad is not None]
    module.zero_grad()
    texts = [text for group in [*documents, ((20, 21, end), (22, end))] for text in group]
    alone = [packed_loss(module, collate([Example("0", text[:1], text[1:])], "decoder", 0)) for text in texts]
    assert count == sum(tokens for _, tokens in alone)
    total = torch.stack([loss for loss, _ in alone]).sum()
    assert_close(found, total)
    total.backward()
    expected = [value.grad for value in module.parameters() if value.grad is not None]
    assert_close(gradients, expected, rtol=1e-6, atol=1e-6)  # Gemma's norms are in float32
    assert_close(gathered_loss(module, batch)[0], found)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_bfloat16_is_as_near_to_float32_as_transformers_own(kind: str) -> None:
    """Frozen weights in bfloat16 under low-rank updates in float32: loss within 1 %, gradients no further off."""
    module, batch = with_lora(make(kind)).float(), batch_of()
    exact = packed_loss(module, batch)[0]
    expected = gradients(module, exact)
    for value in module.parameters():
        if not value.requires_grad:
            value.data = value.data.bfloat16()

    def error(found: dict[str, Tensor]) -> float:
        return sum(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)

    rounded = packed_loss(module, batch)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = gathered_loss(module, batch)[0]
    assert rounded.item() == pytest.approx(exact.item(), rel=0.01)
    found = gradients(module, rounded)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    assert error(found) < 1.2 * error(gradients(module, plain))


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_computing_layers_twice_changes_no_gradient(kind: str) -> None:
    """Bit for bit, and fewer tensors are kept."""
    module: Any = with_lora(make(kind))
    batch = batch_of()
    module.train()
    expected = gradients(module, packed_loss(module, batch)[0])
    module.activation_checkpointing_enable()
    layouts = Layouts()
    layouts.of(torch.randn(2, 2))
    found = gradients(module, packed_loss(module, batch, layouts=layouts)[0])
    assert not layouts.kept  # memory is short
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights_laid_out_once_give_the_same_loss_and_gradients(kind: str) -> None:
    """In float32, to rounding, and again after steps have changed the adapter."""
    module, batch, layouts = with_lora(make(kind)).float(), batch_of(), Layouts()
    for _ in range(2):
        plain, laid_out = packed_loss(module, batch)[0], packed_loss(module, batch, layouts=layouts)[0]
        assert_close(laid_out, plain, rtol=1e-5, atol=0)
        expected = gradients(module, plain)
        for name, gradient in gradients(module, laid_out).items():
            assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), name
        with torch.no_grad():
            for value in module.parameters():
                value += 0.1 * value.requires_grad
    assert len(layouts.kept) == 7 * SHAPE["num_hidden_layers"] + 1


def test_a_weight_that_changes_is_laid_out_anew() -> None:
    """Changed in place or replaced; trained weights and other formats are never laid out."""
    layouts, weight = Layouts(), nn.Parameter(torch.randn(6, 4), requires_grad=False)
    seen = torch.randn(3, 4)

    def product() -> Tensor:
        return project(seen, Projection(weight), 0.0, layouts.of(weight))[0]

    first = layouts.of(weight)
    assert first is not None and layouts.of(weight) is first
    for change in (lambda: weight.mul_(2), lambda: setattr(weight, "data", torch.randn(6, 4))):
        change()
        assert_close(product(), seen @ weight.t())
    assert layouts.of(nn.Parameter(torch.randn(6, 4))) is None
    assert layouts.of(torch.randn(6, 4).double()) is None


def test_layouts_keep_to_their_memory() -> None:
    """Two copies a weight; what does not fit is computed with as it is, what is laid out anew takes no more."""
    layouts = Layouts(most_bytes=2 * 4 * 24)
    weight, other = torch.randn(6, 4), torch.randn(6, 4)
    assert layouts.of(weight) is not None and layouts.of(other) is None
    assert layouts.of(weight.add_(1)) is not None and layouts.left == 0


def test_no_gradient_is_computed_below_the_lowest_trained_weight() -> None:
    """The first layer's frozen maps are not gone back through; what is trained gets the same gradient."""
    module, batch = with_lora(make()), batch_of()
    module.get_input_embeddings().weight.requires_grad_(False)
    expected = gradients(module, own_loss(module, batch))
    for name, gradient in gradients(module, packed_loss(module, batch)[0]).items():
        assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), name


def test_rows_without_a_supervised_token_add_nothing() -> None:
    """One such row among others, and none but such."""
    module, batch = with_lora(make()), batch_of()
    batch["labels"][1] = -100
    found, tokens = packed_loss(module, batch)
    rest = {name: value[[0, 2, 3]] for name, value in batch.items()}
    assert (found - packed_loss(module, rest)[0]).abs() <= 1e-6 * found
    batch["labels"][:] = -100
    nothing, none = packed_loss(module.float(), batch, layouts=Layouts())
    assert tokens > 0 and none == 0 and nothing.item() == 0


def test_autocast_decides_the_format() -> None:
    """Weights in float32 under autocast are computed in bfloat16, and their gradients are float32."""
    module, batch = make().float(), batch_of()
    exact = packed_loss(module, batch)[0].item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = packed_loss(module, batch)[0]
    assert loss.item() == pytest.approx(exact, rel=0.02) and loss.item() != exact
    assert all(gradient.dtype == torch.float32 for gradient in gradients(module, loss).values())


@pytest.mark.parametrize("lengths", [(1,), (3, 1, 64), (400,), (191, 193, 129)])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_attention_of_rows_equals_torch_row_by_row(lengths: tuple[int, ...], key_heads: int) -> None:
    """Forward and backward, in float64, below and above the size of a block."""
    torch.manual_seed(0)
    tokens, heads, width = sum(lengths), 6, 8
    queries = torch.randn(tokens, heads, width, dtype=torch.float64, requires_grad=True)
    keys, values = (torch.randn(tokens, key_heads, width, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ends = torch.tensor(lengths).cumsum(0).tolist()
    rows = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    parts = [
        scaled_dot_product_attention(
            *(one[start:stop].transpose(0, 1)[None] for one in (queries, keys, values)),
            is_causal=True,
            scale=0.3,
            enable_gqa=True,
        )[0].transpose(0, 1)
        for start, stop in rows
    ]
    expected = torch.cat(parts)
    groups = heads // key_heads
    folded = [fold(one.detach(), key_heads) for one in (queries, keys, values)]
    blocks = blocks_of(rows, None, groups, queries)
    found, shares = attend(*folded, blocks, scale=0.3)
    assert_close(unfold(found, groups), expected)
    gradient = torch.randn_like(expected)
    back = attend_back(fold(gradient, key_heads), *folded, shares, blocks, scale=0.3)
    back = tuple(unfold(one, share) for one, share in zip(back, (groups, 1, 1), strict=True))
    assert_close(back, torch.autograd.grad(expected, (queries, keys, values), gradient))


def test_attention_of_some_queries_equals_that_of_all() -> None:
    """Forward; and backward where the others are given no gradient."""
    torch.manual_seed(0)
    rows, groups = [(0, 150), (150, 153), (153, 160)], 2
    places = torch.tensor([*range(3, 140, 2), 156, 159])
    queries = torch.randn(160, 4, 8, dtype=torch.float64)
    keys, values = (fold(torch.randn(160, 2, 8, dtype=torch.float64), 2) for _ in range(2))
    gradient = torch.zeros_like(queries).index_copy_(0, places, torch.randn(len(places), 4, 8, dtype=torch.float64))

    def both_ways(asking: Tensor, back: Tensor, which: Tensor | None) -> tuple[Tensor, ...]:
        blocks, asking = blocks_of(rows, which, groups, queries), fold(asking, 2)
        found, shares = attend(asking, keys, values, blocks, scale=0.3)
        return found, *attend_back(fold(back, 2), asking, keys, values, shares, blocks, scale=0.3)

    every = both_ways(queries, gradient, None)
    some = both_ways(queries[places], gradient[places], places)
    for mine, other in zip(some[:2], every[:2], strict=True):
        assert_close(unfold(mine, groups), unfold(other, groups)[places])
    assert_close(some[2:], every[2:])


@pytest.mark.parametrize("has_bias", [False, True])
def test_cross_entropy_from_hidden_states_equals_torch(has_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradients, over several chunks, scaled by what comes after."""
    monkeypatch.setattr(linear_loss, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(linear_loss, "SOFTMAX_LOGITS", 33 * 20)
    torch.manual_seed(0)
    hidden, weight = (torch.randn(count, 12, dtype=torch.float64, requires_grad=True) for count in (150, 33))
    bias = torch.randn(33, dtype=torch.float64, requires_grad=True) if has_bias else None
    inputs = [one for one in (hidden, weight, bias) if one is not None]
    targets = torch.randint(0, 33, (150,))
    expected = cross_entropy(linear(hidden, weight, bias), targets, reduction="sum")
    found = linear_cross_entropy_sum(hidden, weight, bias, targets)
    assert_close(found.double(), expected, rtol=1e-6, atol=0)
    both = zip(torch.autograd.grad(2.5 * found, inputs), torch.autograd.grad(2.5 * expected, inputs), strict=True)
    for one, other in both:
        assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_cross_entropy_without_tokens_or_gradients() -> None:
    """No token: 0. No gradient wanted: none computed."""
    weight = torch.randn(5, 3)
    assert linear_cross_entropy_sum(torch.empty(0, 3), weight, None, torch.empty(0, dtype=torch.long)).item() == 0
    assert not linear_cross_entropy_sum(torch.randn(2, 3), weight, None, torch.tensor([0, 1])).requires_grad


def _dropped() -> nn.Module:
    return with_lora(make(), lora_dropout=0.1)


def _hooked() -> nn.Module:
    module: Any = make()
    module.model.layers[1].register_forward_hook(lambda *_: None)
    return module  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "other",
    [
        lambda: AutoModelForCausalLM.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=50)),
        lambda: make(hidden_act="gelu"),
        lambda: make(attention_dropout=0.1),
        lambda: make(rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}),
        lambda: with_lora(make(), use_dora=True),
        lambda: make("gemma3", final_logit_softcapping=30.0),
        lambda: make("gemma3", attn_logit_softcapping=50.0),
        lambda: make("gemma3", use_bidirectional_attention=True),
        _dropped,
        _hooked,
        lambda: nn.Linear(2, 2),
    ],
    ids=[
        "gpt2",
        "gelu",
        "dropout",
        "dynamic",
        "dora",
        "capped",
        "capped scores",
        "both ways",
        "lora dropout",
        "hook",
        "linear",
    ],
)
def test_other_models_are_not_packable(other: Callable[[], nn.Module]) -> None:
    """What the fused layer does not compute takes the plain way."""
    assert not is_packable(other())


def test_a_model_that_only_looks_alike_takes_the_plain_way() -> None:
    """Results decide, not names: a layer whose forward was changed is found out on real rows."""
    module: Any = make().float()
    batch = batch_of()
    assert choose_loss(module, "decoder", batch).packs
    layer = module.model.layers[1]
    plain = layer.forward
    layer.forward = lambda *args, **kwargs: 1.01 * plain(*args, **kwargs)
    chosen = choose_loss(module, "decoder", batch)
    assert chosen.loss_sum is gathered_loss and not chosen.packs
