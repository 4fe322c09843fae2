"""Trained vectors before every prompt, put in where the model reads, so that nobody who calls the model must know.

Hooks stand on the transformer below the output layer. They put the vectors before the first token of a sequence,
widen masks, shift positions, and cut the vectors' own hidden states off again; once a cache holds the vectors, they
only widen and shift. So training, scoring in trees behind a shared beginning, and generating with a cache all work as
without them. Positions count the vectors, as in the peft library: its readers predict the same.

:class:`InputVectors` stand before the embeddings (prompt tuning, p-tuning). :class:`DeepVectors` are keys and values
in every layer's attention (prefix tuning, p-tuning v2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from taskfit.errors import ConfigError
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.language_model import Architecture

__all__ = ["DeepVectors", "InputVectors", "VirtualTokens", "key_value_shape", "self_attentions"]

_NAME = "taskfit_virtual_tokens"

Inputs = dict[str, Any]
"""Keyword arguments of a module's forward."""


class VirtualTokens(torch.nn.Module, ABC):
    """Vectors before every prompt of one model.

    Args:
        encoder: makes the vectors from their indices, shape (1, tokens) to (1, tokens, width); it trains.
        tokens: number of vectors.
    """

    def __init__(self, encoder: torch.nn.Module, tokens: int) -> None:
        super().__init__()
        self.encoder: torch.nn.Module | None = encoder
        self.table: torch.nn.Parameter | None = None
        self.tokens = tokens
        self.hidden_work = Work()
        self._handles: list[Any] = []

    def vectors(self) -> Tensor:
        """Return the vectors, shape (tokens, width)."""
        if self.table is not None:
            return self.table
        assert self.encoder is not None
        device = next(self.encoder.parameters()).device
        made: Tensor = self.encoder(torch.arange(self.tokens, device=device).unsqueeze(0))[0]
        return made

    def freeze(self) -> None:
        """Keep the vectors alone and drop what made them."""
        with torch.no_grad():
            table = self.vectors().clone()
        self.encoder, self.table = None, torch.nn.Parameter(table, requires_grad=False)

    def attach(self, module: Any, architecture: Architecture) -> None:
        """Put the vectors before everything that ``module`` reads from now on."""
        self.hook(module, architecture)
        module.add_module(_NAME, self)

    def detach(self, module: Any) -> None:
        """Take the vectors away; the module is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        delattr(module, _NAME)

    def note(self, read: Tensor, *, is_start: bool) -> None:
        """Count what these vectors add to a pass over ``read``, shape (rows, length, ...).

        Each position sees them; where they go through the layers themselves (``is_start``), they see one another.
        """
        rows, length = read.shape[:2]
        own = self.tokens * (self.tokens + 1) // 2 if is_start else 0
        computed = rows * self.tokens if is_start else 0
        self.hidden_work += Work(computed_tokens=computed, attended_pairs=rows * (length * self.tokens + own))

    @abstractmethod
    def hook(self, module: Any, architecture: Architecture) -> None:
        """Put hooks where the vectors go in."""

    def before(self, part: Any, change: Any) -> None:
        """Let ``change(part, inputs)`` rewrite the arguments of each call of ``part``, all of them by name."""
        names = list(signature(part.forward).parameters)

        def rewrite(owner: Any, arguments: tuple[Any, ...], inputs: Inputs) -> tuple[tuple[Any, ...], Inputs]:
            return (), change(owner, dict(zip(names, arguments, strict=False)) | inputs)

        self._handles.append(part.register_forward_pre_hook(rewrite, with_kwargs=True))

    def after(self, part: Any, change: Any) -> None:
        """Let ``change(output)`` rewrite what each call of ``part`` gives."""
        self._handles.append(part.register_forward_hook(lambda _part, _arguments, output: change(output)))

    @staticmethod
    def of(module: Any) -> VirtualTokens:
        """Return the vectors attached to a module.

        Raises:
            ConfigError: there are none.
        """
        found = getattr(module, _NAME, None)
        if not isinstance(found, VirtualTokens):
            raise ConfigError("the model carries no trained vectors before its prompts")
        return found


class InputVectors(VirtualTokens):
    """Vectors before the embeddings of a decoder or encoder, or of an encoder–decoder's encoder."""

    def hook(self, module: Any, architecture: Architecture) -> None:
        """Put hooks on the transformer below the output layer."""
        self._is_causal = architecture == "decoder"
        self._cuts = False
        if architecture == "encoder-decoder":
            self.before(module.get_encoder(), self._put_in)
            self.before(module.get_decoder(), self._widen_cross_mask)
        else:
            body = getattr(module, "base_model", module)
            self.before(body, self._put_in)
            self.after(body, self._cut)

    def _put_in(self, part: Any, inputs: Inputs) -> Inputs:
        self._cuts = not _is_going_on(inputs)
        _shift_positions(inputs, self.tokens)
        self.note(_read(inputs), is_start=self._cuts)
        if not self._cuts:
            _widen_mask(inputs, self.tokens, rows_too=False, is_causal=self._is_causal)
            return inputs
        embeddings = inputs.pop("inputs_embeds", None)
        ids = inputs.pop("input_ids", None)
        if embeddings is None:
            embeddings = part.get_input_embeddings()(ids)
        vectors = self.vectors().to(embeddings.dtype).expand(len(embeddings), -1, -1)
        inputs["inputs_embeds"] = torch.cat([vectors, embeddings], dim=1)
        if inputs.get("position_ids") is not None:
            positions = inputs["position_ids"]
            front = torch.arange(self.tokens, device=positions.device).expand(len(positions), -1)
            inputs["position_ids"] = torch.cat([front, positions], dim=1)
        _widen_mask(inputs, self.tokens, rows_too=True, is_causal=self._is_causal)
        return inputs

    def _cut(self, output: Any) -> Any:
        if self._cuts:
            output.last_hidden_state = output.last_hidden_state[:, self.tokens :]
        return output

    def _widen_cross_mask(self, part: Any, inputs: Inputs) -> Inputs:
        mask, hidden = inputs.get("encoder_attention_mask"), inputs.get("encoder_hidden_states")
        if mask is not None and hidden is not None and mask.shape[-1] == hidden.shape[1] - self.tokens:
            inputs["encoder_attention_mask"] = _with_ones(mask, self.tokens)
        return inputs


