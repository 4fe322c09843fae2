"""Is an answer ever paid for twice? Annotation killed at 50 random moments against a service that counts its calls."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from common import ROOT, arguments, finish

sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)  # for the processes that are killed

from tests.distillation.test_killed import ROWS, check, kill_at_random, write_task


def main() -> None:
    """Kill, count, check."""
    kills = 12 if arguments(str(__doc__)).quick else 50
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.distillation.kill_worker"])
    with tempfile.TemporaryDirectory() as folder:
        task = write_task(Path(folder))
        asked = kill_at_random(task, Path(folder) / "out", kills, context, seed=1)
        check(Path(folder) / "out", asked, kills)
    again = asked.total() - ROWS
    print(f"{kills} kills: {ROWS} rows labelled once each; {again} calls under way at a kill were made again")
    finish("annotate_kills", [1], {"kills": kills, "rows": ROWS, "calls": asked.total(), "calls_made_again": again})


if __name__ == "__main__":
    main()
