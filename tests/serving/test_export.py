"""An exported encoder answers as it did, or is not written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from taskfit.errors import ConfigError, MissingExtraError, PredictorError
from taskfit.models import load
from taskfit.serving.bulk import predict_rows
from taskfit.serving.export import export_onnx
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks import load_task
from taskfit.testing import tiny_encoder
from tests.cli.conftest import TASK, topic_rows, write_rows
from tests.serving.conftest import table

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's exporter about itself


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of two topics."""
    folder = tmp_path_factory.mktemp("task")
    for start, name in ((0, "train"), (100, "validation"), (200, "test")):
        write_rows(folder / f"{name}.jsonl", topic_rows(24, start))
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")
    return folder / "task.yaml"


@pytest.fixture(scope="module")
def fitted(task_file: Path) -> Path:
    """A tiny encoder tuned a little."""
    model = load(tiny_encoder(task_file.parent / "model"), dtype="float32")
    strategy = parse("encoder(max_steps=4,min_steps=1)")
    strategy.fit(model, load_task(task_file), seed=0, budget=Budget()).save(task_file.parent / "fitted")
    return task_file.parent / "fitted"


@pytest.fixture(scope="module")
def exported(task_file: Path, fitted: Path) -> Path:
    """The same, exported."""
    pytest.importorskip("onnxruntime", reason="pip install 'taskfit[export]'")
    pytest.importorskip("onnxscript", reason="pip install 'taskfit[export]'")
    found = export_onnx(fitted, load_task(task_file), task_file.parent / "exported")
    assert (found.agreement, found.rows, found.before) == (1.0, 24, found.after)
    assert found.low <= 0 <= found.high
    return task_file.parent / "exported"


def test_the_exported_folder_predicts_through_the_runtime(
    exported: Path, fitted: Path, task_file: Path, tmp_path: Path
) -> None:
    rows = load_task(task_file).test
    before, after = load_predictor(fitted), load_predictor(exported)
    for one, other in zip(before.predict(rows), after.predict(rows), strict=True):
        assert one.probabilities is not None
        assert other.probabilities == pytest.approx(dict(one.probabilities), abs=1e-4)
    assert type(after._runtime).__name__ == "OnnxEncoder"  # type: ignore[attr-defined]
    assert json.loads((exported / "export.json").read_text())["agreement"] == 1.0
    predict_rows(exported, task_file.parent / "test.jsonl", tmp_path / "out")
    assert [row["answer"] for row in table(tmp_path / "out")] == [row.answer for row in before.predict(rows)]


def test_8_bits_make_the_file_smaller_and_keep_some_products_whole(
    exported: Path, fitted: Path, task_file: Path, tmp_path: Path
) -> None:
    """The head and the products behind the activation keep weights in float32, all others have 8 bits."""
    import onnx

    task = load_task(task_file)
    found = export_onnx(fitted, task, tmp_path / "out", runtime="onnx-int8", max_loss=1.0)
    assert (found.runtime, found.bytes) == ("onnx-int8", (tmp_path / "out" / "model.onnx").stat().st_size)
    assert found.bytes < 0.8 * (exported / "model.onnx").stat().st_size
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    whole = {one.name: tuple(one.dims) for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    kept = [whole[name] for node in graph.node if node.op_type == "MatMul" for name in node.input if name in whole]
    layers = load_predictor(fitted).classifier.encoder.config.num_hidden_layers  # type: ignore[attr-defined]
    assert len(kept) == layers + 1 and all(rows > columns for rows, columns in kept)
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) == 5 * layers
    before, after = (load_predictor(folder).predict(task.test) for folder in (fitted, tmp_path / "out"))
    for one, other in zip(before, after, strict=True):
        assert one.probabilities is not None
        assert other.probabilities == pytest.approx(dict(one.probabilities), abs=0.05)


def test_updates_beside_the_weights_are_exported_folded_in(exported: Path, task_file: Path, tmp_path: Path) -> None:
    """The file has the products of a plain encoder, and answers as the tuned one."""
    import onnx

    task = load_task(task_file)
    model = load(task_file.parent / "model", dtype="float32")
    strategy = parse("encoder(tune=lora(rank=2,learning_rate=0.05),max_steps=4,min_steps=4)")
    strategy.fit(model, task, seed=0, budget=Budget()).save(tmp_path / "tuned")
    assert export_onnx(tmp_path / "tuned", task, tmp_path / "out").agreement == 1.0
    plain, own = (onnx.load(folder / "model.onnx").graph.node for folder in (exported, tmp_path / "out"))
    assert sum(node.op_type == "MatMul" for node in own) == sum(node.op_type == "MatMul" for node in plain)


def test_an_unknown_runtime_is_refused(fitted: Path, task_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime must be one of onnx, onnx-int8 \(got 'tensorrt'\)"):
        export_onnx(fitted, load_task(task_file), tmp_path / "out", runtime="tensorrt")


def test_what_loses_too_much_is_not_written(
    exported: Path, fitted: Path, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskfit.inference.onnx_encoder import OnnxEncoder

    logits = OnnxEncoder.logits
    monkeypatch.setattr(OnnxEncoder, "logits", lambda self, texts: -logits(self, texts))
    model = (exported / "model.onnx").read_bytes()
    monkeypatch.setattr("taskfit.inference.onnx_encoder.write_onnx", lambda classifier, path: path.write_bytes(model))
    task = load_task(task_file)
    with pytest.raises(PredictorError, match=r"loses too much: accuracy 0\.\d+ becomes 0\.\d+ on 24 rows, 0\.0% of"):
        export_onnx(fitted, task, tmp_path / "out", max_loss=-2.0)
    assert not list(tmp_path.glob("*out*"))


def test_a_broken_file_is_refused(exported: Path, tmp_path: Path) -> None:
    import shutil

    import onnx

    shutil.copytree(exported, tmp_path / "broken")
    path = tmp_path / "broken" / "model.onnx"
    model = onnx.load(path)
    model.graph.input[0].name = "other"
    for node in model.graph.node:
        node.input[:] = ["other" if name == "input_ids" else name for name in node.input]
    onnx.save(model, path)
    with pytest.raises(PredictorError, match="must take input_ids and attention_mask"):
        load_predictor(tmp_path / "broken")
    path.write_bytes(b"no model")
    with pytest.raises(PredictorError, match=r"model\.onnx cannot be computed"):
        load_predictor(tmp_path / "broken")


def test_what_is_no_encoder_or_of_other_labels_is_refused(
    saved: Path, fitted: Path, task_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"only fitted encoders can be exported \(got linear\)"):
        export_onnx(saved, load_task(task_file), tmp_path / "out")
    other = task_file.with_name("other.yaml")
    other.write_text(TASK.replace("[food, music]", "[music, food]"), encoding="utf-8")
    with pytest.raises(ConfigError, match="labels that the predictor was fitted on"):
        export_onnx(fitted, load_task(other), tmp_path / "out")


@pytest.mark.parametrize("rows", [0, -5])
def test_a_number_of_rows_below_1_is_refused(saved: Path, task_file: Path, tmp_path: Path, rows: int) -> None:
    """-5 would leave the last five rows out and judge by the others."""
    with pytest.raises(ConfigError, match=f"rows must be at least 1 .got {rows}"):
        export_onnx(saved, load_task(task_file), tmp_path / "out", rows=rows)


def test_without_the_packages_the_command_to_install_them_is_told(
    exported: Path, fitted: Path, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'taskfit\[export\]'"):
        export_onnx(fitted, load_task(task_file), tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime, which is not installed"):
        load_predictor(exported)
