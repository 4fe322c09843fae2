"""Log-probabilities of answers under an encoder: the masked-token head at the place of the answer.

An answer of n tokens is read off n masks, all its tokens in one pass, each without seeing the others; so one pass a
row serves all answers of the same length.

Source: Schick and Schütze 2021 (PET), section 3, and 2021b, section 3.1, for several masks; there the masks are
filled one after the other, here in one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from taskfit.inference.batches import Size, batches, in_halves
from taskfit.inference.forward import check_finite, forward, long_tensor, vocabulary_size
from taskfit.inference.trie import Ids
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["score_encoder"]

Scores = tuple[float, ...]


def score_encoder(model: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int) -> tuple[list[Scores], Work]:
    """Score all answers of all prompts.

    Args:
        model: an encoder with a masked-token head.
        encoded: prompts with one mask each (see :func:`taskfit.models.cloze.encode_cloze`), and answers.
        batch_tokens: most positions, padding included, that go through at once.

    Returns:
        (log-probability of each answer of each prompt; what was computed)

    Raises:
        EngineError: the model gives NaN.
        ResourceError: memory runs out on a single row.
    """
    passes = [(row, length) for row, item in enumerate(encoded) for length in sorted(set(map(len, item.answers)))]
    vocabulary = vocabulary_size(model.module)
    sizes = [Size(len(encoded[row].prompt) + length - 1, 0, length * vocabulary) for row, length in passes]
    scores = [[0.0] * len(item.answers) for item in encoded]
    work = Work()

    def compute(numbers: Sequence[int]) -> list[list[float]]:
        nonlocal work
        chosen = [passes[number] for number in numbers]
        found, done = _score_batch(model, [(encoded[row], length) for row, length in chosen])
        work += done
        return found

    for batch in batches(sizes, batch_tokens):
        for number, found in zip(batch, in_halves(batch, compute), strict=True):
            row, length = passes[number]
            for answer, score in zip(_of_length(encoded[row], length), found, strict=True):
                scores[row][answer] = score
    return [tuple(row) for row in scores], work


def _of_length(item: Encoded, length: int) -> list[int]:
    return [number for number, answer in enumerate(item.answers) if len(answer) == length]


def _score_batch(model: LanguageModel, chosen: Sequence[tuple[Encoded, int]]) -> tuple[list[list[float]], Work]:
    """Score, for each (row, length), its answers of that length."""
    mask = int(model.tokenizer.mask_token_id)
    starts = [item.prompt.index(mask) for item, _ in chosen]
    sequences: list[Ids] = [
        (*item.prompt[:start], *[mask] * length, *item.prompt[start + 1 :])
        for (item, length), start in zip(chosen, starts, strict=True)
    ]
    longest = max(map(len, sequences))
    rows = [row for row, (_, length) in enumerate(chosen) for _ in range(length)]
    columns = [start + place for start, (_, length) in zip(starts, chosen, strict=True) for place in range(length)]
    logits, _ = forward(
        model.module,
        long_tensor(rows, model.device),
        long_tensor(columns, model.device),
        input_ids=long_tensor([[*ids, *[0] * (longest - len(ids))] for ids in sequences], model.device),
        attention_mask=long_tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences], model.device),
    )
    logprobs = logits.log_softmax(-1)
    check_finite(logprobs.amax(-1), model.name)
    found: list[list[float]] = []
    first = 0
    for item, length in chosen:
        answers = [item.answers[number] for number in _of_length(item, length)]
        table = logprobs[first : first + length].double()  # (masks, vocabulary)
        ids = long_tensor(answers, model.device)  # (answers, masks)
        found.append(table.T[ids, long_tensor(range(length), model.device)].sum(-1).tolist())
        first += length
    work = Work(
        computed_tokens=len(sequences) * longest,
        attended_pairs=sum(len(ids) ** 2 for ids in sequences),
        head_tokens=len(rows),
    )
    return found, work
