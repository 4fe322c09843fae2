from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from taskfit.errors import DataError
from taskfit.evaluation.forgetting import (
    Forgetting,
    Look,
    forgotten,
    look,
    nothing_changed,
    unmeasured,
)
from taskfit.evaluation.metrics import score
from taskfit.evaluation.retained import Retained, RetainedText, read_retained
from taskfit.models import load
from taskfit.models.language_model import LanguageModel
from taskfit.testing import tiny_decoder, tiny_encoder_decoder
from tests.evaluation.test_retained import write_task


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    return load(tiny_decoder(tmp_path / "model"), dtype="float32", device="cpu")


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Retained, ...]:
    path = tmp_path / "sea.txt"
    path.write_text("\n\n".join(f"The boats come in with {n} fish. " * 20 for n in range(6)), encoding="utf-8")
    (answers,) = (part for part in read_retained([]) if part.name == "answers")
    short = replace(answers, pairs=tuple((q[:60], a[:30]) for q, a in answers.pairs[:8]))  # type: ignore[union-attr]
    return (*read_retained([path]), short, *read_retained([write_task(tmp_path)]))


def shaken(model: LanguageModel, by: float) -> LanguageModel:
    """Move every weight a little, in place."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=generator))
    return model


def text_part(documents: int) -> RetainedText:
    return RetainedText("t", ("x",) * documents, "0")


def text_look(nats: np.ndarray, tokens: np.ndarray) -> Look:
    return Look(nats, tokens.astype(np.float64))


def test_an_unchanged_model_has_forgotten_exactly_nothing(model: LanguageModel, parts: tuple[Retained, ...]) -> None:
    """Texts to the bit; of a task, the same answers on twelve rows leave open what others would show."""
    before, after = look(model, parts), look(model, parts)
    found = forgotten(parts, before, after, is_reversible=True)
    assert found.loss == 0.0
    text, answers, task = found.parts
    assert (text.loss, text.low, text.high) == (answers.loss, answers.low, answers.high) == (0.0, 0.0, 0.0)
    assert task.low < 0 == task.loss < task.high


def test_a_shaken_model_has_lost_text_beyond_noise(model: LanguageModel, parts: tuple[Retained, ...]) -> None:
    """The loss is the growth of perplexity, computed again by hand from the units."""
    before = look(model, parts)
    after = look(shaken(model, 0.3), parts)
    found = forgotten(parts, before, after, is_reversible=False)
    text = found.parts[0]
    assert before[0].nats is not None and after[0].nats is not None and before[0].tokens is not None
    grown = math.exp((after[0].nats.sum() - before[0].nats.sum()) / before[0].tokens.sum()) - 1
    assert text.loss == pytest.approx(grown)
    assert text.after - text.before == pytest.approx(text.change)
    assert found.loss == max(part.loss for part in found.parts)
    assert found.worst in {part.name for part in found.parts}
    assert "cannot be taken off" in found.sentences[-1]


def test_looking_changes_neither_weights_nor_chance(model: LanguageModel, parts: tuple[Retained, ...]) -> None:
    """A fit after it is the fit without it."""
    weights = [weight.clone() for weight in model.module.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    look(model, parts)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.module.parameters(), strict=True))
    assert not model.module.training
    assert all(weight.requires_grad for weight in model.module.parameters())


def test_the_interval_of_a_change_covers_the_true_change() -> None:
    """By simulation: documents of unequal length whose changes vary, drawn from a known population."""
    generator = np.random.default_rng(0)
    true, covered, studies = 0.05, 0, 400
    for _ in range(studies):
        tokens = generator.integers(50, 400, 58)
        base = generator.normal(4.0, 0.5, 58) * tokens  # varies ten times as much as the change: pairing takes it out
        gap = (true + generator.normal(0, 0.06, 58)) * tokens
        found = forgotten(
            [text_part(58)], [text_look(base, tokens)], [text_look(base + gap, tokens)], is_reversible=True
        )
        covered += bool(found.parts[0].change_low <= true <= found.parts[0].change_high)
    assert 0.92 <= covered / studies <= 0.98


def test_pairing_tells_a_change_that_two_separate_figures_would_not() -> None:
    """Texts differ by far more than a fit changes them."""
    generator = np.random.default_rng(1)
    tokens = np.full(40, 100)
    base = generator.normal(4, 1, 40) * 100
    found = forgotten([text_part(40)], [text_look(base, tokens)], [text_look(base + 2.0, tokens)], is_reversible=True)
    part = found.parts[0]
    assert part.change == pytest.approx(0.02)
    assert part.change_low == pytest.approx(part.change_high)
    assert part.low > 0


def test_a_model_that_fell_apart_gives_a_large_finite_loss() -> None:
    """JSON has no infinity."""
    tokens = np.full(3, 1)
    found = forgotten(
        [text_part(3)],
        [text_look(np.zeros(3), tokens)],
        [text_look(np.array([900.0, 800, 700]), tokens)],
        is_reversible=False,
    )
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["loss"] > 1e40


def test_the_loss_of_a_task_is_what_its_metric_fell(model: LanguageModel, parts: tuple[Retained, ...]) -> None:
    """And a model that knew nothing has nothing to forget, which is said."""
    task = parts[2:]
    (before,) = look(model, task)
    run = before.outcomes
    assert run is not None
    right = replace(run, answers=tuple(gold[0] for gold in run.golds), _memo={})
    found = forgotten(task, [Look(outcomes=right)], [before], is_reversible=True)
    part = found.parts[0]
    assert part.before == 1.0
    assert part.loss == pytest.approx(1.0 - score("accuracy", run)) == pytest.approx(-part.change)
    assert part.note == ""
    assert "points" in found.sentences[0]
    wrong = replace(run, answers=("red",) * 12, _memo={})
    weak = forgotten(task, [Look(outcomes=wrong)], [before], is_reversible=True)
    assert "no better than always one answer (0.500)" in weak.parts[0].note


def test_records_survive_json_and_damaged_ones_are_refused(model: LanguageModel, parts: tuple[Retained, ...]) -> None:
    """The shape in docs/design.md."""
    before = look(model, parts)
    for found in (
        forgotten(parts, before, before, is_reversible=True),
        nothing_changed("no weight"),
        unmeasured("an encoder"),
    ):
        values = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert Forgetting.from_json(values) == found
        for key in ("status", "parts", "format", "loss"):
            with pytest.raises(DataError, match="damaged"):
                Forgetting.from_json({name: value for name, value in values.items() if name != key})
        with pytest.raises(DataError, match="damaged"):
            Forgetting.from_json(values | {"status": "fine"})


def test_no_change_is_zero_and_unmeasured_is_not() -> None:
    """The two are never mistaken for each other."""
    assert nothing_changed("prompting").loss == 0.0
    assert unmeasured("an encoder").loss is None
    assert "not measured: an encoder" in unmeasured("an encoder").sentences[0]
    assert "Nothing was forgotten: prompting" in nothing_changed("prompting").sentences[0]


def test_the_documented_shape_is_the_one_that_is_written(model: LanguageModel, parts: tuple[Retained, ...]) -> None:
    """Keys of the example in docs/design.md."""
    page = (Path(__file__).parents[2] / "docs" / "design.md").read_text(encoding="utf-8")
    example = json.loads(page.split("## Forgetting")[1].split("```json")[1].split("```")[0].replace("…", ""))
    before = look(model, parts)
    written = forgotten(parts, before, before, is_reversible=True).to_json()
    assert example.keys() == written.keys()
    assert example["parts"][0].keys() == written["parts"][0].keys()


def test_encoder_decoders_are_asked_for_answers(tmp_path: Path, parts: tuple[Retained, ...]) -> None:
    """Plain text is a decoder's affair."""
    model = load(tiny_encoder_decoder(tmp_path / "t5"), dtype="float32", device="cpu")
    answers, task = look(model, parts[1:])
    assert answers.nats is not None and (answers.nats > 0).all()
    assert task.outcomes is not None
