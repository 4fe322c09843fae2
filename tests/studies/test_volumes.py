"""Totals are sums of their parts, and break-even points are where totals meet."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfit.studies.candidate import Cost
from taskfit.studies.volumes import VOLUMES, break_even, break_evens, costs_at_volumes

money = st.integers(0, 1000).map(lambda cents: cents / 100)


def candidate(label, once, per_row):
    cost = Cost(once / 2, per_row, 0.0, 0.0, 0, 0, 0.0, 0.0, None, None, 0, 10, once / 4, once / 4)
    return SimpleNamespace(label=label, cost=cost)


@given(st.lists(st.tuples(money, money), min_size=1, max_size=6))
def test_the_cheapest_changes_exactly_at_the_break_even_points(drawn):
    """Between two of them the named one is cheapest, by looking at every candidate; at one, both cost the same."""
    candidates = [candidate(str(n), once, row) for n, (once, row) in enumerate(drawn)]
    by_label = {c.label: c.cost for c in candidates}
    points = break_evens(candidates)
    assert [p.rows for p in points] == sorted(p.rows for p in points)
    for point in points:
        below, above = by_label[point.cheaper_below], by_label[point.cheaper_above]
        assert below.total_usd(point.rows) == pytest.approx(above.total_usd(point.rows), abs=1e-9)
        assert below.total_usd(point.rows) <= min(c.total_usd(point.rows) for c in by_label.values()) + 1e-9
    last = points[-1].cheaper_above if points else None
    if last is not None:
        assert by_label[last].usd_per_row == min(c.usd_per_row for c in by_label.values())


def test_totals_add_up():
    """Labels, fit and evaluation once, and every row."""
    (found,) = costs_at_volumes([candidate("a", 4.0, 0.01)])
    assert (found.usd_labels, found.usd_fit, found.usd_evaluate) == (1.0, 2.0, 1.0)
    assert found.totals == tuple(4.0 + 0.01 * volume for volume in VOLUMES)
    assert break_even(candidate("a", 1, 1).cost, candidate("b", 2, 1).cost) is None
    assert break_evens([]) == ()
