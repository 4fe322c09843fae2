"""What a fit makes a model forget: measured around it, and never in its way."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.forgetting import Forgetting, nothing_changed, unmeasured
from taskfit.models import load
from taskfit.strategy.grammar import parse
from taskfit.strategy.manifest import read_manifest
from taskfit.studies.compare_study import compare
from taskfit.studies.fit import fit
from taskfit.studies.limits import over_limits
from taskfit.studies.memory import check_retained, forgetting_lines, remember, worst_forgetting
from taskfit.studies.spec import Limits
from taskfit.testing import tiny_decoder, tiny_encoder, tiny_encoder_decoder
from tests.evaluation.test_retained import write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a task, and a text that is not to be forgotten."""
    path = tmp_path_factory.mktemp("memory")
    tiny_decoder(path / "model")
    write_task(path)
    (path / "sea.txt").write_text("\n\n".join(f"The boats bring {n} fish. " * 25 for n in range(5)), encoding="utf-8")
    return path


def fitted(folder: Path, strategy: str, retain: tuple[str, ...] = ("sea.txt",), out: Path | None = None):
    """Fit with a retained text; return the predictor and the lines said."""
    lines: list[str] = []
    names = tuple(name if name == "none" else str(folder / name) for name in retain)
    task, model = folder / "colours.yaml", str(folder / "model")
    return fit(task, strategy, model=model, retain=names, out=out, say=lines.append), lines


def test_a_full_fit_says_what_it_forgot_and_keeps_it(folder, tmp_path):
    """Sentences for people, the record in the predictor's folder."""
    _, lines = fitted(folder, "full(learning_rate=0.01, min_steps=20)", out=tmp_path / "one")
    said = " ".join(lines)
    assert "sea: perplexity" in said
    assert "cannot be taken off" in said
    found = Forgetting.from_json(read_manifest(tmp_path / "one").findings["forgetting"])
    assert found.status == "measured"
    assert not found.is_reversible
    assert [part.name for part in found.parts] == ["sea"]
    assert found.loss != 0


def test_an_adapter_has_its_own_loss_while_it_is_on_and_none_when_off(folder):
    """Taken off, the base gives the same bits; that is what reversible means."""
    predictor, lines = fitted(folder, "lora(rank=2, learning_rate=0.02, min_steps=20)")
    assert lines[-1] == "With the change taken off, the base is as it was: nothing is lost."
    from taskfit.evaluation.forgetting import look
    from taskfit.evaluation.retained import read_retained

    parts = read_retained([folder / "sea.txt"])
    base = look(load(folder / "model"), parts)[0].nats
    on = look(predictor.model, parts)[0].nats
    off = look(parse("lora(rank=2)").weights.detach(predictor.model), parts)[0].nats
    assert off.tolist() == base.tolist() != on.tolist()


@pytest.mark.parametrize("strategy", ["zero-shot", "few-shot(k=1)", "majority", "linear"])
def test_strategies_that_change_no_weight_forget_exactly_nothing(folder, strategy):
    """Nothing is measured, because nothing can differ."""
    chosen = parse(strategy)
    model = load(folder / "model") if chosen.architectures else None
    found = remember(chosen, model, ["none"]).compared_with(None)
    assert (found.status, found.loss, found.low, found.high) == ("none", 0.0, 0.0, 0.0)


def test_the_fit_is_the_same_with_and_without_the_measurement(folder):
    """To the bit: looking touches neither weights nor chance."""
    strategy = "full(learning_rate=0.01, min_steps=6)"
    weights = [
        [weight.clone() for weight in fitted(folder, strategy, retain)[0].model.module.parameters()]
        for retain in (("sea.txt",), ("none",))
    ]
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_what_cannot_be_measured_says_why_and_is_no_zero(folder, tmp_path):
    """An encoder, a switched-off measurement, a predictor without a model, an engine that refuses."""
    full, encoder = parse("full"), parse("encoder")
    bert = load(tiny_encoder(tmp_path / "bert"))
    found = remember(encoder, bert, [])
    assert found.compared_with(None).reason == "a model of architecture encoder gives no probability of a text"
    assert found.compared_with(None).loss is None
    assert not found.compared_with(None).is_reversible
    assert remember(parse("encoder(tune=lora(rank=2))"), bert, []).compared_with(None).is_reversible
    model = load(folder / "model")
    assert "switched off" in remember(full, model, ["none"]).compared_with(None).reason
    memory = remember(full, model, [str(folder / "sea.txt")])
    assert "holds no model" in memory.compared_with(object()).reason
    with torch.no_grad():
        model.module.get_input_embeddings().weight.fill_(float("nan"))

    @dataclass
    class Broken:
        model: object

    assert "NaN" in memory.compared_with(Broken(model)).reason
    assert "NaN" in remember(full, model, [str(folder / "sea.txt")]).compared_with(None).reason


