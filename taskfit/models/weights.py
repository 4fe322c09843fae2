"""Checks after loading: every weight came from the file, every file weight was used, every number is finite."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from taskfit.errors import Faults, ModelError

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import Architecture

__all__ = ["check_loaded", "check_weights", "drop_unread_pooler"]

_NO_WEIGHTS = re.compile(r"(position_ids|rotary_emb\.inv_freq|masked_bias|attn\.bias)$")
"""Buffers that older versions saved beside the weights; they are computed, not learned."""

_POOLER = re.compile(r"(^|\.)pooler\.")
_PRE_TRAINING_HEAD = re.compile(r"(^|\.)(cls\.seq_relationship|discriminator_predictions)\.")
_MOST_LISTED = 8


def check_loaded(module: Any, architecture: Architecture, loading: dict[str, Any], subject: str) -> None:
    """Check what transformers says about the loading.

    Tied weights are not missing: transformers leaves them out of its list. For encoders, a file may hold heads that
    are not used (a pooler, a pre-training head): the strategies put their own head on the body. A pooler that the file
    lacks is allowed too, provided that :func:`drop_unread_pooler` takes it away.

    Args:
        module: the loaded transformers model.
        architecture: of the model.
        loading: transformers' ``output_loading_info``.
        subject: names the model in messages.

    Raises:
        ModelError: weights are missing (they would be random), not used, or of another shape.
    """
    faults = Faults(subject)
    missing = [key for key in loading.get("missing_keys", ()) if not _may_be_missing(key, architecture)]
    unused = [key for key in loading.get("unexpected_keys", ()) if not _may_be_unused(key, module, architecture)]
    if missing:
        faults.add(f"{len(missing)} weights are missing from the file and would be random: {_listed(missing)}")
    if unused:
        faults.add(f"{len(unused)} weights of the file have no place in the model: {_listed(unused)}")
    for key, *shapes in loading.get("mismatched_keys", ()):
        faults.add(f"{key} has another shape in the file than in the model: {shapes}")
    for message in loading.get("error_msgs", ()):
        faults.add(str(message))
    faults.raise_as(ModelError, "The file and config.json belong to different models, or the file is incomplete.")


def drop_unread_pooler(module: Any, missing: Iterable[str]) -> None:
    """Remove an encoder's pooler when its weights were not in the file, so that no random layer is left."""
    if any(_POOLER.search(key) for key in missing):
        module.base_model.pooler = None


def check_weights(module: torch.nn.Module, subject: str) -> None:
    """Check that all weights are finite.

    Raises:
        ModelError: some are NaN or infinite; lists their names.
    """
    broken = [name for name, weight in module.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise ModelError(
            f"{subject}: {len(broken)} weights hold NaN or infinite numbers: {_listed(broken)}",
            "The file is damaged, or was saved by a training run that had diverged; or the number format is too "
            "narrow (try float32 or bfloat16 instead of float16).",
        )


def _may_be_missing(key: str, architecture: Architecture) -> bool:
    return architecture == "encoder" and _POOLER.search(key) is not None


def _may_be_unused(key: str, module: Any, architecture: Architecture) -> bool:
    if _NO_WEIGHTS.search(key):
        return True
    if architecture != "encoder":
        return False
    return _POOLER.search(key) is not None or _PRE_TRAINING_HEAD.search(key) is not None or _is_head(key, module)


def _is_head(key: str, module: Any) -> bool:
    """Whether a weight lies outside the body of an encoder that was loaded without any head."""
    if module.base_model is not module:
        return False
    inside = key.removeprefix(f"{module.base_model_prefix}.")
    return inside.split(".", 1)[0] not in dict(module.named_children())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
