"""What does a whole study find on the support task: seeds spent, learning curves, break-even volumes, leaks?

``--quick`` runs the floors alone, at three sizes.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from common import ROOT, arguments, finish

from taskfit.cli.progress import Progress
from taskfit.studies.compare_study import run_study
from taskfit.studies.spec import StudyConfig


def main() -> None:
    """Run the study and print what ``result.json`` says."""
    is_quick = arguments(__doc__ or "").quick
    config = StudyConfig(
        strategies=("majority", "linear") if is_quick else StudyConfig.strategies,
        seeds=2 if is_quick else 3,
        max_seeds=2 if is_quick else None,
        train_sizes=(32, 128, None),
        usd_per_label=0.05,
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        study = run_study(ROOT / "examples/support/task.yaml", config, Path(folder) / "s", on_event=progress.show)
        found = json.loads((Path(folder) / "s" / "result.json").read_text(encoding="utf-8"))
    wall_s = time.perf_counter() - started
    print(study.recommendation.text)
    for curve in found["learning_curves"]:
        print(curve["finding"])
    print(found["leaks"]["finding"])
    seeds = {row["label"]: row["seeds"] for row in found["candidates"]}
    kept = {name: found[name] for name in ("verdict", "break_evens", "overtaking", "costs")}
    curves = [{name: curve[name] for name in ("label", "rate", "doubled")} for curve in found["learning_curves"]]
    figures = {"wall_s": round(wall_s, 1), "seeds_spent": seeds, "curves": curves, **kept}
    finish("study", list(range(config.most_seeds)), figures)


if __name__ == "__main__":
    main()
