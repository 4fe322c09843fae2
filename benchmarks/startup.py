"""How fast do ``taskfit --help``, ``import taskfit`` and a further trial start?

Goals: help under 0.3 s, import under 0.1 s, start-up of a further trial under 1 s on CPU.
Each command is a fresh process; the figures are medians, and the bare interpreter is timed beside them.
"""

from __future__ import annotations

import operator
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, finish

from taskfit.studies.process import call, start_server


def median_s(command: list[str], runs: int) -> float:
    """Return the median wall time of a command in seconds, after one run that warms the file cache."""
    subprocess.run(command, check=True, capture_output=True)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def trial_startup(runs: int) -> dict[str, float]:
    """Return seconds until a trial's process has begun, run a function that does nothing, and ended.

    The first one waits for the fork server to load torch, transformers and peft; the further ones are its forks.
    """
    start_server(has_models=True)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs + 1):
            started = time.perf_counter()
            call(operator.is_not, 0, Path(folder) / "log.txt", print)
            times.append(time.perf_counter() - started)
    return {
        "first_trial_startup_s": round(times[0], 4),
        "further_trial_startup_s": round(statistics.median(times[1:]), 4),
    }


def main() -> None:
    """Time the three and print them."""
    options = arguments(__doc__ or "")
    runs = 5 if options.quick else 21
    taskfit = str(Path(sys.executable).with_name("taskfit"))
    figures: dict[str, object] = {
        "bare_python_s": round(median_s([sys.executable, "-c", "pass"], runs), 4),
        "import_taskfit_s": round(median_s([sys.executable, "-c", "import taskfit"], runs), 4),
        "help_s": round(median_s([taskfit, "--help"], runs), 4),
    }
    figures |= trial_startup(3 if options.quick else 11)
    for name, value in figures.items():
        print(f"{name:26} {value}")
    finish("startup", [], figures)


if __name__ == "__main__":
    main()
