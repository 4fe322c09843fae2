"""The shards of a run on a Ray cluster, or on this machine as if it were one: same files, same bytes.

The driver reads, cuts and writes; workers predict whole shards, with one thread each. A worker that dies costs its
shard's time: Ray gives the shard to another, and its bytes do not depend on who predicts it. Few shards are under way
at once, so memory does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskfit.errors import MissingExtraError, ResourceError, TaskfitError
from taskfit.serving.output import write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taskfit.serving.bulk import Shard
    from taskfit.serving.questions import Unread
    from taskfit.serving.shard import Answered
    from taskfit.strategy.contract import Predictor
    from taskfit.tasks.task import Row

__all__ = ["predict_on_cluster"]

_SHARDS_A_WORKER = 2  # one is predicted, one waits
_MOST_RETRIES = 20
"""Times that a shard is given to another worker after its own has died: then the shard itself is to blame."""

_loaded: dict[tuple[str, str | None], Predictor] = {}  # in a worker: it predicts many shards


def predict_on_cluster(
    address: str,
    folder: Path,
    model: str | None,
    out: Path,
    shards: Iterable[Shard],
    on_rows: Callable[[int], None] = lambda count: None,
) -> None:
    """Predict shards with the workers of a cluster and write them here.

    Args:
        address: ``local``: start workers on this machine for as long as the run lasts; else where the cluster is, such
            as ``ray://host:10001`` or ``auto``.
        folder: the predictor's, which every machine must see under this path.
        model: the base model, where the user named one.
        out: folder of the shards.
        shards: those to predict.
        on_rows: told how many more rows are done.

    Raises:
        MissingExtraError: Ray is not installed.
        ResourceError: the cluster cannot be reached, or the workers of one shard die again and again.
    """
    with _connected(address) as ray:
        options = {"num_cpus": 1, "max_retries": _MOST_RETRIES}
        answer = ray.remote(**options)(_answer)
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        coming = iter(shards)
        running: dict[Any, Shard] = {}
        while True:
            while len(running) < _SHARDS_A_WORKER * workers and (shard := next(coming, None)) is not None:
                running[answer.remote(str(folder.resolve()), model, shard.rows)] = shard
            if not running:
                return
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            shard = running.pop(done)
            write_shard(out, shard.number, shard.rows, _got(ray, done))
            on_rows(len(shard.rows))


def _answer(folder: str, model: str | None, rows: list[Row | Unread]) -> list[Answered]:
    """Predict one shard, in a worker."""
    from pathlib import Path

    import torch

    from taskfit.serving.bulk import load
    from taskfit.serving.shard import predict_shard

    torch.set_num_threads(1)
    if (folder, model) not in _loaded:
        _loaded[folder, model] = load(Path(folder), model)
    return predict_shard(_loaded[folder, model], rows)


def _got(ray: Any, done: Any) -> list[Answered]:
    """Return a shard's answers, or raise what its worker raised."""
    try:
        answers: list[Answered] = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TaskfitError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise ResourceError(
            f"the cluster lost a shard {_MOST_RETRIES} times: {str(error).splitlines()[0]}",
            "Have the workers enough memory? What is done is kept: run the same command again.",
        ) from error
    return answers


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise MissingExtraError(
            "--cluster needs the package ray, which is not installed. Run: pip install 'taskfit[cluster]'"
        ) from None
    settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    settings |= {"include_dashboard": False} if address == "local" else {}
    is_ours = not ray.is_initialized()
    try:
        if is_ours:
            ray.init(address=address, **settings)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise ResourceError(
            f"the cluster {address!r} cannot be reached: {error}", "Give local or its address."
        ) from error
    try:
        yield ray
    finally:
        if is_ours:
            ray.shutdown()
