"""Predictors of programs, and predictor folders: whole, checked, and the same after loading."""

from __future__ import annotations

import errno
import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from taskfit import files
from taskfit.errors import ConfigError, PredictorError, ResourceError
from taskfit.files import is_disk_full
from taskfit.inference.requests import Score
from taskfit.models.work import Work
from taskfit.strategy import composed as composed_module
from taskfit.strategy import predictor as predictor_module
from taskfit.strategy import table
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Budget, StrategyEntry
from taskfit.strategy.folder import new_folder, write_file
from taskfit.strategy.grammar import parse
from taskfit.strategy.manifest import add_cost, read_manifest
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks.task import Row
from taskfit.testing import FakeEngine, generated, scored
from tests.strategy.small_tasks import small_task


@dataclass(frozen=True)
class Stamp:
    """A change of weights without a model: writes one file."""

    ink: str = "blue"
    holds_all: bool = False
    architectures = frozenset({"decoder"})

    def change(self, model, task, program, *, seed, budget):
        return Work(trained_tokens=len(program.prompt(task.definition, task.train[0]).text))

    def save(self, model, folder):
        (folder / ("config.json" if self.holds_all else "adapter.txt")).write_text(self.ink)

    def load(self, model, folder):
        if self.holds_all:
            assert model is None
            return _model(ink=(folder / "config.json").read_text())
        return SimpleNamespace(**vars(model) | {"ink": (folder / "adapter.txt").read_text()})


def _model(**more):
    values = {
        "name": "tiny",
        "folder": Path("models/tiny"),
        "fingerprint": "f" * 64,
        "architecture": "decoder",
        "dtype": "torch.float32",
    }
    return SimpleNamespace(**values | more)


def _respond(request):
    """Answer from the text of the request alone, so that the same request has the same answer."""
    if isinstance(request, Score):
        return scored(
            request, [-(zlib.crc32(f"{request}{text}".encode()) % 999) / 99 for text in request.continuations]
        )
    return generated(request, f" word{zlib.crc32(str(request).encode()) % 99} ")


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    """No torch here: engines answer from the request's text; one more row in the table."""
    for module in (predictor_module, composed_module):
        monkeypatch.setattr(module, "engine_for", lambda model: FakeEngine(_respond))
    rows = {"stamp": StrategyEntry(f"{__name__}:Stamp", "weights", "stamp")}
    monkeypatch.setattr(table, "STRATEGIES", table.STRATEGIES | rows)


def _fitted(name, kind="classification", model=None):
    return parse(name).fit(model or _model(), small_task(kind), seed=3, budget=Budget())


@pytest.mark.parametrize("kind", ["classification", "choice", "generation"])
@pytest.mark.parametrize(
    "name",
    [
        "zero-shot(wording=1)",
        "zero-shot(answer=generate)",
        "few-shot(k=3)",
        "few-shot(k=2, select=similar, order=similar-last)",
        "few-shot(order=shuffled)",
        "stamp(ink=red)+few-shot(k=2)",
    ],
)
def test_a_loaded_predictor_predicts_the_same(name, kind, tmp_path):
    """Saved and loaded: the same predictions, strategy, work of the fit and example prompt."""
    task = small_task(kind)
    fitted = _fitted(name, kind)
    fitted.save(tmp_path / "p")
    loaded = load_predictor(tmp_path / "p", model=_model())
    assert list(loaded.predict(task.test)) == list(fitted.predict(task.test))
    assert (loaded.strategy, loaded.fit_work, loaded.example) == (fitted.strategy, fitted.fit_work, fitted.example)
    assert loaded.definition == task.definition


