"""From trials to comparison, recommendation and report."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from statistics import NormalDist
from types import SimpleNamespace

import pytest

from taskfit.errors import StudyError
from taskfit.evaluation.intervals import metric_interval
from taskfit.evaluation.paired import compare_paired, holm, pooled_seed_noise
from taskfit.studies.compare import compare_study
from taskfit.studies.compare_study import run_study
from taskfit.studies.limits import over_limits
from taskfit.studies.ranking import LEVEL, rank
from taskfit.studies.recommend import _further_caveats, _odds, _rows_needed, recommend
from taskfit.studies.report_view import report_view
from taskfit.studies.result import read_trial_predictions
from taskfit.studies.spec import Limits, StudyConfig
from taskfit.studies.words import bytes_text, count, figure, metric_name, money, points, seconds
from tests.studies.fakes import FAKES, write_task


def named(comparison, label):
    return next(c for c in comparison.candidates if c.label == label)


def with_costs(comparison, costs):
    """Give candidates other costs: label to (fit, per row) in US dollars."""
    candidates = tuple(
        replace(c, cost=replace(c.cost, usd_fit=costs[c.label][0], usd_per_row=costs[c.label][1], usd_evaluate=0.0))
        for c in comparison.candidates
        if c.label in costs
    )
    return replace(comparison, candidates=candidates)


A, B, C, D = "right(0.9)", "right(0.91)", "model-right(0.93) on tiny", "right(0.5)"


def test_candidates_carry_the_figures_of_their_trials(finished_study):
    """Figures and intervals equal those computed from the stored predictions by hand."""
    comparison = finished_study.comparison
    assert {c.label for c in comparison.candidates} == {A, B, C, D}
    noise = pooled_seed_noise("macro_f1", [c.runs for c in comparison.candidates])
    for candidate in comparison.candidates:
        shares = []
        for result in candidate.results:
            rows = read_trial_predictions(finished_study.folder, result.spec.id)
            shares.append(sum(row.answer == row.gold[0] for row in rows) / len(rows))
        assert candidate.metrics["accuracy"].value == pytest.approx(math.fsum(shares) / 2)
        assert candidate.metrics["macro_f1"] == metric_interval("macro_f1", candidate.runs, seed_noise=noise)
        assert candidate.cost.tokens_in_per_row == 7.0


def test_ranking_pairs_each_with_the_best(finished_study):
    """The best comes first; p-values are Holm's over all comparisons; ties follow p-value and interval."""
    ranked = finished_study.comparison.candidates
    values = [c.metrics["macro_f1"].value for c in ranked]
    assert values == sorted(values, reverse=True)
    assert ranked[0].versus_best is None and ranked[0].is_tied
    noise = pooled_seed_noise("macro_f1", [c.runs for c in ranked])
    raw = [compare_paired("macro_f1", c.runs, ranked[0].runs, seed_noise=noise) for c in ranked[1:]]
    assert [c.p_value for c in ranked[1:]] == holm([r.p_value for r in raw])
    for candidate in ranked[1:]:
        compared = candidate.versus_best
        assert candidate.is_tied == (candidate.p_value >= LEVEL or compared.low <= 0 <= compared.high)
    assert not named(finished_study.comparison, D).is_tied
    assert rank([], "macro_f1") == []


def test_pareto_front_holds_whom_nobody_beats(finished_study):
    """The best figure and the cheapest are always on it; whoever is worse and dearer never."""
    candidates = finished_study.comparison.candidates
    volume = finished_study.comparison.volume
    assert candidates[0].is_pareto
    assert min(candidates, key=lambda c: c.cost.total_usd(volume)).is_pareto
    for one in candidates:
        beaten = any(
            o.metrics["macro_f1"].value > one.metrics["macro_f1"].value
            and o.cost.total_usd(volume) < one.cost.total_usd(volume)
            for o in candidates
        )
        assert not (beaten and one.is_pareto)


def test_cheapest_of_those_that_cannot_be_told_apart_is_chosen(finished_study):
    """A dearer best gives way to a cheaper equal, never to a cheaper worse one."""
    best = finished_study.comparison.candidates[0].label
    equal = next(c.label for c in finished_study.comparison.candidates[1:] if c.is_tied)
    costs = {A: (1.0, 0.1), B: (1.0, 0.1), C: (1.0, 0.1), D: (0.0, 1e-9), equal: (2.0, 0.001)}
    found = recommend(with_costs(finished_study.comparison, costs), volume=1000)
    assert found.chosen.label == equal
    assert f"Choose {equal}" in found.verdict and "$3.00" in found.verdict and "1,000 rows" in found.verdict
    assert "cannot be told from chance" in found.reasons[0] and best in found.reasons[0]
    assert any("times as much" in sentence for sentence in found.reasons)
    assert any("would need about" in line or "more seeds" in line for line in found.caveats)


