from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from taskfit.costs.architecture import Architecture
from taskfit.costs.catalogue import find_architecture
from taskfit.costs.job import Job
from taskfit.costs.memory import kept_bytes_per_token, layer_kept_bytes, logits_bytes_per_token, memory, weight_bytes

MISTRAL = find_architecture("mistral-7b")
TUNED = Job(MISTRAL, "lora", 4, 4096, checkpointing="full", rank=16, targets="attention")


def test_published_peaks_are_met() -> None:
    """Mistral-7B on one A100, checkpointed, by the Trainer of transformers (fms-acceleration, a100_80gb.csv)."""
    measured = {
        26.705e9: TUNED,
        38.743e9: replace(TUNED, batch=8),
        16.374e9: replace(TUNED, quantised="nf4"),
        23.530e9: replace(TUNED, profile="fused"),
        72.433e9: replace(TUNED, method="full"),
    }
    for peak, job in measured.items():
        assert memory(job).allocated == pytest.approx(peak, rel=0.02)


def test_states_of_full_tuning_have_their_bytes() -> None:
    """Pure bfloat16: 2 for weights, 2 for gradients, 4 for AdamW, 2 in its step: 10; float32 copies: 18 and 4."""
    job = Job(MISTRAL, "full", 1, 16, checkpointing="full")
    total = MISTRAL.parameters.total
    assert memory(job).allocated / total == pytest.approx(10, rel=0.01)
    assert memory(job).phase == "step"
    assert memory(replace(job, trained_weights="float32")).allocated / total == pytest.approx(22, rel=0.01)
    assert memory(replace(job, optimiser="adamw-fused")).allocated / total == pytest.approx(8, rel=0.03)
    assert memory(replace(job, optimiser="sgd")).optimiser == 0
    eight = memory(replace(job, optimiser="adamw-8bit")).optimiser / total
    assert eight == pytest.approx(2.03, rel=0.01)
    assert memory(replace(job, optimiser="adamw-fused", optimiser_in_backward=True)).gradients < 0.05 * total * 2


@given(
    batch=st.integers(1, 16),
    length=st.integers(1, 4096),
    method=st.sampled_from(["full", "lora", "ia3", "prefix", "adapters", "soft-prompt", "dora", "layer-norm"]),
    checkpointing=st.sampled_from(["none", "selective", "full"]),
)
def test_more_never_takes_less(batch: int, length: int, method: str, checkpointing: str) -> None:
    """More rows or tokens take more; three figures stand in order; keeping less takes less for each token."""
    job = Job(MISTRAL, method, batch, length, checkpointing=checkpointing)  # type: ignore[arg-type]
    found = memory(job)
    assert memory(replace(job, batch=batch + 1)).allocated >= found.allocated
    assert memory(replace(job, length=length + 1)).allocated >= found.allocated
    assert found.allocated <= found.reserved < found.system
    order = [kept_bytes_per_token(replace(job, checkpointing=one)) for one in ("none", "selective", "full")]  # type: ignore[arg-type]
    assert order == sorted(order, reverse=True)


@given(devices=st.sampled_from([2, 4, 8]), method=st.sampled_from(["full", "lora"]))
def test_sharding_takes_less_the_more_is_sharded(devices: int, method: str) -> None:
    """States, gradients, weights: each stage takes less on each device than the one before."""
    job = Job(MISTRAL, method, 1, 16, checkpointing="full", devices=devices)
    held = []
    for sharding in ("ddp", "zero1", "zero2", "fsdp"):
        found = memory(replace(job, sharding=sharding))  # type: ignore[arg-type]
        held.append(found.weights + found.gradients + found.optimiser)
    assert held == sorted(held, reverse=True)
    assert held[0] > held[-1] * devices * 0.99


def test_quantised_weights_are_those_of_the_layers_only() -> None:
    """Llama-3-8B keeps 2.1 GB of embedding and output layer in 16 bit; 0.5 bytes for all would be a third short."""
    job = Job(find_architecture("llama-3-8b"), "lora", quantised="nf4")
    assert weight_bytes(job) == pytest.approx(5.70e9, rel=0.01)
    assert weight_bytes(replace(job, quantised="")) == 2 * job.architecture.parameters.total


