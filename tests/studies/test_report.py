"""The report of a study: page, Markdown and JSON."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from taskfit.errors import PredictorError, StudyError
from taskfit.evaluation.calibration import reliability
from taskfit.evaluation.intervals import metric_interval
from taskfit.evaluation.sides import Figure, Side, not_measured
from taskfit.studies.charts import library
from taskfit.studies.compare_study import open_study
from taskfit.studies.holistic import HolisticView
from taskfit.studies.holistic_file import save_holistic
from taskfit.studies.recommend import recommend
from taskfit.studies.report import html_report, markdown_report, read_report, write_report
from taskfit.studies.report_choices import choices_by_volume
from taskfit.studies.report_data import finite, report_json
from taskfit.studies.report_methods import _runs
from taskfit.studies.report_run import facts_of, recipes_of
from taskfit.studies.report_view import report_view
from taskfit.studies.search_gain import found_by_search, gain_of
from taskfit.studies.spec import Limits
from taskfit.studies.words import figure, money
from tests.studies.fakes import HOSTILE


def test_report_is_a_pure_function_of_the_folder(finished_study):
    """Written again, both files are the same to the byte."""
    page, text = finished_study.report_path, finished_study.folder / "report.md"
    before = (page.read_bytes(), text.read_bytes())
    assert write_report(finished_study.folder) == page
    assert (page.read_bytes(), text.read_bytes()) == before
    assert open_study(finished_study.folder).table == finished_study.table


class Outline(HTMLParser):
    """Collects tags, ids and addresses, and checks that elements close in order."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.addresses = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[name] for name in ("href", "src") if name in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline_of(page):
    outline = Outline()
    outline.feed(page)
    return outline


