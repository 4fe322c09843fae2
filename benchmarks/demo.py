"""How long does the demo take after installation, and what does it say?

Runs what ``make demo`` runs, in an empty folder, as a process of its own. Goal: at most 4 minutes on 2 cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, arguments, finish


def main() -> None:
    """Run the demo and print its verdict and time."""
    options = arguments(__doc__ or "")
    command = [str(Path(sys.executable).with_name("taskfit")), "compare", "examples/support/task.yaml", "--json"]
    seeds = 1 if options.quick else 3
    if options.quick:
        command += ["--seeds", "1", "--strategies", "majority,linear,zero-shot"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--out", f"{folder}/study"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        wall_s = time.perf_counter() - started
        page_bytes = (Path(folder) / "study" / "report.html").stat().st_size
    study = json.loads(done.stdout)
    print(study["recommendation"])
    table = {
        row["label"]: [round(row[name], 4) for name in ("value", "low", "high", "fit_s", "latency_ms")]
        for row in study["table"]
    }
    for label, figures in table.items():
        print(f"{label:28} {figures}")
    finish("demo", list(range(seeds)), {"wall_s": round(wall_s, 1), "report_bytes": page_bytes, "table": table})


if __name__ == "__main__":
    main()
