"""The report in a real browser: no errors, and what moves, moves."""

from __future__ import annotations

import os
import re
import shutil
from itertools import combinations

import pytest

from taskfit.studies.recommend import recommend
from taskfit.studies.report import html_report
from taskfit.studies.report_choices import choices_by_volume
from taskfit.studies.report_view import report_view
from taskfit.studies.spec import Limits
from tests.studies.test_compare import with_costs
from tests.studies.test_report import hostile_view

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra [dev]")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=WAIT_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(chromium):
    """Opens a page file in a window; what the browser complains of is collected in ``complaints``."""
    contexts = []

    def open_page(path, width=1280, scheme="light", scripts=True):
        window = {"width": width, "height": 900}
        context = chromium.new_context(viewport=window, color_scheme=scheme, java_script_enabled=scripts)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or page.complaints.append(request.url))
        page.goto(path.as_uri())
        if scripts:
            page.wait_for_function("document.querySelectorAll('.stage > div > svg').length === 2")
        contexts.append(context)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def page(opened, sized_study):
    """The report of several sizes in a wide window; tests leave it as they found it."""
    return opened(sized_study.report_path)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_page_opens_without_complaint_and_fits_its_window(opened, sized_study, width, scheme):
    """Nothing on the console, nothing asked of a network, no sideways scrolling of the page."""
    page = opened(sized_study.report_path, width, scheme)
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    widths = page.evaluate("[...document.querySelectorAll('.chart')].map(c => c.getBoundingClientRect().width)")
    assert len(widths) > 6 and max(widths) < width


def front(page):
    return page.locator("#chart-cost g.mark-line path").first.get_attribute("d")


def test_slider_moves_costs_front_and_choice(opened, finished_study, tmp_path):
    """At the slider's end the axis tells the volume, the front has moved, and the choice is the recommendation's.

    The best costs most to fit and nothing to predict, so that it is the dearest at few rows and the cheapest at many.
    """
    measured = finished_study.comparison
    best, *others = [candidate.label for candidate in measured.candidates]
    costs = {best: (1.0, 0.0)} | {label: (0.1 / place, 1e-6) for place, label in enumerate(others, start=1)}
    comparison = with_costs(measured, costs)
    path = tmp_path / "priced.html"
    path.write_text(html_report(report_view(comparison, recommend(comparison))))
    page = opened(path)
    before = front(page)
    page.locator("#volume").focus()
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('#chart-cost').textContent.includes('10,000,000 rows')")
    assert page.locator("#volume-shown").inner_text() == "10,000,000 rows"
    chosen = recommend(comparison, 10_000_000).chosen.label
    assert chosen in page.locator("#choice-now").inner_text() and front(page) != before
    assert page.locator("#breaks tr.recommended").inner_text().strip().endswith(chosen)
    page.locator("#reset").click()
    page.wait_for_function("!document.querySelector('#chart-cost').textContent.includes('10,000,000 rows')")
    assert front(page) == before and page.complaints == []


def test_slider_says_when_the_choice_changes(opened, finished_study, tmp_path):
    """With a limit of money the choice ends where the limit is met."""
    limits = Limits(usd=1e-3)
    comparison = finished_study.comparison
    view = report_view(comparison, recommend(comparison, limits=limits))
    path = tmp_path / "limited.html"
    path.write_text(html_report(view))
    last = choices_by_volume(comparison, limits, 5000)[-1]
    page = opened(path)
    page.locator("#volume").focus()
    page.keyboard.press("End")
    expected = "nothing is within the limits" if last.label is None else last.label
    assert expected in page.locator("#choice-now").inner_text()


def test_hovering_a_mark_tells_its_figures(page, sized_study):
    """Name, figure with interval, cost and verdict; the row of the table lights up, and both end with the hover."""
    chosen = sized_study.recommendation.chosen.label
    row = next(row for row in sized_study.table if row.label == chosen)
    marks = page.locator("#chart-cost g.mark-symbol.marks path")
    mark = next(m for m in marks.all() if chosen in m.get_attribute("aria-label"))
    mark.hover(force=True)
    tip = page.locator(".tip")
    tip.wait_for(state="visible")
    assert f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})" in tip.inner_text() and chosen in tip.inner_text()
    assert page.locator("tr.lit").get_attribute("data-key") == row.key
    page.mouse.move(1, 1)
    tip.wait_for(state="hidden")
    assert page.locator("tr.lit").count() == 0


