"""What a forecast knows of a trial is what the strategy, the task and the tokenizer say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from taskfit.costs.accelerator import Accelerator
from taskfit.strategy.grammar import parse
from taskfit.studies.forecast import Forecaster, Measured, characters_per_token, forecaster, told, trains
from taskfit.studies.spec import ModelFacts, StudyConfig, TrialSpec
from taskfit.testing import tiny_decoder
from tests.tuning.keyword_task import keyword_task

DEVICE = Accelerator("this-machine", "a processor", 8e9, 1e10, {"float32": 1e11}, 1e10, 30, 2e-6)
MEASURED = Measured(DEVICE, "float32: bfloat16 is 0.5 times as fast as float32 here")
CONFIG = {
    "model_type": "llama",
    "vocab_size": 8000,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
}
MODEL = ModelFacts("m", "decoder", "f", 512, 1000, CONFIG)


@pytest.fixture
def price() -> Forecaster:
    return forecaster(keyword_task(), StudyConfig(), MEASURED)


@pytest.mark.parametrize(
    ("name", "trained", "method"),
    [
        ("zero-shot", "nothing", ""),
        ("full+few-shot(k=2)", "all", ""),
        ("lora", "adapter", ""),
        ("dora+zero-shot", "adapter", "dora"),
        ("ia3", "adapter", "ia3"),
        ("adapter", "adapter", "adapters"),
        ("prompt-tuning(tokens=7)", "adapter", "soft-prompt"),
        ("prefix-tuning", "adapter", "prefix"),
        ("norms", "adapter", "layer-norm"),
        ("encoder", "all", ""),
        ("encoder(tune=bitfit)", "adapter", "bitfit"),
    ],
)
def test_what_is_trained_is_read_off_the_strategy(price: Forecaster, name: str, trained: str, method: str) -> None:
    """Also where an encoder is tuned by another method."""
    strategy = parse(name)
    found = price.facts(strategy, MODEL, 16)
    assert trains(strategy) == found.trains == trained
    assert found.method == method
    assert found.virtual_tokens == (7 if "tokens=7" in name else 20 if method == "prefix" else 0)


def test_steps_are_those_the_strategy_will_take(price: Forecaster) -> None:
    """Epochs, batch and fewest steps are its own."""
    found = price.facts(parse("lora(epochs=2, batch=4, min_steps=5)"), MODEL, 16)
    assert (found.epochs, found.batch, found.least_steps, found.steps) == (2.0, 4, 5, 8)
    assert price.facts(parse("lora"), MODEL, 16).steps == 60


def test_an_encoder_reads_the_input_alone_and_scores_no_labels(price: Forecaster) -> None:
    """No instruction, no answer, nothing shared; a decoder scores each label."""
    encoder, decoder = (price.facts(parse(name), MODEL, None) for name in ("encoder", "zero-shot"))
    assert (encoder.options, encoder.answer_tokens, encoder.shared_tokens, encoder.generated_tokens) == (0, 0, 0, 0)
    assert decoder.options == len(price.task.definition.labels)
    assert decoder.row_tokens >= encoder.row_tokens


def test_tokens_are_counted_by_the_models_own_tokenizer(tmp_path: Path) -> None:
    """A tiny vocabulary has short tokens; without a tokenizer, or with a broken one, four characters."""
    texts = ("The harbour opens at six.", "Boats come in with fish.")
    folder = tiny_decoder(tmp_path / "model")
    assert 1 < characters_per_token(str(folder), texts) < 4
    assert characters_per_token("no such model", texts) == 4
    plain = characters_per_token(str(folder), texts)
    padding = Tokenizer.from_file(str(folder / "tokenizer.json"))
    padding.enable_padding(length=200)
    padding.enable_truncation(5)
    padding.save(str(folder / "tokenizer.json"))
    characters_per_token.cache_clear()
    assert characters_per_token(str(folder), texts) == plain
    (folder / "tokenizer.json").write_text("{")
    characters_per_token.cache_clear()
    assert characters_per_token(str(folder), texts) == 4


def test_unknown_families_and_services_are_told_what_can_be(price: Forecaster) -> None:
    """Nothing for a family that cannot be counted; no seconds where this machine was not measured."""
    assert price.of(parse("zero-shot"), replace(MODEL, config={"model_type": "strange"}), None) == (None,) * 4
    assert forecaster(price.task, StudyConfig(), None).of(parse("zero-shot"), MODEL, None) == (None,) * 4
    seconds, usd, fit_s, memory_bytes = price.of(parse("lora"), MODEL, None)
    assert seconds > fit_s > 0
    assert usd > 0
    assert memory_bytes > 500e6


def test_a_trial_without_a_forecast_leaves_no_line() -> None:
    """There is nothing to compare."""
    spec = TrialSpec("id", "lora", "m", "f", 0, None)
    assert told(spec, "adapter", None) is None  # type: ignore[arg-type]


def test_a_teacher_behind_a_service_is_priced_and_a_students_seconds_are_not_guessed(price: Forecaster) -> None:
    """Twice the rows cost twice as much, those that calibrate it among them; a teacher here costs what nobody knows."""
    named = "https://host/v1?usd_in=1&usd_out=2#big"

    def told_of(more: str) -> tuple[float | None, float | None]:
        found = price.of(parse(f'distil(teacher_model="{named}"{more})'), None, None)
        return found[0], found[1]

    seconds, usd = told_of("")
    assert seconds is None
    assert usd is not None
    assert usd > 0
    assert told_of(", rows=2000")[1] == pytest.approx(2 * usd)
    assert told_of(", rows=800, labels=soft")[1] == pytest.approx(usd)
    assert told_of(", rows=none")[1] is None
    assert price.of(parse("distil(teacher=linear)"), None, None) == (None, None, None, None)
    assert price.of(parse('distil(teacher_from="labels")'), None, None) == (None, None, None, None)
