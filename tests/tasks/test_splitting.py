"""Cuts are fair, stable and never go through what belongs together."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.tasks.splitting import cut_splits, nested_order
from taskfit.tasks.task import Split

SHARES: dict[Split, float] = {"test": 0.2, "validation": 0.1}
_ROWS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(rows=_ROWS, seed=st.integers(0, 3), has_groups=st.booleans())
def test_texts_and_groups_are_never_cut_apart(rows: list[tuple[int, str, int]], seed: int, has_groups: bool) -> None:
    """All rows of one text, and of one group, stand in one split."""
    texts, strata, groups = [f"t{n}" for n, _, _ in rows], [s for _, s, _ in rows], [f"g{g}" for _, _, g in rows]
    splits = cut_splits(texts, strata, groups if has_groups else None, SHARES, seed)
    assert len(splits) == len(rows)
    for names in [texts, groups] if has_groups else [texts]:
        assert len(set(zip(names, splits, strict=True))) == len(set(names))


@settings(max_examples=40, deadline=None)
@given(rows=_ROWS, seed=st.integers(0, 3), data=st.data(), has_groups=st.booleans())
def test_order_of_rows_does_not_matter(
    rows: list[tuple[int, str, int]], seed: int, data: st.DataObject, has_groups: bool
) -> None:
    """A row's split hangs on what the rows are, not on where they stand."""

    def cut(ordered: list[tuple[int, str, int]]) -> set[tuple[tuple[int, str, int], Split]]:
        groups = [f"g{g}" for _, _, g in ordered] if has_groups else None
        texts, strata = [f"t{n}" for n, _, _ in ordered], [s for _, s, _ in ordered]
        return set(zip(ordered, cut_splits(texts, strata, groups, SHARES, seed), strict=True))

    assert cut(rows) == cut(data.draw(st.permutations(rows)))


def test_shares_hold_for_every_label() -> None:
    """100 and 40 rows give a test of 20 and 8, a validation of 10 and 4."""
    strata = ["a"] * 100 + ["b"] * 40
    splits = cut_splits([f"t{n}" for n in range(140)], strata, None, SHARES, 0)
    counts = Counter(zip(strata, splits, strict=True))
    assert (counts["a", "test"], counts["b", "test"]) == (20, 8)
    assert (counts["a", "validation"], counts["b", "validation"]) == (10, 4)


def test_many_small_labels_still_fill_the_splits() -> None:
    """50 labels of 4 rows: a tenth of each is no row, but a tenth of all is 20."""
    strata = [f"label {n % 50}" for n in range(200)]
    counts = Counter(cut_splits([f"t{n}" for n in range(200)], strata, None, SHARES, 0))
    assert counts == {"train": 140, "test": 40, "validation": 20}


def test_further_rows_move_few_others() -> None:
    """Ten rows more than 1,000 leave nearly all where they were."""
    texts = [f"t{n}" for n in range(1010)]
    before = cut_splits(texts[:1000], ["a"] * 1000, None, SHARES, 0)
    after = cut_splits(texts, ["a"] * 1010, None, SHARES, 0)
    assert sum(old != new for old, new in zip(before, after, strict=False)) <= 10


def test_another_seed_cuts_otherwise() -> None:
    """The seed matters."""
    texts = [f"t{n}" for n in range(100)]
    assert cut_splits(texts, ["a"] * 100, None, SHARES, 0) != cut_splits(texts, ["a"] * 100, None, SHARES, 1)


def test_three_rows_fill_three_splits() -> None:
    """The smallest task that can be cut."""
    assert sorted(cut_splits(["a", "b", "c"], ["x"] * 3, None, SHARES, 0)) == ["test", "train", "validation"]


def test_train_keeps_a_row_of_every_label() -> None:
    """A label with one row cannot be learnt from test."""
    strata = ["common"] * 20 + [f"rare {n}" for n in range(20)]
    splits = cut_splits([f"t{n}" for n in range(40)], strata, None, SHARES, 0)
    assert {s for s, split in zip(strata, splits, strict=True) if split == "train"} == set(strata)


@settings(max_examples=40, deadline=None)
@given(strata=st.lists(st.sampled_from("abcd"), min_size=1, max_size=50), seed=st.integers(0, 5))
def test_nested_order_begins_with_every_label_and_stays_in_proportion(strata: list[str], seed: int) -> None:
    """Every beginning holds each label once before any twice, and then within one row of its share on either side."""
    order = nested_order([str(n) for n in range(len(strata))], strata, seed)
    assert sorted(order) == list(range(len(strata)))
    labels = Counter(strata)
    assert {strata[position] for position in order[: len(labels)]} == set(labels)
    for size in range(len(labels), len(strata) + 1):
        drawn = Counter(strata[position] for position in order[:size])
        for label, count in labels.items():
            assert abs(drawn[label] - size * count / len(strata)) < len(labels) + 1
