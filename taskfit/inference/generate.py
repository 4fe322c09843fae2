"""Texts from a model: many requests together, each with the result it would have alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from taskfit.inference.batches import Size, batches, in_halves
from taskfit.inference.forward import check_finite, expand_cache, forward, long_tensor, select_rows
from taskfit.inference.requests import Generate, Generated
from taskfit.inference.sampling import Chooser
from taskfit.inference.score_decoder import SharedStart, shared_start
from taskfit.inference.score_encoder_decoder import decoder_start, encode_side
from taskfit.inference.trie import Ids
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["generate"]

_FINISHED_SHARE = 0.25  # of a batch, before the finished rows are taken out of it: taking out copies the cache


def generate(
    model: LanguageModel, asked: Sequence[tuple[Generate, Encoded]], batch_tokens: int, *, can_share: bool
) -> tuple[list[Generated], Work]:
    """Generate one text a request.

    Args:
        model: a decoder or encoder-decoder.
        asked: requests, and their prompts encoded with ``room=max_tokens``.
        batch_tokens: most positions, prompts and answers together, that are kept at once.
        can_share: keep what all prompts begin with as one cache (decoders whose attention allows it).

    Returns:
        (the texts, in order; what was computed)

    Raises:
        EngineError: the model gives NaN.
    """
    is_decoder = model.architecture == "decoder"
    start = shared_start(model, [row.prompt for _, row in asked]) if is_decoder and can_share else _nothing_shared()
    work = start.work
    texts: dict[int, Generated] = {}

    def compute(rows: Sequence[int]) -> list[Generated]:
        nonlocal work
        chosen = [asked[row] for row in rows]
        prompts = [row.prompt for _, row in chosen]
        state: _State = _Decoder(model, start, prompts) if is_decoder else _EncoderDecoder(model, prompts)
        found = _generate_batch(model, chosen, state)
        work += state.work
        return found

    sizes = [Size(len(row.prompt) + request.max_tokens) for request, row in asked]
    for batch in batches(sizes, batch_tokens):
        texts.update(zip(batch, in_halves(batch, compute), strict=True))
    return [texts[row] for row in range(len(asked))], work


class _State(Protocol):
    """A batch in the middle of its answers."""

    work: Work

    def begin(self) -> Tensor:
        """Read the prompts; return logits of shape (batch, vocabulary)."""
        ...

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Read one more token a row; return logits of shape (batch, vocabulary)."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        ...


class _Decoder:
    """Prompts padded on the left, behind the beginning they share."""

    def __init__(self, model: LanguageModel, start: SharedStart, prompts: Sequence[Ids]) -> None:
        self._model, self._start = model, start
        self._rests = [prompt[len(start.tokens) :] for prompt in prompts]
        self._cache: Any = None
        self.work = Work()

    def begin(self) -> Tensor:
        before, device = len(self._start.tokens), self._model.device
        longest = max(map(len, self._rests))
        gaps = [longest - len(rest) for rest in self._rests]
        ids = [[0] * gap + list(rest) for gap, rest in zip(gaps, self._rests, strict=True)]
        positions = [[before] * gap + list(range(before, before + longest - gap)) for gap in gaps]
        self._mask = long_tensor([[1] * before + [0] * gap + [1] * (longest - gap) for gap in gaps], device)
        self._next = long_tensor([before + longest - gap for gap in gaps], device)
        cache = None if self._start.cache is None else expand_cache(self._start.cache, len(ids))
        self.work += Work(
            computed_tokens=len(ids) * longest,
            attended_pairs=sum(len(rest) * before + len(rest) * (len(rest) + 1) // 2 for rest in self._rests),
        )
        return self._step(long_tensor(ids, device), long_tensor(positions, device), cache)

    def advance(self, tokens: Sequence[int]) -> Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        positions = self._next[:, None]
        self._next = self._next + 1
        self.work += Work(computed_tokens=len(tokens), attended_pairs=int(self._mask.sum()))
        return self._step(long_tensor(tokens, self._model.device)[:, None], positions, self._cache)

    def keep(self, rows: Sequence[int]) -> None:
        index = long_tensor(rows, self._model.device)
        self._mask, self._next = self._mask[index], self._next[index]
        self._cache = select_rows(self._cache, rows)

    def _step(self, ids: Tensor, positions: Tensor, cache: Any) -> Tensor:
        rows = torch.arange(ids.shape[0], device=ids.device)
        last = torch.full_like(rows, ids.shape[1] - 1)
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": self._mask, "past_key_values": cache}
        logits, self._cache = forward(self._model.module, rows, last, **inputs, use_cache=True)
        self.work += Work(head_tokens=len(rows))
        return logits


class _EncoderDecoder:
    """Prompts in the encoder, answers in the decoder."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Ids]) -> None:
        self._model = model
        self._side = encode_side(model, prompts)
        self._rows = list(range(len(prompts)))
        self._cache: Any = None
        self._seen = 0
        self.work = self._side.work

    def begin(self) -> Tensor:
        return self.advance([decoder_start(self._model)] * len(self._rows))

    def advance(self, tokens: Sequence[int]) -> Tensor:
        rows = long_tensor(range(len(tokens)), self._model.device)
        logits, self._cache = forward(
            self._model.module,
            rows,
            torch.zeros_like(rows),
            decoder_input_ids=long_tensor(tokens, self._model.device)[:, None],
            past_key_values=self._cache,
            use_cache=True,
            **self._side.inputs(self._rows),
        )
        self._seen += 1
        pairs = sum(self._seen + self._side.lengths[row] for row in self._rows)
        self.work += Work(decoder_tokens=len(tokens), head_tokens=len(tokens), attended_pairs=pairs)
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        self._rows = [self._rows[row] for row in rows]
        self._cache = select_rows(self._cache, rows)


