"""Log-probabilities of answers under a decoder, every answer in a sequence of its own.

The quick way is :mod:`taskfit.inference.score_shared`; this is the one that every decoder can go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from taskfit.inference.batches import Size, batches, in_halves
from taskfit.inference.forward import check_finite, forward, long_tensor, vocabulary_size
from taskfit.inference.trie import Ids
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["score_separately"]

Scores = tuple[float, ...]


def score_separately(model: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int) -> tuple[list[Scores], Work]:
    """Score all answers of all prompts, as :func:`taskfit.inference.score_shared.score_shared` does.

    For models whose attention cannot be packed (position biases by distance, recurrent layers,
    windows shorter than the sequence, tokens put in front by the tuning method).
    """
    pairs = [(row, answer) for row, item in enumerate(encoded) for answer in range(len(item.answers))]
    vocabulary = vocabulary_size(model.module)
    sizes = []
    for row, answer in pairs:
        tokens = len(encoded[row].answers[answer])
        sizes.append(Size(len(encoded[row].prompt) + tokens, 0, tokens * vocabulary))
    work = Work()
    scores: dict[int, float] = {}

    def compute(numbers: Sequence[int]) -> list[float]:
        nonlocal work
        chosen = [(encoded[pairs[number][0]].prompt, pairs[number]) for number in numbers]
        found, done = _score_sequences(
            model, [prompt for prompt, _ in chosen], [encoded[row].answers[answer] for _, (row, answer) in chosen]
        )
        work += done
        return found

    for batch in batches(sizes, batch_tokens):
        scores.update(zip(batch, in_halves(batch, compute), strict=True))
    values = iter(scores[number] for number in range(len(pairs)))
    return [tuple(next(values) for _ in item.answers) for item in encoded], work


def _score_sequences(model: LanguageModel, prompts: Sequence[Ids], answers: Sequence[Ids]) -> tuple[list[float], Work]:
    lengths = [len(prompt) + len(answer) - 1 for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(lengths)
    ids = [
        [*prompt, *answer[:-1], *[0] * (longest - length)]
        for prompt, answer, length in zip(prompts, answers, lengths, strict=True)
    ]
    mask = [[1] * length + [0] * (longest - length) for length in lengths]
    rows = [row for row, answer in enumerate(answers) for _ in answer]
    columns = [len(prompt) - 1 + i for prompt, answer in zip(prompts, answers, strict=True) for i in range(len(answer))]
    logits, _ = forward(
        model.module,
        long_tensor(rows, model.device),
        long_tensor(columns, model.device),
        input_ids=long_tensor(ids, model.device),
        attention_mask=long_tensor(mask, model.device),
        use_cache=False,
    )
    targets = long_tensor([token for answer in answers for token in answer], model.device)
    tokens = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)
    check_finite(tokens, model.name)
    totals = torch.zeros(len(answers), dtype=torch.float64, device=model.device)
    totals.index_add_(0, long_tensor(rows, model.device), tokens.double())
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    work = Work(computed_tokens=len(ids) * longest, attended_pairs=pairs, head_tokens=len(rows))
    return totals.tolist(), work
