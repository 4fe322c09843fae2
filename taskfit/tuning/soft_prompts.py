"""Train vectors before every prompt; the model's own weights stay. Saved in peft's format, which has no merged form."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.strategy.space import OneOf, Space, Times
from taskfit.tuning.method import Method, Trainable
from taskfit.tuning.model_folder import copy_tensors
from taskfit.tuning.peft_method import CONFIG_FILE, TASK_TYPES, WEIGHTS_FILE, check_config, write_adapter
from taskfit.tuning.selective import refuse_changed
from taskfit.tuning.settings import RateRule, width_of

if TYPE_CHECKING:
    import peft
    import torch

    from taskfit.models.language_model import LanguageModel
    from taskfit.tuning.virtual_tokens import VirtualTokens

__all__ = ["PTuning", "PTuningV2", "PrefixTuning", "PromptTuning", "SoftPrompt"]

_ENTRY = "prompt_embeddings"
"""Name of the vectors in peft's file."""

_LEAST_CONTEXT = 16
"""Tokens that must be left for prompt and answer."""


@dataclass(frozen=True)
class SoftPrompt(Method):
    """A method that trains vectors before every prompt.

    The vectors take their number of tokens from the model's context: longer prompts are cut by the usual rule (whole
    worked examples, then the middle of the question), and counted.
    """

    tokens: int = 20
    """Number of vectors; more than 20 gain little (Lester et al. 2021, section 3.2)."""

    agreed: ClassVar[tuple[str, ...]] = ("peft_type", "num_virtual_tokens", "token_dim", "num_layers")
    rate_rule: ClassVar[RateRule] = "fixed"
    space: ClassVar[Space] = {"learning_rate": Times(0.1, 10.0), "tokens": OneOf((10, 20, 50))}

    def check(self, faults: Faults) -> None:
        """Note a number of vectors below 1."""
        if self.tokens < 1:
            faults.add(f"tokens must be at least 1 (got {self.tokens})")

    @abstractmethod
    def config(self, model: LanguageModel) -> peft.PeftConfig:
        """Return peft's configuration for this model, as it is saved."""

    @abstractmethod
    def encoder(self, model: LanguageModel, config: peft.PeftConfig) -> torch.nn.Module:
        """Return what makes the vectors while they train; random starts come from torch's generator."""

    @abstractmethod
    def place(self, model: LanguageModel, encoder: torch.nn.Module) -> VirtualTokens:
        """Return the vectors, ready to be attached."""

    def pack(self, vectors: torch.Tensor, model: LanguageModel) -> torch.Tensor:
        """Return the vectors as peft's file holds them."""
        return vectors

    def unpack(self, table: torch.Tensor, model: LanguageModel) -> torch.Tensor:
        """Return the vectors of a file's table."""
        return table

    @contextmanager
    def training(self, model: LanguageModel, *, seed: int) -> Iterator[Trainable]:
        """Put fresh vectors before every prompt; see :class:`taskfit.tuning.method.Method`."""
        import torch

        self._check_context(model)
        model.module.requires_grad_(False)
        with torch.random.fork_rng(devices=[] if model.device.type == "cpu" else None):
            torch.manual_seed(seed)
            encoder = self.encoder(model, self.config(model)).to(model.device)
        vectors = self.place(model, encoder)
        vectors.attach(model.module, model.architecture)
        model.context -= self.tokens
        yield Trainable(f"{self.tokens} vectors before every prompt", virtual_tokens=self.tokens)
        vectors.freeze()

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json`` into an existing folder, as peft does."""
        config = self.config(model)
        config.base_model_name_or_path = model.name
        write_adapter(folder, {_ENTRY: self.pack(_attached(model).vectors(), model)}, config)

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Put the folder's vectors before every prompt of the base model; see :class:`taskfit.tuning.method.Method`."""
        import torch

        if model is None:
            raise PredictorError(f"{folder} holds vectors only; the base model they were trained on is needed")
        refuse_changed(model.module)
        try:
            self._check_context(model)
            config = self.config(model)
        except ConfigError as error:
            raise PredictorError(f"{folder} does not fit {model.name}: {error.message}", error.hint) from error
        check_config(folder / CONFIG_FILE, config, self.agreed)
        table = torch.zeros(self.tokens, _width(config))
        copy_tensors(folder / WEIGHTS_FILE, {_ENTRY: table})
        made = torch.nn.Embedding.from_pretrained(self.unpack(table, model))  # type: ignore[no-untyped-call]
        vectors = self.place(model, made.to(model.device))
        vectors.freeze()
        vectors.attach(model.module, model.architecture)
        return replace(model, context=model.context - self.tokens)

    def merge(self, model: LanguageModel) -> LanguageModel:
        """Refuse: vectors before the prompt are no weights of the model.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "vectors before the prompt cannot be folded into a model's weights", "Keep base and vectors apart."
        )

    def detach(self, model: LanguageModel) -> LanguageModel:
        """Take the vectors away and give their tokens back to the context."""
        _attached(model).detach(model.module)
        return replace(model, context=model.context + self.tokens)

    def _check_context(self, model: LanguageModel) -> None:
        if model.context - self.tokens < _LEAST_CONTEXT:
            raise ConfigError(
                f"{self.tokens} vectors leave {model.context - self.tokens} of the {model.context} tokens that "
                f"{model.name} can read; at least {_LEAST_CONTEXT} must be left",
                "Lower tokens.",
            )

    def _common(self, model: LanguageModel) -> dict[str, Any]:
        """Entries of every configuration of this kind; peft would guess them from the model."""
        from taskfit.tuning.virtual_tokens import key_value_shape

        layers, heads, _ = key_value_shape(model.module)
        return {
            "task_type": TASK_TYPES[model.architecture],
            "num_virtual_tokens": self.tokens,
            "token_dim": width_of(model),
            "num_transformer_submodules": 1,
            "num_attention_heads": heads,
            "num_layers": layers,
        }


@dataclass(frozen=True)
class PromptTuning(SoftPrompt):
    """Train vectors before the embeddings of every prompt (of an encoder–decoder: of what its encoder reads).

    The fewest values of all methods. It needs large models and high rates; below a billion parameters expect less
    than from ``lora``.

    Source: Lester et al. 2021, section 2, with starts from the vocabulary or from a text (section 3.2). Rate: 3e-2,
    of peft's guide to prompt tuning with AdamW; its comparison did better with every larger rate up to 1e-3.
    """

    init: Literal["text", "vocab", "random"] = "vocab"
    """Start: embeddings of ``text``, of tokens drawn from the vocabulary, or uniform between -0.5 and 0.5."""
    text: str = ""
    """The text of ``init=text``; repeated or cut to the number of vectors."""

    rate_at_768: ClassVar[float] = 3e-2

    def check(self, faults: Faults) -> None:
        """Note also a start from a text that is not given."""
        super().check(faults)
        if self.init == "text" and not self.text.strip():
            faults.add('init=text needs a text: prompt-tuning(init=text, text="Is the review positive?")')
        if self.init != "text" and self.text:
            faults.add(f"text is used with init=text only (got init={self.init})")

    def config(self, model: LanguageModel) -> peft.PeftConfig:
        """Return peft's configuration."""
        import peft

        return peft.PromptTuningConfig(prompt_tuning_init="RANDOM", **self._common(model))

    def encoder(self, model: LanguageModel, config: peft.PeftConfig) -> torch.nn.Module:
        """Return a table of vectors, begun as ``init`` says."""
        import torch

        module: Any = model.module
        words = module.get_input_embeddings().weight.detach().float()
        if self.init == "random":
            start = torch.rand(self.tokens, words.shape[1]) - 0.5
        elif self.init == "vocab":
            start = words[torch.randint(0, len(words), (self.tokens,)).to(words.device)]
        else:
            ids = model.tokenizer.encode(self.text, add_special_tokens=False)
            start = words[torch.tensor([ids[place % len(ids)] for place in range(self.tokens)], device=words.device)]
        table = torch.nn.Embedding(*start.shape)
        table.weight.data.copy_(start)
        return table

    def place(self, model: LanguageModel, encoder: torch.nn.Module) -> VirtualTokens:
        """Return vectors before the embeddings."""
        from taskfit.tuning.virtual_tokens import InputVectors

        return InputVectors(encoder, self.tokens)


