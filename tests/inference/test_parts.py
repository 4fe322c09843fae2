"""Trees of answers, batches, draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.inference.batches import Size, batches, default_batch_tokens, in_halves
from taskfit.inference.requests import Generate
from taskfit.inference.sampling import Chooser
from taskfit.inference.trie import build_trie, shared_prefix
from taskfit.inference.vocabulary import token_logprobs
from taskfit.tasks.prompt import Prompt

MANY = settings(max_examples=60, deadline=None)
ids = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)


@MANY
@given(answers=st.lists(ids, min_size=1, max_size=8, unique=True).map(tuple))
def test_a_tree_spells_every_answer(answers):
    """Following an answer's edges, and what each node sees, gives the answer back."""
    trie = build_trie(answers)
    for answer, path in zip(answers, trie.paths, strict=True):
        assert tuple(trie.edge_tokens[edge] for edge in path) == answer
        for depth, edge in enumerate(path):
            node = trie.edge_nodes[edge]
            seen = [] if node < 0 else [trie.tokens[above] for above in np.flatnonzero(trie.sees[node])]
            assert tuple(seen) == answer[:depth]
            assert node < 0 or trie.depths[node] == depth
    assert len(trie.tokens) == len({answer[:size] for answer in answers for size in range(1, len(answer))})
    assert trie.heads == tuple(sorted(set(trie.edge_nodes)))


def test_no_token_is_likelier_than_certain_in_a_narrow_number_format():
    """A logit of 30.1 is 30.125 in bfloat16, one of 30.05 is 30.0."""
    head = torch.nn.Linear(2, 8, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[3] = torch.tensor([5.0, 0.0390625])
    hidden = torch.tensor([[6.0, number / 2] for number in range(8)], dtype=torch.bfloat16)
    with torch.no_grad():
        found = token_logprobs(head, hidden, torch.arange(8), torch.full((8,), 3))
    assert found.max() == 0
    assert found.min() > -0.1


@MANY
@given(sequences=st.lists(ids, min_size=1, max_size=6))
def test_the_shared_prefix_leaves_every_sequence_a_token(sequences):
    """It is the longest one that does."""
    prefix = shared_prefix(sequences)
    assert all(row[: len(prefix)] == prefix and len(row) > len(prefix) for row in sequences)
    longer = len(prefix) + 1
    assert len({row[:longer] for row in sequences}) > 1 or min(map(len, sequences)) == longer


@MANY
@given(lengths=st.lists(st.integers(1, 50), max_size=30), budget=st.integers(1, 120))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    """Only a row that is too long by itself breaks it, alone."""
    found = batches([Size(length) for length in lengths], budget)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_batches_mind_masks_and_logits():
    """Long caches and large vocabularies make them smaller."""
    assert len(batches([Size(10)] * 8, 1000)) == 1
    assert len(batches([Size(10, seen=2_000_000)] * 8, 1000)) > 1
    assert len(batches([Size(10, logits=30_000_000)] * 8, 1000)) == 4
    assert default_batch_tokens(torch.device("cuda")) > default_batch_tokens(torch.device("cpu"))


def test_halving_keeps_the_order():
    """Whatever piece fails."""

    def compute(rows):
        if len(rows) > 3:
            raise MemoryError
        return [row * 10 for row in rows]

    assert in_halves(range(11), compute) == [row * 10 for row in range(11)]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_draws_follow_the_distribution(temperature, top_p):
    """Shares of many draws against the formula."""
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0])
    weights = np.exp(logits.numpy().astype(float) / temperature)
    expected = weights / weights.sum()
    if top_p < 1:  # 2 has 0.64 by itself
        expected = np.array([0.0, 0.0, 1.0, 0.0])
    chooser = Chooser(Generate(Prompt(""), 1, temperature=temperature, top_p=top_p, seed=1))
    drawn = [chooser.choose(logits, 2) for _ in range(4000)]
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares == pytest.approx(expected, abs=0.03)