class _Answer:
    """The answer of one request as it grows."""

    def __init__(self, model: LanguageModel, request: Generate, encoded: Encoded) -> None:
        self._model, self._request, self._encoded = model, request, encoded
        self._chooser = Chooser(request)
        self._tokens: list[int] = []
        self._logprob = 0.0
        self.last = 0
        self.finish: Literal["end", "stop", "length"] | None = None

    def choose(self, logits: Tensor, likeliest: int) -> int:
        """Return the next token, from logits of shape (vocabulary,)."""
        return self._chooser.choose(logits, likeliest)

    def add(self, token: int, logprob: float) -> None:
        """Take the next token, and see whether the answer ends with it."""
        self.last = token
        self._tokens.append(token)
        self._logprob += logprob
        if self.last in self._model.end_token_ids:
            self.finish = "end"
        elif self._request.stop and self._stop_place(self._decode()) is not None:
            self.finish = "stop"
        elif len(self._tokens) == self._request.max_tokens:
            self.finish = "length"

    def result(self) -> Generated:
        """Return the finished answer."""
        assert self.finish is not None
        text = self._decode()
        text = text[: self._stop_place(text)]
        is_plain = self._model.architecture == "decoder" and not self._model.has_chat_template
        if is_plain and not self._request.prompt.text[-1:].isspace():
            text = text.removeprefix(" ")  # the one space that stands between question and answer
        return Generated(
            text=text,
            finish=self.finish,
            logprob=self._logprob,
            tokens=len(self._tokens),
            prompt_tokens=len(self._encoded.prompt),
            cut_tokens=self._encoded.cut_tokens,
            dropped_shots=self._encoded.dropped_shots,
        )

    def _decode(self) -> str:
        tokens = self._tokens[:-1] if self.finish == "end" else self._tokens
        return str(self._model.tokenizer.decode(tokens, skip_special_tokens=True))

    def _stop_place(self, text: str) -> int | None:
        places = [place for stop in self._request.stop if (place := text.find(stop)) >= 0]
        return min(places, default=None)


def _generate_batch(model: LanguageModel, asked: Sequence[tuple[Generate, Encoded]], state: _State) -> list[Generated]:
    answers = [_Answer(model, request, encoded) for request, encoded in asked]
    running = list(answers)  # the rows of the state, in its order; some may be finished
    logits = state.begin()
    while True:
        likeliest = logits.argmax(-1).tolist()
        left = [row for row, answer in enumerate(running) if answer.finish is None]
        tokens = [running[row].choose(logits[row], likeliest[row]) for row in left]
        rows = long_tensor(left, logits.device)
        logprobs = logits.log_softmax(-1)[rows, long_tensor(tokens, logits.device)]
        check_finite(logprobs, model.name)
        for row, token, logprob in zip(left, tokens, logprobs.tolist(), strict=True):
            running[row].add(token, logprob)
        left = [row for row in left if running[row].finish is None]
        if not left:
            return [answer.result() for answer in answers]
        if len(left) <= (1 - _FINISHED_SHARE) * len(running):
            state.keep(left)
            running = [running[row] for row in left]
        logits = state.advance([answer.last for answer in running])


def _nothing_shared() -> SharedStart:
    return SharedStart((), None, Work())
