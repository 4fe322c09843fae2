"""How long a step, a row or a job takes on a device: a roofline with launches, traffic and communication."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from taskfit.costs.job import QUANTISED_BITS, Job, trainable_parameters
from taskfit.costs.memory import layer_kept_bytes, weight_bytes

if TYPE_CHECKING:
    from taskfit.costs.accelerator import Accelerator

__all__ = ["Decoding", "Step", "decoding", "training_step"]

_MATRIX_SHARE = 0.8  # of the peak, reached by large matrix products
_ATTENTION_SHARE = 0.4  # of the peak, by memory-efficient attention (Dao 2023, section 4.1)
_TRAFFIC_SHARE = 0.75  # of the bandwidth, reached by reading and writing
_LAUNCHES = 30  # kernels of one layer in one forward pass
_EAGER_LAYER_S = 8.5e-4  # of one layer for one token, where Python starts each kernel
_ENGINE_LAYER_S = 1.1e-4  # the same in an engine with recorded launches
_HEAD_SHARE = 0.0123  # of the bandwidth: one key-value head of one row, where a kernel does not split its positions
_PASSES = 3.5  # how often what is kept is written and read again, forward and backward


@dataclass(frozen=True)
class Step:
    """Seconds of one micro-step (one forward and backward pass of a micro-batch) on one device.

    Attributes:
        matrix_s: matrix products.
        traffic_s: norms, activations, attention's and the loss's reading and writing.
        launch_s: starting kernels, where it takes longer than running them.
        dequantise_s: turning quantised weights back.
        communicate_s: between devices, beyond what computing hides.
        optimise_s: the optimiser's step, once a step.
        tokens: of the micro-batch on this device.
    """

    matrix_s: float
    traffic_s: float
    launch_s: float
    dequantise_s: float
    communicate_s: float
    optimise_s: float
    tokens: float

    def seconds(self, accumulation: float = 1.0) -> float:
        """Seconds of one micro-step, the optimiser's step shared by ``accumulation`` of them."""
        computing = max(self.matrix_s + self.traffic_s, self.launch_s) + self.dequantise_s
        return computing + self.communicate_s + self.optimise_s / accumulation

    def tokens_per_s(self, accumulation: float = 1.0) -> float:
        """Tokens a second of one device."""
        return self.tokens / self.seconds(accumulation)


def training_step(job: Job, device: Accelerator, *, compute_format: str = "") -> Step:
    """Estimate one micro-step of training.

    Raises:
        ConfigError: the device lacks the number format.
    Sources: Kaplan et al. 2020, section 2.1 (operations); Williams et al. 2009 (roofline); what is kept is taken
    from the memory model, for each kept byte is written once and read at least once.
    """
    architecture, real = job.architecture, float(job.batch * job.length)
    if job.method == "soft-prompt":  # virtual tokens are computed, and nobody's data
        job = replace(job, length=job.length + job.virtual_tokens)
    tokens = float(job.batch * job.length)
    peak = device.peak(compute_format or job.weights)
    layers, attention, head = _forward_flops(job)
    backward, again = (2.0 if job.trains_all else 1.0), {"none": 0.0, "selective": 0.3, "full": 1.0}[job.checkpointing]
    matrix_s = ((layers + head) * (1 + backward) + layers * again) / (peak * _MATRIX_SHARE)
    attention_peak = peak if compute_format in ("", job.weights) else device.peak(job.weights)
    matrix_s += attention * (3.5 + again) / (attention_peak * _ATTENTION_SHARE)
    traffic = layer_kept_bytes(job) * architecture.depth * tokens * (_PASSES + again)
    traffic += tokens * job.supervised * architecture.vocabulary * (6.0 if job.profile == "fused" else 16.0)
    launches = _LAUNCHES * architecture.depth * (3 + again) * device.launch_s
    trained = trainable_parameters(job) / (job.devices if job.sharding in ("zero1", "zero2", "fsdp") else 1)
    optimiser = trained * (3 * job.trained_bytes + 2 * job.state_bytes + 2 * job.value_bytes)
    return Step(
        matrix_s=matrix_s,
        traffic_s=traffic / (device.bytes_per_s * _TRAFFIC_SHARE),
        launch_s=launches,
        dequantise_s=_dequantise_s(job, device, 2 + again),
        communicate_s=_communicate_s(job, device, matrix_s),
        optimise_s=optimiser / (device.bytes_per_s * _TRAFFIC_SHARE),
        tokens=real,
    )


