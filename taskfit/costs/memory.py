"""How much memory a job takes at its peak: what the program holds, what the allocator keeps, what the system shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.costs.job import QUANTISED_BITS, Job, targeted, trainable_parameters

if TYPE_CHECKING:
    from taskfit.costs.architecture import Architecture

__all__ = [
    "Memory",
    "kept_bytes_per_token",
    "layer_kept_bytes",
    "logits_bytes_per_token",
    "memory",
    "opened_bytes_per_token",
    "weight_bytes",
]

# Measured on checkpointed fine-tuning of Mistral-7B, Llama-3-8B and PowerLM-3B (benchmarks/estimator.py says which
# rows); everything else in this file is counted from what automatic differentiation keeps.
_LOSS = {"eager": (11.0, 29.5), "fast-ce": (7.34, 24.8), "chunked": (5.0, 8.0), "fused": (0.0, 0.0)}
_SLACK = {"eager": 0.25, "fast-ce": 0.45, "chunked": 0.1, "fused": 0.09, "taskfit": 0.1}
_KEPT_SLACK = _SLACK["fused"]  # where all activations are kept, blocks of few sizes are used again and again, as there
_CONTEXT_BYTES = 0.55e9  # of the runtime: context, kernels, workspaces
_COMMUNICATION_BYTES = 1.2e9  # buffers of the communication library
_SMALL_BYTES = 0.02e9  # rotary tables, masks, a batch, the matrix library's workspace


@dataclass(frozen=True)
class Memory:
    """Peak bytes on one device.

    Attributes:
        weights: of the model, as stored while it computes.
        gradients, optimiser: of what is trained.
        activations: kept for the backward pass, or the cache of keys and values when predicting.
        working: the larger of the loss and of one layer's own work, at the moment of the peak.
        allocated: the peak of what the program holds; less than the sum, for parts peak at different moments.
        reserved: what the allocator has taken from the device.
        system: what the system's own tool shows for the process.
        phase: when the peak is: ``loss``, ``layer``, ``backward``, ``step``, ``prefill`` or ``decode``.
    """

    weights: float
    gradients: float
    optimiser: float
    activations: float
    working: float
    allocated: float
    reserved: float
    system: float
    phase: str


def memory(job: Job) -> Memory:
    """Estimate one job's peak on one device.

    A training peaks in one of four phases: at the loss (all kept activations and the logits), in the backward pass of
    a layer (kept activations and one layer opened up), at the end of the backward pass (all gradients), or in the
    optimiser's step (which holds one more copy of what is trained, because torch updates lists of tensors together).

    Sources: Rajbhandari et al. 2020, section 3 (states); Korthikanti et al. 2022, section 4 (activations; here by
    what PyTorch keeps: frozen matrices keep no inputs, norms are computed in float32).
    """
    return _predicting(job) if job.method == "prompting" else _training(job)


def weight_bytes(job: Job) -> float:
    """Bytes of the whole model as it is stored: quantised in the matrices of its layers only."""
    total, linear = job.architecture.parameters.total, job.architecture.linear_weights
    if not job.quantised:
        return float(total * job.value_bytes)
    return linear * QUANTISED_BITS[job.quantised] / 8 + (total - linear) * job.value_bytes


def _training(job: Job) -> Memory:
    weights, trained, gradients, states = _states(job)
    tokens = job.batch * (job.length + (job.virtual_tokens if job.method in ("prefix", "soft-prompt") else 0))
    kept = kept_bytes_per_token(job) * tokens
    opened = opened_bytes_per_token(job) * tokens
    loss = logits_bytes_per_token(job) * tokens
    standing = weights + trained + states + _SMALL_BYTES + _teacher_bytes(job, tokens)
    root, unit = _gathered(job)
    # A frozen base under full sharding keeps the gradients of all layers' inputs until the end (measured).
    held = kept if job.sharding == "fsdp" and not job.trains_all and job.checkpointing == "full" else 0.0
    first = _first_gradients(job, gradients)
    phases = {
        "loss": (standing + root + kept + loss, loss),
        "layer": (standing + root + unit + kept + held + first + opened, opened),
        "backward": (standing + root + unit + gradients + opened, opened),
        "step": (standing + gradients + _step_bytes(job), _step_bytes(job)),
    }
    phase = max(phases, key=lambda name: phases[name][0])
    allocated, working = phases[phase]
    reserved = allocated + _slack(job, phase) * (allocated - standing)
    return Memory(
        weights + trained, gradients, states, kept, working, allocated, reserved, reserved + _outside(job), phase
    )


def _outside(job: Job) -> float:
    """Bytes that the process takes on the device outside the allocator."""
    return _CONTEXT_BYTES + (_COMMUNICATION_BYTES if job.devices > 1 else 0.0)


def _states(job: Job) -> tuple[float, float, float, float]:
    """Return bytes of weights, of trained copies or adapters, of gradients and of optimiser states on one device."""
    of_states = 1 / job.devices if job.sharding in ("zero1", "zero2", "fsdp") else 1.0
    of_gradients = 1 / job.devices if job.sharding in ("zero2", "fsdp") else 1.0
    of_weights = 1 / job.devices if job.sharding == "fsdp" else 1.0
    count = trainable_parameters(job)
    weights, trained = weight_bytes(job) * of_weights, 0.0
    if not job.trains_all:
        trained = count * job.trained_bytes * of_weights
    elif job.trained_bytes > job.value_bytes:  # a float32 copy that the optimiser changes; fully sharded, the only one
        trained = count * job.trained_bytes * of_states
        weights = 0.0 if job.sharding == "fsdp" else weights
    gradients = count * job.trained_bytes * of_gradients
    if job.optimiser_in_backward:
        gradients = _largest_unit(job.architecture) * job.trained_bytes * of_gradients
    return weights, trained, gradients, count * job.state_bytes * of_states


def _largest_unit(architecture: Architecture) -> float:
    """Parameters of the largest part that is handled in one go: the embedding or a layer."""
    per_layer = architecture.parameters.layers / max(1, architecture.depth)
    return max(per_layer, architecture.vocabulary * architecture.hidden)


def _gathered(job: Job) -> tuple[float, float]:
    """Return bytes of what full sharding makes whole: embedding and output layer all along, and one layer's weights."""
    if job.sharding != "fsdp" or job.devices == 1:
        return 0.0, 0.0
    architecture = job.architecture
    tables = architecture.parameters.embedding + architecture.parameters.head
    per_layer = architecture.linear_weights / architecture.depth
    unit = per_layer * (QUANTISED_BITS[job.quantised] / 8 if job.quantised else job.value_bytes)
    if job.trains_all:  # its gradient is whole before it is reduced, once as computed and once in the trained format
        unit += per_layer * (job.value_bytes + job.trained_bytes)
    return float(tables * job.value_bytes), unit