def test_metric_and_smaller_training_sets_are_picked(page, sized_study):
    """Another metric redraws the axis; the box shows every candidate."""
    marks = page.locator("#chart-cost g.mark-symbol.marks path")
    assert marks.count() == len(report_view(sized_study.comparison, sized_study.recommendation).shown)
    page.locator("#metric").select_option("brier")
    page.wait_for_function("document.querySelector('#chart-cost').textContent.includes('Brier score')")
    page.locator("#metric").select_option("accuracy")
    page.locator("#all").check()
    page.wait_for_function("document.querySelectorAll('#chart-cost g.mark-symbol.marks path').length === 8")
    page.locator("#all").uncheck()
    assert page.complaints == []


def test_names_do_not_cover_each_other(page):
    """Of the names that the chart shows, no two overlap."""
    script = """[...document.querySelectorAll('#chart-cost g.mark-text text')]
        .filter(t => t.getAttribute('opacity') !== '0' && t.textContent.length > 2 && t.closest('.role-mark'))
        .map(t => { const b = t.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })"""
    boxes = page.evaluate(script)
    assert len(boxes) >= 3
    for (l1, t1, r1, b1), (l2, t2, r2, b2) in combinations(boxes, 2):
        assert min(r1, r2) - max(l1, l2) <= 1 or min(b1, b2) - max(t1, t2) <= 1


def test_tables_sort_by_their_headings(page):
    """One press sorts upwards by the number, a second downwards, and the heading says so."""
    head = page.locator("table.first thead th").nth(2)
    read = "[...document.querySelectorAll('table.first tbody tr')].map(r => Number(r.cells[2].dataset.sort))"
    head.locator("button").click()
    values = page.evaluate(read)
    assert values == sorted(values) and head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    values = page.evaluate(read)
    assert values == sorted(values, reverse=True) and head.get_attribute("aria-sort") == "descending"


def test_rows_are_found_by_who_is_right(page, sized_study):
    """The rows that one gets right and another wrong are as many as the view holds, and leafing shows all."""
    view = report_view(sized_study.comparison, sized_study.recommendation)
    right, wrong = 0, len(view.shown) - 1
    wanted = [row for row in view.disagreements if row.said[right].is_right and row.said[wrong].is_right is False]
    page.locator("#row-right").select_option(str(right))
    page.locator("#row-wrong").select_option(str(wrong))
    last = min(9, len(wanted))
    assert page.locator("#row-count").inner_text() == f"Rows 1 to {last} of {len(wanted)}"
    page.locator("#row-on").click()
    assert f"Rows 10 to {min(18, len(wanted))} of" in page.locator("#row-count").inner_text()
    page.locator("#row-text").fill("no row has these words")
    assert page.locator("#row-count").inner_text() == "No such row" and page.locator("#rows .row").count() == 0
    page.locator("#row-text").fill("")
    page.locator("#row-right").select_option("")
    page.locator("#row-wrong").select_option("")


def test_print_hides_controls_and_opens_what_is_folded(page):
    """Paper shows pictures, tables and every prompt; on the screen all is as before afterwards."""
    assert len(page.pdf(format="A4")) > 20_000
    assert page.locator("details:not([open])").count() > 0
    page.emulate_media(media="print")
    assert not page.locator("#volume").is_visible() and page.locator("#chart-cost svg").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")


def test_page_works_without_scripts(opened, sized_study):
    """Pictures, legend, tables and rows are there; what needs a script is not."""
    page = opened(sized_study.report_path, scripts=False)
    assert page.locator("#chart-cost svg.wide").is_visible() and page.locator("#chart-volume svg.wide").is_visible()
    assert page.locator(".legend").first.is_visible() and page.locator("#rows .row").count() == 9
    assert not page.locator("#volume").is_visible() and not page.locator("#row-count").is_visible()


def test_hostile_texts_do_not_run(opened, sized_study, tmp_path):
    """Names, rows, prompts and labels full of script: none runs, and each stands there as text."""
    path = tmp_path / "hostile.html"
    path.write_text(html_report(hostile_view(sized_study)))
    page = opened(path)
    page.locator("#chart-cost g.mark-symbol.marks path").first.hover(force=True)
    page.locator("#row-on").click()
    assert page.evaluate("window.hacked") is None and page.complaints == []
    assert page.locator("img").count() == 0 and page.locator("script").count() == 4
    assert re.search(r"<img src=x onerror=", page.locator(".tip").inner_text())
