"""Tuning methods by themselves: whole fits, bad input, damaged files. What all share is in test_methods_contract."""

from __future__ import annotations

import builtins
import json
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from taskfit.errors import ConfigError, MissingExtraError, PredictorError, StudyError
from taskfit.models.language_model import LanguageModel
from taskfit.prompting.shots import ZeroShot
from taskfit.strategy.composed import Composed
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.tuning import train_report, training
from taskfit.tuning.adalora import _RankSchedule
from taskfit.tuning.adapter import Adapter
from taskfit.tuning.answers import choose
from taskfit.tuning.checkpoint import load_state
from taskfit.tuning.examples import collate
from taskfit.tuning.full import Full
from taskfit.tuning.layers import blocks, layers_of_role
from taskfit.tuning.lora import Lora
from taskfit.tuning.method import Method
from taskfit.tuning.pretraining import ContinuedPretraining
from taskfit.tuning.qlora import quantise
from taskfit.tuning.random_mask import RandomMask
from taskfit.tuning.selective import BitFit, LastLayers, Norms
from taskfit.tuning.soft_prompts import PromptTuning
from taskfit.tuning.train_config import TrainConfig
from taskfit.tuning.training_set import build_training_set
from taskfit.tuning.virtual_tokens import InputVectors, key_value_shape
from tests.tuning.keyword_task import Family, keyword_task, rows, tiny_model

QUICK = "epochs=1, min_steps=3, batch=4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


def method_of(name: str) -> Method:
    strategy = parse(name)
    assert isinstance(strategy, Composed) and isinstance(strategy.weights, Method)
    return strategy.weights


def logits(model: LanguageModel) -> torch.Tensor:
    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.module(input_ids=ids).logits


