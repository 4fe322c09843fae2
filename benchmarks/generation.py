"""How many tokens a second does the engine write, against transformers' ``generate`` in fixed batches?

256 prompts of 16 to 96 tokens, each with its own answer length, 4 to 128 tokens, both drawn uniformly. The model has
SmolLM2-135M's shape and random weights, in float32, and nothing ends an answer early, so both sides write the same
number of tokens that count. transformers must run each batch to its longest answer; what it writes beyond a row's own
length is thrown away, as it is for its users. It gets its best of four ways (batches of 16 or 32, prompts as they
come or sorted by length), found on 32 rows with answers a quarter as long, and runs between two runs of ours.

A second scenario puts the same worked examples, 400 tokens, in front of 64 of these prompts.

Both sides have one thread, and time is the processor's, so that other work on the machine does not count.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import arguments, finish

from taskfit.inference.requests import Generate, Generated
from taskfit.inference.torch_engine import TorchEngine
from taskfit.models.language_model import LanguageModel
from taskfit.models.quiet import quiet_transformers
from taskfit.tasks.prompt import Prompt

VOCABULARY = 49_152
LAYERS = 30
SEED = 0
WAYS = [(16, False), (16, True), (32, False), (32, True)]  # rows a batch, sorted by prompt length


def main() -> None:
    """Run both scenarios and print the last line."""
    quick = arguments(__doc__ or "").quick
    torch.set_num_threads(1)
    model = smollm2_shape(2 if quick else LAYERS)
    longest = 32 if quick else 128
    bound = matmul_gflops()
    ways = WAYS[2:] if quick else WAYS
    trial = requests(32, shared=0, longest=longest // 4)
    ours(model, trial[:2])
    trial_s = {way: timed(lambda way=way: theirs(model, trial, *way))[0] for way in ways}  # type: ignore[misc]
    best = min(trial_s, key=lambda way: trial_s[way])
    plain = compare(model, requests(64 if quick else 256, shared=0, longest=longest), best)
    behind = compare(model, requests(8 if quick else 64, shared=400, longest=longest), best)
    finish(
        "generation",
        [SEED],
        {
            "speedup_vs_generate": plain["speedup"],
            "speedup_vs_generate_shared_prefix": behind["speedup"],
            "same_texts": round((plain["same"] + behind["same"]) / (plain["rows"] + behind["rows"]), 4),
            "matmul_gflops": round(bound, 1),
            "share_of_bound": round(plain["gflops"] / bound, 3),
            "layers": model.module.config.num_hidden_layers,  # type: ignore[union-attr]
            "best_way": {"batch": best[0], "sorted": best[1]},
            "trial_s": {
                f"{size}{' sorted' if is_sorted else ''}": round(s, 1) for (size, is_sorted), s in trial_s.items()
            },
            "plain": plain,
            "shared_prefix": behind,
        },
    )


def smollm2_shape(layers: int) -> LanguageModel:
    """Return a decoder of SmolLM2-135M's shape with random weights, whose tokens are the words w0, w1, ..."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    with quiet_transformers():
        module = LlamaForCausalLM(config).eval()
    return LanguageModel(
        name="smollm2-135m-shape",
        folder=Path(tempfile.gettempdir()),
        architecture="decoder",
        module=module,
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w0"),
        dtype=torch.float32,
        device=torch.device("cpu"),
        context=2048,
        fingerprint="random",
        has_chat_template=False,
        end_token_ids=(-1,),  # no token ends an answer
    )


def requests(rows: int, *, shared: int, longest: int) -> list[Generate]:
    """Draw prompts of 16 to 96 words behind ``shared`` common ones, and answers of 4 to ``longest``."""
    draw = random.Random(SEED)
    start = [draw.randrange(1, VOCABULARY) for _ in range(shared)]
    found = []
    for _ in range(rows):
        words = [*start, *(draw.randrange(1, VOCABULARY) for _ in range(draw.randint(16, 96)))]
        found.append(Generate(Prompt(" ".join(f"w{word}" for word in words)), draw.randint(4, longest)))
    return found


def compare(model: LanguageModel, asked: Sequence[Generate], way: tuple[int, bool]) -> dict[str, Any]:
    """Run transformers between two runs of ours on the same requests, and say how they differ."""
    first_s, (found, work) = timed(lambda: ours(model, asked))
    their_s, texts = timed(lambda: theirs(model, asked, *way))
    last_s, _ = timed(lambda: ours(model, asked))
    mean_s = (first_s + last_s) / 2
    tokens = sum(request.max_tokens for request in asked)
    figures = {
        "rows": len(asked),
        "answer_tokens": tokens,
        "speedup": round(their_s / mean_s, 2),
        "speedups": [round(their_s / seconds, 2) for seconds in (first_s, last_s)],
        "tokens_per_cpu_s": round(tokens / mean_s, 1),
        "tokens_per_cpu_s_generate": round(tokens / their_s, 1),
        "computed_tokens": work.computed_tokens,
        "gflops": round(flops(model, work) / mean_s / 1e9, 1),
        "same": sum(answer.text == text for answer, text in zip(found, texts, strict=True)),
    }
    print(figures, flush=True)
    return figures


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor's seconds and the result."""
    started = time.process_time()
    result = run()
    return time.process_time() - started, result


def ours(model: LanguageModel, asked: Sequence[Generate]) -> tuple[list[Generated], Any]:
    """Return the engine's answers and what it computed for them."""
    engine = TorchEngine(model)
    return engine.run(asked), engine.work  # type: ignore[return-value]


def theirs(model: LanguageModel, asked: Sequence[Generate], size: int, is_sorted: bool) -> list[str]:
    """Return the texts of transformers' ``generate``, in batches of ``size``, each cut to its row's own length."""
    ids = [model.tokenizer(request.prompt.text)["input_ids"] for request in asked]
    order = sorted(range(len(asked)), key=lambda row: len(ids[row])) if is_sorted else list(range(len(asked)))
    texts = [""] * len(asked)
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        longest = max(len(ids[row]) for row in rows)
        padded = torch.tensor([[0] * (longest - len(ids[row])) + ids[row] for row in rows])
        mask = torch.tensor([[0] * (longest - len(ids[row])) + [1] * len(ids[row]) for row in rows])
        most = max(asked[row].max_tokens for row in rows)
        with torch.no_grad(), quiet_transformers():
            out = model.module.generate(  # type: ignore[operator]
                input_ids=padded,
                attention_mask=mask,
                do_sample=False,
                min_new_tokens=most,
                max_new_tokens=most,
                eos_token_id=VOCABULARY - 1,
                pad_token_id=0,
            )
        for row, answer in zip(rows, out[:, longest:].tolist(), strict=True):
            texts[row] = model.tokenizer.decode(answer[: asked[row].max_tokens])
    return texts


def flops(model: LanguageModel, work: Any) -> float:
    """Return what the weights' matrix products of some work cost (attention comes on top)."""
    head = model.module.get_output_embeddings()  # type: ignore[operator]
    layers = sum(
        layer.weight.numel()
        for layer in model.module.modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    )
    return float(2 * layers * work.computed_tokens + 2 * head.weight.numel() * work.head_tokens)


def matmul_gflops() -> float:
    """Return the rate of a large matrix product: no engine can be quicker than its products at this rate."""
    one, other = torch.randn(1024, 1536), torch.randn(1536, 1536)
    return 2e-9 * 1024 * 1536 * 1536 / min(timed(lambda: torch.mm(one, other))[0] for _ in range(12))


if __name__ == "__main__":
    main()