@dataclass(frozen=True)
class PTuning(SoftPrompt):
    """Train vectors before the embeddings through a small network that makes them; the network is dropped afterwards.

    Source: Liu et al. 2021 (P-tuning, "GPT understands, too"), section 3.2: an LSTM and an MLP, or an MLP alone.
    Rate: 1e-3, of peft's guide to p-tuning.
    """

    network: Literal["mlp", "lstm"] = "mlp"
    """What makes the vectors: three linear layers, or a bidirectional LSTM of two layers and two linear ones."""
    hidden: int = 128
    """Width of the network."""

    rate_at_768: ClassVar[float] = 1e-3

    def check(self, faults: Faults) -> None:
        """Note also a width below 1."""
        super().check(faults)
        if self.hidden < 1:
            faults.add(f"hidden must be at least 1 (got {self.hidden})")

    def config(self, model: LanguageModel) -> peft.PeftConfig:
        """Return peft's configuration."""
        import peft

        return peft.PromptEncoderConfig(
            encoder_reparameterization_type=self.network.upper(),
            encoder_hidden_size=self.hidden,
            **self._common(model),
        )

    def encoder(self, model: LanguageModel, config: peft.PeftConfig) -> torch.nn.Module:
        """Return peft's network."""
        from peft import PromptEncoder

        return cast("torch.nn.Module", PromptEncoder(config))

    def place(self, model: LanguageModel, encoder: torch.nn.Module) -> VirtualTokens:
        """Return vectors before the embeddings."""
        from taskfit.tuning.virtual_tokens import InputVectors

        return InputVectors(encoder, self.tokens)