@pytest.mark.parametrize(
    "name",
    [
        f"prompt-tuning(tokens=4, {QUICK})",
        f"prefix-tuning(tokens=4, {QUICK})",
        f"adapter(bottleneck=4, {QUICK})",
        f"qlora(rank=4, {QUICK})",
        f"random-mask(share=0.1, {QUICK})",
        f"head-only({QUICK})",
    ],
)
@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_a_whole_fit_is_saved_and_predicts_the_same(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    """Through strategy, engine and folder, scoring and generating; twice the same model gives the same."""
    task, said = keyword_task(8, 4, kind=kind), []  # type: ignore[arg-type]
    made = parse(name).fit(tiny_model(folder, "llama"), task, seed=0, budget=Budget(say=said.append))
    assert any(line.startswith(name.partition("(")[0]) and " trains " in line for line in said)
    made.save(tmp_path / "saved")
    loaded = load_predictor(tmp_path / "saved", model=tiny_model(folder, "llama"))
    assert list(loaded.predict(rows(6))) == list(made.predict(rows(6)))


@pytest.mark.parametrize(
    "name", ["norms", "lora(rank=4)", "adalora(rank=2, initial_rank=4)", "random-mask", "vera(rank=8)"]
)
def test_methods_train_beside_a_bfloat16_base(folder: Path, tmp_path: Path, name: str) -> None:
    """Under autocast, with the trained values in float32; afterwards the model has its format again."""
    method, model = method_of(name), tiny_model(folder, "llama", "bfloat16")
    method = replace(method, epochs=1, min_steps=2, batch=4, learning_rate=0.05)
    task = keyword_task(8, 4)
    before = logits(model)
    method.change(model, task, ZeroShot().prepare(task, seed=0), seed=0, budget=Budget())
    assert not torch.equal(logits(model), before)
    method.save(model, tmp_path)
    loaded = method.load(tiny_model(folder, "llama", "bfloat16"), tmp_path)
    assert_close(logits(loaded), logits(model), rtol=0, atol=0)


def test_ranks_of_single_layers(folder: Path) -> None:
    """By parts of names; the last that fits counts, and the scale is alpha over the layer's own rank."""
    wrapped = method_of('lora(rank=4, ranks="mlp:2 layers.1:6 layers.1.mlp.down_proj:1")').wrap(
        tiny_model(folder, "llama"), seed=0
    )
    ranks = {
        name.partition(".lora_A")[0].removeprefix("base_model.model.model."): len(value)
        for name, value in wrapped.named_parameters()
        if "lora_A" in name
    }
    assert ranks["layers.0.self_attn.q_proj"] == 4
    assert ranks["layers.0.mlp.down_proj"] == 2
    assert ranks["layers.1.self_attn.q_proj"] == ranks["layers.1.mlp.up_proj"] == 6
    assert ranks["layers.1.mlp.down_proj"] == 1
    assert wrapped.get_submodule("base_model.model.model.layers.0.mlp.down_proj").scaling["default"] == 16 / 2


@pytest.mark.parametrize(
    ("name", "family", "message", "hint"),
    [
        ('lora(rank=4, ranks="nowhere:2")', "llama", "ranks=nowhere matches no layer", "q_proj"),
        ('lora(rank=4, ranks="k_proj:17")', "llama", "rank must be between 1 and 16", "k_proj"),
        ("pissa(rank=17)", "llama", "rank must be between 1 and 16", "narrowest"),
        ("adalora(rank=2, initial_rank=20)", "llama", "rank must be between 1 and 16", "narrowest"),
        ("bitfit", "llama", "has none; its parameters are called weight", "norms"),
        ("last-layers(n=3)", "t5", "n must be between 1 and 2, the blocks of", None),
        ("prompt-tuning(tokens=500)", "llama", "500 vectors leave 12 of the 512 tokens", "Lower tokens"),
    ],
)
def test_what_does_not_suit_the_model_is_refused(
    folder: Path, name: str, family: Family, message: str, hint: str | None
) -> None:
    """Before training, and with what there is."""
    with (
        pytest.raises(ConfigError, match=message) as caught,
        method_of(name).training(tiny_model(folder, family), seed=0),
    ):
        pass
    assert hint is None or hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ('lora(ranks="mlp=4")', "ranks must be words like mlp:4"),
        ("vera(rank=0, initial=0, dropout=1)", r"(?s)rank must.*initial must.*dropout must"),
        (
            "adalora(rank=9, initial_rank=4, alpha=0, dropout=2)",
            r"(?s)rank must be between 1 and initial_rank=4.*alpha.*dropout",
        ),
        ("adapter(bottleneck=0)", "bottleneck must be at least 1"),
        ("random-mask(share=0)", "share must be above 0"),
        ("last-layers(n=0)", "n must be at least 1"),
        ("prompt-tuning(tokens=0, init=text)", r"(?s)tokens must.*init=text needs a text"),
        ('prompt-tuning(text="good")', "text is used with init=text only"),
        ("p-tuning(hidden=0)", "hidden must be at least 1"),
        ("prefix-tuning(hidden=0)", "hidden must be at least 1"),
        ("qlora(bits=3)", "bits must be one of 4, 8"),
        ("rslora(rank=0)", "rank must be at least 1"),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, message: str) -> None:
    """All of a part together."""
    with pytest.raises(ConfigError, match=message):
        parse(name)


@pytest.mark.parametrize("role", ["ia3", "adapter", "adapter(kind=houlsby)", "adapter(kind=parallel)"])
def test_layers_of_unknown_names_are_not_guessed(folder: Path, role: str) -> None:
    """The hint lists the names there are."""
    model = tiny_model(folder, "llama")
    for block in model.module.model.layers:
        for part, old, new in ((block.mlp, "gate_proj", "strange"), (block.self_attn, "o_proj", "odd")):
            setattr(part, new, getattr(part, old))
            delattr(part, old)
        block.mlp.unknown, block.mlp.curious = block.mlp.down_proj, block.mlp.up_proj
        del block.mlp.up_proj
        if role != "adapter(kind=parallel)" and role != "adapter(kind=houlsby)":
            del block.mlp.down_proj
    with pytest.raises(ConfigError, match="matches no layer") as caught, method_of(role).training(model, seed=0):
        pass
    assert "strange" in str(caught.value.hint)