def _first_gradients(job: Job, gradients: float) -> float:
    """Gradients that exist when the topmost layer is in its backward pass: the output layer's."""
    if not job.trains_all or job.optimiser_in_backward:
        return 0.0
    architecture = job.architecture
    share = architecture.vocabulary * architecture.hidden / architecture.parameters.total
    return gradients * min(1.0, share)


def _step_bytes(job: Job) -> float:
    """Temporary bytes of the optimiser's step: one copy of what this device updates."""
    if job.optimiser_in_backward or job.optimiser in ("adamw-fused", "adamw-8bit"):
        return 0.0
    shares = job.devices if job.sharding in ("zero1", "zero2", "fsdp") else 1
    return trainable_parameters(job) * job.trained_bytes / shares


def _teacher_bytes(job: Job, tokens: int) -> float:
    """A distillation's teacher: weights, one layer's work, and its logits beside the student's."""
    if job.teacher is None or job.method != "distillation":
        return 0.0
    teacher = job.teacher
    opened = 6.0 * teacher.mlp_width + 7.0 * teacher.hidden
    shares = job.devices if job.sharding == "fsdp" else 1
    return teacher.parameters.total * job.value_bytes / shares + tokens * max(
        opened, 6.0 * teacher.vocabulary * job.supervised
    )


def kept_bytes_per_token(job: Job) -> float:
    """Bytes that stay from the forward to the backward pass, for each token of a micro-batch, over all layers."""
    architecture = job.architecture
    inputs = float(job.value_bytes * architecture.hidden)
    if job.k_bit_preparation:
        inputs *= 4 / job.value_bytes
    if job.checkpointing == "full":
        return 0.0 if job.offloads else inputs * architecture.depth
    if job.checkpointing == "selective":
        return (0.5 * layer_kept_bytes(job) + inputs) * architecture.depth
    return layer_kept_bytes(job) * architecture.depth


def layer_kept_bytes(job: Job) -> float:
    """Bytes that one layer keeps for its backward pass, for each token.

    Kept are the inputs of norms (in float32 where the model computes in 16 bit), queries, keys, values and the output
    of attention, what the MLP's activation and product read, the inputs of matrices that are trained, and a copy for
    each low-rank update in its own format.
    """
    architecture, size = job.architecture, job.value_bytes
    hidden, width, narrow = architecture.hidden, architecture.attention_width, architecture.key_value_width
    has_plain_norms = not architecture.is_gated and architecture.kind != "encoder-decoder"
    norms = 2.0 * hidden * (size if has_plain_norms or job.compiled else 4)
    attention = size * (2.0 * width + 2 * narrow)
    if job.attention == "eager":
        attention += architecture.heads * job.length * (4 + size + (1 if architecture.kind != "decoder" else 0))
    active = max(one.active for one in architecture.linears)
    mlp = size * (3.0 if architecture.is_gated else 1.0) * architecture.mlp_width * active
    dropout = 3.0 * hidden if has_plain_norms else 0.0
    copies = 4.0 * (2 * hidden + width + architecture.mlp_width * active) if job.keeps_quantised_inputs else 0.0
    return norms + attention + mlp + dropout + copies + _trained_inputs(job, active)