@dataclass(frozen=True)
class DeepPrompt(SoftPrompt):
    """What prefix tuning and p-tuning v2 share: keys and values before those of every layer."""

    agreed: ClassVar[tuple[str, ...]] = (*SoftPrompt.agreed, "num_attention_heads")
    rate_at_768: ClassVar[float] = 5e-3
    rate_rule: ClassVar[RateRule] = "vector"

    def _projection(self) -> dict[str, Any]:
        """Entries of the configuration that say how the vectors are made."""
        return {"prefix_projection": False}

    def config(self, model: LanguageModel) -> peft.PeftConfig:
        """Return peft's configuration; its width is that of the keys of one layer."""
        import peft

        from taskfit.tuning.virtual_tokens import key_value_shape

        layers, heads, width = key_value_shape(model.module)
        own = {"token_dim": heads * width}
        if model.architecture == "encoder-decoder":
            own |= {"num_transformer_submodules": 2, "num_layers": 2 * layers}  # see pack
        return peft.PrefixTuningConfig(**(self._common(model) | own), **self._projection())

    def encoder(self, model: LanguageModel, config: peft.PeftConfig) -> torch.nn.Module:
        """Return peft's table, or its table and network."""
        from peft import PrefixEncoder

        from taskfit.tuning.virtual_tokens import key_value_shape

        settings: Any = copy(config)
        settings.num_layers = key_value_shape(model.module)[0]
        return cast("torch.nn.Module", PrefixEncoder(settings))

    def place(self, model: LanguageModel, encoder: torch.nn.Module) -> VirtualTokens:
        """Return keys and values of every layer."""
        from taskfit.tuning.virtual_tokens import DeepVectors, key_value_shape

        return DeepVectors(encoder, self.tokens, key_value_shape(model.module))

    def pack(self, vectors: torch.Tensor, model: LanguageModel) -> torch.Tensor:
        """Return the vectors as peft reads them.

        For an encoder–decoder it reads vectors of self-attention and cross-attention in turn, and drops the latter;
        so zeros stand there.
        """
        import torch

        if model.architecture != "encoder-decoder":
            return vectors
        by_layer = self._by_layer(vectors, model)
        return torch.stack([by_layer, torch.zeros_like(by_layer)], dim=2).reshape(len(vectors), -1)

    def unpack(self, table: torch.Tensor, model: LanguageModel) -> torch.Tensor:
        """Return the vectors of a file's table."""
        if model.architecture != "encoder-decoder":
            return table
        return self._by_layer(table, model)[:, ::2].reshape(len(table), -1)

    def _by_layer(self, table: torch.Tensor, model: LanguageModel) -> torch.Tensor:
        from taskfit.tuning.virtual_tokens import key_value_shape

        _, heads, width = key_value_shape(model.module)
        return table.view(len(table), -1, 2 * heads * width)  # (tokens, layers, keys and values)