def test_loss_kernels_stand_in_order() -> None:
    """Eager takes most; our own engine reads the output layer only where an answer is."""
    sizes = [logits_bytes_per_token(replace(TUNED, profile=one)) for one in ("eager", "fast-ce", "chunked", "fused")]  # type: ignore[arg-type]
    assert sizes == sorted(sizes, reverse=True)
    few = logits_bytes_per_token(replace(TUNED, profile="taskfit", supervised=0.02))
    assert few < sizes[2]
    assert logits_bytes_per_token(Job(find_architecture("bert-base"), "full")) == 0


def kept(model: torch.nn.Module, tokens: torch.Tensor) -> float:
    """Bytes that torch keeps for the backward pass, each storage once, parameters left out."""
    seen: dict[int, int] = {}
    own = {one.untyped_storage().data_ptr() for one in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens, use_cache=False).logits.sum()
    return float(sum(seen.values()))


@pytest.mark.parametrize(("is_frozen", "method"), [(False, "full"), (True, "layer-norm")])
def test_what_layers_keep_is_what_torch_keeps(is_frozen: bool, method: str) -> None:
    """Two depths of a Llama in bfloat16, by torch's own account of saved tensors; their difference is layers."""
    sizes = {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokens, found = torch.ones(2, 64, dtype=torch.long), []
    for layers in (2, 6):
        config = transformers.LlamaConfig(vocab_size=64, num_hidden_layers=layers, **sizes)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        if is_frozen:
            model.requires_grad_(False)
            model.get_input_embeddings().weight.requires_grad_(True)
        found.append(kept(model, tokens))
    each = (found[1] - found[0]) / 4 / tokens.numel()
    assert layer_kept_bytes(Job(Architecture.from_config(config), method)) == pytest.approx(each, rel=0.25)


def test_a_cache_has_two_values_for_each_key_value_head() -> None:
    """Qwen2.5-7B: 28 layers x 4 heads x 128 x 2 x 2 bytes for a token."""
    job = Job(find_architecture("qwen2.5-7b"), length=1, new_tokens=1000)
    assert memory(job).activations == pytest.approx(57344 * 1001)
    assert memory(job).phase == "decode"
    assert memory(replace(job, length=30_000)).phase == "prefill"
    eager = memory(replace(job, length=4000, attention="eager"))
    assert eager.allocated > memory(replace(job, length=4000)).allocated
    assert memory(Job(find_architecture("bert-base"), batch=8)).activations == 0


def test_a_teacher_takes_its_weights() -> None:
    """A distillation holds both."""
    student = find_architecture("gpt2")
    alone, both = (memory(Job(student, method, 1, 64, teacher=MISTRAL)) for method in ("full", "distillation"))
    assert both.allocated - alone.allocated > 2 * MISTRAL.parameters.total


def test_mixtures_encoders_and_old_kernels_have_their_own_terms() -> None:
    """Two experts keep twice; kept scores grow with the length; copies of quantised inputs are counted."""
    mixtral = Job(find_architecture("mixtral-8x7b"), "lora")
    assert layer_kept_bytes(mixtral) > layer_kept_bytes(Job(MISTRAL, "lora"))
    bert = Job(find_architecture("bert-base"), "full", weights="float32", attention="eager")
    assert layer_kept_bytes(replace(bert, length=128)) < layer_kept_bytes(bert)
    old = replace(TUNED, quantised="nf4", checkpointing="none", keeps_quantised_inputs=True)
    assert layer_kept_bytes(old) > layer_kept_bytes(replace(old, keeps_quantised_inputs=False))
    assert kept_bytes_per_token(replace(TUNED, offloads=True)) == 0
    assert kept_bytes_per_token(replace(TUNED, k_bit_preparation=True)) == 2 * kept_bytes_per_token(TUNED)
    full = replace(TUNED, method="full")
    assert layer_kept_bytes(replace(full, compiled=True)) < layer_kept_bytes(full)
