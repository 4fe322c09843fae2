"""Millions of rows: rows a second, points lost and peak memory, beside a transformers pipeline.

One MiniLM is fine-tuned on news, reviews and requests to a bank together (86 labels). Then the same rows go through

- a transformers pipeline for text classification, batches of 32, in float32 and in bfloat16,
- sentence-transformers (batches of 32, sorted by its own) with the same head behind it,
- ``predict_rows``, from the file of rows to the shards,

each with one thread, in turns, and what counts is processor time: ratios of it hold on a busy machine. All rows differ:
repeated texts get a number and a word of another text, so that what is asked twice does not flatter. Accuracy is
compared on test rows as they are. Peak memory is that of processes of their own, 10,000 against a million rows through
the cheapest predictor.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import ROOT, arguments, finish, shared

SETS = {
    "ag_news": ("news", "title", "text", "label"),
    "amazon_reviews": ("review", "title", "text", "label"),
    "banking77": ("bank", "text", "category"),
}
"""Name to the word before its labels, the fields of its text and that of its label."""

TASK = """
name: three-sets
kind: classification
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
input: "{{ text }}"
target: "{{ label }}"
metrics: [accuracy]
faulty_rows: drop
"""
MAX_TOKENS = 256
TURNS = 2


def read(name: str, split: str) -> Iterator[tuple[str, str]]:
    """Yield text and label of every row of a shared data set."""
    folder = shared(name)
    path = next(folder.glob(f"{split}.jsonl*"))
    word, *texts, label = SETS[name]
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield "\n".join(row[text] for text in texts), f"{word} {row[label]}"


def prepare(folder: Path, train_rows: int, many: int) -> None:
    """Write the task, and ``many.jsonl``: rows that all differ, in the mixture of the three sets."""
    chance = random.Random(0)
    rows = {split: [row for name in SETS for row in read(name, split)] for split in ("train", "test")}
    for split in rows:
        chance.shuffle(rows[split])
    parts = {
        "train": rows["train"][:train_rows],
        "validation": rows["train"][8_000:9_500],
        "test": rows["test"],
    }
    for name, part in parts.items():
        lines = (json.dumps({"id": f"{name}{n}", "text": text, "label": label}) for n, (text, label) in enumerate(part))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")
    pool = rows["test"] + rows["train"][train_rows:]
    with (folder / "many.jsonl").open("w", encoding="utf-8") as file:
        for number in range(many):
            text = pool[number % len(pool)][0]
            if number >= len(pool):
                words = text.split(" ")
                words[chance.randrange(len(words))] = chance.choice(chance.choice(pool)[0].split(" "))
                text = " ".join(words) + f" {number // len(pool)}"
            file.write(json.dumps({"id": str(number), "text": text}) + "\n")


def fitted(folder: Path, strategy: str, model: str | None) -> Path:
    """Fit once; later runs find the predictor."""
    from taskfit.studies.fit import fit

    out = folder / strategy.partition("(")[0]
    if not out.exists():
        fit(folder / "task.yaml", strategy, model=model, out=out, seed=0, retain=("none",), say=print)
    return out


def head_of(rows: Path, count: int, into: Path) -> Path:
    """Write the first rows into a file of their own."""
    with rows.open(encoding="utf-8") as file:
        into.write_text("".join(line for line, _ in zip(file, range(count), strict=False)), encoding="utf-8")
    return into


def texts_of(path: Path) -> list[str]:
    """The texts of a file of rows."""
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def pipeline_of(predictor: Path, dtype: str) -> Callable[[list[str]], list[int]]:
    """A transformers pipeline of the same weights: the encoder, its mean of hidden states, and the head."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.models.bert.modeling_bert import BertForSequenceClassification, SequenceClassifierOutput
    from transformers.pipelines import TextClassificationPipeline

    weight, bias = head(predictor)

    class MeanPooled(BertForSequenceClassification):
        """The library's own classifier but for the pooling, which is that of the fitted predictor."""

        def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
            hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return SequenceClassifierOutput(logits=self.classifier((hidden * mask).sum(1) / mask.sum(1)))

    body = AutoModel.from_pretrained(predictor, dtype=getattr(torch, dtype), add_pooling_layer=False)
    body.config.num_labels = len(bias)
    model = MeanPooled(body.config).to(getattr(torch, dtype)).eval()
    model.bert = body.eval()
    model.classifier.weight.data, model.classifier.bias.data = weight.to(body.dtype), bias.to(body.dtype)
    tokenizer = AutoTokenizer.from_pretrained(predictor)
    pipeline = TextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu")

    def run(texts: list[str]) -> list[int]:
        found = pipeline(texts, batch_size=32, truncation=True, max_length=MAX_TOKENS)
        return [int(one["label"].removeprefix("LABEL_")) for one in found]

    return run


