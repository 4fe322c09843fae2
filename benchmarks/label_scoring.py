"""How fast are labels scored, against lm-evaluation-harness, a plain loop, and what the machine could do?

A decoder of SmolLM2-135M's shape with random weights (drawn so that labels differ by some nats), a byte-level BPE
tokenizer trained on the two data sets, float32 on all sides. Each prompt is eight worked examples, about 800 tokens,
and a row of about 40. lm-evaluation-harness and the loop do the same work for every row, so they run on a few rows
(``--slow-rows`` for 4 and 77 labels), whose times are printed, and on all with ``--full``. Runs alternate: some slow
rows, all of ours, the other slow rows; and the machine's rate of multiplying matrices is measured between them.

The bound is the time that the operations that must be done (shared ones once, output layer only where something is
predicted) take at the rate of multiplying matrices that the machine kept up for a second before and after our run.
With ``--clock cpu`` processor seconds of one thread are counted instead of seconds on the wall, for a machine that
others use too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import ROOT, finish, shared

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tokenising is counted, on the same thread for everyone

SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
SMALL = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 3}
LOOP_LABELS = 12  # of a row, at most
SPREAD = 0.05  # standard deviation of the weights
PREFIX_TOKENS, ROW_TOKENS, SHOTS = 800, 40, 8
SEED = 0


@dataclass
class Question:
    """A data set as prompts: worked examples and rows as (text before the answer, answer), and the labels."""

    name: str
    shots: list[tuple[str, str]]
    rows: list[str]
    labels: list[str]

    def context(self, row: str) -> str:
        """Return the prompt's text, as both sides read it."""
        return "\n\n".join([*(f"{text} {label}" for text, label in self.shots), row])


