"""Tiny random models, real tokenizers and a fake engine: for tests of taskfit and of what is built on it.

Each ``tiny_*`` function trains a tokenizer on a built-in paragraph, makes a model with random weights and saves both
as an ordinary model folder, in well under a second, without a network.

>>> folder = tiny_decoder(tmp_path / "llama")  # doctest: +SKIP
>>> model = taskfit.models.load(folder)        # doctest: +SKIP
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from taskfit.inference.requests import Generate, Generated, Request, Response, Score, Scored
from taskfit.models.quiet import quiet_transformers
from taskfit.models.work import Work

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "CHAT_TEMPLATES",
    "PARAGRAPH",
    "FakeEngine",
    "generated",
    "scored",
    "tiny_decoder",
    "tiny_encoder",
    "tiny_encoder_decoder",
]

PARAGRAPH = """The harbour opens at six. Boats come in with fish, and the market wakes up before the sun does.
A cook asks for mackerel, a child asks for the red one, and nobody asks what the weather will be, for they all know.
Question: is the answer yes or no? Answer: yes. Question: is the review positive or negative? Answer: negative.
Sentence: this was a great film, with a good heart and a bad ending. Label: positive. Topic: world, sports, business.
At noon the prices fall: 12, 34, 56, then 7, 8 and 9. What is left goes to the cats, who have been waiting quietly.
Later, the nets are mended and the boats are washed; someone sings, someone sleeps, and the tide turns once more.
"""
"""What the tiny tokenizers are trained on."""

ChatStyle = Literal["chatml", "gemma"]

CHAT_TEMPLATES: dict[ChatStyle, str] = {
    "chatml": (
        "{%- for message in messages -%}"
        "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    ),
    "gemma": (
        "{{- bos_token -}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'system' -%}{{- raise_exception('no system role') -}}{%- endif -%}"
        "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
        "{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"
    ),
}
"""Chat templates in the manner of two families: one has a system role, the other writes its own BOS and has none."""

_TURN_TOKENS: dict[ChatStyle, tuple[str, str]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
}


def tiny_decoder(
    folder: Path,
    *,
    kind: Literal["llama", "gpt2"] = "llama",
    chat: bool | ChatStyle = False,
    is_plain: bool = False,
    vocab: int = 512,
    context: int = 512,
    seed: int = 0,
) -> Path:
    """Save a random decoder of two layers, width 32, and its tokenizer.

    Args:
        folder: where to write; made when missing.
        kind: ``llama``: grouped-query attention (4 heads, 2 of keys), tied weights, sentencepiece-like tokenizer with
            byte fallback and BOS. ``gpt2``: learned positions, byte-level tokenizer without BOS.
        chat: True or ``chatml``: a ChatML template whose turns end with a token of their own. ``gemma``: a template
            that writes BOS itself and refuses a system turn.
        is_plain: of ``llama``: as many heads of keys as of queries, and an output layer of its own.
        vocab: entries of the vocabulary, at least 400 (256 of them are bytes).
        context: most tokens the model can read.
        seed: of the weights.

    Returns:
        ``folder``.
    """
    style: ChatStyle | None = "chatml" if chat is True else (chat or None)
    turns: tuple[str, ...] = _TURN_TOKENS[style] if style else ()
    if kind == "llama":
        bos, eos, pad = "<s>", "</s>", "<pad>"
        tokenizer = _sentencepiece_bpe(vocab, (pad, bos, eos, "<unk>", *turns))
        special = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": "<unk>"}
    else:
        bos = eos = pad = "<|endoftext|>"
        tokenizer = _byte_level_bpe(vocab, (eos, *turns))
        special = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    if style:
        special["eos_token"] = turns[1]
    settings = special | ({"chat_template": CHAT_TEMPLATES[style]} if style else {})
    _save_tokenizer(tokenizer, folder, context, settings, special_tokens=turns)
    ids = {name: _id(tokenizer, special[f"{name}_token"]) for name in ("bos", "eos", "pad")}
    config = _decoder_config(kind, tokenizer.get_vocab_size(), context, ids)
    if is_plain:
        config.num_key_value_heads, config.tie_word_embeddings = config.num_attention_heads, False
    _save_model(config, "AutoModelForCausalLM", folder, seed)
    return folder


def tiny_encoder(
    folder: Path, *, has_masked_head: bool = False, vocab: int = 512, context: int = 128, seed: int = 0
) -> Path:
    """Save a random BERT of two layers, width 32, and its lower-casing WordPiece tokenizer ([CLS] text [SEP]).

    Args:
        folder: where to write; made when missing.
        has_masked_head: save it with its masked-language-model head instead of its pooler.
        vocab: most entries of the vocabulary.
        context: most tokens the model can read.
        seed: of the weights.

    Returns:
        ``folder``.
    """
    from transformers import BertConfig

    tokenizer = _wordpiece(vocab)
    special = {f"{name.lower()}_token": f"[{name}]" for name in ("CLS", "SEP", "PAD", "UNK", "MASK")}
    _save_tokenizer(tokenizer, folder, context, special)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=context,
        initializer_range=0.15,
        pad_token_id=_id(tokenizer, "[PAD]"),
    )
    _save_model(config, "AutoModelForMaskedLM" if has_masked_head else "AutoModel", folder, seed)
    return folder


def tiny_encoder_decoder(
    folder: Path, *, sentinels: int = 0, vocab: int = 300, context: int = 512, seed: int = 0
) -> Path:
    """Save a random T5 of two layers each side, width 32, and its unigram tokenizer (text </s>, no BOS).

    Like T5's own, the tokenizer turns line breaks and runs of spaces into one space.

    Args:
        folder: where to write; made when missing.
        sentinels: number of tokens <extra_id_0>, <extra_id_1> and on, added to the vocabulary.
        vocab: most entries of the vocabulary.
        context: most tokens of a prompt (T5's positions are relative; the tokenizer's setting is what limits it).
        seed: of the weights.

    Returns:
        ``folder``.
    """
    from transformers import T5Config

    tokenizer = _unigram(vocab)
    extra = [f"<extra_id_{number}>" for number in range(sentinels)]
    tokenizer.add_special_tokens(extra)
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    _save_tokenizer(tokenizer, folder, context, special, special_tokens=extra)
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    _save_model(config, "AutoModelForSeq2SeqLM", folder, seed)
    return folder


class FakeEngine:
    """An engine whose answers come from a function; it remembers what it was asked.

    Attributes:
        requests: every request so far, in order.
        waves: number of requests in each call of :meth:`run`.

    >>> engine = FakeEngine(lambda request: generated(request, "yes"))
    """

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer
        self._work = Work()
        self.requests: list[Request] = []
        self.waves: list[int] = []

    @property
    def work(self) -> Work:
        """Prompt and answer tokens of the responses so far; nothing was computed."""
        return self._work

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer every request with the function."""
        self.requests.extend(requests)
        self.waves.append(len(requests))
        responses = [self._answer(request) for request in requests]
        for response in responses:
            self._work += Work(prompt_tokens=response.prompt_tokens, answer_tokens=_answer_tokens(response))
        return responses