def sentence_transformer_of(predictor: Path) -> Callable[[list[str]], list[int]]:
    """sentence-transformers with the same weights, and the head behind its vectors."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    weight, bias = head(predictor)
    body = Transformer(str(predictor), max_seq_length=MAX_TOKENS, model_kwargs={"dtype": torch.float32})
    model = SentenceTransformer(modules=[body, Pooling(weight.shape[1], "mean")], device="cpu")

    def run(texts: list[str]) -> list[int]:
        vectors = model.encode(texts, batch_size=32, convert_to_tensor=True)
        return (vectors @ weight.T + bias).argmax(1).tolist()

    return run


def head(predictor: Path) -> tuple[Any, Any]:
    """Weight and bias of the linear layer."""
    from safetensors.torch import load_file

    values = load_file(predictor / "head.safetensors")
    return values["weight"].float(), values["bias"].float()


def seconds_per_row(engines: dict[str, tuple[Callable[[Path], Any], Path]], turns: int) -> dict[str, float]:
    """Least processor time a row of each engine, over turns; an engine takes the path of a file of rows."""
    best: dict[str, float] = {}
    for _ in range(turns):
        for name, (engine, path) in engines.items():
            rows = sum(1 for _ in path.open(encoding="utf-8"))
            started = time.process_time()
            engine(path)
            spent = (time.process_time() - started) / rows
            best[name] = min(spent, best.get(name, spent))
            print(f"{name}: {1 / spent:.1f} rows a second of one thread", flush=True)
    return best


def ours(predictor: Path, folder: Path) -> Callable[[Path], Path]:
    """Rows to shards, in a new folder each time."""
    from taskfit.serving.bulk import predict_rows

    def run(rows: Path) -> Path:
        out = folder / "out" / f"{predictor.name}-{time.monotonic_ns()}"
        predict_rows(predictor, rows, out)
        return out

    return run


def answers(out: Path) -> list[str]:
    """What was written, in order."""
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    return [answer for table in tables for answer in table["answer"].to_pylist()]


def peak_mib(predictor: Path, rows: Path, out: Path) -> float:
    """Peak memory of a process that predicts the rows."""
    # not ru_maxrss, which a new process takes over from the one that started it
    code = (
        "import sys; from taskfit.serving.bulk import predict_rows; predict_rows(*sys.argv[1:4]);"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    command = [sys.executable, "-c", code, str(predictor), str(rows), str(out)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) / 1024


def main() -> None:
    """Run everything and print the last line."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()  # what it says of a class that it does not know
    quick = arguments(__doc__ or "").quick
    torch.set_num_threads(1)
    folder = ROOT / "build" / "benchmarks" / ("bulk-quick" if quick else "bulk")
    folder.mkdir(parents=True, exist_ok=True)
    many, tested, few = (400, 100, 32) if quick else (200_000, 1_200, 192)
    if not (folder / "many.jsonl").is_file():
        prepare(folder, 300 if quick else 6_000, many)
    steps = ",max_steps=4,min_steps=1" if quick else ""
    encoder = fitted(folder, f"encoder(epochs=1,batch=48{steps})", "minilm")
    static = fitted(folder, "static", "minilm")
    labels = json.loads((encoder / "predictor.json").read_text(encoding="utf-8"))["definition"]["labels"]
    small = head_of(folder / "many.jsonl", few, folder / "few.jsonl")
    medium = head_of(folder / "many.jsonl", few * (4 if quick else 12), folder / "medium.jsonl")
    large = head_of(folder / "many.jsonl", 400 if quick else 20_000, folder / "large.jsonl")
    own, cheap = ours(encoder, folder), ours(static, folder)
    pipelines = {dtype: pipeline_of(encoder, dtype) for dtype in ("float32", "bfloat16")}
    sentences = sentence_transformer_of(encoder)
    engines: dict[str, tuple[Callable[[Path], Any], Path]] = {
        "ours": (own, medium),
        "pipeline float32": (lambda path: pipelines["float32"](texts_of(path)), small),
        "pipeline bfloat16": (lambda path: pipelines["bfloat16"](texts_of(path)), small),
        "sentence-transformers": (lambda path: sentences(texts_of(path)), small),
        "static student": (cheap, large),
    }
    spent = seconds_per_row(engines, 1 if quick else TURNS)
    test = head_of(folder / "test.jsonl", tested, folder / "tested.jsonl")
    gold = [json.loads(line)["label"] for line in test.read_text(encoding="utf-8").splitlines()]
    theirs = [labels[index] for index in pipelines["float32"](texts_of(test))]
    mine = answers(own(test))
    right = [sum(a == b for a, b in zip(found, gold, strict=True)) / len(gold) for found in (theirs, mine)]
    lines = [10_000, 20_000] if quick else [10_000, 1_000_000]
    peaks = []
    majority = fitted(folder, "majority", None)
    for count in lines:
        path = folder / f"rows-{count}.jsonl"
        path.write_text("".join(f'{{"id": "{n}", "text": "row number {n} of many"}}\n' for n in range(count)))
        peaks.append(peak_mib(majority, path, folder / "out" / f"memory-{count}-{time.monotonic_ns()}"))
    base = spent["pipeline float32"]
    finish(
        "bulk_prediction",
        [0],
        {
            "speedup_vs_pipeline": round(base / spent["ours"], 2),
            "speedup_vs_pipeline_bfloat16": round(spent["pipeline bfloat16"] / spent["ours"], 2),
            "speedup_vs_sentence_transformers": round(spent["sentence-transformers"] / spent["ours"], 2),
            "accuracy_loss_points": round(100 * (right[0] - right[1]), 3),
            "static_speedup_vs_pipeline": round(base / spent["static student"], 1),
            "memory_growth_ratio": round(peaks[1] / peaks[0], 3),
            "peak_mib": [round(peak) for peak in peaks],
            "memory_rows": lines,
            "accuracy": [round(share, 4) for share in right],
            "answers_that_agree": round(sum(a == b for a, b in zip(theirs, mine, strict=True)) / len(gold), 4),
            "rows_tested": len(gold),
            "rows_per_cpu_second": {name: round(1 / seconds, 1) for name, seconds in spent.items()},
            "rows_timed": {name: sum(1 for _ in path.open()) for name, (_, path) in engines.items()},
            "threads": 1,
        },
    )


if __name__ == "__main__":
    main()
