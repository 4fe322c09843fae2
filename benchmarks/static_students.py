"""The static student beside model2vec: the same encoder, the same rows, logistic regression over the mean of vectors.

Accuracy of both on three sets, paired by row, rows of a second of one thread, and the seconds of taking the vectors.
The peer is no part of the project: ``pip install --no-deps model2vec==0.10.0 skeletoken==0.6.1`` (its own pins hold
transformers back); without it ours runs alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import arguments, finish, shared

from taskfit.evaluation.metrics import score
from taskfit.evaluation.outcomes import Outcomes, outcomes, outcomes_of
from taskfit.evaluation.paired import compare_paired
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.tasks import load_task, take_rows
from taskfit.tasks.task import Row, Task

TASK = """
name: {name}
kind: classification
data: {{train: "{folder}/train.jsonl*", test: "{folder}/test.jsonl*"}}
input: "{{{{ {text} }}}}"
target: "{{{{ {label} }}}}"
metrics: [accuracy]
"""
SETS = {"ag_news": ("text", "label"), "banking77": ("text", "category"), "sst2": ("sentence", "label")}
STRENGTHS = (1.0, 10.0, 100.0)


def task_of(name: str, train: int, test: int) -> Task:
    """Return a set with samples of its rows."""
    text, label = SETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.yaml"
        path.write_text(TASK.format(name=name, folder=shared(name), text=text, label=label), encoding="utf-8")
        task = load_task(path)
    sizes = {"train": min(train, len(task.train)), "test": min(test, len(task.test))}
    drawn = {
        split: take_rows(task.definition, getattr(task, split), size, 0, of=split) for split, size in sizes.items()
    }
    return replace(task, splits={**task.splits, **drawn})


def ours(task: Task) -> tuple[Outcomes, float, float]:
    """Return the outcomes, seconds of fitting and of predicting."""
    from taskfit.models import load

    model, started = load("minilm"), time.process_time()
    predictor = parse("static").fit(model, task, seed=0, budget=Budget())
    fitted = time.process_time()
    found = list(predictor.predict(task.test))
    ended = time.process_time()
    return outcomes_of(task.definition, task.test, found), fitted - started, ended - fitted


def theirs(task: Task) -> tuple[Outcomes, float, float]:
    """Return the same of model2vec's vectors; the head is scikit-learn's, its strength chosen as ours is."""
    from model2vec.distill import distill
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    from taskfit.models.table import known_folder

    started = time.process_time()
    model = distill(str(known_folder("minilm")), pca_dims=256)
    (x, y), (held, gold) = ((_vectors(model, task, rows), _golds(task, rows)) for rows in (task.train, task.validation))
    heads = [LogisticRegression(C=strength, max_iter=2000).fit(x, y) for strength in STRENGTHS]
    head = min(heads, key=lambda one: log_loss(gold, one.predict_proba(held), labels=one.classes_))
    fitted = time.process_time()
    answers = head.predict(_vectors(model, task, task.test))
    ended = time.process_time()
    ids, golds = [row.id for row in task.test], [(one,) for one in _golds(task, task.test)]
    found = outcomes("classification", ids, golds, list(map(str, answers)), labels=task.definition.labels)
    return found, fitted - started, ended - fitted


def _vectors(model: object, task: Task, rows: Sequence[Row]) -> object:
    return model.encode([task.definition.input_text(row) for row in rows])  # type: ignore[attr-defined]


def _golds(task: Task, rows: Sequence[Row]) -> list[str]:
    return [task.definition.gold(row)[0] for row in rows]


def compared(name: str, train: int, test: int, *, has_peer: bool) -> dict[str, object]:
    """Return both sides' figures of one set."""
    task = task_of(name, train, test)
    found, fit_s, predict_s = ours(task)
    figures: dict[str, object] = {
        "train": len(task.train),
        "test": len(task.test),
        "ours": round(score("accuracy", found), 4),
        "ours_fit_s": round(fit_s, 1),
        "ours_rows_per_s": round(len(found) / predict_s),
    }
    if has_peer:
        other, fit_s, predict_s = theirs(task)
        paired = compare_paired("accuracy", [found], [other])
        figures |= {
            "model2vec": round(paired.value_b, 4),
            "model2vec_fit_s": round(fit_s, 1),
            "model2vec_rows_per_s": round(len(other) / predict_s),
            "difference": [round(x, 4) for x in (paired.difference, paired.low, paired.high)],
        }
    return figures


def main() -> None:
    """Compare on all sets."""
    quick = arguments(str(__doc__).splitlines()[0]).quick
    import torch

    torch.set_num_threads(1)
    try:
        import model2vec  # noqa: F401
    except ImportError:
        print("model2vec is not installed: ours alone")
        has_peer = False
    else:
        has_peer = True
    names, train, test = (["sst2"], 200, 300) if quick else (list(SETS), 2000, 2000)
    table = {}
    for name in names:
        table[name] = compared(name, train, test, has_peer=has_peer)
        print(name, table[name], flush=True)
    finish("static_students", [0], {"table": table})


if __name__ == "__main__":
    main()
