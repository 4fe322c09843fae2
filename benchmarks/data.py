"""What tuning trains on, on real data: packed text, continued pre-training, mixtures, wordings, rationales.

Questions: is the loss of packed texts that of each by itself; how full are sequences, and what does that save; does the
perplexity of held-out text fall; does every pass of a mixture hold the shares that the formula gives?

    python -m benchmarks.data [--quick]
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from benchmarks.common import arguments, finish, shared
from taskfit.models import load
from taskfit.models.language_model import LanguageModel
from taskfit.prompting.shots import ZeroShot
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.tasks import load_task
from taskfit.tasks.text import documents_of
from taskfit.tuning.answers import mean_loss
from taskfit.tuning.examples import Example
from taskfit.tuning.full import Full
from taskfit.tuning.packing import pack, packed_example, pieces_of, unpacked
from taskfit.tuning.training_set import build_training_set

MIXED = {
    "trec": ("text", "coarse_label", "train.jsonl", None, "test.jsonl"),
    "rte": ("'{{ premise }} {{ hypothesis }}'", "label", "train.jsonl", "validation.jsonl", None),
    "cb": ("'{{ premise }} {{ hypothesis }}'", "label", "train.jsonl", "validation.jsonl", None),
}
CAP = 3000


def main() -> None:
    """Run all parts and print the last line."""
    quick = arguments(__doc__ or "").quick
    torch.set_num_threads(1)
    model = load("taskfit-tiny", dtype="float32", device="cpu")
    figures: dict[str, object] = {}
    figures["packing"] = packing(model, 40 if quick else 320)
    figures["perplexity"] = {
        name: perplexity(name, 20 if quick else 100)
        for name in ("plain_text", "corpus_peps", "corpus_biomed")[2 if quick else 0 :]
    }
    figures["mixture"] = mixture(model)
    figures["rationales"] = rationales(model, 200 if quick else 2000)
    finish("data", [0], figures)


def packing(model: LanguageModel, count: int) -> dict[str, object]:
    """Compare packed texts with single ones: loss of each sequence, fill, processor time of a forward pass."""
    path = shared("corpus_biomed") / "validation.jsonl"
    documents = documents_of(str(path), None, "text")[:count]
    length = 512
    pieces = [piece for document in documents for piece in pieces_of(model, document, length)]
    groups = pack([len(piece) for piece in pieces], length)
    packed = [packed_example(str(n), [pieces[i] for i in group]) for n, group in enumerate(groups)]
    differences = []
    for example in [one for one in packed if len(one.documents) > 1][:20]:
        together, apart = mean_loss(model, [example]), mean_loss(model, unpacked(example))
        differences.append(abs(together - apart) / apart)
    sample = packed[-32:]  # sequences of many short texts
    alone = [one for example in sample for one in unpacked(example)]
    found = {
        "documents": len(documents),
        "pieces": len(pieces),
        "sequences": len(packed),
        "fill": round(sum(map(len, pieces)) / (len(packed) * length), 4),
        "largest_relative_difference": max(differences),
        "cpu_s_packed": round(cpu_s(model, sample), 2),
        "cpu_s_single_texts_by_length": round(cpu_s(model, alone), 2),
    }
    print(f"packing: {found}")
    return found


def cpu_s(model: LanguageModel, examples: list[Example]) -> float:
    """Processor seconds of the loss of all examples, one thread."""
    start = time.process_time()
    mean_loss(model, examples)
    return time.process_time() - start


def perplexity(name: str, count: int) -> dict[str, object]:
    """Continue pre-training on a part of a real corpus; perplexity of held-out text before and after."""
    path = next(iter(sorted(shared(name).glob("train.jsonl*"))))
    documents = documents_of(str(path), None, "text")[:count]
    with tempfile.TemporaryDirectory() as folder:
        rows = "".join(json.dumps({"text": document.text[:2000]}) + "\n" for document in documents)
        (Path(folder) / "text.jsonl").write_text(rows, encoding="utf-8")
        task_path = Path(folder) / "task.yaml"
        task_path.write_text(task_text(*MIXED["trec"], name="trec"), encoding="utf-8")
        task = load_task(task_path)
        strategy = parse("continued-pretraining(text=text.jsonl, length=256, epochs=1, min_steps=8, batch=8)")
        said: list[str] = []
        fresh = load("taskfit-tiny", dtype="float32", device="cpu")
        start = time.process_time()
        prepared = ZeroShot().prepare(task, seed=0)
        strategy.weights.change(fresh, task, prepared, seed=0, budget=Budget(say=said.append))  # type: ignore[attr-defined]
    line = next(line for line in said if line.startswith("perplexity"))
    before, after = map(float, re.findall(r"[:,] ([\d.]+) (?:before|after)", line))
    taken = round(time.process_time() - start, 1)
    found = {"documents": len(documents), "before": before, "after": after, "cpu_s": taken}
    print(f"{name}: {next(line for line in said if 'documents of' in line)}")
    print(f"{name}: {line}")
    return found


def mixture(model: LanguageModel) -> dict[str, object]:
    """Build a mixture of three real tasks and count what its passes hold, against the formula."""
    with tempfile.TemporaryDirectory() as folder:
        for name, source in MIXED.items():
            (Path(folder) / f"{name}.yaml").write_text(task_text(*source, name=name), encoding="utf-8")
        path = Path(folder) / "trec.yaml"
        path.write_text(
            path.read_text(encoding="utf-8") + f"mixture: {{tasks: [rte.yaml, cb.yaml], cap: {CAP}}}\n",
            encoding="utf-8",
        )
        task = load_task(path)
        sizes = {name: len(load_task(Path(folder) / f"{name}.yaml").train) for name in MIXED}
        data = build_training_set(
            model, task, ZeroShot().prepare(task, seed=0), Full(train_on="mixture", epochs=1, min_steps=0), seed=0
        )
    assert data.order is not None
    drawn = Counter(
        row.split("/")[0] if "/" in (row := data.examples[index].row_id) else "trec"
        for index in data.order[: data.pass_size]
    )
    whole = sum(min(size, CAP) for size in sizes.values())
    found = {
        name: {
            "rows": size,
            "share": round(drawn[name] / data.pass_size, 4),
            "formula": round(min(size, CAP) / whole, 4),
        }
        for name, size in sizes.items()
    }
    print(f"mixture: {found}")
    return dict(found)


def rationales(model: LanguageModel, count: int) -> dict[str, object]:
    """Count what a task with recorded rationales is learned from."""
    folder = shared("distill_cqa")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "task.yaml"
        path.write_text(
            f"name: cqa\nkind: choice\ninput: question\noptions: choices\ntarget: answer\nrationale: llm_rationale\n"
            f"data: {{train: {folder}/train.jsonl.gz, test: {folder}/test.jsonl.gz}}\nfaulty_rows: drop\n",
            encoding="utf-8",
        )
        from taskfit.tasks import take_train

        task = take_train(load_task(path), count, 0)
        data = build_training_set(model, task, ZeroShot().prepare(task, seed=0), Full(rationale=1.0), seed=0)
    reasons = [example for example in data.examples if example.row_id.endswith("rationale")]
    answers = [example for example in data.examples if not example.row_id.endswith("rationale")]
    weights = {sum(one.weight * one.learned for one in part) for part in (reasons, answers)}
    found: dict[str, object] = {
        "answers": len(answers),
        "rationales": len(reasons),
        "answer_tokens": sum(one.learned for one in answers),
        "rationale_tokens": sum(one.learned for one in reasons),
        "both_weigh_the_same": max(weights) - min(weights) < 1e-6 * max(weights),
    }
    print(f"rationales: {found}")
    return found


def task_text(text: str, target: str, train: str, validation: str | None, test: str | None, *, name: str) -> str:
    """Return the task file of a shared classification set."""
    folder = shared(name)
    splits = {"train": train, "validation": validation, "test": test}
    data = ", ".join(f"{split}: {folder / file}" for split, file in splits.items() if file is not None)
    return f"name: {name}\nkind: classification\ninput: {text}\ntarget: {target}\ndata: {{{data}}}\n"


if __name__ == "__main__":
    main()
