"""Records the study under ``examples/support/study``: runs it, then keeps what its report needs and nothing more.

    python recipes/recorded_study.py             # about ten minutes on two idle cores; killed and run again, it goes on
    python recipes/recorded_study.py STUDY       # keeps a study that has been run

Figures depend on the machine in their seconds only; let it be idle.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from taskfit.studies.report import write_report

ROOT = Path(__file__).resolve().parent.parent
TASK = Path("examples/support/task.yaml")
KEPT = ROOT / "examples" / "support" / "study"
OPTIONS = {
    "--strategies": "majority,linear,zero-shot,zero-shot(calibrate=contextual),few-shot,lora,full,encoder",
    "--models": "taskfit-tiny,minilm",
    "--seeds": "3",
    "--train-sizes": "32,96,all",
}
OF_A_TRIAL = ("result.json", "predictions.parquet", "predictor/prompt.txt")
MOST_BYTES = 1_500_000


def main() -> None:
    """Run the study, or take the one that is named, and keep it."""
    study = Path(sys.argv[1]) if len(sys.argv) > 1 else run()
    keep(study)
    write_report(KEPT)
    (KEPT / "study.lock").unlink()
    size = sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file())
    print(f"{KEPT.relative_to(ROOT)}: {size:,} bytes")
    if size > MOST_BYTES:
        raise SystemExit(f"a recorded study must have at most {MOST_BYTES:,} bytes")


def run() -> Path:
    """Run the study into the build folder."""
    out = ROOT / "build" / "recorded-study"
    options = [word for pair in OPTIONS.items() for word in pair]
    taskfit = str(Path(sys.executable).with_name("taskfit"))
    command = [taskfit, "compare", str(TASK), *options, "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    return out


def keep(study: Path) -> None:
    """Copy the plan, the test rows, and of each trial its result, its predictions and a prompt."""
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    values = json.loads((study / "study.json").read_text(encoding="utf-8"))
    values["plan"]["task_path"] = str(TASK)  # on the machine that recorded it, files were somewhere else
    for model in values["plan"]["models"]:
        model["config"].pop("_name_or_path", None)
    (KEPT / "study.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in ("test_rows.parquet", "leaks.json"):
        shutil.copy(study / name, KEPT)
    for trial in values["plan"]["trials"]:
        for name in OF_A_TRIAL:
            source = study / "trials" / trial["id"] / name
            if source.exists():
                target = KEPT / "trials" / trial["id"] / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)


if __name__ == "__main__":
    main()
