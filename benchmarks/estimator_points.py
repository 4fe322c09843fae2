"""From a line of published measurements to a job for the estimator, or to the reason why there is none.

What a line does not state comes from what its software is known to do by default (named below, once per software and
never from the measured figures); where that is open, the line is unusable.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from taskfit.costs.architecture import Architecture
from taskfit.costs.catalogue import architecture_named
from taskfit.costs.job import Job

GIB = 2**30
Row = dict[str, Any]

# torchtune's table adds one saving a line; each is on from its line downwards.
STEPS = (
    "baseline",
    "+packed",
    "+compile",
    "+chunked cross-entropy",
    "+activation checkpointing",
    "+optimizer step in backward",
    "+activation offloading",
    "+8-bit AdamW",
    "LoRA",
    "QLoRA",
)

# Methods of the peft library that train small things beside a frozen base, by what they do to activations.
LIKE_LORA = {"lora", "adalora", "delora", "gralora", "hira", "oft", "road", "unilora", "vblora", "vera", "pvera", "c3a"}
LIKE_LORA |= {"randlora", "loha", "lokr", "deft", "glora", "lily", "fourierft", "waveft", "boft"}
IN_PLACE = {"miss", "shira", "tinylora", "beft", "trainable_tokens", "adamss", "psoft"}
OTHER = {"ia3": "ia3", "ln_tuning": "layer-norm", "prefixtuning": "prefix", "prompt_tuning": "soft-prompt"}
OTHER |= {"ptuning": "soft-prompt"}


class UnusableError(Exception):
    """Why a line cannot be predicted."""


def repository(row: Row) -> str:
    """Return where a line is from, without the version."""
    source = str(row.get("source", ""))
    match = re.match(r"github:([\w.-]+/[\w.-]+)", source)
    return match[1] if match else source.split(" ")[0].split("@")[0].rstrip(",")


def architecture_of(row: Row) -> Architecture:
    """Return the architecture that a line names, checked against the parameters that it states."""
    found = architecture_named(str(row.get("model", "")))
    if found is None:
        found = architecture_named(_spelled(str(row.get("model", ""))))
    if found is None:
        raise UnusableError("no configuration of the model")
    stated = row.get("params") or 0
    if found.family == "mpt":  # llm-foundry learns positions, as many as the row is long, and biases
        positions = int(row.get("seq_len") or 0) * found.hidden
        found = replace(found, parameters=replace(found.parameters, embedding=found.parameters.embedding + positions))
    if stated and abs(found.parameters.total / stated - 1) > 0.04:
        raise UnusableError("the stated parameters are not the model's")
    return found


def _spelled(name: str) -> str:
    name = re.sub(r"^guanaco\s+", "llama-", name.lower()).replace("stablelm-base-alpha", "stablelm-base-alpha")
    name = re.sub(r"^gemma2-?(\d)", r"gemma-2-\1", name)
    name = re.sub(r"^(falcon|llama|yi|mistral|phi|gpt|bert) ", r"\1-", name)
    return re.sub(
        r"^(gpt-2) 124m", "gpt2", re.sub(r"^llama3", "llama-3", re.sub(r"^mistral-7b-v.*", "mistral-7b", name))
    )


def device_of(row: Row) -> tuple[str, int]:
    """Return the accelerator's name and how many a line used."""
    text = str(row.get("hardware") or "")
    match = re.match(r"(\d+)x (.*)", text)
    return (match[2] if match else text), int(row.get("n_gpus") or (match[1] if match else 1) or 1)


def job_of(row: Row) -> Job:
    """Return the job of a line.

    Raises:
        UnusableError: with the reason.
    """
    if row.get("confidence") == "low":
        raise UnusableError("low confidence")
    if row.get("kind") not in ("train", "inference", "load"):
        raise UnusableError(f"a line about {row.get('kind')}")
    where = repository(row)
    if where not in _READERS:
        raise UnusableError("batch, length or software not stated")
    if row.get("kind") != "load" and not (row.get("batch") and row.get("seq_len")):
        raise UnusableError("batch or length not stated")
    offload = "offload" in str(row.get("notes", "")) + str(row.get("method", ""))
    if offload and where != "pytorch/torchtune":
        raise UnusableError("offload to the host is not modelled")
    return _READERS[where](row, architecture_of(row))


def _hf_trainer(row: Row, architecture: Architecture) -> Job:
    """HF Trainer with flash attention and checkpointing; fast kernels and Liger as the line says; LoRA of rank 16."""
    stack, devices = row["framework_config"], device_of(row)[1]
    is_full, is_sharded = row["method"] == "full", row["sharding"] != "none"
    profile = "fused" if "liger" in stack else "fast-ce" if "foak" in stack else "eager"
    upcasts = is_full and is_sharded and "no amp" not in row["precision"]
    return Job(
        architecture,
        "full" if is_full else "lora",
        row["batch"],
        row["seq_len"],
        quantised={"qlora-bnb-nf4": "nf4", "qlora-gptq4": "gptq-int4"}.get(row["method"], ""),
        checkpointing="full",
        profile=profile,  # type: ignore[arg-type]
        sharding="fsdp" if is_sharded else "none",
        devices=devices,
        rank=16,
        targets="attention",
        trained_weights="float32" if upcasts else "",
        k_bit_preparation=stack == "baseline-peft-bnb" and not is_sharded,
    )


