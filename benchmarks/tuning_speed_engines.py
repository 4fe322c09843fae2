"""One engine of ``tuning_speed.py``, in a process of its own: trains LoRA on given rows and prints what it took."""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MODELS = {
    "135m": {"hidden": 576, "mlp": 1536, "layers": 30, "heads": 9, "key_heads": 3},
    "30m": {"hidden": 384, "mlp": 1024, "layers": 10, "heads": 6, "key_heads": 2},
}
"""SmolLM2-135M's shape, and one of 34.6 million values, more than half of them in the vocabulary."""

VOCABULARY = 49152
RANK = 8
RATE = 5e-4
SHORTEST = 32
SUPERVISED = 1 / 3


def rows(count: int, seed: int, longest: int = 512) -> list[tuple[list[int], list[int]]]:
    """Return (prompt, answer) ids: lengths log-uniform from ``SHORTEST`` on, the last third supervised."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        length = round(math.exp(draw.uniform(math.log(SHORTEST), math.log(longest))))
        # Zipf-like ids, so that there is something to learn and the curves have a slope.
        ids = [min(VOCABULARY - 1, 10 + int(draw.paretovariate(0.6))) for _ in range(length)]
        answer = max(1, round(length * SUPERVISED))
        made.append((ids[:-answer], ids[-answer:]))
    return made


def make_model(name: str, dtype: str, seed: int) -> Any:
    """Return a Llama with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = MODELS[name]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape["hidden"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["key_heads"],
        max_position_embeddings=2048,
        initializer_range=1 / math.sqrt(shape["hidden"]),
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()


def with_lora(module: Any, seed: int) -> Any:
    """Wrap in peft's LoRA of all linear layers, as taskfit's ``lora`` does."""
    import peft
    import torch

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=RANK, lora_alpha=16, lora_dropout=0.0, target_modules=names, task_type="CAUSAL_LM")
    return peft.get_peft_model(module, config)


class Clock:
    """Seconds at the end of each step, wall or of this process's threads."""

    def __init__(self, kind: str) -> None:
        self.now: Callable[[], float] = time.process_time if kind == "cpu" else time.perf_counter
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.start = 0.0

    def begin(self) -> None:
        """Note that training begins."""
        self.start = self.now()

    def step(self) -> None:
        """Note that a step has ended."""
        self.ends.append(self.now())

    @property
    def seconds(self) -> list[float]:
        """Seconds of each step."""
        return [end - start for start, end in zip([self.start, *self.ends], self.ends, strict=False)]


def ours(options: argparse.Namespace, data: list[tuple[list[int], list[int]]], clock: Clock) -> dict[str, Any]:
    """The project's own loop, as ``taskfit fit`` runs it."""
    import torch

    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Budget
    from taskfit.tuning.answers import Pace, train_examples
    from taskfit.tuning.batches import StepPlan
    from taskfit.tuning.examples import Example
    from taskfit.tuning.full import Full
    from taskfit.tuning.lora import Lora
    from taskfit.tuning.method import Method
    from taskfit.tuning.training_set import TrainingSet

    class Tokenizer:
        pad_token_id = 0
        unk_token_id = None

        def decode(self, ids: Any) -> str:
            return str(list(ids))

    module = make_model(options.model, options.dtype, options.seed)
    dtype = getattr(torch, options.dtype)
    model = LanguageModel(
        "random", Path(), "decoder", module, Tokenizer(), dtype, torch.device("cpu"), 2048, "random", False, (2,)
    )
    # The rows are handed over so that the plan's own shuffle gives the order that the others read.
    order = [
        row for step in range(options.steps) for row in StepPlan((1,) * len(data), options.batch, 1, 0).rows_at(step)
    ]
    examples = [Example("", (), ())] * len(data)
    for place, (prompt, answer) in zip(order, data, strict=True):
        examples[place] = Example(str(place), tuple(prompt), tuple(answer))
    settings: dict[str, Any] = {"learning_rate": RATE, "epochs": 1, "batch": options.batch, "min_steps": 1}
    method: Method = Full(**settings) if options.method == "full" else Lora(rank=RANK, alpha=16, **settings)
    said: list[str] = []

    def on_step(progress: Any) -> None:
        clock.step()
        clock.losses.append(progress.loss)

    with method.training(model, seed=options.seed + 1) as trainable:
        clock.begin()
        train_examples(
            model,
            TrainingSet(tuple(examples), (), len(examples)),
            Pace(method, method.rate(model), method.trains),
            trainable,
            seed=0,
            budget=Budget(say=said.append),
            decay="constant",
            on_progress=on_step,
        )
    return {"said": said}


