"""Log-probabilities of answers under a decoder: each prompt once for all its answers, their shared beginning once.

A row goes through the model as its prompt followed by the tree of its answers. A mask lets every node see the prompt
and the nodes above it, and positions count along the path; so each node has the very hidden state that it would have
in a sequence of its own. What all prompts of a call share at their beginning is read once and kept as a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from taskfit.inference.batches import Size, batches, in_halves
from taskfit.inference.forward import check_finite, expand_cache, forward, long_tensor, vocabulary_size
from taskfit.inference.trie import Ids, Trie, build_trie, shared_prefix
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["SharedStart", "score_separately", "score_trees", "shared_start"]

_WORTH_SHARING = 16  # tokens

Scores = tuple[float, ...]


@dataclass(frozen=True)
class SharedStart:
    """The tokens all prompts begin with, and their keys and values (one row); no tokens and None when too few."""

    tokens: Ids
    cache: Any
    work: Work


def shared_start(model: LanguageModel, prompts: Sequence[Ids], *, worth_sharing: int = _WORTH_SHARING) -> SharedStart:
    """Read what all prompts begin with, once, when it is long enough to be worth it."""
    tokens = shared_prefix(prompts) if len(prompts) > 1 else ()
    if len(tokens) < max(worth_sharing, 1):
        return SharedStart((), None, Work())
    nothing = torch.zeros(0, dtype=torch.long, device=model.device)
    ids = torch.tensor([tokens], device=model.device)
    _, cache = forward(model.module, nothing, nothing, input_ids=ids, use_cache=True)
    length = len(tokens)
    return SharedStart(tokens, cache, Work(computed_tokens=length, attended_pairs=length * (length + 1) // 2))


def score_trees(
    model: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int, *, worth_sharing: int = _WORTH_SHARING
) -> tuple[list[Scores], Work]:
    """Score all answers of all prompts.

    Args:
        model: a decoder whose attention takes a mask and positions of our own.
        encoded: prompts and answers, none empty.
        batch_tokens: most positions, padding included, that go through at once.
        worth_sharing: fewest tokens for which a shared beginning is cached.

    Returns:
        (log-probability of each answer of each prompt; what was computed)
    """
    start = shared_start(model, [row.prompt for row in encoded], worth_sharing=worth_sharing)
    tries = [build_trie(row.answers) for row in encoded]
    rests = [row.prompt[len(start.tokens) :] for row in encoded]
    vocabulary = vocabulary_size(model.module)
    sizes = [
        Size(len(rest) + len(trie.tokens), len(start.tokens), len(trie.heads) * vocabulary)
        for rest, trie in zip(rests, tries, strict=True)
    ]
    work = start.work
    scores: dict[int, Scores] = {}

    def compute(rows: Sequence[int]) -> list[Scores]:
        nonlocal work
        found, done = _score_batch(model, start, [rests[row] for row in rows], [tries[row] for row in rows])
        work += done
        return found

    for batch in batches(sizes, batch_tokens):
        scores.update(zip(batch, in_halves(batch, compute), strict=True))
    return [scores[row] for row in range(len(encoded))], work


def _score_batch(
    model: LanguageModel, start: SharedStart, rests: Sequence[Ids], tries: Sequence[Trie]
) -> tuple[list[Scores], Work]:
    before = len(start.tokens)
    length = max(len(rest) + len(trie.tokens) for rest, trie in zip(rests, tries, strict=True))
    ids, positions = _tokens_and_positions(rests, tries, before, length)
    rows, columns = _head_positions(rests, tries)
    inputs: dict[str, Any] = {
        "input_ids": long_tensor(ids, model.device),
        "position_ids": long_tensor(positions, model.device),
    }
    if start.cache is not None:
        inputs["past_key_values"] = expand_cache(start.cache, len(rests))
    if before or any(trie.tokens for trie in tries):  # else plain causal attention is right, and faster
        inputs["attention_mask"] = _attention_mask(model, rests, tries, before, length)
    logits, _ = forward(
        model.module,
        long_tensor(rows, model.device),
        long_tensor(columns, model.device),
        **inputs,
        use_cache=start.cache is not None,
    )
    pairs = sum(_pairs(before, len(rest), trie) for rest, trie in zip(rests, tries, strict=True))
    work = Work(computed_tokens=len(rests) * length, attended_pairs=pairs, head_tokens=len(rows))
    return _sum_paths(model, logits, tries), work


def _tokens_and_positions(
    rests: Sequence[Ids], tries: Sequence[Trie], before: int, length: int
) -> tuple[list[list[int]], list[list[int]]]:
    ids: list[list[int]] = []
    positions: list[list[int]] = []
    for rest, trie in zip(rests, tries, strict=True):
        end = before + len(rest)
        padding = length - len(rest) - len(trie.tokens)
        ids.append([*rest, *trie.tokens, *[0] * padding])
        tree = [end - 1 + depth for depth in trie.depths]
        last = tree[-1] if tree else end - 1
        positions.append([*range(before, end), *tree, *[last] * padding])
    return ids, positions


def _head_positions(rests: Sequence[Ids], tries: Sequence[Trie]) -> tuple[list[int], list[int]]:
    rows = [row for row, trie in enumerate(tries) for _ in trie.heads]
    columns = [len(rest) + node for rest, trie in zip(rests, tries, strict=True) for node in trie.heads]
    return rows, columns  # the root is node -1: the prompt's last token


def _attention_mask(
    model: LanguageModel, rests: Sequence[Ids], tries: Sequence[Trie], before: int, length: int
) -> Tensor:
    """Return what each position sees, shape (batch, 1, length, before + length)."""
    sees = np.zeros((len(rests), 1, length, before + length), dtype=np.bool_)
    causal = np.tri(length, dtype=np.bool_)
    for row, (rest, trie) in enumerate(zip(rests, tries, strict=True)):
        end, last = len(rest), len(rest) + len(trie.tokens)
        sees[row, 0, :last, :before] = True
        sees[row, 0, :end, before : before + end] = causal[:end, :end]
        sees[row, 0, end:last, before : before + end] = True
        sees[row, 0, end:last, before + end : before + last] = trie.sees
        sees[row, 0, last:, 0] = True  # padding sees something, or it becomes NaN
    mask = torch.from_numpy(sees).to(model.device)
    config: Any = model.module.config
    if config._attn_implementation == "sdpa":
        return mask
    return torch.zeros(mask.shape, dtype=model.dtype, device=model.device).masked_fill_(
        ~mask, torch.finfo(model.dtype).min
    )


def _pairs(before: int, rest: int, trie: Trie) -> int:
    """Key positions that the row's real positions attend to, summed."""
    return rest * before + rest * (rest + 1) // 2 + len(trie.tokens) * (before + rest) + sum(trie.depths)


def _sum_paths(model: LanguageModel, logits: Tensor, tries: Sequence[Trie]) -> list[Scores]:
    """Turn logits at the trees' heads into the log-probability of each answer."""
    heads: list[int] = []
    tokens: list[int] = []
    first = 0
    for trie in tries:
        place = {node: first + index for index, node in enumerate(trie.heads)}
        heads += [place[node] for node in trie.edge_nodes]
        tokens += trie.edge_tokens
        first += len(place)
    edges = (
        logits[long_tensor(heads, model.device), long_tensor(tokens, model.device)]
        - logits.logsumexp(-1)[long_tensor(heads, model.device)]
    )
    check_finite(edges, model.name)
    values = edges.double().cpu().numpy()
    scores: list[Scores] = []
    offset = 0
    for trie in tries:
        own = values[offset : offset + len(trie.edge_nodes)]
        scores.append(tuple(float(own[list(path)].sum()) for path in trie.paths))
        offset += len(own)
    return scores


def score_separately(model: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int) -> tuple[list[Scores], Work]:
    """Score as :func:`score_trees` does, every answer in a sequence of its own.

    For models whose attention does not take our mask and positions (position biases by distance, recurrent layers,
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