def scored(request: Score, logprobs: Sequence[float]) -> Scored:
    """Return a response to ``request``; every word of a text counts as one token."""
    return Scored(
        logprobs=tuple(logprobs),
        tokens=tuple(len(text.split()) for text in request.continuations),
        prompt_tokens=len(request.prompt.text.split()),
    )


def generated(request: Generate, text: str, *, logprob: float = -1.0) -> Generated:
    """Return a response to ``request`` that ended by itself; every word of a text counts as one token."""
    return Generated(
        text=text,
        finish="end",
        logprob=logprob,
        tokens=len(text.split()) + 1,
        prompt_tokens=len(request.prompt.text.split()),
    )


def _answer_tokens(response: Response) -> int:
    return sum(response.tokens) if isinstance(response, Scored) else response.tokens


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None, token
    return int(found)


def _byte_level_bpe(vocab: int, special_tokens: Sequence[str]) -> Tokenizer:
    """GPT-2's kind: any text survives the round trip; a space belongs to the word after it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PARAGRAPH.splitlines(keepends=True), trainer)
    return tokenizer


def _sentencepiece_bpe(vocab: int, special_tokens: Sequence[str]) -> Tokenizer:
    """Llama's kind: "▁" for a space and before the text, unknown characters as bytes, BOS in front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=vocab - 256, special_tokens=list(special_tokens), show_progress=False)
    tokenizer.train_from_iterator(PARAGRAPH.splitlines(), trainer)
    state = json.loads(tokenizer.to_str())
    entries = state["model"]["vocab"]
    entries.update({f"<0x{byte:02X}>": len(entries) + byte for byte in range(256)})
    state["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def _unigram(vocab: int) -> Tokenizer:
    """T5's kind."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=list(string.ascii_letters + string.digits + string.punctuation),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PARAGRAPH.splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return tokenizer


def _wordpiece(vocab: int) -> Tokenizer:
    """BERT's kind."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    special_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab, special_tokens=special_tokens, show_progress=False)
    tokenizer.train_from_iterator(PARAGRAPH.splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _save_tokenizer(
    tokenizer: Tokenizer, folder: Path, context: int, settings: dict[str, str], special_tokens: Sequence[str] = ()
) -> None:
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=list(special_tokens),
        **settings,
    ).save_pretrained(folder)


def _decoder_config(kind: Literal["llama", "gpt2"], vocab: int, context: int, ids: dict[str, int]) -> Any:
    from transformers import GPT2Config, LlamaConfig

    common = {f"{name}_token_id": token_id for name, token_id in ids.items()} | {"vocab_size": vocab}
    if kind == "gpt2":
        return GPT2Config(
            **common,
            n_positions=context,
            n_embd=32,
            n_layer=2,
            n_head=4,
            initializer_range=0.15,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    return LlamaConfig(
        **common,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.15,
        tie_word_embeddings=True,
    )


def _save_model(config: Any, auto_class: str, folder: Path, seed: int) -> None:
    """Draw the weights without touching the caller's random state."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, auto_class).from_config(config)
    with quiet_transformers():
        model.save_pretrained(folder)
