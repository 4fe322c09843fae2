"""How heavy is a report, how long does it take to write, and how fast does it answer in a browser?

    python benchmarks/report.py [--quick]

It writes the recorded study under ``examples/support/study`` again, in a copy, and opens it in Chromium where there
is one. Seconds are CPU time of one process; times in the browser are on the clock.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from common import ROOT, arguments, finish

STUDY = ROOT / "examples" / "support" / "study"
MOVES = 20


def main() -> None:
    """Write, weigh and open the report; the last line holds the figures."""
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        shutil.copytree(STUDY, study)
        figures = {"write": written(study), "bytes": weighed(study / "report.html")}
        figures["browser"] = opened(study / "report.html", 3 if options.quick else MOVES)
    for name, values in figures.items():
        print(name, values)
    finish("report", [], figures)


def written(study: Path) -> dict[str, float]:
    """CPU seconds of each step of writing the report; the first use of the drawing library apart."""
    from taskfit.studies.charts import library
    from taskfit.studies.compare import compare_study
    from taskfit.studies.recommend import recommend
    from taskfit.studies.report import html_report, write_report
    from taskfit.studies.report_view import report_view

    found, clock = {}, time.process_time()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.process_time()
        found[name], clock = round(now - clock, 2), now

    library()
    lap("library_s")
    comparison = compare_study(study)
    lap("compare_s")
    recommendation = recommend(comparison)
    lap("recommend_s")
    view = report_view(comparison, recommendation)
    lap("gather_s")
    html_report(view)
    lap("render_s")
    write_report(study, comparison, recommendation)
    lap("write_again_s")
    return found


def weighed(path: Path) -> dict[str, int]:
    """Bytes of the page by what they are."""
    page = path.read_text(encoding="utf-8")
    script = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)[0]
    library = re.findall(r'id="library">.*?</script>', page, flags=re.DOTALL)[0]
    data = re.findall(r'<script type="application/json".*?</script>', page, flags=re.DOTALL)
    pictures = re.findall(r"<svg.*?</svg>", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL), flags=re.DOTALL)
    return {
        "page": len(page.encode()),
        "library": len(library.encode()),
        "own_script": len(script.encode()),
        "data": sum(len(one.encode()) for one in data),
        "pictures": sum(len(one.encode()) for one in pictures),
        "page_gzip": len(gzip.compress(page.encode())),
    }


def opened(path: Path, moves: int) -> dict[str, Any] | str:
    """Milliseconds until the charts stand, and from a move of the slider to the next picture."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return "skipped: playwright is not installed"
    if chromium is None:
        return "skipped: there is no Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('.stage > div > svg').length === 2")
        ready = page.evaluate("performance.now()")
        times = [page.evaluate(_MOVE, 2 + 5 * number / moves) for number in range(moves)]
        heap = page.evaluate("performance.memory.usedJSHeapSize")
        browser.close()
    return {"ready_ms": round(ready), "slider_ms": round(median(times)), "heap_bytes": heap}


_MOVE = """async (power) => {
  const slider = document.querySelector('#volume'), start = performance.now();
  slider.value = power;
  slider.dispatchEvent(new Event('input'));
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - start;
}"""


if __name__ == "__main__":
    main()
