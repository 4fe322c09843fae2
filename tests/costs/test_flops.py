from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from taskfit.costs.architecture import Architecture
from taskfit.costs.flops import flops, forward_flops
from taskfit.models.work import Work

ROWS, LENGTH, TARGET = 3, 40, 12

PLAIN = {"vocab_size": 200, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = transformers.LlamaConfig(
    vocab_size=200,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    bos_token_id=1,
    eos_token_id=2,
    attn_implementation="sdpa",
)
BERT = transformers.BertConfig(
    vocab_size=200,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    attn_implementation="sdpa",
)
T5 = transformers.T5Config(
    vocab_size=200, d_model=64, d_ff=160, num_layers=2, num_decoder_layers=2, num_heads=4, d_kv=16, pad_token_id=0
)


def counted(run: Any) -> float:
    """Return what torch's own counter sees; attention as plain matrix products, which it counts over all pairs."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return float(counter.get_total_flops())


def full_work(**more: int) -> Work:
    """Every position attends to every position, as torch's counter has it."""
    tokens = ROWS * LENGTH
    return Work(computed_tokens=tokens, attended_pairs=tokens * LENGTH, head_tokens=tokens, **more)


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(LLAMA)


@pytest.fixture(scope="module")
def bert() -> Any:
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(BERT, add_pooling_layer=False)


def test_forward_of_llama_agrees_with_torchs_counter(llama: Any) -> None:
    """Within 1 %."""
    ids = torch.ones(ROWS, LENGTH, dtype=torch.long)
    found = flops(Architecture.from_config(LLAMA), full_work())
    assert found == pytest.approx(counted(lambda: llama(ids, use_cache=False)), rel=0.01)


def test_training_all_of_llama_agrees_with_torchs_counter(llama: Any) -> None:
    """Forward and backward: three forward passes."""
    ids = torch.ones(ROWS, LENGTH, dtype=torch.long)
    found = flops(Architecture.from_config(LLAMA), full_work(trained_tokens=ROWS * LENGTH))
    assert found == pytest.approx(counted(lambda: llama(ids, use_cache=False).logits.sum().backward()), rel=0.01)


def test_training_through_a_frozen_llama_agrees_with_torchs_counter(llama: Any) -> None:
    """Activation gradients only: two forward passes, but three of attention's own products."""
    inputs = torch.ones(ROWS, LENGTH, LLAMA.hidden_size, requires_grad=True)
    llama.requires_grad_(False)
    try:
        seen = counted(lambda: llama(inputs_embeds=inputs, use_cache=False).logits.sum().backward())
    finally:
        llama.requires_grad_(True)
    found = flops(Architecture.from_config(LLAMA), full_work(trained_frozen_tokens=ROWS * LENGTH))
    assert found == pytest.approx(seen, rel=0.01)


def test_bert_agrees_with_torchs_counter_forward_and_backward(bert: Any) -> None:
    """An encoder has no output layer here, whatever head_tokens says."""
    ids = torch.ones(ROWS, LENGTH, dtype=torch.long)
    architecture = Architecture.from_config(BERT)
    forward = counted(lambda: bert(ids))
    both = counted(lambda: bert(ids).last_hidden_state.sum().backward())
    assert flops(architecture, full_work()) == pytest.approx(forward, rel=0.01)
    assert flops(architecture, full_work(trained_tokens=ROWS * LENGTH)) == pytest.approx(both, rel=0.01)


def test_t5_agrees_with_torchs_counter_forward_and_backward() -> None:
    """Cross-attention reads its keys from encoder positions and its queries from decoder positions."""
    torch.manual_seed(0)
    model = transformers.AutoModelForSeq2SeqLM.from_config(T5)
    source, target = torch.ones(ROWS, LENGTH, dtype=torch.long), torch.ones(ROWS, TARGET, dtype=torch.long)

    def logits() -> torch.Tensor:
        found: torch.Tensor = model(input_ids=source, decoder_input_ids=target, use_cache=False).logits
        return found

    def train() -> None:
        logits().sum().backward()  # type: ignore[no-untyped-call]

    pairs = ROWS * (LENGTH * LENGTH + TARGET * TARGET + TARGET * LENGTH)
    parts = {"decoder_tokens": ROWS * TARGET, "head_tokens": ROWS * TARGET, "attended_pairs": pairs}
    work = Work(computed_tokens=ROWS * LENGTH, **parts)
    trained = Work(computed_tokens=ROWS * LENGTH, trained_tokens=ROWS * LENGTH, **parts)
    architecture = Architecture.from_config(T5)
    assert flops(architecture, work) == pytest.approx(counted(logits), rel=0.01)
    assert flops(architecture, trained) == pytest.approx(counted(train), rel=0.01)


MORE = {
    "gpt2": (transformers.GPT2Config, {"vocab_size": 200, "n_embd": 64, "n_layer": 2, "n_head": 4}),
    "opt": (transformers.OPTConfig, {**PLAIN, "ffn_dim": 128, "word_embed_proj_dim": 64}),
    "gpt_neox": (transformers.GPTNeoXConfig, {**PLAIN, "intermediate_size": 128}),
    "mixtral": (
        transformers.MixtralConfig,
        {**PLAIN, "intermediate_size": 96, "num_key_value_heads": 2, "num_local_experts": 4},
    ),
    "falcon": (transformers.FalconConfig, PLAIN),
}


@pytest.mark.parametrize("family", MORE)
def test_other_decoders_agree_with_torchs_counter(family: str) -> None:
    """Fused matrices, one key-value head, experts of which two work: forward, and forward and backward."""
    kind, values = MORE[family]
    torch.manual_seed(0)
    config = kind(**values, bos_token_id=1, eos_token_id=1, pad_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    if family == "mixtral":
        model.set_experts_implementation("eager")  # torch's counter does not know the grouped product
    ids = torch.randint(2, 200, (ROWS, LENGTH))
    architecture = Architecture.from_config(config)
    forward = counted(lambda: model(ids, use_cache=False))
    both = counted(lambda: model(ids, use_cache=False).logits.sum().backward())
    assert flops(architecture, full_work()) == pytest.approx(forward, rel=0.01)
    assert flops(architecture, full_work(trained_tokens=ROWS * LENGTH)) == pytest.approx(both, rel=0.01)


def test_operations_add_up() -> None:
    """Forward operations are linear in work; training half of it costs twice the forward pass."""
    architecture = Architecture.from_config(LLAMA)
    one, other = full_work(), Work(computed_tokens=10, attended_pairs=55, head_tokens=2)
    assert flops(architecture, one + other) == pytest.approx(flops(architecture, one) + flops(architecture, other))
    half = full_work(trained_tokens=ROWS * LENGTH // 2)
    assert flops(architecture, half) == pytest.approx(2 * flops(architecture, one))
    assert sum(forward_flops(architecture, one)) == flops(architecture, one)


def test_no_model_and_no_work_cost_nothing() -> None:
    """Baselines compute no tokens."""
    assert flops(None, Work(computed_tokens=5)) == 0.0
    assert flops(Architecture.from_config(LLAMA), Work()) == 0.0