def test_volume_decides_and_the_break_even_point_is_right(finished_study):
    """Dear to fit and cheap to run wins at large volumes; the crossing named is where both totals meet."""
    tied = [c.label for c in finished_study.comparison.candidates if c.is_tied]
    costs = {tied[0]: (10.0, 0.001), tied[1]: (1.0, 0.01)} | dict.fromkeys(tied[2:], (99.0, 0.01))
    comparison = with_costs(finished_study.comparison, costs)
    small, large = recommend(comparison, volume=100), recommend(comparison, volume=100_000)
    assert (small.chosen.label, large.chosen.label) == (tied[1], tied[0])
    assert f"Above about 1,000 rows {tied[0]} would be cheaper." in small.reasons
    assert f"Below about 1,000 rows {tied[1]} would be cheaper." in large.reasons
    assert comparison.candidates[0].cost.total_usd(1000) == comparison.candidates[1].cost.total_usd(1000)


def test_clear_winner_says_what_the_cheaper_one_would_lose(finished_study):
    """Where the best stands alone, the money that a worse one saves is named with its price in quality."""
    best = finished_study.comparison.candidates[0].label
    comparison = with_costs(finished_study.comparison, {best: (5.0, 0.0), D: (1.0, 0.0)})
    found = recommend(comparison, volume=10)
    assert found.chosen.label == best
    assert found.reasons[0].startswith("It is the best on macro F1; the next, right(0.5), reaches")
    assert found.reasons[1].startswith("right(0.5) would cost $1.00 instead of $5.00 and lose")


def test_limits_come_first(finished_study):
    """What is over a limit is not chosen, and what lies out of reach is said."""
    comparison = finished_study.comparison
    best = comparison.candidates[0].label
    costs = {c.label: (1.0, 0.0) for c in comparison.candidates} | {best: (50.0, 0.0)}
    found = recommend(with_costs(comparison, costs), limits=Limits(usd=10.0))
    assert found.chosen.label != best
    assert any("outside the limits: $50.00 in total, more than $10.00" in sentence for sentence in found.reasons)
    nothing = recommend(comparison, limits=Limits(usd=1e-15, latency_ms=1e-9, memory_gb=1e-6))
    assert nothing.chosen is None and nothing.verdict.startswith("No strategy is within the limits.")
    assert len(over_limits(comparison.candidates[0], 10, Limits(1e-15, 1e-9, 1e-6))) == 3


def test_what_would_change_the_choice_is_said(finished_study):
    """Rows that leave two open ask for rows; seeds that leave them open ask for seeds."""
    comparison = finished_study.comparison
    best, other = (next(c for c in comparison.candidates if c.label == label) for label in (C, A))
    chosen = replace(
        other, versus_best=replace(other.versus_best or compare_paired("macro_f1", other.runs, best.runs), p_rows=0.001)
    )
    assert any("more seeds (--max-seeds)" in line for line in _further_caveats(comparison, [best], [best], chosen))
    chosen = replace(chosen, versus_best=replace(chosen.versus_best, p_rows=0.5, difference=-0.01))
    assert any("would need about" in line for line in _further_caveats(comparison, [best], [best], chosen))


def test_a_strategy_that_was_stopped_is_said_once_for_all_its_sizes(finished_study):
    """Its training sizes share the reason."""
    comparison = finished_study.comparison
    last = replace(comparison.candidates[-1], stopped="stopped after 1 of 3 seeds: 50.0 points behind")
    sizes = tuple(replace(last, train_rows=rows) for rows in (8, 16, None))
    found = recommend(replace(comparison, candidates=(*comparison.candidates[:-1], *sizes)))
    assert [line for line in found.caveats if "stopped" in line] == [f"{last.name} was {last.stopped}."]


def test_a_metric_that_a_split_leaves_undefined_is_said(finished_study):
    """A label without test rows is in no macro F1, and the reader must know."""
    best = finished_study.comparison.candidates[0]
    run = replace(best.runs[0], labels=(*best.runs[0].labels, "never"), _memo={})
    said = _further_caveats(finished_study.comparison, [best], [best], replace(best, runs=(run,)))
    assert any("1 of 4 labels have no row here" in line for line in said)


def test_floor_among_the_ties_is_said(finished_study):
    """When always giving the most frequent answer is as good as the rest, the user must know."""
    comparison = finished_study.comparison
    equal = next(c for c in comparison.candidates[1:] if c.is_tied)
    floor = replace(equal, strategy="majority")
    candidates = tuple(floor if c.label == equal.label else c for c in comparison.candidates)
    found = recommend(replace(comparison, candidates=candidates))
    assert any("better than always giving the most frequent answer" in s for s in found.caveats)
    best = replace(comparison.candidates[0], strategy="majority")
    found = recommend(replace(comparison, candidates=(best, *comparison.candidates[1:])))
    assert "Always giving the same answer was best: none of the others has learned this task." in found.caveats


def test_one_candidate_alone_is_said_to_be_alone(finished_study):
    """Without anything to compare with there is no evidence of being best."""
    comparison = finished_study.comparison
    alone = replace(comparison, candidates=comparison.candidates[:1], winner=None, failures=(), missing=3)
    found = recommend(alone)
    assert "the only one" in found.reasons[0]
    assert "3 trials of the plan have not run yet." in found.caveats


