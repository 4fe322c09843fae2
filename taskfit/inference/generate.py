"""Texts from a model: many requests together, each with the result it would have alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from taskfit.errors import EngineError
from taskfit.inference.answers import Answer, add_tokens, room
from taskfit.inference.batches import Size, batches, in_halves
from taskfit.inference.forward import forward, long_tensor, select_rows
from taskfit.inference.score_encoder_decoder import decoder_start, encode_side
from taskfit.inference.trie import Ids
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.inference.requests import Generate, Generated
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["generate"]

_FINISHED_SHARE = 0.25  # of a batch, before the finished rows are taken out of it: taking out copies the cache


def generate(
    model: LanguageModel, asked: Sequence[tuple[Generate, Encoded]], batch_tokens: int
) -> tuple[list[Generated], Work]:
    """Generate one text a request, in batches of fixed rows.

    For encoder-decoders, and for decoders that cannot use slots (see ``continuous.py``, which is quicker).

    Args:
        model: a decoder or encoder-decoder.
        asked: requests, and their prompts encoded with room for the answers.
        batch_tokens: most positions, prompts and answers together, that are kept at once.

    Returns:
        (the texts, in order; what was computed)

    Raises:
        EngineError: the model gives NaN, or keeps its state in no keys and values.
    """
    work = Work()
    texts: dict[int, Generated] = {}

    def compute(rows: Sequence[int]) -> list[Generated]:
        nonlocal work
        chosen = [asked[row] for row in rows]
        prompts = [row.prompt for _, row in chosen]
        is_decoder = model.architecture == "decoder"
        state: _State = _Decoder(model, prompts) if is_decoder else _EncoderDecoder(model, prompts)
        found = _generate_batch(model, chosen, state)
        work += state.work
        return found

    sizes = [Size(len(row.prompt) + request.max_tokens) for request, row in asked]
    for batch in batches(sizes, batch_tokens):
        parts = [*_within_context(batch, asked, model.context)] if model.architecture == "decoder" else [batch]
        for part in parts:
            texts.update(zip(part, in_halves(part, compute), strict=True))
    return [texts[row] for row in range(len(asked))], work


def _within_context(
    batch: Sequence[int], asked: Sequence[tuple[Generate, Encoded]], context: int
) -> Iterator[list[int]]:
    """Split a batch where its longest prompt and its longest answer would not fit into the context together.

    Prompts are padded to the longest, and a finished row is read on: both take places that the model must have.
    """
    part: list[int] = []
    prompt = answer = 0
    for row in batch:
        request, encoded = asked[row]
        prompt, answer = max(prompt, len(encoded.prompt)), max(answer, room(request, encoded) - 1)
        if part and prompt + answer > context:
            yield part
            part, prompt, answer = [], len(encoded.prompt), room(request, encoded) - 1
        part.append(row)
    yield part


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
    """Prompts padded on the left."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Ids]) -> None:
        self._model, self._prompts = model, prompts
        self._cache: Any = None
        self.work = Work()

    def begin(self) -> Tensor:
        device, longest = self._model.device, max(map(len, self._prompts))
        gaps = [longest - len(prompt) for prompt in self._prompts]
        ids = [[0] * gap + list(prompt) for gap, prompt in zip(gaps, self._prompts, strict=True)]
        positions = [[0] * gap + list(range(longest - gap)) for gap in gaps]
        self._mask = long_tensor([[0] * gap + [1] * (longest - gap) for gap in gaps], device)
        self._next = long_tensor([longest - gap for gap in gaps], device)
        self.work += Work(
            computed_tokens=len(ids) * longest,
            attended_pairs=sum(len(prompt) * (len(prompt) + 1) // 2 for prompt in self._prompts),
        )
        return self._step(long_tensor(ids, device), long_tensor(positions, device), None)

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
        if not hasattr(self._cache, "layers"):
            raise EngineError(
                f"{type(self._model.module).__name__} keeps no keys and values; generating with it is not supported",
                "Take a model with attention in its layers.",
            )
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


def _generate_batch(model: LanguageModel, asked: Sequence[tuple[Generate, Encoded]], state: _State) -> list[Generated]:
    answers = [Answer(model, request, encoded) for request, encoded in asked]
    running = list(answers)  # the rows of the state, in its order; some may be finished
    logits = state.begin()
    while True:
        left = [row for row, answer in enumerate(running) if answer.finish is None]
        add_tokens([running[row] for row in left], logits[long_tensor(left, logits.device)], model.name)
        left = [row for row in left if running[row].finish is None]
        if not left:
            return [answer.result() for answer in answers]
        if len(left) <= (1 - _FINISHED_SHARE) * len(running):
            state.keep(left)
            running = [running[row] for row in left]
        logits = state.advance([answer.last for answer in running])