def without_scripts(page):
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_page_is_whole_and_needs_nothing_else(finished_study):
    """Well-formed, no address but its own sections, unique ids, one main heading, verdict before figures."""
    page = finished_study.report_path.read_text()
    outline = outline_of(page)
    assert outline.open == [] and len(outline.ids) == len(set(outline.ids)) and outline.tags.count("h1") == 1
    assert {address[0] for address in outline.addresses} == {"#"}
    assert {address[1:] for address in outline.addresses} <= set(outline.ids)
    shown = without_scripts(page)
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", shown) and "url(" not in shown
    assert shown.index(finished_study.recommendation.verdict) < shown.index("<svg")
    for part in ("prefers-color-scheme: dark", "@media print", "needs a model of architecture decoder", "a bug"):
        assert part in shown


def test_page_runs_its_own_scripts_alone(finished_study):
    """The policy names the digests of exactly the scripts that are there, and allows no code to be compiled."""
    page = finished_study.report_path.read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    packed = re.search(r'id="library">(.*?)</script>', page, flags=re.DOTALL)[1]
    scripts.append(gzip.decompress(base64.b64decode(packed)).decode())
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 2 and scripts[1] == library() and policy.startswith("default-src 'none'")
    assert policy.endswith("script-src " + " ".join(f"'sha256-{digest}'" for digest in digests))
    assert json.loads(re.search(r'id="study">(.*?)</script>', page, flags=re.DOTALL)[1])["volume"] == 5000


def test_page_shows_every_figure_of_the_table(finished_study):
    """The charts have a text equivalent: each figure with its interval stands in the table."""
    page = finished_study.report_path.read_text()
    for row in finished_study.table:
        assert f"{figure(row.value)} ({figure(row.low)}–{figure(row.high)})" in page
        assert f"{row.key} {row.label}: {figure(row.value)}" in page
        assert money(row.usd_total).replace("under ", "&lt;") in page


def test_confusion_counts_every_answer_of_the_chosen_one(finished_study):
    """Rows sum to the right answers of all seeds."""
    view = report_view(finished_study.comparison, finished_study.recommendation)
    assert [sum(row) for row in view.confusion.counts] == [40 * 2] * 3
    right = sum(view.confusion.counts[i][i] for i in range(3)) / 240
    chosen = finished_study.recommendation.chosen
    assert right == pytest.approx(chosen.metrics["accuracy"].value)


def test_rows_shown_are_all_rows_with_different_answers(finished_study):
    """None is missing, none too many; each is marked right exactly where it is, the most divided first."""
    view = report_view(finished_study.comparison, finished_study.recommendation)
    runs = [c.runs[0] for c in finished_study.comparison.candidates]
    different = {row for place, row in enumerate(runs[0].row_ids) if len({str(run.answers[place]) for run in runs}) > 1}
    assert {row.row_id for row in view.disagreements} == different
    assert all(said.is_right == (said.answer == row.gold) for row in view.disagreements for said in row.said)
    split = [abs(2 * sum(said.is_right for said in row.said) - len(row.said)) for row in view.disagreements]
    assert split == sorted(split)


def test_generated_texts_are_shown_without_a_verdict(finished_study):
    """Free text is more or less right, so no row is marked right or wrong."""
    comparison = finished_study.comparison
    generation = replace(comparison, definition=replace(comparison.definition, kind="generation", labels=()))
    view = report_view(generation, finished_study.recommendation)
    assert {said.is_right for row in view.disagreements for said in row.said} == {None}
    page = without_scripts(html_report(view))
    assert view.confusion is None and "✓" not in page and "✗" not in page


def test_long_texts_do_not_make_a_long_page(finished_study):
    """Texts of rows are cut, and all of them together stay under 250 kB."""
    from taskfit.studies.predictions import StoredPrediction
    from taskfit.studies.report_rows import disagreements
    from taskfit.studies.test_rows import TestRow

    def said(answer):
        return [StoredPrediction(str(i), ("g",), answer * 300, None, True, 1, 1, 0, None) for i in range(400)]

    test = [TestRow(str(i), "long " * 400, ("gold " * 99,), None) for i in range(400)]
    found = disagreements({"a": "A", "b": "B"}, {"a": said("x"), "b": said("y")}, test, "generation")
    assert all(len(row.text) <= 400 and len(row.gold) <= 160 for row in found)
    assert 200 < len(found) <= 300 and len(repr(found)) < 400_000


def test_hostile_texts_stay_texts(sized_study):
    """Rows, names, labels and prompts with markup neither run nor break the page, its data or the Markdown tables."""
    view = hostile_view(sized_study)
    page, text = html_report(view), markdown_report(view)
    outline = outline_of(page)
    assert outline.open == [] and outline.tags.count("script") == 3 and "img" not in outline.tags
    data = re.search(r'id="study">(.*?)</script>', page, flags=re.DOTALL)[1]
    assert HOSTILE in json.loads(data)["points"][0]["label"] and HOSTILE in json.loads(data)["rows"][0]["text"]
    shown = without_scripts(page)
    assert "&lt;img src=x" in shown and "<img" not in shown and "alert(3)" in shown
    assert "<script" not in text.replace("\\<", "") and "<img" not in text.replace("\\<", "")
    assert "- a\\|b: \\<b>why\\</b> # head" in text


def hostile_view(study):
    """The study's view with a hostile name for everything that has one."""
    comparison = study.comparison
    candidates = tuple(
        replace(candidate, strategy=f"{HOSTILE} {place}") for place, candidate in enumerate(comparison.candidates)
    )
    definition = replace(comparison.definition, name=HOSTILE)
    comparison = replace(comparison, candidates=candidates, definition=definition)
    view = report_view(comparison, recommend(comparison))
    recipes = tuple(replace(r, prompt=HOSTILE, supervised=((HOSTILE, True),), notes=(HOSTILE,)) for r in view.recipes)
    confusion = replace(view.confusion, labels=(HOSTILE,) * 3, answers=(HOSTILE,) * 3)
    return replace(view, recipes=recipes, confusion=confusion, skipped=(("a|b", "<b>why</b>\n# head"),))


def test_markdown_table_has_one_line_a_candidate(finished_study):
    """Heads, rule and rows have the same number of cells."""
    lines = (finished_study.folder / "report.md").read_text().splitlines()
    start = lines.index("## Strategies") + 2
    table = lines[start : start + 2 + len(finished_study.table)]
    assert {re.sub(r"\\\|", "", line).count("|") for line in table} == {table[0].count("|")}


def test_choice_at_every_volume_is_the_recommendation_there(finished_study):
    """Ranges join without gaps, and anywhere in them the recommendation is the range's, with money limited or not."""
    comparison = finished_study.comparison
    dearest = max(c.cost.total_usd(5000) for c in comparison.candidates)
    for limits in (Limits(), Limits(usd=0.7 * dearest)):
        choices = choices_by_volume(comparison, limits, 5000)
        assert (choices[0].first, choices[-1].last) == (100, 10_000_000)
        assert all(one.last + 1 == two.first and one.label != two.label for one, two in pairwise(choices))
        for choice in choices:
            for volume in {choice.first, choice.last, (choice.first + choice.last) // 2}:
                chosen = recommend(comparison, volume, limits).chosen
                assert choice.label == (None if chosen is None else chosen.label)
    assert choices[-1].label is None


def hand_made(cost, fit, row):
    return replace(cost, usd_labels=0.0, usd_fit=fit, usd_evaluate=0.0, usd_per_row=row)


def test_choices_change_where_total_costs_cross(finished_study):
    """Two tied candidates, cheap to fit and cheap per row: the choice changes at the crossing, worked by hand."""
    tied = [c for c in finished_study.comparison.candidates if c.is_tied][:2]
    costs = ((1.0, 0.0), (0.0, 0.001))
    pair = tuple(
        replace(c, runs=tied[0].runs, metrics=tied[0].metrics, cost=hand_made(c.cost, fit, row))
        for c, (fit, row) in zip(tied, costs, strict=True)
    )
    choices = choices_by_volume(replace(finished_study.comparison, candidates=pair), Limits(), 50)
    assert [(one.first, one.label) for one in choices] == [(50, pair[1].label), (1001, pair[0].label)]


def test_learning_curves_join_the_sizes_of_a_strategy(sized_study):
    """Every candidate is a point of its strategy's curve; floors that need no rows are level lines."""
    view = report_view(sized_study.comparison, sized_study.recommendation)
    points = {(curve.label, p.rows): p.value for curve in view.curves for p in curve.points}
    assert len(points) == len(sized_study.comparison.candidates) == 8
    for candidate in sized_study.comparison.candidates:
        label = candidate.strategy if candidate.model is None else f"{candidate.strategy} on {candidate.model}"
        size = 30 if candidate.train_rows is None else candidate.train_rows
        assert points[label, size] == candidate.metrics["accuracy"].value
    assert 'id="curves"' in sized_study.report_path.read_text()
    assert view.curve_wide.count("<svg") == 1 and view.curve_wide.count('aria-label="right(0.9): ') == 2


def test_charts_show_largest_training_sets_first(sized_study):
    """Smaller ones are there on demand; a recommended one is always shown."""
    view = report_view(sized_study.comparison, sized_study.recommendation)
    main = {point.label for point in view.charts.points if point.is_main}
    assert view.charts.has_smaller and sized_study.recommendation.chosen.label in main
    largest = {c.label for c in sized_study.comparison.candidates if c.train_rows is None}
    assert main == largest | {sized_study.recommendation.chosen.label}
    assert set(view.shown.values()) == main


def test_missing_sections_are_named_with_the_way_to_get_them(finished_study):
    """A study of one size has no curves, trials without the measurement no forgetting."""
    page = finished_study.report_path.read_text()
    assert "--train-sizes 32,128,all" in page and "no trial of this study measured it" in page
    assert 'id="curves"' not in page and 'id="forgetting"' not in page


FORGETTING = {
    "format": 1,
    "status": "measured",
    "reason": "",
    "is_reversible": True,
    "loss": 0.12,
    "low": 0.08,
    "high": 0.16,
    "level": 0.95,
    "worst": "text",
    "parts": [
        {
            "name": f"text {HOSTILE}",
            "kind": "text",
            "metric": "nats_per_token",
            "before": 5.1,
            "after": 5.21,
            "loss": 0.12,
            "low": 0.08,
            "high": 0.16,
        }
    ],
}


def test_forgetting_is_shown_as_trials_measured_it(finished_study):
    """Means over seeds, the widest interval of the seeds, and what was not measured says why."""
    other = json.loads(json.dumps(FORGETTING))
    other["parts"][0] |= {"loss": 0.2, "high": 0.25}
    findings = [
        [FORGETTING, other],
        [{"status": "none", "parts": [], "loss": 0.0}] * 2,
        [{"status": "unmeasured", "reason": "an encoder has no <b>text</b>", "parts": []}] * 2,
        [{}, "nonsense"],
    ]
    candidates = tuple(
        replace(c, results=tuple(replace(r, findings={"forgetting": f}) for r, f in zip(c.results, each, strict=True)))
        for c, each in zip(finished_study.comparison.candidates, findings, strict=True)
    )
    view = report_view(replace(finished_study.comparison, candidates=candidates), finished_study.recommendation)
    part = view.forgetting[0].parts[0]
    assert part.loss == pytest.approx(0.16) and (part.low, part.high) == (0.08, 0.25)
    assert [one.status for one in view.forgetting[:3]] == ["measured", "none", "unmeasured"]
    page = html_report(view)
    assert "+16.0 % (+8.0 to +25.0)" in page and "nothing is lost" in page and "no &lt;b&gt;text" in page
    assert "can be taken off" in page and outline_of(page).open == []
    assert "| +0.160 (+0.080 to +0.250) |" in markdown_report(view)
    shown = report_json(view)["forgetting"][0]["parts"][0]
    assert "strip" not in shown and shown["seeds"] == [0.12, 0.2]


def test_trials_of_other_versions_are_counted(finished_study):
    """A study that was gone on with later mixes figures of two versions: the report says how many."""
    first, *others = finished_study.comparison.candidates
    results = tuple(replace(each, versions={**each.versions, "torch": "99.0"}) for each in first.results)
    mixed = replace(finished_study.comparison, candidates=(replace(first, results=results), *others))
    assert "Other versions" not in dict(facts_of(finished_study.comparison))
    said = dict(facts_of(mixed))["Other versions"]
    trials = sum(len(each.results) for each in mixed.candidates)
    assert said.startswith(f"in {len(results)} of {trials} trials torch ") and said.endswith("is 99.0 now")


def test_calibration_panels_hold_the_rows_of_all_seeds(finished_study):
    """Each bin's rows add up to rows times seeds, and the figures are those of the evaluation."""
    from taskfit.studies.report_calibration import _bins

    view = report_view(finished_study.comparison, finished_study.recommendation)
    best = finished_study.comparison.candidates[0]
    joined = _bins(best.runs)
    assert sum(part.rows for part in joined) == 120 * 2
    single = [part for run in best.runs for part in reliability(run)]
    assert sum(p.rows * p.accuracy for p in joined) == pytest.approx(sum(p.rows * p.accuracy for p in single))
    assert [panel.label for panel in view.panels] == [c.label for c in finished_study.comparison.candidates]
    assert view.panels[0].figures["ece_10"] == metric_interval("ece_10", best.runs)


def test_candidates_without_probabilities_have_no_calibration(finished_study):
    """No panel, and no metric of calibration to pick; the page says so."""
    candidates = tuple(
        replace(c, runs=tuple(replace(run, probabilities=None, _memo={}) for run in c.runs))
        for c in finished_study.comparison.candidates
    )
    view = report_view(replace(finished_study.comparison, candidates=candidates), finished_study.recommendation)
    assert view.panels == () and set(view.charts.metrics) == {"macro_f1", "accuracy"}
    assert "no strategy gave a probability" in html_report(view)


def test_loss_mask_is_taken_from_what_the_trainer_reported(finished_study):
    """Supervised text is marked, all else is given, and the other notes stay."""
    notes = (
        "full trains all",
        "training on 2 rows: 5 supervised tokens; supervised text between ⟦ and ⟧:",
        "  Question <b>",
        "  Answer:⟦billing<end>⟧",
        "step 1 of 2: loss 1.0",
    )
    best, *rest = finished_study.comparison.candidates
    candidates = (replace(best, results=tuple(replace(r, notes=notes) for r in best.results)), *rest)
    comparison = replace(finished_study.comparison, candidates=candidates)
    recipe = recipes_of(comparison, {c.label: "A" for c in candidates})[0]
    assert recipe.supervised == (("Question <b>\nAnswer:", False), ("billing<end>", True))
    assert recipe.notes == (notes[0], "training on 2 rows: 5 supervised tokens", notes[4])
    page = html_report(report_view(comparison, finished_study.recommendation))
    assert "<mark>billing&lt;end&gt;</mark>" in page


def test_methods_name_the_works_that_they_rest_on(finished_study):
    """Every work in the text stands among the references once, and none that is not named."""
    view = report_view(finished_study.comparison, finished_study.recommendation)
    text = " ".join(view.methods)
    assert "2 seeds" in text and "train" in text and "Holm 1979" in text
    surnames = {work.split(",")[0] for work in view.references}
    assert {"Holm", "Tukey", "Fisher", "Guo", "Tsamardinos"} <= surnames
    assert len(view.references) == len(set(view.references))
    assert all(surname in text for surname in surnames)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((8, 16), "with 8, 16 training rows;"),
        ((8, None), "with 8 and all training rows;"),
        ((8, 30), "with 8 and all training rows;"),
        ((None,), "with 2 seeds;"),
    ],
)
def test_methods_name_the_training_sizes_that_ran(sizes, said):
    """All rows only where they were asked for, be it by their number."""
    config = SimpleNamespace(seeds=2, most_seeds=2, train_sizes=sizes)
    plan = SimpleNamespace(config=config, data={"rows": {"train": 30}})
    sized = [None if size == 30 else size for size in sizes]
    candidates = [SimpleNamespace(train_rows=size, strategy="linear", stopped="") for size in sized]
    assert said in _runs(SimpleNamespace(study=SimpleNamespace(plan=plan), candidates=candidates))