@dataclass
class Timed:
    """Seconds and scores of one way, row by row where it goes row by row."""

    seconds: list[float] = field(default_factory=list)
    scores: dict[int, list[float]] = field(default_factory=dict)
    memory_mb: int = 0

    @property
    def rate(self) -> float:
        """Rows a second."""
        return len(self.scores) / sum(self.seconds)


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller model, under a minute")
    parser.add_argument("--full", action="store_true", help="the slow ways too on all rows: hours")
    parser.add_argument("--rows", type=int, default=200, help="rows for our engine, at least 200 for a verdict")
    parser.add_argument("--slow-rows", type=int, nargs=2, default=(6, 2), help="for the slow ways at 4 and 77 labels")
    parser.add_argument("--lm-eval-batch", type=int, nargs="+", default=(1, 8), help="the fastest counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    chosen = parser.parse_args()
    if chosen.clock == "cpu" and chosen.threads != 1:
        parser.error("--clock cpu needs --threads 1: waiting threads count as busy ones")
    return chosen


def read(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a JSON lines file, compressed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


TOPICS = {"World": "World politics", "Science or Technology": "Science and technology"}


def ag_news(split: str) -> list[tuple[str, str]]:
    """Return questions and answers of a split, the labels worded as in promptsource (Bach et al. 2022)."""
    return [
        (f"{row['title']}. {row['text']}\nTopic:", TOPICS.get(row["label"], row["label"]))
        for row in read(shared("ag_news") / f"{split}.jsonl.gz")
    ]


def banking77(split: str) -> list[tuple[str, str]]:
    """Return questions and answers of a split."""
    file = shared("banking77") / ("train.jsonl.gz" if split == "train" else "test.jsonl")
    return [(f"Customer: {row['text']}\nIntent:", row["category"].replace("_", " ").lower()) for row in read(file)]


def model_folder(quick: bool, texts: Callable[[], Iterator[str]]) -> Path:
    """Return the folder of the model, made when it is not there: random weights, a tokenizer trained on texts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = 4096 if quick else 49152
    folder = ROOT / "build" / "benchmarks" / f"label_scoring-{vocabulary}"
    if (folder / "config.json").exists():
        return folder
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", model_max_length=2048
    ).save_pretrained(folder)
    shape = SMALL if quick else SHAPE
    torch.manual_seed(SEED)
    config = LlamaConfig(
        **shape,
        num_key_value_heads=shape["num_attention_heads"] // 3,
        vocab_size=vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=SPREAD,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def question(name: str, tokenizer: Any, number: int) -> Question:
    """Choose rows and worked examples by their length in tokens, nearest to what is wanted."""
    read_split = ag_news if name == "ag_news" else banking77
    train, test = read_split("train"), read_split("test")

    def nearest(pairs: list[tuple[str, str]], wanted: float, count: int) -> list[tuple[str, str]]:
        sizes = [len(ids) for ids in tokenizer([text for text, _ in pairs], add_special_tokens=False)["input_ids"]]
        return [pairs[i] for i in sorted(range(len(pairs)), key=lambda i: (abs(sizes[i] - wanted), i))[:count]]

    labels = sorted({label for _, label in train})
    shots = nearest(train, PREFIX_TOKENS / SHOTS - 4, SHOTS)
    return Question(name, shots, [text for text, _ in nearest(test, ROW_TOKENS, number)], labels)


class Clock:
    """Seconds of the chosen kind."""

    def __init__(self, kind: str) -> None:
        self._now = time.process_time if kind == "cpu" else time.perf_counter

    def time(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Return seconds and result."""
        started = self._now()
        result = work()
        return self._now() - started, result

    def measure_peak(self) -> float:
        """Multiply large matrices for about a second; return FLOP/s."""
        import torch

        size, count = 2048, 8
        left, out = torch.randn(size, size), torch.empty(size, size)
        torch.mm(left, left, out=out)
        seconds, _ = self.time(lambda: [torch.mm(left, left, out=out) for _ in range(count)])
        return 2 * count * size**3 / seconds


def peak_memory_mb(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return a result and the most memory that the process had meanwhile (Linux; else 0)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
    except OSError:
        return work(), 0
    result = work()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return result, int(line.split()[1]) // 1024


def ours(model: Any, asked: Question, clock: Clock) -> tuple[Timed, Any]:
    """Score all rows in one call, tokenising included; return also what was computed."""
    from taskfit.inference.requests import Score
    from taskfit.inference.torch_engine import TorchEngine
    from taskfit.tasks.prompt import Prompt, Shot

    shots = tuple(Shot(text, label) for text, label in asked.shots)
    requests = [Score(Prompt(row, shots), tuple(asked.labels)) for row in asked.rows]
    engine = TorchEngine(model)
    (seconds, responses), memory = peak_memory_mb(lambda: clock.time(lambda: engine.run(requests)))
    assert not engine.notes, engine.notes
    return Timed([seconds], {i: list(r.logprobs) for i, r in enumerate(responses)}, memory), engine.work


def harness_of(model: Any, batch: int) -> Any:
    """Return lm-evaluation-harness around the same module, at its default settings otherwise."""
    import logging

    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return HFLM(pretrained=model.module, tokenizer=model.tokenizer, batch_size=batch, device="cpu", max_length=2048)


def lm_eval(harness: Any, asked: Question, row: int, clock: Clock, timed: Timed) -> None:
    """Score one row by lm-evaluation-harness's own call."""
    from lm_eval.api.instance import Instance

    context = asked.context(asked.rows[row])
    instances = [
        Instance(request_type="loglikelihood", doc={}, arguments=(context, f" {label}"), idx=i)
        for i, label in enumerate(asked.labels)
    ]
    (seconds, found), memory = peak_memory_mb(
        lambda: clock.time(lambda: harness.loglikelihood(instances, disable_tqdm=True))
    )
    timed.seconds.append(seconds)
    timed.scores[row] = [logprob for logprob, _ in found]
    timed.memory_mb = max(timed.memory_mb, memory)


def loop(model: Any, asked: Question, row: int, clock: Clock, timed: Timed) -> None:
    """Score one row with one plain pass a label, of which only what the label needs reaches the output layer."""
    import torch

    chosen = range(0, len(asked.labels), -(-len(asked.labels) // LOOP_LABELS))

    def score() -> list[float]:
        context = asked.context(asked.rows[row])
        start = len(model.tokenizer(context)["input_ids"])
        scores = [float("nan")] * len(asked.labels)
        for number in chosen:
            ids = torch.tensor([model.tokenizer(f"{context} {asked.labels[number]}")["input_ids"]])
            answer = ids[0, start:]
            with torch.no_grad():
                output = model.module(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=len(answer))
            scores[number] = float(output.logits[0].log_softmax(-1).gather(1, answer[:, None]).sum())
        return scores

    seconds, timed.scores[row] = clock.time(score)
    timed.seconds.append(seconds * len(asked.labels) / len(chosen))


def agreement(fast: Timed, slow: Timed) -> tuple[float, float]:
    """Return (share of rows with the same best label among those scored, largest difference of any score)."""
    same, gaps = [], []
    for row, scores in slow.scores.items():
        scored = [number for number, score in enumerate(scores) if score == score]  # not NaN
        best = max(scored, key=lambda number: scores[number])
        same.append(best == max(scored, key=lambda number: fast.scores[row][number]))
        gaps += [abs(scores[number] - fast.scores[row][number]) for number in scored]
    return sum(same) / len(same), max(gaps)


def run(model: Any, name: str, slow_rows: int, chosen: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Measure one data set; print and return its figures."""
    import torch

    from taskfit.costs.architecture import Architecture
    from taskfit.costs.flops import forward_flops

    asked = question(name, model.tokenizer, chosen.rows)
    prefix = len(model.tokenizer(asked.context(""))["input_ids"])
    sizes = [len(ids) for ids in model.tokenizer(asked.rows)["input_ids"]]
    tokens = [len(ids) for ids in model.tokenizer([f" {label}" for label in asked.labels])["input_ids"]]
    print(
        f"\n{name}: prefix {prefix} tokens, {len(sizes)} rows of {sum(sizes) / len(sizes):.1f}, "
        f"{len(tokens)} labels of {sum(tokens) / len(tokens):.1f}"
    )
    torch.set_num_threads(chosen.threads)
    by_batch = {batch: Timed() for batch in chosen.lm_eval_batch}
    looped = Timed()

    def slowly(row: int) -> None:
        for batch in chosen.lm_eval_batch if len(chosen.lm_eval_batch) == 1 or row == 0 else [fastest()]:
            lm_eval(harness_of(model, batch), asked, row, clock, by_batch[batch])
        loop(model, asked, row, clock, looped)

    def fastest() -> int:
        return max(by_batch, key=lambda batch: by_batch[batch].rate)

    before = max(slow_rows // 2, 1)
    for row in range(before):
        slowly(row)
    rates = [clock.measure_peak()]
    fast, work = ours(model, asked, clock)
    rates.append(clock.measure_peak())
    for row in range(before, slow_rows):
        slowly(row)
    peak = sum(rates) / 2
    harness = by_batch[fastest()]
    chosen.lm_eval_batch = [fastest()]  # the next data set need not find out again
    operations = sum(forward_flops(Architecture.from_config(model.module.config), work))
    agreed, gap = agreement(fast, harness)
    loop_agreed, loop_gap = agreement(fast, looped)
    single = sum(size == 1 for size in tokens)
    figures = {
        "labels": len(tokens),
        "prefix_tokens": prefix,
        "rows": len(fast.scores),
        "rows_per_s": round(fast.rate, 3),
        "lm_eval_rows_per_s": round(harness.rate, 5),
        "lm_eval_batch": fastest(),
        "lm_eval_passes_a_row": len(tokens) - single + min(single, 1),
        "lm_eval_s_a_row": [round(seconds, 2) for seconds in harness.seconds],
        "loop_rows_per_s": round(looped.rate, 5),
        "loop_s_a_row": [round(seconds, 2) for seconds in looped.seconds],
        "speedup_vs_lm_eval": round(fast.rate / harness.rate, 1),
        "speedup_vs_loop": round(fast.rate / looped.rate, 1),
        "tflop": round(operations / 1e12, 3),
        "peak_gflops": round(peak / 1e9, 1),
        "bound_rows_per_s": round(len(fast.scores) / (operations / peak), 3),
        "share_of_bound": round(operations / peak / sum(fast.seconds), 3),
        "agreement": min(agreed, loop_agreed),
        "max_logprob_difference": max(gap, loop_gap),
        "smallest_margin": round(min(_margin(scores) for scores in fast.scores.values()), 5),
        "memory_mb": fast.memory_mb,
        "lm_eval_memory_mb": harness.memory_mb,
    }
    for key, value in figures.items():
        print(f"  {key:24} {value}")
    return figures


def _margin(scores: list[float]) -> float:
    first, second = sorted(scores, reverse=True)[:2]
    return first - second


def main() -> None:
    """Run both data sets and print the last line."""
    chosen = options()
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        print("skipped: lm-evaluation-harness is not installed. Run: pip install -e '.[bench]'")
        print(json.dumps({"skipped": "lm-eval"}))
        sys.exit(0)
    import torch

    from taskfit.models import load

    torch.set_num_threads(chosen.threads)
    folder = model_folder(
        chosen.quick, lambda: (text for split in (ag_news("train"), banking77("train")) for text, _ in split)
    )
    model = load(folder, dtype="float32", device="cpu")
    clock = Clock(chosen.clock)
    slow = (chosen.rows, chosen.rows) if chosen.full else tuple(chosen.slow_rows)
    few = run(model, "ag_news", slow[0], chosen, clock)
    many = run(model, "banking77", slow[1], chosen, clock)
    finish(
        "label_scoring",
        [SEED],
        {
            "speedup_vs_lm_eval_4_labels": few["speedup_vs_lm_eval"],
            "speedup_vs_lm_eval_77_labels": many["speedup_vs_lm_eval"],
            "share_of_bound": min(few["share_of_bound"], many["share_of_bound"]),
            "agreement": min(few["agreement"], many["agreement"]),
            "max_logprob_difference": max(few["max_logprob_difference"], many["max_logprob_difference"]),
            "threads": chosen.threads,
            "clock": chosen.clock,
            "dtype": "float32",
            "ag_news": few,
            "banking77": many,
        },
    )


if __name__ == "__main__":
    main()
