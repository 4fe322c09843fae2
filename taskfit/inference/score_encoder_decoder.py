"""Log-probabilities of answers under an encoder-decoder: every prompt goes through the encoder once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from taskfit.errors import EngineError
from taskfit.inference.batches import Size, batches, in_halves
from taskfit.inference.forward import check_finite, forward, long_tensor, select_rows, vocabulary_size
from taskfit.inference.trie import Ids
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["EncodedSide", "decoder_start", "encode_side", "score_encoder_decoder"]

Scores = tuple[float, ...]


class EncodedSide:
    """What the encoder made of a batch of prompts.

    Attributes:
        output: the encoder's output, hidden states of shape (batch, length, width).
        mask: shape (batch, length), 1 for real tokens.
        lengths: real tokens of each row.
        work: what it took.
    """

    def __init__(self, output: Any, mask: Tensor, lengths: Sequence[int]) -> None:
        self.output = output
        self.mask = mask
        self.lengths = list(lengths)
        pairs = sum(length * length for length in lengths)
        self.work = Work(computed_tokens=mask.numel(), attended_pairs=pairs)

    def inputs(self, rows: Sequence[int] | None = None) -> dict[str, Any]:
        """Return the decoder's inputs from this side, for some rows or all."""
        if rows is None:
            return {"encoder_outputs": self.output, "attention_mask": self.mask}
        from transformers.modeling_outputs import BaseModelOutput

        index = torch.tensor(rows, device=self.mask.device)
        hidden = self.output.last_hidden_state[index]
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=hidden), "attention_mask": self.mask[index]}


def encode_side(model: LanguageModel, prompts: Sequence[Ids]) -> EncodedSide:
    """Send a batch of prompts through the encoder."""
    longest = max(map(len, prompts))
    ids = long_tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], model.device)
    mask = long_tensor([[1] * len(prompt) + [0] * (longest - len(prompt)) for prompt in prompts], model.device)
    module: Any = model.module
    output = module.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True)
    return EncodedSide(output, mask, [len(prompt) for prompt in prompts])


def decoder_start(model: LanguageModel) -> int:
    """Return the token that the decoder begins with.

    Raises:
        EngineError: neither the configuration nor the tokenizer names one.
    """
    config: Any = model.module.config
    for token in (
        getattr(config, "decoder_start_token_id", None),
        getattr(config, "bos_token_id", None),
        model.tokenizer.bos_token_id,
    ):
        if token is not None:
            return int(token)
    raise EngineError(f"{model.name!r} names no token to begin the answer with; set decoder_start_token_id")


def score_encoder_decoder(
    model: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int
) -> tuple[list[Scores], Work]:
    """Score all answers of all prompts.

    The first token of every answer is read off one decoder step a prompt; the others from the answers' own sequences
    against the keys and values that this step has made of the prompt.

    Returns:
        (log-probability of each answer of each prompt; what was computed)
    """
    work = Work()
    scores: dict[int, Scores] = {}

    def compute(rows: Sequence[int]) -> list[Scores]:
        nonlocal work
        found, done = _score_batch(model, [encoded[row] for row in rows], batch_tokens)
        work += done
        return found

    sizes = [Size(len(row.prompt), 0, vocabulary_size(model.module)) for row in encoded]
    for batch in batches(sizes, batch_tokens):
        scores.update(zip(batch, in_halves(batch, compute), strict=True))
    return [scores[row] for row in range(len(encoded))], work


def _score_batch(model: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int) -> tuple[list[Scores], Work]:
    side = encode_side(model, [row.prompt for row in encoded])
    count = len(encoded)
    every = long_tensor(range(count), model.device)
    start = long_tensor([[decoder_start(model)]] * count, model.device)
    logits, cache = forward(
        model.module, every, torch.zeros_like(every), decoder_input_ids=start, use_cache=True, **side.inputs()
    )
    work = side.work + Work(head_tokens=count, decoder_tokens=count, attended_pairs=count + sum(side.lengths))
    firsts = logits - logits.logsumexp(-1, keepdim=True)  # (batch, vocabulary)
    pairs = [(row, answer) for row, item in enumerate(encoded) for answer in item.answers]
    rows = long_tensor([row for row, _ in pairs], model.device)
    totals = firsts[rows, long_tensor([answer[0] for _, answer in pairs], model.device)].double()
    check_finite(totals, model.name)
    longer = [number for number, (_, answer) in enumerate(pairs) if len(answer) > 1]
    seen, vocabulary = side.mask.shape[1], vocabulary_size(model.module)
    sizes = [Size(len(pairs[i][1]) - 1, seen, (len(pairs[i][1]) - 1) * vocabulary) for i in longer]

    def compute(numbers: Sequence[int]) -> list[float]:
        nonlocal work
        found, done = _score_rest(model, side, cache, [pairs[longer[number]] for number in numbers])
        work += done
        return found

    values = totals.tolist()
    for batch in batches(sizes, batch_tokens):
        for number, rest in zip(batch, in_halves(batch, compute), strict=True):
            values[longer[number]] += rest
    left = iter(values)
    return [tuple(next(left) for _ in item.answers) for item in encoded], work


def _score_rest(
    model: LanguageModel, side: EncodedSide, cache: Any, pairs: Sequence[tuple[int, Ids]]
) -> tuple[list[float], Work]:
    """Score what follows the first token of some answers; a pair is (row of the prompt, answer)."""
    of_prompt = [row for row, _ in pairs]
    lengths = [len(answer) - 1 for _, answer in pairs]
    longest = max(lengths)
    ids = [[*answer[:-1], *[0] * (longest + 1 - len(answer))] for _, answer in pairs]
    rows = long_tensor([number for number, length in enumerate(lengths) for _ in range(length)], model.device)
    columns = long_tensor([column for length in lengths for column in range(length)], model.device)
    logits, _ = forward(
        model.module,
        rows,
        columns,
        decoder_input_ids=long_tensor(ids, model.device),
        past_key_values=select_rows(cache, of_prompt),
        use_cache=True,
        **side.inputs(of_prompt),
    )
    targets = long_tensor([token for _, answer in pairs for token in answer[1:]], model.device)
    tokens = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)
    check_finite(tokens, model.name)
    totals = torch.zeros(len(pairs), dtype=torch.float64, device=model.device).index_add_(0, rows, tokens.double())
    attended = sum(
        length * (length + 3) // 2 + length * side.lengths[row] for row, length in zip(of_prompt, lengths, strict=True)
    )
    work = Work(head_tokens=len(rows), decoder_tokens=len(pairs) * longest, attended_pairs=attended)
    return totals.tolist(), work
