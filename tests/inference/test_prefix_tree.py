"""Shared beginnings as a tree of segments."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.inference.prefix_tree import build_prefix_tree

MANY = settings(max_examples=80, deadline=None)
ids = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)
prompt_lists = st.lists(ids, min_size=1, max_size=9)


@MANY
@given(prompts=prompt_lists, worth=st.integers(1, 4), most=st.integers(0, 12))
def test_segments_spell_the_beginnings_of_their_rows(prompts, worth, most):
    """Every row keeps at least its last token, no segment is short or alone, and none exceeds the memory."""
    tree = build_prefix_tree(prompts, worth_sharing=worth, most_tokens=most)
    assert sorted(tree.order) == list(range(len(prompts)))
    for row, prompt in enumerate(prompts):
        chain = [tree.segments[number] for number in tree.chain(tree.behind[row])]
        spelled = tuple(token for segment in chain for token in segment.tokens)
        assert spelled == prompt[: tree.start(row)]
        assert len(spelled) < len(prompt)
        assert len(spelled) <= most
        assert [segment.start for segment in chain] == [
            sum(len(s.tokens) for s in chain[:i]) for i in range(len(chain))
        ]
        assert [segment.level for segment in chain] == list(range(len(chain)))
        assert all(segment.first <= tree.order.index(row) < segment.last for segment in chain)
    for number, segment in enumerate(tree.segments):
        assert len(segment.tokens) >= worth
        assert segment.above < number
        assert sum(number in tree.chain(last) for last in tree.behind) == segment.last - segment.first > 1


@MANY
@given(prompts=prompt_lists)
def test_with_no_limits_every_shared_token_is_computed_once(prompts):
    """As many tokens as there are distinct beginnings, last tokens apart."""
    tree = build_prefix_tree(prompts, worth_sharing=1)
    computed = sum(len(segment.tokens) for segment in tree.segments)
    computed += sum(len(prompt) - tree.start(row) for row, prompt in enumerate(prompts))
    inner = {prompt[:size] for prompt in prompts for size in range(1, len(prompt))}
    assert computed == len(inner) + len(prompts)


def test_a_long_ladder_of_beginnings_is_no_deep_recursion():
    """Each prompt begins with the one before."""
    prompts = [tuple(range(size)) for size in range(1, 700)]
    tree = build_prefix_tree(prompts, worth_sharing=200)
    assert [segment.end for segment in tree.segments] == [200, 400, 600]