def _peft(row: Row, architecture: Architecture) -> Job:
    """The comparison of peft: no checkpointing, float32 adapters on queries and values, padded to the longest row."""
    if row.get("confidence") != "high":
        raise UnusableError("batch or length not stated")
    method, variant = row["method"], str(row.get("variant", ""))
    plain = Job(architecture, "full", row["batch"], row["seq_len"])
    if method == "full":
        return plain
    trainable = int(row.get("trainable_params") or 0)
    name = OTHER.get(method, "lora" if method in LIKE_LORA else "layer-norm" if method in IN_PLACE else "")
    if not name:
        raise UnusableError("method not modelled")
    if method == "lora" and "dora" in variant and "bdlora" not in variant:
        name = "dora"
    targets = "mlp" if "target-mlp" in variant else "qv"
    per_token = {"prompt_tuning": architecture.hidden}.get(
        method, 2 * architecture.depth * architecture.key_value_width
    )
    tokens = max(1, trainable // per_token) if method in ("prompt_tuning", "prefixtuning") else 20
    return replace(plain, method=name, targets=targets, virtual_tokens=tokens, trainable=trainable)


def _litgpt(row: Row, architecture: Architecture) -> Job:
    """LitGPT: no checkpointing, all in bfloat16, LoRA with dropout, an output layer of its own even where the model
    ties it, NF4 without double quantisation. Its configuration files (config_hub/finetune) give rank and targets:
    queries and values for models of Llama's and Falcon's families, all matrices for TinyLlama, Gemma and Phi.
    """
    if device_of(row)[1] > 1 and row["method"] == "full":
        raise UnusableError("sharding not stated")
    head = architecture.vocabulary * architecture.hidden
    parameters = architecture.parameters
    reaches_all = any(name in row["model"] for name in ("tiny-llama", "gemma", "phi"))
    untied = replace(architecture, parameters=replace(parameters, head=max(parameters.head, head)))
    return Job(
        untied,
        "full" if row["method"] == "full" else "lora",
        row["batch"],
        row["seq_len"],
        quantised="nf4-single" if row["method"] == "qlora" else "",
        profile="chunked",
        rank=8 if reaches_all and "tiny" not in row["model"] else 32,
        targets="all" if reaches_all else "qv",
        keeps_quantised_inputs=row["method"] == "qlora",
        dropout=0.05,
        trained_weights="bfloat16",
    )


def _torchtune(row: Row, architecture: Architecture) -> Job:
    """The table of savings of torchtune: fused AdamW, all in bfloat16."""
    if row.get("kind") == "load":
        return Job(architecture, "lora", rank=8, targets="qv", trained_weights="bfloat16")
    step = next((i for i, name in enumerate(STEPS) if str(row.get("step", "")).startswith(name)), -1)
    if step < 0:
        raise UnusableError("checkpointing or optimiser not stated")
    if step == 0:
        raise UnusableError("length not stated")
    is_full = row["method"] == "full"
    return Job(
        architecture,
        "full" if is_full else "lora",
        row["batch"],
        row["seq_len"],
        compiled=step >= 2,
        profile="chunked" if step >= 3 else "eager",
        checkpointing="full" if step >= 4 else "none",
        optimiser_in_backward=is_full and step >= 5,
        offloads=step >= 6,
        optimiser="adamw-8bit" if step == 7 else "adamw-fused",
        quantised="nf4-single" if row["method"] == "qlora" else "",
        trained_weights="bfloat16",
    )


def _torchtitan(row: Row, architecture: Architecture) -> Job:
    """torchtitan: full sharding, float32 trained weights, fused AdamW."""
    notes, devices = str(row.get("notes") or ""), device_of(row)[1]
    if "TP" in notes:
        raise UnusableError("tensor parallelism is not modelled")
    said = (notes + " " + str(row.get("activation_checkpointing") or "")).lower()
    split = int(match[1]) if (match := re.search(r"CP(\d+)", notes)) else 1
    is_full = "full" in said or split > 1  # the table of long contexts says so once, in its first line
    checkpointing = "full" if is_full else "selective" if "selective" in said or "fsdp" in said else "none"
    return Job(
        architecture,
        "pretraining",
        row["batch"],
        row["seq_len"] // split,
        trained_weights="float32",
        optimiser="adamw-fused",
        sharding="fsdp",
        devices=devices,
        checkpointing=checkpointing,  # type: ignore[arg-type]
        compiled="compile" in notes,
        profile="eager",
    )


def _fsdp_qlora(row: Row, architecture: Architecture) -> Job:
    """fsdp_qlora: checkpointing, LoRA of rank 64 on all matrices, in the base's format."""
    is_sharded = "FSDP" in str(row.get("notes"))
    return Job(
        architecture,
        "lora",
        row["batch"],
        row["seq_len"],
        quantised="nf4" if row["method"] == "qlora" else "",
        checkpointing="full",
        sharding="fsdp" if is_sharded else "ddp",
        devices=device_of(row)[1],
        rank=64,
        trained_weights="bfloat16",
    )


def _qwen(row: Row, architecture: Architecture) -> Job:
    """Qwen's table: one row, 2,048 tokens generated; all devices' memory together."""
    quantised = row["precision"] if row["precision"].startswith("gptq") else ""
    return Job(
        architecture,
        "prompting",
        row["batch"],
        row["seq_len"],
        new_tokens=2048,
        quantised=quantised,
        devices=device_of(row)[1],
    )


def _transformers(row: Row, architecture: Architecture) -> Job:
    """The memory page of transformers: BERT in float32, attention scores kept."""
    if row.get("kind") == "load":
        return Job(architecture, "prompting", length=1, weights="float32")
    return Job(architecture, "full", row["batch"], row["seq_len"], weights="float32", attention="eager")


def _qlora_paper(row: Row, architecture: Architecture) -> Job:
    """Table 6: the quantised model with its adapters of rank 64 on all matrices."""
    if row.get("kind") != "load":
        raise UnusableError("batch or length not stated")
    return Job(architecture, "lora", quantised="nf4", rank=64, trained_weights="bfloat16")


def _foundry(row: Row, architecture: Architecture) -> Job:
    """llm-foundry: full sharding; ``bf16`` is pure, ``amp_bf16`` keeps float32 weights."""
    return Job(
        architecture,
        "pretraining",
        row["batch"],
        row["seq_len"],
        trained_weights="" if row["precision"] == "bf16" else "float32",
        sharding="fsdp",
        devices=device_of(row)[1],
        checkpointing="full" if row.get("gradient_checkpointing") else "none",
    )


def _nemo(row: Row, architecture: Architecture) -> Job:
    """NeMo: packed rows; sharding by tensors and pipeline stages counts for time only through its devices."""
    return Job(
        architecture,
        "lora" if row["method"] == "lora" else "full",
        row["batch"],
        row["seq_len"],
        sharding="zero1",
        devices=device_of(row)[1],
        trained_weights="float32",
        profile="fused",
    )


_READERS = {
    "foundation-model-stack/fms-acceleration": _hf_trainer,
    "huggingface/peft": _peft,
    "Lightning-AI/litgpt": _litgpt,
    "pytorch/torchtune": _torchtune,
    "pytorch/torchtitan": _torchtitan,
    "AnswerDotAI/fsdp_qlora": _fsdp_qlora,
    "QwenLM/Qwen2.5": _qwen,
    "huggingface/transformers": _transformers,
    "arXiv:2305.14314": _qlora_paper,
    "mosaicml/llm-foundry": _foundry,
    "NVIDIA/NeMo": _nemo,
    "NVIDIA-NeMo/Automodel": _nemo,
    "docs.nvidia.com": _nemo,
}


def quantity_of(row: Row) -> str:
    """Return which figure a line's memory is: ``allocated``, ``reserved``, ``system`` or ``weights``."""
    kind = str(row.get("memory_kind") or "").lower()
    if row.get("kind") == "load":
        return "system" if "nvml" in kind else "weights"
    if "nvml" in kind or "smi" in kind:
        return "system"
    if "reserved" in kind or repository(row) == "pytorch/torchtitan":  # torchtitan prints the reserved peak
        return "reserved"
    return "allocated"


def memory_bytes_of(row: Row) -> float:
    """Return the measured bytes.

    Qwen's table gives no unit; in decimal gigabytes its bfloat16 models would be smaller than their weights.
    """
    unit = GIB if repository(row) == "QwenLM/Qwen2.5" else 1e9
    return float(row["memory_gb"]) * unit


def rate_of(row: Row) -> float:
    """Return the measured tokens a second of one device (of the whole machine, when generating).

    Raises:
        UnusableError: no rate, or one that depends on lengths that are not stated.
    """
    rate = row.get("throughput")
    if not isinstance(rate, int | float) or not str(row.get("throughput_unit")).startswith("tokens/s"):
        raise UnusableError("no rate in tokens a second")
    if repository(row) == "huggingface/peft" and row["method"] not in {*OTHER, "lora", "full"}:
        raise UnusableError("the method's own kernels are not modelled")
    if re.search(r"CP[2-9]", str(row.get("notes") or "")):
        raise UnusableError("context parallelism is not modelled")
    if "both GPUs" in str(row.get("throughput_unit")):
        return rate / device_of(row)[1]
    return float(rate)


def stack_of(row: Row) -> tuple[str, ...]:
    """Return what shares one calibration point: software, its configuration, number format and device."""
    stack = row.get("framework_config") or row.get("engine") or ""
    precision = "" if row.get("framework_config") else str(row.get("precision"))
    return (repository(row), str(stack), precision, device_of(row)[0])
