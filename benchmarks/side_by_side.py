"""What running two trials at a time changes: figures (nothing may), processor time, and what each is charged.

    python benchmarks/side_by_side.py            # four strategies, each trained for 40 steps
    python benchmarks/side_by_side.py --quick    # two of them, fewer steps

Both studies give a trial the same threads. Wall time is printed and proves nothing on a shared machine; the ratio of
processor times says whether charging by them is honest.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import ROOT, arguments, finish

from taskfit.costs.trial_cost import TrialCost
from taskfit.studies.compare_study import Study, compare

TASK = ROOT / "examples" / "support" / "task.yaml"


def study(folder: Path, jobs: int, steps: int, names: list[str]) -> Study:
    """Run the same trials, so many at a time."""
    strategies = [name.format(steps=steps) for name in names]
    return compare(
        TASK, strategies=strategies, models=["taskfit-tiny"], seeds=1, retain=["none"], jobs=jobs, out=folder
    )


def costs(found: Study) -> dict[str, TrialCost]:
    """Return the measured cost of each candidate's only trial."""
    return {one.label: TrialCost.from_json(one.results[0].cost) for one in found.comparison.candidates}


def main() -> None:
    """Run both studies and print their ratios."""
    is_quick = arguments(__doc__ or "").quick
    names = ["linear", "zero-shot", "lora(epochs=1, min_steps={steps})", "full(epochs=1, min_steps={steps})"]
    names = names[:3] if is_quick else names
    with tempfile.TemporaryDirectory() as scratch:
        one, two = (study(Path(scratch) / str(jobs), jobs, 5 if is_quick else 40, names) for jobs in (1, 2))
        plans = [found.comparison.study.plan for found in (one, two)]
        assert plans[0].threads == plans[1].threads
        same = [
            (one.folder / "trials" / spec.id / "predictions.parquet").read_bytes()
            == (two.folder / "trials" / spec.id / "predictions.parquet").read_bytes()
            for spec in plans[0].trials
        ]
    alone, beside = costs(one), costs(two)
    ratios = {}
    for label, cost in alone.items():
        other = beside[label]
        before, after = cost.fit.cpu_s + cost.predict.cpu_s, other.fit.cpu_s + other.predict.cpu_s
        walls = [each.fit.wall_s + each.predict.wall_s for each in (cost, other)]
        ratios[label] = round(after / before, 3)
        print(f"{label}: processor {before:.1f} s alone, {after:.1f} s beside ({ratios[label]:.2f} times);", end=" ")
        print(f"clock {walls[0]:.1f} s and {walls[1]:.1f} s; {cost.usd_fit:.2g} and {other.usd_fit:.2g} USD to fit")
    print(f"predictions equal to the byte: {sum(same)} of {len(same)} trials")
    figures = {"same_bytes": sum(same), "trials": len(same), "processor_ratio": ratios, "threads": plans[0].threads}
    finish("side_by_side", [0], dict(figures))


if __name__ == "__main__":
    main()