class DeepVectors(VirtualTokens):
    """Keys and values before those of every self-attention of a decoder or encoder, or of an encoder–decoder's decoder.

    Where layers are recomputed going backward, transformers takes the cache from them; each attention then gets its
    own vectors directly.

    Args:
        encoder: makes vectors of width layers x 2 x heads x width of a head, in this order, as peft has it.
        tokens: number of vectors.
        shape: (layers, heads of keys and values, width of a head).
    """

    def __init__(self, encoder: torch.nn.Module, tokens: int, shape: tuple[int, int, int]) -> None:
        super().__init__(encoder, tokens)
        self.shape = shape

    def hook(self, module: Any, architecture: Architecture) -> None:
        """Put hooks on the transformer and on each of its self-attentions."""
        self._architecture = architecture
        self._current: list[tuple[Tensor, Tensor]] = []
        body = module.get_decoder() if architecture == "encoder-decoder" else getattr(module, "base_model", module)
        for attention in self_attentions(body):
            self.before(attention, self._give_directly)
        self.before(body, self._put_in_encoder if architecture == "encoder" else self._put_in)

    def keys_and_values(self, rows: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Return (keys, values) of each layer, each of shape (rows, heads, tokens, width of a head)."""
        layers, heads, width = self.shape
        vectors = self.vectors().to(dtype).view(self.tokens, layers * 2, heads, width)
        by_layer = vectors.permute(1, 2, 0, 3).unsqueeze(1).expand(-1, rows, -1, -1, -1)
        return [(by_layer[2 * layer], by_layer[2 * layer + 1]) for layer in range(layers)]

    def _put_in(self, part: Any, inputs: Inputs) -> Inputs:
        from transformers import DynamicCache, EncoderDecoderCache

        read = _read(inputs)
        _shift_positions(inputs, self.tokens)
        is_start = not _is_going_on(inputs)
        self.note(read, is_start=False)  # keys and values alone: seen, but not computed
        if is_start and inputs.get("attention_mask") is None and self._architecture == "decoder":
            inputs["attention_mask"] = torch.ones(read.shape[:2], dtype=torch.long, device=read.device)
        _widen_mask(inputs, self.tokens, rows_too=False, is_causal=True)
        if is_start:
            self._current = self.keys_and_values(len(read), _dtype(part))
            cache = inputs.get("past_key_values")
            if cache is None:
                cache = DynamicCache()
                if self._architecture == "encoder-decoder":
                    cache = EncoderDecoderCache(cache, DynamicCache())
            own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
            for layer, (keys, values) in enumerate(self._current):
                own.update(keys, values, layer)
            inputs["past_key_values"] = cache
        return inputs

    def _put_in_encoder(self, part: Any, inputs: Inputs) -> Inputs:
        read = _read(inputs)
        self.note(read, is_start=False)
        self._current = self.keys_and_values(len(read), _dtype(part))
        mask = inputs.get("attention_mask")
        if mask is None:
            mask = torch.ones(read.shape[:2], dtype=torch.long, device=read.device)
        wide = _with_ones(mask, self.tokens)[:, None, None, :].bool().expand(-1, 1, read.shape[1], -1)
        inputs["attention_mask"] = wide if part.config._attn_implementation == "sdpa" else _additive(wide, _dtype(part))
        if inputs.get("position_ids") is None:
            positions = torch.arange(read.shape[1], device=read.device) + self.tokens
            inputs["position_ids"] = positions.expand(len(read), -1)
        return inputs

    def _give_directly(self, attention: Any, inputs: Inputs) -> Inputs:
        if inputs.get("past_key_values") is None and self._current:
            inputs["past_key_values"] = _Front(*self._current[attention.layer_idx])
        return inputs


class _Front:
    """Stands for a cache of one layer that holds the vectors and forgets everything else."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys, self._values = keys, values

    def update(self, keys: Tensor, values: Tensor, layer: int, *_rest: Any, **_more: Any) -> tuple[Tensor, Tensor]:
        """Return the vectors followed by what is new; nothing is kept."""
        return torch.cat([self._keys, keys], dim=2), torch.cat([self._values, values], dim=2)

    def get_seq_length(self, layer: int = 0) -> int:
        """Return the number of vectors."""
        return int(self._keys.shape[2])


def self_attentions(body: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the self-attention of every layer, in order."""
    found = [
        part
        for name, part in body.named_modules()
        if isinstance(getattr(part, "layer_idx", None), int)
        and "attention" in type(part).__name__.lower()
        and not any(word in name.lower() for word in ("encdec", "cross"))
    ]
    return sorted(found, key=lambda part: int(part.layer_idx))


def key_value_shape(module: Any) -> tuple[int, int, int]:
    """Return (layers, heads of keys and values, width of a head) of a transformer.

    Raises:
        ConfigError: its configuration does not say, or its layers differ.
    """
    config = module.config.get_text_config(decoder=True) if hasattr(module.config, "get_text_config") else module.config
    values = config.to_dict()
    layers = _first(config, "num_decoder_layers", "num_hidden_layers", "num_layers", "n_layer")
    heads = _first(config, "num_attention_heads", "num_heads", "n_head")
    width = _first(config, "hidden_size", "d_model", "n_embd")
    if not layers or not heads or not width or values.get("per_layer_config"):
        raise ConfigError(f"the attention of {type(module).__name__} is not known from its configuration")
    key_heads = values.get("num_key_value_heads") or heads
    return layers, key_heads, _first(config, "head_dim", "d_kv") or width // heads


def _first(config: Any, *names: str) -> int:
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int)), 0)


def _is_going_on(inputs: Inputs) -> bool:
    """Whether the sequences have begun in an earlier call, whose cache holds the vectors."""
    cache = inputs.get("past_key_values")
    return cache is not None and cache.get_seq_length() > 0


def _read(inputs: Inputs) -> Tensor:
    """What is read: ids, or embeddings; shape (batch, length, ...)."""
    ids: Tensor | None = inputs.get("input_ids")
    embeddings: Tensor | None = inputs.get("inputs_embeds")
    found = ids if ids is not None else embeddings
    assert found is not None
    return found


def _dtype(part: Any) -> torch.dtype:
    """Number format of what the attention computes."""
    device = next(part.parameters()).device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else part.dtype


def _shift_positions(inputs: Inputs, tokens: int) -> None:
    if inputs.get("position_ids") is not None:
        inputs["position_ids"] = inputs["position_ids"] + tokens


def _with_ones(mask: Tensor, tokens: int) -> Tensor:
    return torch.cat([mask.new_ones(len(mask), tokens), mask], dim=1)


def _widen_mask(inputs: Inputs, tokens: int, *, rows_too: bool, is_causal: bool) -> None:
    """Let everything see the vectors: in a mask of shape (batch, keys), or (batch, 1, queries, keys)."""
    mask = inputs.get("attention_mask")
    if mask is None:
        return
    if mask.ndim == 2:
        inputs["attention_mask"] = _with_ones(mask, tokens)
        return
    is_truth = mask.dtype == torch.bool
    seen, unseen = (True, False) if is_truth else (0.0, torch.finfo(mask.dtype).min)
    front = mask.new_full((*mask.shape[:3], tokens), seen)
    wide = torch.cat([front, mask], dim=3)
    if rows_too:
        own = mask.new_full((tokens, tokens + mask.shape[3]), unseen)
        own[:, :tokens] = seen
        if is_causal:
            later = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).triu(1)
            own[:, :tokens].masked_fill_(later, unseen)
        wide = torch.cat([own.expand(len(mask), 1, -1, -1), wide], dim=2)
    inputs["attention_mask"] = wide


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
