"""Encoders fine-tuned as classifiers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from taskfit.errors import ConfigError, DataError, PredictorError
from taskfit.models.language_model import LanguageModel
from taskfit.models.load import open_folder
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks.task import Row, Task
from taskfit.testing import tiny_encoder
from taskfit.tuning import encoder_predictor
from taskfit.tuning.classifier import EncoderClassifier, class_loss, collate_texts
from taskfit.tuning.encoder import Encoder, _learning_rate
from taskfit.tuning.encoder_predictor import EncoderPredictor
from tests.tuning.keyword_task import keyword_task, rows, tiny_model

QUICK = Encoder(epochs=1, min_steps=2, learning_rate=1e-3)
LEARNER = Encoder(epochs=1, min_steps=60, learning_rate=3e-3, batch=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> EncoderPredictor:
    """A tiny encoder that has learned 16 rows."""
    return LEARNER.fit(tiny_model(folder, "bert"), keyword_task(16, 8), seed=0, budget=Budget())


def loss_of(hidden: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        return float(class_loss(hidden, batch)[0])


class Lookup(torch.nn.Module):
    """An "encoder" whose hidden state is the token's own vector."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(50, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
        class Output:
            last_hidden_state = self.table(input_ids)

        return Output()


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_loss_equals_a_loop_in_float64(pool: str) -> None:
    """Pooling leaves padding out; one row at a time by hand."""
    torch.manual_seed(0)
    module = EncoderClassifier(Lookup(), 4, 3, pool, 0.5).eval()  # type: ignore[arg-type]
    texts, labels = [(3, 7, 9), (11,), (5, 5)], [2, 0, 1]
    found = loss_of(module, collate_texts(texts, 0, torch.device("cpu"), labels))
    expected = 0.0
    table, weight = module.encoder.table.weight.detach().double(), module.head.weight.detach().double()
    for ids, label in zip(texts, labels, strict=True):
        states = table[list(ids)]
        pooled = states[0] if pool == "cls" else states.sum(0) / len(ids)
        expected -= float((weight @ pooled + module.head.bias.detach()).log_softmax(0)[label])
    assert found == pytest.approx(expected, rel=1e-5)


def test_training_reaches_prediction(predictor: EncoderPredictor) -> None:
    """A random encoder learns 16 rows."""
    train = keyword_task(16).train
    found = [prediction.answer for prediction in predictor.predict(train)]
    assert sum(answer == row.fields["label"] for answer, row in zip(found, train, strict=True)) >= 15


def test_a_loaded_predictor_predicts_the_same(predictor: EncoderPredictor, tmp_path: Path) -> None:
    """To the bit, from the folder alone."""
    predictor.save(tmp_path / "saved")
    loaded = load_predictor(tmp_path / "saved", device="cpu")
    assert list(loaded.predict(rows(20, 300))) == list(predictor.predict(rows(20, 300)))
    assert parse(loaded.strategy) == LEARNER
    assert loaded.fit_work == predictor.fit_work
    assert not any(path.suffix in {".bin", ".pt", ".pkl"} for path in (tmp_path / "saved").iterdir())


def test_the_saved_body_is_an_ordinary_encoder(predictor: EncoderPredictor, tmp_path: Path) -> None:
    """Others can load it."""
    predictor.save(tmp_path / "saved")
    model = open_folder(tmp_path / "saved", dtype="float32", device="cpu")
    assert model.architecture == "encoder"
    for name, value in model.module.named_parameters():
        assert torch.equal(value, predictor.model.module.get_parameter(name))


def test_a_bfloat16_model_predicts_the_same_when_loaded(folder: Path, tmp_path: Path) -> None:
    """The body keeps the format in which it came, the head is float32."""
    made = QUICK.fit(tiny_model(folder, "bert", "bfloat16"), keyword_task(8, 4), seed=0, budget=Budget())
    assert made.classifier.head.weight.dtype == torch.float32
    assert made.model.module.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    made.save(tmp_path / "saved")
    loaded = load_predictor(tmp_path / "saved", device="cpu")
    assert list(loaded.predict(rows(6))) == list(made.predict(rows(6)))