def test_a_loaded_predictor_saves_the_same_folder(tmp_path):
    """Nothing is lost on the way through a folder."""
    _fitted("stamp+few-shot").save(tmp_path / "a")
    load_predictor(tmp_path / "a", model=_model()).save(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["adapter.txt", "predictor.json", "prompt.txt"]
    assert all((tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text() for name in names)


def test_a_folder_that_holds_all_weights_needs_no_base_model(tmp_path):
    """The base model is neither loaded nor asked for."""
    _fitted("stamp(holds_all=true, ink=green)").save(tmp_path / "p")
    assert read_manifest(tmp_path / "p").needs_base is False
    assert load_predictor(tmp_path / "p").model.ink == "green"


def test_the_base_model_is_loaded_in_the_format_it_was_evaluated_in(tmp_path, monkeypatch):
    """By folder while that is there, else by name; the name stays the user's."""
    import taskfit.models

    calls = []

    def load(where, *, dtype, device):
        calls.append((where, dtype, device))
        return _Model(**vars(_model(name=str(where))))

    monkeypatch.setattr(taskfit.models, "load", load, raising=False)
    (tmp_path / "base").mkdir()
    _fitted("zero-shot", model=_model(folder=tmp_path / "base")).save(tmp_path / "here")
    _fitted("zero-shot", model=_model(folder=tmp_path / "gone")).save(tmp_path / "moved")
    assert load_predictor(tmp_path / "here").model.name == "tiny"
    load_predictor(tmp_path / "moved", dtype="bfloat16", device="cpu")
    assert calls == [(str(tmp_path / "base"), "float32", "auto"), ("tiny", "bfloat16", "cpu")]


@dataclass
class _Model:
    name: str
    folder: Path
    fingerprint: str
    architecture: str
    dtype: str


def test_a_base_model_with_another_fingerprint_is_refused(tmp_path):
    """Both fingerprints are named."""
    _fitted("stamp").save(tmp_path / "p")
    with pytest.raises(PredictorError, match=f"fingerprint {'f' * 64} .got tiny with fingerprint abc"):
        load_predictor(tmp_path / "p", model=_model(fingerprint="abc"))


def test_prediction_streams_in_windows(monkeypatch):
    """No row is read before the window before it is answered; the order stays."""
    monkeypatch.setattr(predictor_module, "WINDOW_ROWS", 4)
    fitted = _fitted("zero-shot")
    read = []

    def rows():
        for number in range(10):
            read.append(number)
            yield Row(f"r{number}", {"text": f"t{number}", "label": "good"})

    stream = fitted.predict(rows())
    assert next(stream).row_id == "r0"
    assert len(read) == 4
    assert [p.row_id for p in stream] == [f"r{number}" for number in range(1, 10)]
    assert fitted.engine.waves == [4, 4, 2]


def test_what_predicting_took_is_told(tmp_path):
    """Per row and altogether; unlabelled rows are predicted too."""
    fitted = _fitted("zero-shot")
    predictions = list(fitted.predict([Row("a", {"text": "one two"}), Row("b", {"text": "three"})]))
    assert [p.tokens_in for p in predictions] == [4, 3]  # "Film: one two\nLabel:" by words
    assert [p.tokens_out for p in predictions] == [3, 3]
    assert fitted.predict_work == Work(prompt_tokens=7, answer_tokens=6)


def test_the_example_prompt_is_readable_and_no_test_row(tmp_path):
    """prompt.txt shows the examples and a question of the validation rows under headings."""
    task = small_task("classification")
    _fitted("few-shot(k=2)").save(tmp_path / "p")
    text = (tmp_path / "p" / "prompt.txt").read_text()
    assert "--- example 2: answer ---\n" in text
    assert text.endswith(f"--- question (row {task.validation[0].id}) ---\nFilm: a great film, number 9\nLabel:\n")


def test_a_saved_name_keeps_its_meaning_when_a_default_changes(tmp_path):
    """The name in full is what is loaded."""
    _fitted("few-shot").save(tmp_path / "p")
    manifest = read_manifest(tmp_path / "p")
    assert manifest.strategy == "few-shot"
    assert manifest.strategy_in_full.startswith("few-shot(k=4, select=balanced, wording=0, normalise=auto, order=fixed")


def test_cost_measured_later_is_added_to_the_folder(tmp_path):
    """Nothing else of the manifest changes."""
    _fitted("majority").save(tmp_path / "p")
    before = read_manifest(tmp_path / "p")
    add_cost(tmp_path / "p", {"wall_s": 1.5})
    assert read_manifest(tmp_path / "p") == replace(before, cost={"wall_s": 1.5})
    assert before.cost is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "expected format 1"),
        ({"strategy_in_full": "fuw-shot"}, "did you mean 'few-shot'"),
        ({"strategy": 3, "seed": "x"}, "2 faults"),
        ({"seed": True}, "seed must be int"),
        ({"definition": {"kind": "poetry"}}, "definition"),
        ({"base": None}, "no base model is named"),
        ({"base": {"name": "x"}}, "folder must be str"),
        ({"fit_work": {"prompt_tokens": "1"}}, "prompt_tokens must be int"),
        ({"state": {}}, "wording must be a whole number"),
        ({"state": {"examples": {"shots": 3}}}, "shots must be a list"),
        ({"state": {"examples": {"shots": [3]}}}, "a question and an answer"),
        ({"state": {"calibration": {"normalise": "sum", "method": "none", "prior": ["x"]}}}, "prior must be a list"),
        ({"state": {"calibration": {"normalise": "sum", "method": "all"}}}, "calibration must name a known"),
        ({"state": {"wording": True, "answer": "sing", "system": 3}}, "5 faults"),
        ({"cost": [1]}, "cost must be dict"),
    ],
)
def test_a_damaged_manifest_is_refused(change, message, tmp_path):
    """Whatever was changed by hand is a PredictorError that says what was expected."""
    _fitted("few-shot").save(tmp_path / "p")
    path = tmp_path / "p" / "predictor.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PredictorError) as caught:
        load_predictor(tmp_path / "p", model=_model())
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff", "utf-8"), (b"[1]", "expected a JSON object"), (b'{"a": NaN}', "NaN"), (b"[" * 9999, "cannot read")],
)
def test_a_file_that_is_no_json_object_is_refused(content, message, tmp_path):
    """Hostile files end in a PredictorError."""
    (tmp_path / "predictor.json").write_bytes(content)
    with pytest.raises(PredictorError, match=message):
        load_predictor(tmp_path)


