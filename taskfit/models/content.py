"""What a model in memory is: a hash over everything that decides its answers, as it stands now.

:func:`taskfit.models.fingerprint.fingerprint` hashes the files that a model was loaded from. This hashes the numbers
that it computes with, so a model that was trained in place, given an adapter, cast or quantised is another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = ["ModelContent"]

# Of submodules: what adapters are, and how strongly, beside their weights.
_WHERE = ("_name_or_path", "transformers_version")  # where a model was found does not make it another one
_SETTINGS = ("scaling", "active_adapters", "disable_adapters", "merged_adapters", "active_adapter")


class ModelContent:
    """The content hash of a model, computed again only when the model has changed.

    Args:
        model: with weights in memory.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._mark: tuple[object, ...] = ()
        self._hash = ""

    def fingerprint(self) -> str:
        """Return SHA-256 over weights, buffers, number formats, configuration, adapters and tokenizer.

        Whether anything has changed since the last call is seen by sums over the bits of all tensors, which takes
        about as long as reading them once.
        """
        mark = (self._settings(), *(_bits(name, tensor) for name, tensor in self._tensors()))
        if mark != self._mark:
            self._hash = self._compute()
            self._mark = mark
        return self._hash

    def _compute(self) -> str:
        import torch

        total = hashlib.sha256(self._settings().encode("utf-8", "surrogatepass"))
        for name, tensor in self._tensors():
            content = tensor.detach().reshape(-1).contiguous().cpu().view(torch.uint8).numpy()
            total.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            total.update(content.data)
        return total.hexdigest()

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._model.module.named_parameters(remove_duplicate=False)
        yield from self._model.module.named_buffers(remove_duplicate=False)

    def _settings(self) -> str:
        """Everything that is no tensor, as one text."""
        model = self._model
        module: Any = model.module
        config = getattr(module, "config", None)
        parts: list[object] = [type(module).__qualname__, model.architecture, model.context, model.has_chat_template]
        values = {} if config is None else config.to_dict()
        parts += [model.end_token_ids, sorted((k, repr(v)) for k, v in values.items() if k not in _WHERE)]
        parts += [_tokenizer_text(model.tokenizer), str(getattr(module, "peft_config", None))]
        for name, part in module.named_modules():
            found = [(key, getattr(part, key)) for key in _SETTINGS if key in _attributes(part)]
            parts += [(name, key, repr(value)) for key, value in found]
        return repr(parts)


def _attributes(part: Any) -> set[str]:
    """Names of plain attributes and properties; asking a wrapped model for others would ask its base in vain."""
    return set(vars(part)) | {name for kind in type(part).__mro__ for name in vars(kind)}


def _tokenizer_text(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = repr(tokenizer) if backend is None else backend.to_str()
    return f"{text}\0{getattr(tokenizer, 'chat_template', None)}"


def _bits(name: str, tensor: torch.Tensor) -> tuple[object, ...]:
    """A sum over the bits of a tensor: a single changed weight changes it."""
    import torch

    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = tensor.detach().reshape(-1).contiguous()
    bits = flat.view(kinds[flat.element_size()]) if flat.element_size() in kinds else flat.view(torch.uint8)
    version = None if tensor.is_inference() else tensor._version
    return name, str(tensor.dtype), tuple(tensor.shape), version, int(bits.sum(dtype=torch.int64))