_READ_ALREADY = {"k_proj", "v_proj", "k", "v", "key", "value"}  # what the query reads
_KEPT_ALREADY = {"o_proj", "out_proj", "o", "up_proj", "wi_1"}  # attention's output; what the gate reads


def _trained_inputs(job: Job, active: int) -> float:
    """Bytes per token and layer that are kept only because something is trained."""
    architecture, size = job.architecture, job.value_bytes
    if job.trains_all:
        norms = 2.0 * size * architecture.hidden if architecture.is_gated and not job.compiled else 0.0
        product = 0.0 if job.compiled else size * architecture.mlp_width * active  # else computed again
        return norms + size * 2.0 * architecture.hidden + product
    if job.method == "ia3":
        return size * (2.0 * architecture.key_value_width + architecture.mlp_width)
    if job.method == "adapters":
        return 2 * size * (architecture.hidden + 2.0 * job.bottleneck)
    if job.method not in ("lora", "dora"):
        return 0.0
    found = targeted(job)
    if job.trained_bytes == size:  # no copy in another format: matrices that read the same tensor keep it once
        again = _READ_ALREADY if job.dropout else _READ_ALREADY | _KEPT_ALREADY
        found = tuple((one, layers) for one, layers in found if one.name not in again or one.reads_encoder)
    inputs = [one.inputs * one.active * layers for one, layers in found]
    copies = job.trained_bytes + (size + 1 if job.dropout else 0)
    per_layer = sum(inputs) * copies / max(1, architecture.depth)
    if job.method == "dora":  # the frozen product is scaled, and kept for the magnitude's gradient
        per_layer += size * sum(one.outputs * layers for one, layers in targeted(job)) / architecture.depth
    return per_layer


def opened_bytes_per_token(job: Job) -> float:
    """Bytes per token of a micro-batch while one layer goes backward: what is computed again, gradients on the way."""
    architecture = job.architecture
    active = max(one.active for one in architecture.linears)
    gradients = job.value_bytes * (2.0 * architecture.hidden + 2 * architecture.mlp_width * active)
    own = layer_kept_bytes(job) if job.checkpointing != "none" else 0.0
    return own + gradients


def logits_bytes_per_token(job: Job) -> float:
    """Bytes per token around the loss: logits, their float32 copies and gradients, by how the loss is computed."""
    vocabulary, hidden = job.architecture.vocabulary, job.architecture.hidden
    if vocabulary == 0:
        return 0.0
    if job.profile == "taskfit":
        return job.supervised * 12.0 * vocabulary + 2.0 * job.value_bytes * hidden
    per_value, per_hidden = _LOSS[job.profile]
    if job.value_bytes == 4 and job.profile == "eager":
        per_value = 16.0  # logits, their logarithms, and the gradients of both, all in float32
    return per_value * vocabulary + per_hidden * hidden


def _slack(job: Job, phase: str) -> float:
    """Share of passing memory that the allocator holds beyond it."""
    if phase == "step":
        return 0.0
    return _SLACK[job.profile] if job.checkpointing == "full" else _KEPT_SLACK


def _predicting(job: Job) -> Memory:
    """Weights, keys and values of all rows, and the larger of reading the prompt and of writing the answer."""
    architecture, size = job.architecture, job.value_bytes
    weights = weight_bytes(job)
    depth = architecture.decoder_layers or architecture.layers
    per_token = 2.0 * size * depth * architecture.key_value_width if architecture.kind != "encoder" else 0.0
    read, written = job.batch * job.length, job.batch * (job.length + job.new_tokens)
    active = max(one.active for one in architecture.linears)
    gated = 3.0 if architecture.is_gated else 2.0
    # What the MLP's activation and product read and write, beside the stream, its norm, what was added, and the output.
    layer = size * (gated * architecture.mlp_width * active + 4.0 * architecture.hidden) * read
    if job.attention == "eager":
        layer += job.batch * architecture.heads * float(job.length) ** 2 * (4 + size)
    logits = 6.0 * architecture.vocabulary * job.batch
    prefill = per_token * read + layer + logits
    decode = per_token * written + logits
    share = job.devices if job.sharding == "fsdp" else 1
    allocated = weights / share + max(prefill, decode) + _SMALL_BYTES
    reserved = allocated + 0.1 * max(prefill, decode)
    cache = per_token * (read if prefill >= decode else written)
    phase = "prefill" if prefill >= decode else "decode"
    return Memory(weights / share, 0.0, 0.0, cache, layer, allocated, reserved, reserved + _outside(job), phase)