def test_a_quantised_base_is_not_tuned_itself(folder: Path) -> None:
    """Neither whole nor in part; and it is not packed twice into different bits."""
    model = tiny_model(folder, "gpt2")
    quantise(model, 4)
    for method in (Full(), RandomMask(), LastLayers(n=1)):
        with pytest.raises(ConfigError, match="quantised"), method.training(model, seed=0):
            pass
    with pytest.raises(ConfigError, match="packed into 4 bits already"):
        quantise(model, 8)


def test_nothing_is_merged_into_a_quantised_base(folder: Path) -> None:
    """Whichever method put the updates there; and continued pre-training, which merges, is refused before it trains."""
    model = tiny_model(folder, "llama")
    quantise(model, 4)
    wrapped = replace(model, module=Lora(rank=2).wrap(model, seed=0))
    with pytest.raises(ConfigError, match="cannot be merged"):
        Lora(rank=2).merge(wrapped)
    with pytest.raises(ConfigError, match="quantised"):
        ContinuedPretraining(tune=parse("lora(rank=2)")).change(
            model, keyword_task(8, 4), None, seed=0, budget=Budget()
        )  # type: ignore[arg-type]


def test_gradients_of_vectors_before_the_prompt_are_those_that_peft_computes(folder: Path) -> None:
    """Through our hooks and through its wrapper, on the same vectors and rows: what trains is not ours alone."""
    model, task = tiny_model(folder, "llama"), keyword_task(6, 0)
    method = method_of("prompt-tuning(tokens=5)")
    with method.training(model, seed=0):
        program = ZeroShot().prepare(task, seed=0)
        examples = build_training_set(model, task, program, method, seed=0).examples  # type: ignore[arg-type]
        batch = collate(examples, "decoder", model.tokenizer.pad_token_id)
        (vectors,) = (value for value in model.module.parameters() if value.requires_grad)
        loss, tokens = choose(model, examples).loss_sum(model.module, batch)
        (gradient,) = torch.autograd.grad(loss / tokens, vectors)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, prompt_tuning_init="RANDOM")
    with warnings.catch_warnings():  # peft reads a name that transformers has renamed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        other = peft.get_peft_model(tiny_model(folder, "llama").module, config)  # type: ignore[arg-type]
    table = other.prompt_encoder["default"].embedding.weight  # type: ignore[index, union-attr]
    table.data.copy_(vectors.detach())
    theirs = other.eval()(**batch).loss
    assert_close(theirs.detach(), loss.detach() / tokens)
    assert_close(gradient, torch.autograd.grad(theirs, table)[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_the_base_stays_packed_and_frozen(folder: Path, family: Family) -> None:
    """NF4 with double quantisation: four bits a weight; training moves the updates alone."""
    import bitsandbytes

    model, task = tiny_model(folder, family), keyword_task(8, 0)
    quantise(model, 4)
    packed = [part.weight for part in model.module.modules() if isinstance(part, bitsandbytes.nn.Linear4bit)]
    before = [value.data.clone() for value in packed]
    assert packed and all(value.quant_type == "nf4" and value.quant_state.nested for value in packed)
    assert all(value.nbytes * 2 == value.quant_state.shape.numel() for value in packed)
    said: list[str] = []
    method = method_of(f"qlora(rank=4, {QUICK})")
    method.change(model, task, ZeroShot().prepare(task, seed=0), seed=0, budget=Budget(say=said.append))
    after = [part.weight for part in model.module.modules() if isinstance(part, bitsandbytes.nn.Linear4bit)]
    assert all(value.dtype == torch.uint8 and value.grad is None for value in after)
    assert all(torch.equal(value.data, old) for value, old in zip(after, before, strict=True))
    assert any(value.abs().max() > 0 for name, value in model.module.named_parameters() if "lora_B" in name)


def test_packing_needs_bitsandbytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with the command that installs it."""
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "bitsandbytes":
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'taskfit\[qlora\]'"):
        quantise(tiny_model(folder, "llama"), 4)


def test_long_prompts_make_room_for_the_vectors(folder: Path) -> None:
    """The vectors' tokens come off the context; what is lost is counted, in training and in predicting."""
    task = keyword_task(4, 0, prompt="{{ text }} " + "word " * 600 + "\nLabel:")
    losses = []
    for name in (f"lora(rank=4, {QUICK})", f"prompt-tuning(tokens=40, {QUICK})"):
        made = parse(name).fit(tiny_model(folder, "llama"), task, seed=0, budget=Budget())
        losses.append((made.fit_work.cut_tokens / 4, next(iter(made.predict(rows(1)))).cut_tokens))
    assert losses[1][0] - losses[0][0] == pytest.approx(40, abs=1)
    assert losses[1][1] - losses[0][1] == pytest.approx(40, abs=1)


def test_a_text_starts_the_vectors(folder: Path) -> None:
    """Repeated to their number, they are the embeddings of the text's tokens."""
    model = tiny_model(folder, "llama")
    words = model.module.get_input_embeddings().weight.detach().clone()
    ids = model.tokenizer.encode("the good film", add_special_tokens=False)
    with PromptTuning(tokens=len(ids) + 2, init="text", text="the good film").training(model, seed=0):
        found = InputVectors.of(model.module).vectors()
        assert_close(found, words[[*ids, *ids[:2]]])
    assert model.context == 512 - len(ids) - 2


def test_vectors_of_a_text_are_the_text(folder: Path) -> None:
    """Untrained and in front, they do what their tokens would do there: an independent check of masks and positions."""
    model = tiny_model(folder, "gpt2")
    ids = torch.tensor([model.tokenizer.encode("the good film was here")])
    text = "the weather"
    front = model.tokenizer.encode(text, add_special_tokens=False)
    with torch.no_grad():
        expected = model.module(input_ids=torch.cat([torch.tensor([front]), ids], dim=1)).logits[:, len(front) :]
    with PromptTuning(tokens=len(front), init="text", text=text).training(model, seed=0), torch.no_grad():
        assert_close(model.module(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)


def killable(models: Path, scratch: Path, stop_at: int | None) -> dict[str, torch.Tensor]:
    """Ten steps of AdaLoRA, stopped after some of them or not."""

    class Stop(BaseException):
        pass

    def say(line: str) -> None:
        if stop_at is not None and line.startswith(f"step {stop_at} "):
            raise Stop

    model, task = tiny_model(models, "llama"), keyword_task(8, 0)
    method = method_of("adalora(rank=2, initial_rank=4, epochs=1, min_steps=10, batch=4)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_report, "SAY_EVERY_S", -1.0)
        patch.setattr(training, "TrainConfig", partial(TrainConfig, checkpoint_every_s=1e-9))
        try:
            budget = Budget(folder=scratch, say=say)
            method.change(model, task, ZeroShot().prepare(task, seed=0), seed=0, budget=budget)
        except Stop:
            return {}
    return {name: value.detach() for name, value in model.module.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("stop_at", [4, 8])
def test_rank_schedules_resume_to_the_bit(folder: Path, tmp_path: Path, stop_at: int) -> None:
    """The allocator's running means are in the checkpoint; half of the ranks are gone at the end."""
    expected = killable(folder, tmp_path / "whole", None)
    assert killable(folder, tmp_path / "killed", stop_at) == {}
    found = killable(folder, tmp_path / "killed", None)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    kept = [int((value != 0).sum()) for name, value in expected.items() if "lora_E" in name]
    assert sum(kept) == 2 * len(kept)


def test_rank_schedules_begin_anew_when_memory_ran_out(folder: Path) -> None:
    """What the allocator remembers of the steps that were lost counts no more."""
    model, task = tiny_model(folder, "llama"), keyword_task(8, 0)
    method = method_of("adalora(rank=2, initial_rank=4, epochs=1, min_steps=10, batch=4)")
    schedule, first_steps = _RankSchedule.__call__, list[dict[str, torch.Tensor]]()

    def failing(self: _RankSchedule, optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        schedule(self, optimizer, step, steps)
        if step == 1:
            parameters = {name: value for name, value in model.module.named_parameters() if "lora_" in name}
            first_steps.append({name: optimizer.state[value]["importance"] for name, value in parameters.items()})
        if step == 4 and len(first_steps) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_RankSchedule, "__call__", failing)
        method.change(model, task, ZeroShot().prepare(task, seed=0), seed=0, budget=Budget())
    before, after = first_steps
    assert any(bool(value.any()) for value in before.values())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_checkpoint_of_another_method_is_refused(folder: Path, tmp_path: Path) -> None:
    """Said with what differs."""
    task = keyword_task(8, 0)
    for name, is_refused in ((f"norms({QUICK})", False), (f"last-layers({QUICK})", True)):
        model = tiny_model(folder, "llama")
        fit = partial(method_of(name).change, model, task, ZeroShot().prepare(task, seed=0), seed=0)
        if is_refused:
            with pytest.raises(StudyError, match="belongs to another training run"):
                fit(budget=Budget(folder=tmp_path))
        else:
            fit(budget=Budget(folder=tmp_path))


@pytest.fixture
def saved(folder: Path, tmp_path: Path) -> Path:
    """Random places of the tiny Llama, trained by nobody."""
    model = tiny_model(folder, "llama")
    with RandomMask(share=0.05).training(model, seed=0):
        pass
    RandomMask(share=0.05).save(model, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values, name: values.pop(f"{name}.values"), "1 tensors are missing"),
        (lambda values, name: values.update(stranger=torch.zeros(1)), "superfluous, first stranger"),
        (lambda values, name: values.update({f"{name}.values": torch.zeros(3)}), "must have .* places and values"),
        (lambda values, name: values[f"{name}.values"].fill_(float("nan")), "not finite"),
        (lambda values, name: values[f"{name}.places"].fill_(0), "places that are not in its weights, or not in order"),
        (lambda values, name: values[f"{name}.places"].add_(10**6), "places that are not in its weights"),
        (lambda values, name: values.update({f"{name}.places": torch.tensor(1)}), "must have .* places and values"),
        (lambda values, name: values.update({f"{name}.values": torch.tensor(1.0)}), "must have .* places and values"),
        (
            lambda values, name: values.update({f"{name}.values": values[f"{name}.values"].to(torch.float8_e4m3fn)}),
            "no number format of weights",
        ),
    ],
)
def test_damaged_places_and_values_are_refused(folder: Path, saved: Path, change: object, message: str) -> None:
    """Nothing is written into the model before all is checked."""
    path = saved / "changed_weights.safetensors"
    values = load_file(path)
    change(values, "model.layers.0.mlp.up_proj")  # type: ignore[operator]
    header = {"format": 1, "method": "random-mask", "share": 0.05, "targets": "all"}
    save_file(values, path, metadata={"taskfit": json.dumps(header)})
    model = tiny_model(folder, "llama")
    before = logits(model)
    with pytest.raises(PredictorError, match=message):
        RandomMask(share=0.05).load(model, saved)
    assert torch.equal(logits(model), before)


def test_files_of_another_method_are_refused(folder: Path, saved: Path, tmp_path: Path) -> None:
    """By their header; a file without one too."""
    with pytest.raises(PredictorError, match="must say"):
        RandomMask(share=0.1).load(tiny_model(folder, "llama"), saved)
    for method in (Norms(), Adapter(bottleneck=4)):
        with pytest.raises(PredictorError, match="must say"):
            method.load(tiny_model(folder, "llama"), saved)
    save_file({"x": torch.zeros(1)}, saved / "changed_weights.safetensors")
    with pytest.raises(PredictorError, match="cannot be read as changed weights"):
        Norms().load(tiny_model(folder, "llama"), saved)


def test_files_nested_too_deep_are_refused(folder: Path, saved: Path) -> None:
    """Each of those that are read as JSON, with an error of its own kind."""
    deep = "[" * 200_000
    save_file({"x": torch.zeros(1)}, saved / "changed_weights.safetensors", metadata={"taskfit": deep})
    with pytest.raises(PredictorError, match="cannot be read as changed weights"):
        Norms().load(tiny_model(folder, "llama"), saved)
    (saved / "adapter_config.json").write_text(deep, encoding="utf-8")
    with pytest.raises(PredictorError, match="cannot be read as an adapter's configuration"):
        Lora(rank=2).load(tiny_model(folder, "llama"), saved)
    (saved / "config.json").write_text(deep, encoding="utf-8")
    with pytest.raises(PredictorError, match="cannot be read as a model's configuration"):
        Full().load(None, saved)
    save_file({"x": torch.zeros(1)}, saved / "checkpoint.safetensors", metadata={"taskfit": deep})
    with pytest.raises(StudyError, match="is not a readable training checkpoint"):
        load_state(saved)


def test_weights_in_formats_that_are_no_numbers_of_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    """Whole numbers and eight bits were never saved here; nothing is written into the model."""
    trained = tiny_model(folder, "llama")
    with Norms().training(trained, seed=0):
        pass
    for dtype in (torch.int64, torch.float8_e4m3fn):
        Norms().save(trained, tmp_path)
        path = tmp_path / "changed_weights.safetensors"
        values = {name: value.to(dtype) for name, value in load_file(path).items()}
        save_file(values, path, metadata={"taskfit": json.dumps({"format": 1, "method": "norms"})})
        with pytest.raises(PredictorError, match="no number format of weights"):
            Norms().load(tiny_model(folder, "llama"), tmp_path)


@pytest.mark.parametrize("name", ["norms", "random-mask", "adapter", "prompt-tuning", "lora", "head-only"])
def test_changes_need_a_base(name: str, tmp_path: Path) -> None:
    """The folder holds a part only."""
    with pytest.raises(PredictorError, match="the base model"):
        method_of(name).load(None, tmp_path)


def test_a_base_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    """With what the method misses, and the base as it was."""
    gpt2 = tiny_model(folder, "gpt2")
    with BitFit().training(gpt2, seed=0):
        pass
    BitFit().save(gpt2, tmp_path)
    with pytest.raises(PredictorError, match=r"does not fit .* has none"):
        BitFit().load(tiny_model(folder, "llama"), tmp_path)
    with pytest.raises(PredictorError, match="does not fit"):
        PromptTuning(tokens=500).load(tiny_model(folder, "llama"), tmp_path)
    adapted = tiny_model(folder, "gpt2")
    with Adapter(bottleneck=4).training(adapted, seed=0):
        pass
    Adapter(bottleneck=4).save(adapted, tmp_path)
    llama = tiny_model(folder, "llama")
    with pytest.raises(PredictorError, match="weights are missing"):
        Adapter(bottleneck=4).load(llama, tmp_path)
    with pytest.raises(ConfigError, match="carries no bottleneck adapters"):
        Adapter().detach(llama)


def test_changes_are_not_loaded_over_others(folder: Path, tmp_path: Path) -> None:
    """What they replaced would be lost; and what was trained here has no base to go back to."""
    model = tiny_model(folder, "llama")
    with Norms().training(model, seed=0):
        pass
    Norms().save(model, tmp_path)
    with pytest.raises(ConfigError, match="were not kept"):
        Norms().detach(model)
    loaded = Norms().load(tiny_model(folder, "llama"), tmp_path)
    with pytest.raises(PredictorError, match="carries the changes of another predictor"):
        Norms().load(loaded, tmp_path)
    with pytest.raises(ConfigError, match="carries no trained vectors"):
        PromptTuning().detach(tiny_model(folder, "llama"))


@pytest.mark.parametrize("name", ["norms", "adapter(bottleneck=4)", "prompt-tuning(tokens=3)", "lora(rank=2)"])
def test_a_refused_change_leaves_the_loaded_one_as_it_was(folder: Path, tmp_path: Path, name: str) -> None:
    """Of every kind over every other and over its own; taken off, the base takes others."""
    names = ("norms", "adapter(bottleneck=4)", "prompt-tuning(tokens=3)", "lora(rank=2)", "random-mask")
    for number, other in enumerate(names):
        trained = tiny_model(folder, "llama")
        with method_of(other).training(trained, seed=0), torch.no_grad():
            for value in trained.module.parameters():
                value.add_(0.1 if value.requires_grad else 0.0)
        (tmp_path / str(number)).mkdir()
        method_of(other).save(trained, tmp_path / str(number))
    base = tiny_model(folder, "llama")
    loaded = method_of(name).load(base, tmp_path / str(names.index(name)))
    before = logits(loaded)
    for number, other in enumerate(names):
        with pytest.raises(PredictorError, match="carries the changes of another predictor"):
            method_of(other).load(base, tmp_path / str(number))
    assert torch.equal(logits(loaded), before)
    lora, fresh = method_of("lora(rank=2)"), tiny_model(folder, "llama")
    again = lora.load(method_of(name).detach(loaded), tmp_path / "3")
    assert torch.equal(logits(again), logits(lora.load(fresh, tmp_path / "3")))


def test_parts_of_models_are_found_by_what_they_do(folder: Path) -> None:
    """Roles, blocks and shapes, in every family; a module without them says so."""
    assert {name.rpartition(".")[2] for name in layers_of_role(tiny_model(folder, "t5").module, "mlp-input")} == {
        "wi_0",
        "wi_1",
    }
    assert blocks(tiny_model(folder, "t5").module)[0] == "decoder.block"
    assert [key_value_shape(tiny_model(folder, family).module) for family in ("llama", "gpt2", "t5")] == [
        (2, 2, 8),
        (2, 4, 8),
        (2, 4, 8),
    ]
    with pytest.raises(ConfigError, match="holds no list of blocks"):
        blocks(torch.nn.Linear(2, 2))
    model = tiny_model(folder, "llama")
    model.module = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(ConfigError, match="has none with weights"):
        Norms().chosen(model)
    with (
        pytest.raises(ConfigError, match="targets=all matches no layer"),
        RandomMask().training(replace(model, module=torch.nn.ReLU()), seed=0),
    ):
        pass
    config = tiny_model(folder, "llama").module
    config.config.num_hidden_layers = 0
    with pytest.raises(ConfigError, match="is not known from its configuration"):
        key_value_shape(config)


def test_the_last_blocks_of_an_encoder_decoder_are_its_decoders(folder: Path) -> None:
    """Also where the encoder is the deeper one, as in distilled models."""
    from transformers import AutoModelForSeq2SeqLM

    model = tiny_model(folder, "t5")
    model.module.config.num_layers = 4  # type: ignore[union-attr]
    model.module = AutoModelForSeq2SeqLM.from_config(model.module.config)
    assert {name.split(".")[0] for name in LastLayers(n=1).chosen(model)} == {"decoder"}
    assert LastLayers(n=1).what(model) == "the last 1 of 2 blocks in decoder.block"
    with pytest.raises(ConfigError, match="n must be between 1 and 2"):
        LastLayers(n=3).chosen(model)
