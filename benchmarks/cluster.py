"""How much faster are two Ray workers than one? The same rows, the same bytes, seconds on the clock of an idle machine.

The predictor is the fine-tuned MiniLM of ``bulk_prediction.py``, which must have run before (``--quick`` is enough);
workers are started and load the model before the clock starts.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

from common import ROOT, arguments, finish

from taskfit.serving.bulk import predict_rows

SHARD_ROWS = 128


def main() -> None:
    """Predict with one worker and with two, and print the last line."""
    quick = arguments(__doc__ or "").quick
    folder = ROOT / "build" / "benchmarks" / ("bulk-quick" if quick else "bulk")
    if not (folder / "encoder" / "predictor.json").is_file():
        raise SystemExit("run benchmarks/bulk_prediction.py first: it fits the predictor")
    count = 256 if quick else 4_096
    rows = folder / "cluster.jsonl"
    with (folder / "many.jsonl").open(encoding="utf-8") as file:
        rows.write_text("".join(line for line, _ in zip(file, range(count), strict=False)), encoding="utf-8")
    seconds, digests = {}, {}
    for workers in (1, 2):
        seconds[workers], digests[workers] = timed(folder / "encoder", rows, folder / f"cluster-{workers}", workers)
        print(f"{workers} workers: {count / seconds[workers]:.1f} rows a second", flush=True)
    finish(
        "cluster",
        [0],
        {
            "rows": count,
            "rows_per_s": {str(workers): round(count / spent, 1) for workers, spent in seconds.items()},
            "speedup_of_two": round(seconds[1] / seconds[2], 2),
            "same_bytes": digests[1] == digests[2],
        },
    )


def timed(predictor: Path, rows: Path, out: Path, workers: int) -> tuple[float, str]:
    """Return the seconds that these workers took, and a digest of the shards."""
    import ray

    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    few = rows.with_name("cluster-warm.jsonl")
    with rows.open(encoding="utf-8") as file:
        few.write_text("".join(line for line, _ in zip(file, range(4 * workers), strict=False)), encoding="utf-8")
    try:
        for path, shard_rows in ((few, 1), (rows, SHARD_ROWS)):
            shutil.rmtree(out, ignore_errors=True)
            started = time.monotonic()
            predict_rows(predictor, path, out, shard_rows=shard_rows, cluster="local")
            spent = time.monotonic() - started
    finally:
        ray.shutdown()
    digest = hashlib.sha256()
    for path in sorted(out.glob("part-*.parquet")):
        digest.update(path.read_bytes())
    return spent, digest.hexdigest()


if __name__ == "__main__":
    main()