def test_a_file_too_large_to_be_a_manifest_is_not_read(tmp_path, monkeypatch):
    """Its size decides, before its content is in memory."""
    monkeypatch.setattr("taskfit.strategy.manifest._LARGEST_BYTES", 4)
    (tmp_path / "predictor.json").write_text('{"format": 1}')
    with pytest.raises(PredictorError, match="larger than"):
        load_predictor(tmp_path)


def test_a_folder_without_manifest_is_no_predictor(tmp_path):
    """Said with the file's name."""
    with pytest.raises(PredictorError, match=r"no predictor folder: it has no predictor\.json"):
        load_predictor(tmp_path)


def test_a_folder_with_files_is_never_overwritten(tmp_path):
    """An empty folder is used, any other refused as it is."""
    (tmp_path / "empty").mkdir()
    _fitted("majority").save(tmp_path / "empty")
    with pytest.raises(PredictorError, match="exists already"):
        _fitted("linear").save(tmp_path / "empty")
    assert read_manifest(tmp_path / "empty").strategy == "majority"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ResourceError),
        (PermissionError(errno.EACCES, "Permission denied"), PredictorError),
        (KeyError("bug"), KeyError),
    ],
)
def test_a_failed_save_leaves_nothing_behind(error, kind, tmp_path, monkeypatch):
    """Disk full, no permission or a bug: neither the folder nor a part of it is there."""

    def fail(self, model, folder):
        (folder / "half").write_text("written")
        raise error

    monkeypatch.setattr(Stamp, "save", fail)
    with pytest.raises(kind):
        _fitted("stamp").save(tmp_path / "deep" / "p")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    """Rewriting a file is whole or not at all."""
    write_file(tmp_path / "a.txt", "old \ud800")
    assert (tmp_path / "a.txt").read_text() == "old \\ud800"

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ResourceError, match="disk is full"):
        write_file(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text().startswith("old")
    with pytest.raises(PredictorError, match="cannot write"):
        write_file(tmp_path / "a.txt" / "b", "below a file")


def test_a_wrapped_full_disk_is_recognised():
    """Also when a library raised its own error from the system's."""
    wrapped = ValueError("cannot save")
    wrapped.__cause__ = OSError(errno.EDQUOT, "quota")
    assert is_disk_full(wrapped)
    assert not is_disk_full(ValueError("cannot save"))


def test_new_folder_takes_its_name_when_all_is_written(tmp_path):
    """Before that there is no folder of that name."""
    with new_folder(tmp_path / "x") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text("1")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x" / "inner" / "file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_files_of_a_predictor_folder_can_be_read_by_whom_the_folder_lets_in(tmp_path):
    """Whatever a library that writes weights thinks of it: a folder is copied, served and shipped by others."""
    with new_folder(tmp_path / "x") as partial:
        partial.chmod(0o750)
        (partial / "weights").touch(mode=0o600)
    assert (tmp_path / "x" / "weights").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "kind", "architecture", "message"),
    [
        ("linear", "generation", None, "solves tasks of kind classification (got generation)"),
        ("few-shot", "choice", "encoder", "or an encoder with a masked-token head (this one has none)"),
        ("lora", "choice", "encoder", "architecture decoder or encoder-decoder (got encoder)"),
        ("stamp", "choice", None, "architecture decoder (got no model)"),
    ],
)
def test_a_strategy_that_does_not_suit_is_refused_before_anything_runs(name, kind, architecture, message):
    """Kind and architecture are checked by name."""
    with pytest.raises(ConfigError) as caught:
        check_fit(parse(name), kind, architecture)
    assert message in caught.value.message