def _forward_flops(job: Job) -> tuple[float, float, float]:
    """Operations of one forward pass: layers, attention (the causal half for decoders), output layer."""
    architecture, tokens = job.architecture, float(job.batch * job.length)
    weights = float(architecture.layers * architecture.layer_weights)
    if architecture.decoder_layers:
        weights = (weights + architecture.decoder_layers * architecture.decoder_layer_weights) / 2
        weights += architecture.decoder_layers * architecture.cross_weights / 2
    pairs = tokens * job.length * (0.5 if architecture.kind == "decoder" else 1.0)
    attention = 4.0 * architecture.attention_width * architecture.layers * pairs
    return (
        2.0 * weights * tokens,
        attention,
        2.0 * architecture.hidden * architecture.vocabulary * tokens * job.supervised,
    )


def _dequantise_s(job: Job, device: Accelerator, passes: float) -> float:
    if not job.quantised:
        return 0.0
    moved = job.architecture.linear_weights * (QUANTISED_BITS[job.quantised] / 8 + 2 * job.value_bytes)
    return passes * moved / (device.bytes_per_s * 0.4)  # unpacking reaches less of the bandwidth than copying


def _communicate_s(job: Job, device: Accelerator, hidden_s: float) -> float:
    """Seconds that communication takes beyond half of the computing, behind which it can hide."""
    if job.devices == 1 or job.sharding == "none":
        return 0.0
    share = (job.devices - 1) / job.devices
    trained = trainable_parameters(job) * job.value_bytes
    moved = 2 * weight_bytes(job) + trained if job.sharding == "fsdp" else 2 * trained
    return max(0.0, share * moved / device.link_bytes_per_s - 0.5 * hidden_s)


@dataclass(frozen=True)
class Decoding:
    """Seconds of answering one batch: reading the prompt, then one token after the other.

    Attributes:
        prefill_s: reading the prompts of the batch.
        token_s: mean seconds of one further token (of all rows of the batch at once).
        new_tokens: for each row.
    """

    prefill_s: float
    token_s: float
    new_tokens: int

    @property
    def seconds(self) -> float:
        """Seconds of the whole batch."""
        return self.prefill_s + self.token_s * self.new_tokens


def decoding(job: Job, device: Accelerator, *, engine: str = "eager", compute_format: str = "") -> Decoding:
    """Estimate answering one batch.

    Args:
        job: ``batch`` rows of ``length`` tokens, ``new_tokens`` written for each.
        device: its peak and bandwidth.
        engine: ``eager`` (each kernel started from Python, keys and values copied for all heads) or ``serving``.
        compute_format: number format of the products, where not that of the weights.

    Raises:
        ConfigError: the device lacks the number format.
    """
    architecture = job.architecture
    peak = device.peak(compute_format or job.weights)
    layers, attention, _ = _forward_flops(job)
    logits = 2.0 * architecture.hidden * architecture.vocabulary * job.batch
    devices = job.devices if engine == "serving" else 1  # without a serving engine, devices take turns
    bandwidth = device.bytes_per_s * _TRAFFIC_SHARE
    work = (layers + attention + logits) / (peak * 0.6 * devices)
    floor = architecture.depth * (_EAGER_LAYER_S if engine == "eager" else _ENGINE_LAYER_S)
    prefill_s = max(work, floor) + _dequantise_s(job, device, 1.0) / devices
    read = job.length + job.new_tokens / 2
    depth = architecture.decoder_layers or architecture.layers
    cache = 2.0 * job.value_bytes * depth * architecture.key_value_width * read * job.batch
    table = architecture.vocabulary * architecture.hidden * job.value_bytes
    weights = weight_bytes(job) - (table if architecture.parameters.head else 0)  # looked up, not read
    if engine == "serving":
        token_s = (weights + cache) / bandwidth / devices + floor
    else:
        share = min(_TRAFFIC_SHARE, _HEAD_SHARE * (architecture.key_value_heads * job.batch) ** 0.5)
        token_s = max(weights / bandwidth + cache / (device.bytes_per_s * share), floor)
    return Decoding(prefill_s, token_s, job.new_tokens)