def peft_trainer(options: argparse.Namespace, data: list[tuple[list[int], list[int]]], clock: Clock) -> dict[str, Any]:
    """The libraries peft and transformers' Trainer: padded batches, all positions through the output layer."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    module = _wrapped(options)
    records = [{"input_ids": p + a, "attention_mask": [1] * len(p + a), "labels": [-100] * len(p) + a} for p, a in data]
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            **_arguments(options, folder, options.batch), train_sampling_strategy="sequential"
        )
        trainer = Trainer(
            model=module,
            args=arguments,
            train_dataset=records,
            data_collator=DataCollatorForSeq2Seq(_tokenizer(), padding=True),
            callbacks=[_callback(clock)],
        )
        trainer.train()
    return {}


def trl_padding_free(
    options: argparse.Namespace, data: list[tuple[list[int], list[int]]], clock: Clock, *, packing: bool = False
) -> dict[str, Any]:
    """TRL's SFTTrainer without padding: the rows of a batch in one sequence, or packed into rows of 512."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    module = _wrapped(options)
    records = [{"input_ids": p + a, "completion_mask": [0] * len(p) + [1] * len(a)} for p, a in data]
    tokens = sum(len(p) + len(a) for p, a in data)
    batch = max(1, round(options.batch * tokens / len(data) / options.longest)) if packing else options.batch
    with TemporaryDirectory() as folder:
        arguments = SFTConfig(
            **_arguments(options, folder, batch) | {"gradient_checkpointing": False},
            train_sampling_strategy="sequential",
            packing=packing,
            padding_free=True,
            max_length=options.longest if packing else None,
            completion_only_loss=True,
        )
        trainer = SFTTrainer(
            model=module,
            args=arguments,
            train_dataset=Dataset.from_list(records),
            processing_class=_tokenizer(),
            callbacks=[_callback(clock)],
        )
        trainer.train()
    return {}


def trl_packing(options: argparse.Namespace, data: list[tuple[list[int], list[int]]], clock: Clock) -> dict[str, Any]:
    """TRL's SFTTrainer with rows packed into sequences of 512 tokens."""
    return trl_padding_free(options, data, clock, packing=True)


def _wrapped(options: argparse.Namespace) -> Any:
    module = make_model(options.model, options.dtype, options.seed)
    if options.method == "full":
        return module.float()  # bfloat16 is autocast's affair
    return with_lora(module, options.seed + 1)


def _arguments(options: argparse.Namespace, folder: str, batch: int) -> dict[str, Any]:
    """What the two Trainers share: AdamW at a constant rate, as ours."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": options.method == "full" and options.dtype == "bfloat16",
        "fp16": False,
        "disable_tqdm": True,
        "remove_unused_columns": True,
        "dataloader_pin_memory": False,
        "seed": options.seed,
    }


def _tokenizer() -> Any:
    """A tokenizer that the Trainers ask for and that only pads here."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    base = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _callback(clock: Clock) -> Any:
    """A Trainer callback that notes steps and losses."""
    from transformers import TrainerCallback

    class Note(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(float(logs["loss"]))

    return Note()


ENGINES: dict[str, Callable[[argparse.Namespace, list[tuple[list[int], list[int]]], Clock], dict[str, Any]]] = {
    "ours": ours,
    "peft_trainer": peft_trainer,
    "trl_padding_free": trl_padding_free,
    "trl_packing": trl_packing,
}


def main() -> None:
    """Train with one engine; the last line is JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--model", choices=MODELS, default="30m")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--longest", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    data = rows(options.steps * options.batch, options.seed, options.longest)
    clock = Clock(options.clock)
    more = ENGINES[options.engine](options, data, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tokens = [
        sum(len(p) + len(a) for p, a in data[start : start + options.batch])
        for start in range(0, len(data), options.batch)
    ]
    print(json.dumps({"seconds": clock.seconds, "tokens": tokens, "losses": clock.losses, "peak": peak, **more}))


if __name__ == "__main__":
    main()