@dataclass(frozen=True)
class PrefixTuning(DeepPrompt):
    """Train keys and values before those of every layer (of an encoder–decoder: of its decoder's self-attention).

    Source: Li and Liang 2021, section 4. They start from the keys and values of real words (section 7.4); peft's
    comparison too did best so, at rate 5e-3. With ``reparameterise`` a network makes the vectors (section 4.3), at
    the paper's rate 5e-5 (appendix A).
    """

    init: Literal["vocab", "random"] = "vocab"
    """Start: keys and values of tokens drawn from the vocabulary, or a normal distribution; a network has its own."""
    reparameterise: bool = False
    """Make the vectors by a network of two layers, dropped afterwards."""
    hidden: int = 512
    """Width of that network."""

    def rate(self, model: LanguageModel) -> float:
        """Return the rate; a network needs a lower one."""
        if self.learning_rate is None and self.reparameterise:
            return 5e-5
        return super().rate(model)

    def check(self, faults: Faults) -> None:
        """Note also a width below 1."""
        super().check(faults)
        if self.hidden < 1:
            faults.add(f"hidden must be at least 1 (got {self.hidden})")

    def _projection(self) -> dict[str, Any]:
        if not self.reparameterise:
            return super()._projection()
        return {"prefix_projection": True, "encoder_hidden_size": self.hidden}

    def encoder(self, model: LanguageModel, config: peft.PeftConfig) -> torch.nn.Module:
        """Return peft's table or network; the table begins with keys and values of real words, unless ``random``."""
        made: Any = super().encoder(model, config)
        if self.init == "vocab" and not self.reparameterise:
            made.embedding.weight.data.copy_(_words_in_attention(model, self.tokens))
        return cast("torch.nn.Module", made)


@dataclass(frozen=True)
class PTuningV2(DeepPrompt):
    """Train keys and values before those of every layer, from a random start and without a network.

    Source: Liu et al. 2022 (P-tuning v2), section 3; its rates for BERT and RoBERTa lie between 5e-3 and 1e-2.
    """


def _words_in_attention(model: LanguageModel, tokens: int) -> torch.Tensor:
    """Keys and values that tokens drawn from the vocabulary have in the model, shape (tokens, layers x 2 x width)."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    module: Any = model.module
    ids = torch.randint(0, module.get_input_embeddings().weight.shape[0], (1, tokens)).to(model.device)
    cache: Any = DynamicCache()
    module.eval()
    with torch.no_grad():
        if model.architecture == "encoder-decoder":
            both = EncoderDecoderCache(cache, DynamicCache())
            module(input_ids=ids, decoder_input_ids=ids, past_key_values=both, use_cache=True)
        else:
            getattr(module, "base_model", module)(input_ids=ids, past_key_values=cache, use_cache=True)
    parts = [part[0] for layer in cache.layers for part in (layer.keys, layer.values)]  # (heads, tokens, width) each
    return torch.stack(parts).permute(2, 0, 1, 3).reshape(tokens, -1).float()


def _attached(model: LanguageModel) -> VirtualTokens:
    from taskfit.tuning.virtual_tokens import VirtualTokens

    return VirtualTokens.of(model.module)


def _width(config: peft.PeftConfig) -> int:
    """Values of one vector."""
    settings: Any = config
    deep = settings.peft_type == "PREFIX_TUNING"
    return int(settings.token_dim * settings.num_layers * 2) if deep else int(settings.token_dim)
