"""From a name or folder to a language model, with everything checked that goes wrong in silence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.errors import ModelError
from taskfit.models.dtype import named_dtype
from taskfit.models.fingerprint import fingerprint
from taskfit.models.folder import check_folder
from taskfit.models.language_model import Architecture, LanguageModel
from taskfit.models.quiet import quiet_transformers
from taskfit.models.service import ServiceModel, is_service_name
from taskfit.models.source import find_folder
from taskfit.models.weights import check_loaded, check_weights, drop_unread_pooler

if TYPE_CHECKING:
    import torch

__all__ = ["load", "open_folder", "open_without_weights"]

_SANE_CONTEXT = 100_000_000  # tokenizers without a limit say 10**30
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")


def load(
    name_or_folder: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> LanguageModel:
    """Load a language model.

    Args:
        name_or_folder: a known name (``taskfit-tiny``, ``minilm``), a folder, a name on the Hugging Face hub, or a
            service's address with the model behind # (``http://localhost:8000/v1#name``; the other arguments are
            then not used).
        dtype: ``auto`` (the fastest format of the device, measured), ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto`` (an accelerator when there is one), ``cpu``, ``cuda``, ``cuda:1``, …
        trust_remote_code: run code that lies beside the weights. Read it first.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: it cannot be found or used as it is; says why and what to do.
        ConfigError: dtype is not one of the four.
        MissingExtraError: a known name's package is not installed.

    >>> model = load("taskfit-tiny")  # doctest: +SKIP
    >>> model.architecture            # doctest: +SKIP
    'decoder'
    """
    if isinstance(name_or_folder, str) and is_service_name(name_or_folder):
        return ServiceModel(name_or_folder)
    folder = find_folder(name_or_folder, revision=revision, with_code=trust_remote_code)
    return open_folder(
        folder, name=str(name_or_folder), dtype=dtype, device=device, trust_remote_code=trust_remote_code
    )


def open_folder(
    folder: Path,
    *,
    name: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a language model from a folder: a base model, or a predictor whose weights were all tuned.

    Args:
        folder: holds config.json, tokenizer files and safetensors.
        name: what to call it; the folder itself when None.
        dtype: as in :func:`load`.
        device: as in :func:`load`.
        trust_remote_code: as in :func:`load`.

    Raises:
        ModelError: the folder cannot be used as it is; all that is wrong with its files is said together.
        ConfigError: dtype is not one of the four.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}")
    check_folder(folder, trust_remote_code=trust_remote_code)
    where = _device(device)
    number_format = named_dtype(dtype, where)
    subject = f"model {name or folder}"
    with quiet_transformers():
        config = _read("config.json", subject, "AutoConfig", folder, trust_remote_code=trust_remote_code)
        architecture = _architecture(config, subject)
        tokenizer = _tokenizer(folder, subject, trust_remote_code)
        module, loading = _read(
            "the weights",
            subject,
            _auto_class(architecture, config),
            folder,
            config=config,
            dtype=number_format,
            attn_implementation=_attention(architecture, config),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_loaded says which, as an error
            trust_remote_code=trust_remote_code,
        )
    check_loaded(module, architecture, loading, subject)
    drop_unread_pooler(module, loading["missing_keys"])
    check_weights(module, subject)
    _check_vocabulary(module, tokenizer, subject)
    module = module.to(where).eval()
    return LanguageModel(
        name=name or str(folder),
        folder=folder,
        architecture=architecture,
        module=module,
        tokenizer=tokenizer,
        dtype=number_format,
        device=where,
        context=_context(module, tokenizer, subject),
        fingerprint=fingerprint(folder),
        has_chat_template=tokenizer.chat_template is not None and architecture == "decoder",
        end_token_ids=_end_token_ids(module, tokenizer, architecture, subject),
    )


def open_without_weights(folder: Path, *, name: str | None = None) -> LanguageModel:
    """Open a model's configuration and tokenizer, for an engine that holds the weights itself; prompts can be encoded.

    Its ``module`` is empty but for the configuration, on the ``meta`` device.

    Raises:
        ModelError: the folder cannot be used as it is.
    """
    import torch
    from transformers import GenerationConfig

    check_folder(folder, trust_remote_code=False)
    subject = f"model {name or folder}"
    with quiet_transformers():
        config = _read("config.json", subject, "AutoConfig", folder, trust_remote_code=False)
        tokenizer = _tokenizer(folder, subject, False)
    architecture = _architecture(config, subject)
    module: Any = torch.nn.Module()
    module.config = config
    if (folder / "generation_config.json").is_file():
        module.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return LanguageModel(
        name=name or str(folder),
        folder=folder,
        architecture=architecture,
        module=module,
        tokenizer=tokenizer,
        dtype=torch.get_default_dtype(),
        device=torch.device("meta"),
        context=_context(module, tokenizer, subject),
        fingerprint=fingerprint(folder),
        has_chat_template=tokenizer.chat_template is not None and architecture == "decoder",
        end_token_ids=_end_token_ids(module, tokenizer, architecture, subject),
    )


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {name!r} cannot be used: {reason}", "Use 'auto' or 'cpu'.") from None
    return device


def _read(part: str, subject: str, auto_class: str, folder: Path, **settings: Any) -> Any:
    """Call ``from_pretrained`` on local files only; whatever it raises becomes a ModelError."""
    import transformers

    from taskfit.models.quiet import quiet_bitsandbytes

    quiet_bitsandbytes()
    try:
        return getattr(transformers, auto_class).from_pretrained(folder, local_files_only=True, **settings)
    except Exception as error:  # transformers raises whatever its layers raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{subject}: {part} cannot be read: {type(error).__name__}: {first_line}") from error


def _architecture(config: Any, subject: str) -> Architecture:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    saved_as = _saved_as(config)
    if config.is_encoder_decoder:
        return "encoder-decoder"
    if saved_as.endswith(("ForCausalLM", "LMHeadModel")):
        return "decoder"
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "decoder"
    raise ModelError(
        f"{subject}: model type {config.model_type!r} ({saved_as or 'no architecture named'}) is no text decoder, "
        "encoder-decoder or encoder that is known here"
    )


def _saved_as(config: Any) -> str:
    """Return the first class that the configuration names; nothing where it names none, or something else than text."""
    named = config.architectures
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""


def _auto_class(architecture: Architecture, config: Any) -> str:
    if architecture == "decoder":
        return "AutoModelForCausalLM"
    if architecture == "encoder-decoder":
        return "AutoModelForSeq2SeqLM"
    has_masked_head = _saved_as(config).endswith("ForMaskedLM")
    return "AutoModelForMaskedLM" if has_masked_head else "AutoModel"


def _attention(architecture: Architecture, config: Any) -> str | None:
    """Name the attention: sdpa where it can do what the model needs.

    It cannot cap scores (Gemma 2). Encoder-decoders choose for themselves: their position bias is not always in sdpa.
    """
    if getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None:
        return "eager"
    return None if architecture == "encoder-decoder" else "sdpa"


def _tokenizer(folder: Path, subject: str, trust_remote_code: bool) -> Any:
    tokenizer = _read("the tokenizer", subject, "AutoTokenizer", folder, trust_remote_code=trust_remote_code)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{subject}: its tokenizer {type(tokenizer).__name__} has no fast version (tokenizer.json)",
            "Convert it once with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    return tokenizer


def _check_vocabulary(module: Any, tokenizer: Any, subject: str) -> None:
    """Check that every token a text can become has an embedding.

    Control tokens without one are allowed (Gemma 3 has one for images): :mod:`taskfit.models.encoding` never lets a
    text become one.
    """
    control = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    largest = max((token_id for token_id in tokenizer.get_vocab().values() if token_id not in control), default=-1)
    rows = module.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise ModelError(
            f"{subject}: the tokenizer has token {largest}, but the model has embeddings for 0 to {rows - 1} only",
            "The tokenizer belongs to another model, or tokens were added without resizing the embeddings.",
        )


def _context(module: Any, tokenizer: Any, subject: str) -> int:
    """The smallest limit that the tokenizer sets, or the configuration, less positions that are never used."""
    config = module.config.get_text_config()
    unused = _positions_before_the_first(module)
    limits = [(getattr(config, key, None), unused) for key in _CONTEXT_KEYS] + [(tokenizer.model_max_length, 0)]
    sane = [limit - less for limit, less in limits if isinstance(limit, int) and less < limit < _SANE_CONTEXT]
    if not sane:
        raise ModelError(
            f"{subject}: nothing says how many tokens it can read",
            'Set "model_max_length" in tokenizer_config.json.',
        )
    return min(sane)


def _positions_before_the_first(module: Any) -> int:
    """RoBERTa's family starts counting after its padding position; those rows of the table are never used."""
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return int(part.padding_idx) + 1
    return 0


def _end_token_ids(module: Any, tokenizer: Any, architecture: Architecture, subject: str) -> tuple[int, ...]:
    """The chat's end of turn first, where there is one, then every end of sequence that any file names."""
    if architecture == "encoder":
        return ()
    from taskfit.models.text_format import end_of_turn

    found: list[int] = []
    turn_end = end_of_turn(tokenizer) if architecture == "decoder" else None
    if turn_end is not None:
        found.append(turn_end)
    generation = getattr(module, "generation_config", None)
    for ids in (tokenizer.eos_token_id, module.config.get_text_config().eos_token_id, _eos(generation)):
        found.extend(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    if not found:
        raise ModelError(
            f"{subject}: no token ends an answer: neither a chat template nor eos_token is there",
            'Set "eos_token" in tokenizer_config.json.',
        )
    return tuple(dict.fromkeys(int(token) for token in found))


def _eos(generation: Any) -> Any:
    return None if generation is None else generation.eos_token_id