def test_an_encoder_that_fills_masks_scores_and_writes_nothing():
    """Its head is what makes the difference."""
    check_fit(parse("few-shot"), "choice", "encoder", has_masked_head=True)
    check_fit(parse("encoder"), "classification", "encoder")
    with pytest.raises(ConfigError, match="an encoder fills masks only"):
        check_fit(parse("zero-shot"), "generation", "encoder", has_masked_head=True)


def test_fitting_without_a_model_says_so():
    """A program needs a model that generates."""
    with pytest.raises(ConfigError, match="got no model"):
        parse("few-shot").fit(None, small_task("choice"), seed=0, budget=Budget())


@pytest.mark.parametrize("name", ["zero-shot(calibrate=batch)", "prompt-search(budget=8, k=0)", "prompt-ensemble"])
def test_what_choosing_asks_is_work_of_the_fit(name):
    """Asked on validation before anything is predicted; predicting starts from nothing, and the finding is said."""
    said: list[str] = []
    fitted = parse(name).fit(
        _model(), small_task("classification"), seed=3, budget=Budget(say=lambda line: said.append(line))
    )
    assert fitted.fit_work.prompt_tokens > 0
    assert fitted.predict_work == Work()
    assert said or "batch" in name


def test_a_change_of_weights_comes_before_choosing():
    """The changed model is what is asked; both kinds of work add up."""
    fitted = _fitted("stamp+few-shot(k=2, calibrate=batch)")
    assert fitted.fit_work.trained_tokens > 0 and fitted.fit_work.prompt_tokens > 0
    assert fitted.prepared.calibration.prior is not None


def test_the_models_own_words_come_with_the_prediction():
    """What could not be read is there to be seen."""
    [prediction] = _fitted("zero-shot(answer=generate)").predict(small_task("classification").test[:1])
    assert not prediction.is_parsed
    assert prediction.raw.startswith("word")