def test_json_holds_what_the_page_shows(finished_study):
    """The same verdict, table, choices and rows; plain JSON without pictures."""
    values = read_report(finished_study.folder)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["recommendation"]["verdict"] == finished_study.recommendation.verdict
    assert [row["label"] for row in values["table"]] == [row.label for row in finished_study.table]
    assert "<svg" not in json.dumps(values) and values["format"] == 1
    assert len(values["trials"]) == 8 and values["methods"]
    with pytest.raises(StudyError, match=r"no study\.json"):
        read_report(finished_study.folder / "nothing")


def test_numbers_that_json_lacks_become_null():
    """An interval without an end is not written as Infinity, which no browser reads."""
    assert finite({"a": [float("inf"), 1.0, float("nan")], "b": ("x", None)}) == {
        "a": [None, 1.0, None],
        "b": ["x", None],
    }


RECORDED = Path(__file__).parents[2] / "examples" / "support" / "study"


def test_recorded_study_is_small_and_says_what_it_holds():
    """It is under 1.5 MB, holds no path of the machine that ran it, and its page has the verdict of its trials."""
    files = [path for path in RECORDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000
    texts = [path.read_text() for path in files if path.suffix in (".json", ".md", ".txt")]
    assert not any(re.search(r'["( ](/home|/root|/work|/Users)/', text) for text in texts)
    values = read_report(RECORDED)
    page = (RECORDED / "report.html").read_text()
    assert escape(values["recommendation"]["verdict"]) in page and values["curves"]
    assert len({row["strategy"] for row in values["table"]}) >= 6 and not values["failures"]


def test_methods_tell_of_stopped_and_added_seeds(finished_study):
    """Who was stopped is counted, and looking more than once is said."""
    best, *rest = finished_study.comparison.candidates
    stopped = replace(finished_study.comparison, candidates=(best, *(replace(c, stopped="stopped") for c in rest)))
    text = " ".join(report_view(stopped, finished_study.recommendation).methods)
    assert "3 candidates got one seed alone" in text
    config = replace(finished_study.comparison.study.plan.config, max_seeds=4)
    plan = replace(finished_study.comparison.study.plan, config=config)
    more = replace(stopped, study=replace(stopped.study, plan=plan))
    assert "Up to 4 seeds" in " ".join(report_view(more, finished_study.recommendation).methods)


def test_models_that_cannot_be_counted_are_not_told_for_another_machine(finished_study):
    """They are listed with the reason, and the choice there is among the others."""
    from taskfit.studies.elsewhere import elsewhere

    there = elsewhere(finished_study.comparison, "gpu-h100")
    assert [label for label, _ in there.unknown] == ["model-right(0.93) on tiny"]
    assert "cannot be counted" in there.unknown[0][1]
    assert there.choices and there.choices[0].label in {one.label for one in there.candidates}


def test_rows_that_one_of_two_has_right_stand_beside_each_pair(finished_study):
    """The counts are those of the stored answers, and the test's mid-p is scipy's exact binomial one less half."""
    from scipy.stats import binom

    view = report_view(finished_study.comparison, finished_study.recommendation)
    first = {c.label: c.runs[0] for c in finished_study.comparison.candidates}
    best = first[finished_study.comparison.candidates[0].label]
    assert len(view.pairs) == len(first) - 1
    for label, (alone, other, odds) in view.pairs:
        mine, theirs = (
            [answer in golds for answer, golds in zip(run.answers, run.golds, strict=True)]
            for run in (first[label], best)
        )
        a = sum(m and not t for m, t in zip(mine, theirs, strict=True))
        b = sum(t and not m for m, t in zip(mine, theirs, strict=True))
        assert (alone.sort, other.sort) == (a, b)
        least = min(a, b)
        exact = 2 * binom.cdf(least, a + b, 0.5) - binom.pmf(least, a + b, 0.5)
        assert odds.sort == pytest.approx(1.0 if a == b else exact)
    assert "McNemar" in finished_study.report_path.read_text()
    assert "Right and wrong beside the best" in (finished_study.folder / "report.md").read_text()
    assert read_report(finished_study.folder)["pairs"][0]["strategy"] == view.pairs[0][0]


def test_what_a_search_bought_is_a_column_where_something_was_searched(finished_study):
    """Means over seeds; candidates that were not searched say so; no column where none was."""
    comparison = finished_study.comparison
    best = comparison.candidates[0]

    def searched(result, gain):
        bought = {"metric": "macro_f1", "default": 0.5, "best": 0.5 + gain, "low": gain - 0.1, "high": gain + 0.1}
        return replace(result, findings={**result.findings, "search": {"bought": bought, "tries": 4}})

    results = tuple(searched(result, 0.1 * place) for place, result in enumerate(best.results, 1))
    changed = replace(comparison, candidates=(replace(best, results=results), *comparison.candidates[1:]))
    view = report_view(changed, recommend(changed))
    assert view.columns[-1].title == "search bought, points on validation"
    assert view.cells[0][-1].text == "+15.0 (+5.0 to +25.0), 4 tries"
    assert view.cells[1][-1].text == "not searched"
    plain = report_view(comparison, finished_study.recommendation)
    assert plain.columns[-1].title == "artefact"
    broken = replace(best.results[0], findings={"search": {"bought": {"best": "x"}, "tries": 4}})
    with pytest.raises(StudyError, match="finding of its search is damaged"):
        gain_of([broken])


def test_a_trial_keeps_what_its_search_bought(tmp_path):
    """Read from the saved predictor's manifest."""
    assert found_by_search(tmp_path) == {}
    record = {"chosen": {"rank": 4}, "bought": None, "validation_rows": 6, "wall_s": 1.0, "tries": [{}, {}]}
    (tmp_path / "predictor.json").write_text(json.dumps({"search": record}))
    assert found_by_search(tmp_path) == {"search": {**record, "tries": 2}}
    (tmp_path / "predictor.json").write_text(json.dumps({"search": None}))
    assert found_by_search(tmp_path) == {}


def test_views_from_seven_sides_are_shown_where_they_are_kept(tmp_path, finished_study):
    """Beside the candidate whose predictor they are of; a damaged one is named; none: the page says how to get them."""
    folder = tmp_path / "s"
    shutil.copytree(finished_study.folder, folder)
    chosen = finished_study.recommendation.chosen
    path = folder / "trials" / chosen.results[1].spec.id / "predictor" / "holistic.json"
    plain = read_report(folder)
    assert plain["sides"] == [] and "--holistic --save" in write_report(folder).read_text()
    worst = Figure("worst case over 6 changes", 0.5, 0.25, 0.75, 120, "typing errors hurt <most>")
    tokens = Figure("tokens in, a row", 12345.0, None, None, 120)
    sides = (Side("robustness", worst, (tokens,), ("a note",)), not_measured("bias", "no set was named"))
    save_holistic(HolisticView(path.parent, chosen.strategy, "fake", "test", 120, sides, ()))
    (found,) = read_report(folder)["sides"]
    assert found["label"] == chosen.label and found["over"] == "120 test rows, seed 1"
    page = write_report(folder).read_text()
    assert "worst case over 6 changes: 0.500 (0.250 to 0.750); typing errors hurt &lt;most&gt;" in page
    assert "tokens in, a row: 12,345" in page and "not measured: no set was named" in page
    assert f"Seven sides of {chosen.label}" in (folder / "report.md").read_text()
    path.write_text('{"format": 1, "rows": 3}')
    with pytest.raises(PredictorError, match="damaged"):
        read_report(folder)


def test_cascades_show_cost_against_agreement_at_every_threshold(finished_study):
    """From a student that never answers to one that always does; the cascade's own threshold is marked."""
    names = ("threshold", "student", "teacher", "person", "agreement", "low", "seconds")
    never, half = (None, 0.0, 1.0, 0.0, 1.0, 0.9, 0.36), (0.8, 0.5, 0.5, 0.0, 0.95, 0.8, 0.2)
    values = never, half, (0.2, 1.0, 0.0, 0.0, 0.7, 0.6, 0.04)
    points = [dict(zip(names, each, strict=True)) for each in values]
    finding = {"threshold": 0.75, "is_certified": True, "asks_people": False, "points": points}
    first, second, *others = finished_study.comparison.candidates
    told = (
        replace(first, results=(replace(first.results[0], findings={"cascade": finding}), *first.results[1:])),
        replace(second, results=(replace(second.results[0], findings={"cascade": {"points": ["?"]}}),)),
    )
    view = report_view(replace(finished_study.comparison, candidates=(*told, *others)), finished_study.recommendation)
    assert [one.label for one in view.cascades] == [first.label]
    price = finished_study.comparison.study.plan.price.usd_per_hour
    assert [point.usd for point in view.cascades[0].points] == pytest.approx([0.1 * price, price / 18, price / 90])
    assert [point.is_chosen for point in view.cascades[0].points] == [False, True, False]
    page = html_report(view)
    assert "Cascades: cost against agreement" in page and "◆ 0.8000" in page and outline_of(page).open == []
    assert "| ◆ 0.8000 | 50.0% | 50.0% | 0.0% | 95.0% | 80.0% |" in markdown_report(view)
    assert report_json(view)["cascades"][0]["points"][2]["student"] == 1.0
    assert "cascades" not in html_report(report_view(finished_study.comparison, finished_study.recommendation))