def test_encoder_decoders_are_asked_for_answers_only(folder, tmp_path):
    """They give no probability of a plain text; where nothing else is named, that is said."""
    model = load(tiny_encoder_decoder(tmp_path / "t5"))
    found = remember(parse("full"), model, [str(folder / "sea.txt")]).compared_with(None)
    assert found.reason == "only a decoder gives the probability of a plain text"
    memory = remember(parse("full"), model, ["suite"])
    assert [part.name for part in memory.parts] == ["answers"]


def test_faults_of_what_is_named_are_told_before_anything_runs(folder, tmp_path):
    """By fit and by compare alike; nothing is written."""
    with pytest.raises(DataError, match="is missing"):
        fitted(folder, "full", ("nowhere.txt",))
    with pytest.raises(ConfigError, match="none stands alone"):
        check_retained(["none", "suite"])
    with pytest.raises(DataError, match="is missing"):
        compare(folder / "colours.yaml", strategies=["majority"], retain=["nowhere.txt"], out=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_study_holds_the_forgetting_of_every_trial(folder, tmp_path):
    """In result.json, in the saved predictor, and in lines for the terminal."""
    study = compare(
        folder / "colours.yaml",
        strategies=["majority", "full(learning_rate=0.01, min_steps=8)"],
        models=[str(folder / "model")],
        seeds=1,
        retain=[str(folder / "sea.txt")],
        out=tmp_path / "study",
    )
    found = {c.strategy.partition("(")[0]: worst_forgetting(c.results) for c in study.comparison.candidates}
    assert found["majority"].status == "none"
    assert found["full"].status == "measured"
    heading, *lines = forgetting_lines(study.comparison)[1:]
    assert heading.startswith("Forgotten")
    assert len(lines) == 1 and "perplexity of sea, %" in lines[0]
    full = next(c for c in study.comparison.candidates if c.strategy.startswith("full"))
    blind = replace(full.results[0], findings={"forgetting": unmeasured("an encoder").to_json()})
    other = replace(study.comparison, candidates=(replace(full, results=(blind,)),))
    assert forgetting_lines(other)[-1].endswith("not measured: an encoder")
    majority = next(c for c in study.comparison.candidates if c.strategy == "majority")
    lost = found["full"].loss
    assert lost > 0
    assert over_limits(majority, 1, Limits(forgetting=0.0)) == []
    assert over_limits(full, 1, Limits(forgetting=lost)) == []
    (over,) = over_limits(full, 1, Limits(forgetting=lost / 2).looser(2.0))
    assert over.startswith(f"{lost:.1%} forgotten (sea), more than")
    assert over_limits(other.candidates[0], 1, Limits(forgetting=9.0)) == [
        "what it forgets was not measured (an encoder)"
    ]
    with pytest.raises(Exception, match="another plan: retained was"):
        compare(
            folder / "colours.yaml",
            strategies=["majority", "full(learning_rate=0.01, min_steps=8)"],
            models=[str(folder / "model")],
            seeds=1,
            out=tmp_path / "study",
        )


@dataclass
class Result:
    """Of a trial, as far as it is looked at."""

    findings: dict = field(default_factory=dict)


def test_of_several_seeds_the_worst_counts_and_the_unmeasured_is_worst():
    """A gate may not be passed by what nobody looked at."""
    none = Result({"forgetting": nothing_changed("prompt").to_json()})
    open_ = Result({"forgetting": unmeasured("encoder").to_json()})
    assert worst_forgetting([none, open_]).status == "unmeasured"
    assert worst_forgetting([none, none]).loss == 0.0
    assert worst_forgetting([none, Result()]) is None
    assert worst_forgetting([]) is None


def test_the_task_file_names_what_is_retained(folder):
    """Relative to itself; a switch goes before it."""
    path = folder / "named.yaml"
    path.write_text((folder / "colours.yaml").read_text() + "retain: [sea.txt]\n", encoding="utf-8")
    lines: list[str] = []
    fit(path, "full(min_steps=2, epochs=1)", model=str(folder / "model"), say=lines.append)
    assert any(line.startswith("sea: perplexity") for line in lines)
    path.write_text((folder / "colours.yaml").read_text() + "retain: [none, sea.txt]\n", encoding="utf-8")
    with pytest.raises(Exception, match="none stands alone"):
        fit(path, "majority")
    path.write_text((folder / "colours.yaml").read_text() + "retain: 3\n", encoding="utf-8")
    with pytest.raises(Exception, match="retain must be a file name"):
        fit(path, "majority")


def test_findings_of_a_damaged_folder_are_refused(folder, tmp_path):
    """What is read is checked."""
    fit(folder / "colours.yaml", "majority", out=tmp_path / "one")
    path = tmp_path / "one" / "predictor.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"findings": 3}))
    with pytest.raises(Exception, match="findings must be dict"):
        read_manifest(tmp_path / "one")
    del values["findings"]
    path.write_text(json.dumps(values))
    assert read_manifest(tmp_path / "one").findings == {}