def test_machine_without_a_price_is_ranked_by_seconds(finished_study):
    """All costs zero: the faster of equals is chosen, and the plot's axis is in seconds."""
    tied = [c for c in finished_study.comparison.candidates if c.is_tied]
    spans = (9.0, 2.0, *(20.0 for _ in tied[2:]))
    free = [
        replace(c.cost, usd_fit=0.0, usd_per_row=0.0, usd_evaluate=0.0, fit_s=s)
        for c, s in zip(tied, spans, strict=True)
    ]
    candidates = tuple(replace(c, cost=cost) for c, cost in zip(tied, free, strict=True))
    comparison = replace(finished_study.comparison, candidates=candidates)
    found = recommend(comparison)
    assert found.chosen.label == tied[1].label and "$0 to fit" in found.verdict
    charts = report_view(comparison, found).charts
    assert charts.unit == "seconds" and "seconds for 5,000 rows" in charts.cost_wide


def test_too_few_test_rows_are_not_ranked(tmp_path):
    """Under 20 rows the study refuses to rank, and the report says so."""
    task_path = write_task(tmp_path / "task.json", test=19)
    config = StudyConfig(strategies=("right(0.9)", "right(0.2)"), seeds=1)
    study = run_study(task_path, config, tmp_path / "s", rooms=FAKES)
    assert study.recommendation.chosen is None
    assert "the test set has 19 rows" in study.recommendation.verdict
    assert {row.verdict for row in study.table} == {"unranked"}
    assert "not ranked" in study.report_path.read_text()


def test_study_without_a_finished_trial_reports_why(tmp_path):
    """Nothing finished: the page names the failures and recommends nothing."""
    task_path = write_task(tmp_path / "task.json")
    study = run_study(task_path, StudyConfig(strategies=("ours", "bug"), seeds=1), tmp_path / "s", rooms=FAKES)
    assert study.recommendation.verdict == "Nothing can be recommended: no trial has finished."
    page = study.report_path.read_text()
    assert (
        "the loss is not finite at step 3" in page
        and "lower learning_rate" in page
        and "<svg" not in page
        and "<script" not in page
    )


def test_failed_trials_and_the_correction_for_picking_are_caveats(finished_study):
    """Both stand with the verdict."""
    text = finished_study.recommendation.text
    assert "2 trials did not finish: bug (failed)." in text
    assert "cannot be shown" in text
    winner = finished_study.comparison.winner
    assert (winner.value <= winner.corrected) or "corrected for having been picked" in text


def test_table_is_plain_json(finished_study):
    """The records can be printed as JSON as they are."""
    values = json.loads(json.dumps([asdict(row) for row in finished_study.table]))
    assert [value["key"] for value in values] == ["A", "B", "C", "D"]
    assert [value["verdict"] for value in values].count("recommended") == 1


def test_folder_that_is_no_study_is_refused(tmp_path):
    """Reading never makes a study."""
    with pytest.raises(StudyError, match=r"no study\.json"):
        compare_study(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_words_write_amounts_as_people_do():
    """Hand-worked examples of each kind of amount."""
    assert [money(x) for x in (0, 1e-6, 0.0005, 0.0123, 0.5, 12.345, 12345)] == [
        "$0",
        "under $0.0001",
        "$0.0005",
        "$0.012",
        "$0.50",
        "$12.35",
        "$12,345",
    ]
    assert [seconds(x) for x in (0.04, 9.96, 59.7, 200, 7500)] == [
        "0.04 s",
        "10 s",
        "1 min 0 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
    assert [bytes_text(x) for x in (0, 999, 1234, 999_700, 5.6e6, 7.89e9, 1e13)] == [
        "0 B",
        "999 B",
        "1.23 kB",
        "1 MB",
        "5.6 MB",
        "7.89 GB",
        "10 TB",
    ]
    assert (points(0.005), points(-0.123), figure(0.12345)) == ("0.50 points", "12.3 points", "0.123")
    assert (count(1, "row"), count(2000, "row")) == ("1 row", "2,000 rows")
    assert (metric_name("macro_f1"), metric_name("my_own")) == ("macro F1", "my own")


def test_an_interval_that_is_looked_at_several_times_is_told_with_its_level():
    """It is wider than 95 %; the rows that are needed hang on the standard error alone."""
    error, sentences, needed = 0.02, [], []
    for level in (0.95, 0.98):
        half = error * NormalDist().inv_cdf((1 + level) / 2)
        compared = SimpleNamespace(difference=-0.01, low=-0.01 - half, high=-0.01 + half, level=level, rows=100)
        one = SimpleNamespace(versus_best=compared, p_value=0.5, is_tied=True)
        sentences.append(_odds(one))
        needed.append(_rows_needed(one))
    assert ["95 % interval" in sentences[0], "98 % interval" in sentences[1]] == [True, True]
    assert needed == pytest.approx([100 * ((1.96 + 0.84) * error / 0.01) ** 2] * 2)