def test_order_is_kept_and_windows_do_not_matter(predictor: EncoderPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are sorted by length inside, not outside; probabilities sum to 1 and do not depend on the neighbours."""
    some = [Row(f"x{index}", {"text": "good " * (1 + index * 7 % 11)}) for index in range(23)]
    whole = list(predictor.predict(some))
    monkeypatch.setattr(encoder_predictor, "WINDOW_ROWS", 5)
    for one, other, row in zip(predictor.predict(iter(some)), whole, some, strict=True):
        assert one.row_id == other.row_id == row.id
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert sum(one.probabilities.values()) == pytest.approx(1.0, abs=1e-9)
        assert one.answer == max(one.probabilities, key=one.probabilities.__getitem__)
        assert one.tokens_in > 2 and one.tokens_out == 0


def test_long_texts_keep_their_head_and_are_counted(folder: Path) -> None:
    """In training, where it is said, and in prediction."""
    said: list[str] = []
    task = keyword_task(8, 4)
    short = replace(QUICK, max_tokens=8)
    made = short.fit(tiny_model(folder, "bert"), task, seed=0, budget=Budget(say=said.append))
    assert any("8 of 8 texts are too long and lost" in line for line in said)
    assert made.fit_work.cut_rows == 8 and made.fit_work.cut_tokens > 8
    prediction = next(iter(made.predict(task.test)))
    assert prediction.tokens_in == 8 and prediction.cut_tokens > 0
    assert made.predict_work.cut_tokens >= prediction.cut_tokens
    head = Row("h", {"text": " ".join(str(task.test[0].fields["text"]).split()[:5]) + " something else at the end"})
    assert next(iter(made.predict([head]))).probabilities == pytest.approx(prediction.probabilities, abs=1e-6)


def test_work_is_counted(predictor: EncoderPredictor) -> None:
    """Everything goes backward in training; predicting adds up."""
    work = predictor.fit_work
    assert 0 < work.trained_tokens < work.computed_tokens, "validation goes forward only"
    assert work.answer_tokens == work.head_tokens == 0
    before = predictor.predict_work
    found = list(predictor.predict(rows(4)))
    added = predictor.predict_work.prompt_tokens - before.prompt_tokens
    assert added == sum(prediction.tokens_in for prediction in found)


def test_a_label_without_rows_is_a_warning(folder: Path) -> None:
    """It can hardly be predicted."""
    said: list[str] = []
    task = keyword_task(8, 0)
    definition = replace(task.definition, labels=("negative", "positive", "mixed"))
    QUICK.fit(tiny_model(folder, "bert"), replace(task, definition=definition), seed=0, budget=Budget(say=said.append))
    assert any("1 labels have no training row" in line and "mixed" in line for line in said)
    assert any("no validation rows" in line for line in said)
    assert any("⟦negative⟧" in line for line in said)


def with_label(task: Task, label: str) -> Task:
    strange = (*task.train, Row("s1", {"text": "the fish was good", "label": label}))
    return replace(task, splits={**task.splits, "train": strange})


def test_a_label_outside_the_set_names_row_and_label(folder: Path) -> None:
    """Never silently another class."""
    with pytest.raises(DataError, match="row s1 has label 'odd'"):
        QUICK.fit(tiny_model(folder, "bert"), with_label(keyword_task(4), "odd"), seed=0, budget=Budget())


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_model_that_is_no_encoder_is_refused(folder: Path, family: str) -> None:
    """So is no model, and a task that is no classification."""
    with pytest.raises(ConfigError, match="needs a model of architecture encoder"):
        QUICK.fit(tiny_model(folder, family), keyword_task(4), seed=0, budget=Budget())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="solves tasks of kind classification"):
        QUICK.fit(tiny_model(folder, "bert"), keyword_task(4, kind="generation"), seed=0, budget=Budget())
    with pytest.raises(ConfigError, match="no model"):
        QUICK.fit(None, keyword_task(4), seed=0, budget=Budget())


def test_float16_is_refused(folder: Path) -> None:
    """Gradients leave its range."""
    with pytest.raises(ConfigError, match="needs a model in float32 or bfloat16"):
        QUICK.fit(tiny_model(folder, "bert", "float16"), keyword_task(4), seed=0, budget=Budget())


def test_a_masked_head_is_not_used(tmp_path: Path) -> None:
    """Only the body of a masked language model is tuned and saved."""
    tiny_encoder(tmp_path / "masked", has_masked_head=True)
    model: LanguageModel = open_folder(tmp_path / "masked", dtype="float32", device="cpu")
    made = QUICK.fit(model, keyword_task(8, 4), seed=0, budget=Budget())
    made.save(tmp_path / "saved")
    assert not any(name.startswith("cls.") for name in load_file(tmp_path / "saved" / "model.safetensors"))
    loaded = load_predictor(tmp_path / "saved", device="cpu")
    assert list(loaded.predict(rows(4))) == list(made.predict(rows(4)))


def test_damaged_folders_are_refused(predictor: EncoderPredictor, tmp_path: Path) -> None:
    """A head of another shape, or none; a body that is no encoder."""
    predictor.save(tmp_path / "good")
    bad = shutil.copytree(tmp_path / "good", tmp_path / "bad")
    head = load_file(bad / "head.safetensors")
    save_file({**head, "bias": torch.zeros(7)}, bad / "head.safetensors")
    with pytest.raises(PredictorError, match=r"bias must have shape \(2,\) \(got \(7,\)\)"):
        load_predictor(bad, device="cpu")
    (bad / "head.safetensors").unlink()
    with pytest.raises(PredictorError, match="cannot be read as weights"):
        load_predictor(bad, device="cpu")


def test_the_same_seed_gives_the_same_predictor(folder: Path) -> None:
    """And another one gives another."""
    found = []
    for seed in (0, 0, 1):
        made = QUICK.fit(tiny_model(folder, "bert"), keyword_task(8, 4), seed=seed, budget=Budget())
        found.append(next(iter(made.predict(rows(1)))).probabilities)
    assert found[0] == found[1] != found[2]


def test_a_fit_goes_on_from_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    """Run again with the same folder, nothing is trained anew and the predictor is the same."""
    said: list[str] = []
    first = QUICK.fit(tiny_model(folder, "bert"), keyword_task(8, 4), seed=0, budget=Budget(folder=tmp_path))
    budget = Budget(folder=tmp_path, say=said.append)
    again = QUICK.fit(tiny_model(folder, "bert"), keyword_task(8, 4), seed=0, budget=budget)
    assert not any(line.startswith("step") for line in said)
    assert list(again.predict(rows(4))) == list(first.predict(rows(4)))
    assert again.fit_work == first.fit_work


def test_cls_pooling_reads_the_first_token(folder: Path) -> None:
    """Another predictor than the mean's."""
    made = replace(QUICK, pool="cls").fit(tiny_model(folder, "bert"), keyword_task(8, 4), seed=0, budget=Budget())
    texts = [tuple(made.model.tokenizer.encode("the fish was good"))]
    with torch.no_grad():
        batch = collate_texts(texts, 0, torch.device("cpu"))
        hidden = made.model.module(**batch).last_hidden_state[:, 0]
        assert_close(made.classifier(**batch), made.classifier.head(hidden))


@pytest.mark.parametrize(("width", "rate"), [(384, 3e-4), (768, 5e-5), (1024, 3.75e-5)])
def test_the_rate_follows_the_width(width: int, rate: float) -> None:
    """Narrow encoders were measured, wide ones follow BERT."""
    assert _learning_rate(width) == pytest.approx(rate)


def test_faults_of_the_parameters_are_said_together() -> None:
    """One error."""
    with pytest.raises(ConfigError, match=r"(?s)max_tokens must be .*epochs must be"):
        Encoder(max_tokens=2, epochs=0)
    with pytest.raises(ConfigError, match="pool must be one of mean, cls"):
        Encoder(pool="max")  # type: ignore[arg-type]
    assert Encoder(epochs=2).name == "encoder(epochs=2)"


@pytest.mark.parametrize(
    "tune", ["lora(rank=4)", "bitfit", "head-only", "prompt-tuning(tokens=3)", "adapter(bottleneck=4)", "pissa(rank=2)"]
)
def test_a_part_of_the_encoder_can_be_tuned(folder: Path, tmp_path: Path, tune: str) -> None:
    """Saved as what was changed, beside the head; loaded on the base it predicts the same."""
    said: list[str] = []
    strategy = parse(f"encoder(tune={tune}, epochs=1, min_steps=8, learning_rate=0.01)")
    model = tiny_model(folder, "bert")
    made = strategy.fit(model, keyword_task(12, 4), seed=0, budget=Budget(say=said.append))
    assert any(line.startswith("below the linear layer") for line in said)
    made.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    loaded = load_predictor(tmp_path / "saved", model=tiny_model(folder, "bert"))
    assert list(loaded.predict(rows(8))) == list(made.predict(rows(8)))
    assert parse(loaded.strategy) == strategy
    assert made.fit_work.trained_tokens == 0 < made.fit_work.trained_frozen_tokens


def test_a_tuned_part_learns(folder: Path) -> None:
    """Low-rank updates of a random encoder learn 16 rows too."""
    strategy = parse("encoder(tune=lora(rank=8), epochs=1, min_steps=60, learning_rate=0.01, batch=8)")
    made = strategy.fit(tiny_model(folder, "bert"), keyword_task(16, 8), seed=0, budget=Budget())
    train = keyword_task(16).train
    found = [prediction.answer for prediction in made.predict(train)]
    assert sum(answer == row.fields["label"] for answer, row in zip(found, train, strict=True)) >= 14


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("zero-shot", r"tune must be a change of weights alone, such as lora\(rank=4\) \(got zero-shot\)"),
        ("lora+few-shot(k=2)", "tune must be a change of weights alone"),
        ("majority", "tune must be a change of weights alone"),
        ("lora(epochs=9, batch=2)", "epochs, batch must be given to encoder itself"),
    ],
)
def test_only_a_change_of_weights_tunes_an_encoder(tune: str, message: str) -> None:
    """And how long is said in one place."""
    with pytest.raises(ConfigError, match=message):
        parse(f"encoder(tune={tune})")


@pytest.mark.parametrize(
    ("tune", "is_folded"), [("lora(rank=2)", True), ("bitfit", True), ("adapter(bottleneck=4)", False)]
)
def test_a_fitted_encoder_predicts_packed_where_its_changes_can_be_folded_in(
    tmp_path: Path, tune: str, is_folded: bool
) -> None:
    """The folder still holds what was trained, apart from its base."""
    task = keyword_task(16, 8)
    strategy = parse(f"encoder(tune={tune},max_steps=2,min_steps=1)")
    fitted = strategy.fit(tiny_model(tmp_path, "bert"), task, seed=0, budget=Budget())
    fitted.save(tmp_path / "saved")
    again = load_predictor(tmp_path / "saved")
    for one in (fitted, again):
        found = [row.probabilities for row in one.predict(task.test)]
        assert (type(one._runtime).__name__ == "PackedEncoder") is is_folded  # type: ignore[attr-defined]
        one._runtime, plain = None, one  # type: ignore[attr-defined]
        for packed_row, row in zip(found, plain.predict(task.test), strict=True):
            assert packed_row == pytest.approx(dict(row.probabilities or {}), abs=1e-4)
