"""Seven sides of one predictor, on the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from taskfit.costs.meter import Measured, Meter
from taskfit.errors import ConfigError, DataError
from taskfit.evaluation.retained import suite
from taskfit.evaluation.sides import SIDES
from taskfit.models.work import Work
from taskfit.strategy.contract import Prediction
from taskfit.strategy.predictor import load_predictor
from taskfit.studies.efficiency import Timed, efficiency_side
from taskfit.studies.fit import fit
from taskfit.studies.holistic import HolisticView, _spoken, holistic
from taskfit.tasks import load_task
from taskfit.testing import tiny_decoder

TASK = """
name: letters
kind: {kind}
data: {{train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
input: "{{{{ text }}}}"
target: "{{{{ label }}}}"
{rest}
"""


def write_task(folder: Path, kind: str = "classification", rest: str = "labels: [praise, refund]") -> Path:
    """Write a task whose rows have people in groups, one of them with a single row."""
    words = {"praise": "She is a great big help, it is not bad", "refund": "He is angry, my money is not back"}
    for split, rows in (("train", 16), ("validation", 4), ("test", 12)):
        lines = [
            json.dumps(
                {
                    "text": f"{words[label]} {split} {number}",
                    "label": label,
                    "group": "c" if number == 11 else "ab"[number // 2 % 2],
                    "tags": [1],
                }
            )
            for number in range(rows)
            for label in [sorted(words)[number % 2]]
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    path = folder / f"{kind}.yaml"
    path.write_text(TASK.format(kind=kind, rest=rest), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear predictor, and a zero-shot one of a tiny model for texts."""
    path = tmp_path_factory.mktemp("holistic")
    fit(write_task(path), "linear", out=path / "linear")
    task = write_task(path, "generation", "max_answer_tokens: 4")
    fit(task, "zero-shot", model=str(tiny_decoder(path / "model")), out=path / "writer")
    return path


@pytest.fixture(scope="module")
def view(folder: Path) -> HolisticView:
    return holistic(folder / "linear", folder / "classification.yaml", group_by="group")


def test_all_seven_sides_are_there_in_order_and_as_json(view: HolisticView) -> None:
    """Measured or with a reason; no NaN anywhere."""
    assert tuple(side.name for side in view.sides) == SIDES
    assert all(bool(side.headline) != bool(side.reason) for side in view.sides)
    assert json.loads(json.dumps(view.to_json(), allow_nan=False))["rows"] == 12


def test_figures_are_those_of_the_rows(folder: Path, view: HolisticView) -> None:
    """Accuracy is that of predicting once more."""
    task = load_task(folder / "classification.yaml")
    predictions = list(load_predictor(folder / "linear").predict(task.test))
    right = [p.answer == row.fields["label"] for p, row in zip(predictions, task.test, strict=True)]
    accuracy = {side.name: side for side in view.sides}["accuracy"]
    figures = {figure.name: figure.value for figure in (accuracy.headline, *accuracy.figures) if figure}
    assert figures["accuracy"] == pytest.approx(sum(right) / 12)


def test_every_change_of_the_input_is_one_of_the_figures(view: HolisticView) -> None:
    """Those that found a word to change; the others are named."""
    robust = {side.name: side for side in view.sides}["robustness"]
    names = " ".join(figure.name for figure in robust.figures)
    for change in ("typos", "lower", "upper", "contract", "spaces", "dialect", "synonyms"):
        assert f"answers that {change} changes" in names
    assert "expand" in " ".join(robust.notes)


def test_groups_are_compared_and_one_of_a_single_row_says_so(view: HolisticView) -> None:
    """Swapped terms stand behind the gap."""
    fair = {side.name: side for side in view.sides}["fairness"]
    assert fair.headline is not None
    assert "gap between groups of group" in fair.headline.name
    single = next(figure for figure in fair.figures if figure.name.endswith(", c"))
    assert (single.rows, single.low) == (1, None)
    assert any(figure.name == "answers that gender changes" for figure in fair.figures)


def test_what_a_linear_strategy_has_not_is_said(view: HolisticView) -> None:
    """No model, no text; its operations are 0."""
    sides = {side.name: side for side in view.sides}
    assert "does not ship" in sides["bias"].reason
    assert sides["toxicity"].reason == "the strategy writes no text"
    assert sides["efficiency"].headline is not None
    assert sides["efficiency"].headline.low is not None
    assert {figure.name: figure.value for figure in sides["efficiency"].figures}["operations (FLOPs), a row"] == 0


def test_answers_in_words_are_judged_and_have_no_calibration(folder: Path) -> None:
    """A generation task by a random model; its operations are counted."""
    found = holistic(folder / "writer", folder / "generation.yaml", rows=4)
    sides = {side.name: side for side in found.sides}
    assert "needs probabilities" in sides["calibration"].reason
    assert (sides["toxicity"].headline is None) == bool(sides["toxicity"].reason)
    efficiency = {figure.name: figure.value for figure in sides["efficiency"].figures}
    assert efficiency["operations (FLOPs), a row"] > 0
    assert efficiency["tokens in, a row"] > 0


def test_a_model_that_only_scores_is_judged_by_how_it_goes_on(folder: Path) -> None:
    """With one draw for each beginning of an ordinary text, the same again the next time."""
    fit(folder / "classification.yaml", "zero-shot", model=str(folder / "model"), out=folder / "scorer")
    texts = [_spoken(load_predictor(folder / "scorer")) for _ in range(2)]
    assert len(texts[0]) == len(suite()[0].texts)
    assert texts[0] == texts[1]
    with pytest.raises(ConfigError, match="writes no text"):
        _spoken(load_predictor(folder / "linear"))


def test_a_task_without_an_input_of_its_own_has_no_robustness(tmp_path: Path) -> None:
    """What changes the only field would change the answer; said, not guessed. Groups alone still count."""
    path = write_task(tmp_path, "generation", "max_answer_tokens: 4")
    path.write_text(path.read_text().replace("{{ label }}", "{{ text }}"), encoding="utf-8")
    fit(path, "majority", out=tmp_path / "one")
    sides = {side.name: side for side in holistic(tmp_path / "one", path).sides}
    assert "no field of the rows is input alone" in sides["robustness"].reason
    assert "no field of the rows is input alone" in sides["fairness"].reason
    assert sides["accuracy"].headline is not None


def test_efficiency_of_a_single_run_and_of_an_unknown_model(folder: Path, tmp_path: Path) -> None:
    """No interval, and no operations that were not counted."""
    fitted = load_predictor(folder / "writer")
    with Meter("predict") as meter:
        predictions = list(fitted.predict(load_task(folder / "generation.yaml").test[:2]))
    run = Timed(meter.measured, Work(), fitted.predict_work, predictions)
    fitted.model.folder = tmp_path  # it holds no configuration
    side = efficiency_side(folder / "writer", fitted, [run])
    assert side.headline is not None
    assert (side.headline.low, side.headline.high) == (None, None)
    assert "a single run" in side.headline.note
    assert not any("FLOPs" in figure.name for figure in side.figures)


def test_a_service_without_a_price_has_an_efficiency_without_money() -> None:
    """The rows are answered, and perhaps paid for, when its price is asked for."""
    model = SimpleNamespace(architecture="service", name="https://api.example.com/v1#m")
    measured = Measured("predict", wall_s=2.0, cpu_s=1.0, peak_memory_bytes=5, start_memory_bytes=1)
    run = Timed(measured, Work(), Work(), [Prediction("r", "a", tokens_in=3, tokens_out=1)])
    side = efficiency_side(Path("mine"), SimpleNamespace(model=model), [run])
    assert side.headline is not None and side.headline.value == 2000
    assert not any("USD" in figure.name for figure in side.figures)
    assert any("no price for the tokens of api.example.com" in note for note in side.notes)


def test_word_lists_are_changes_or_swaps_by_their_name(folder: Path, tmp_path: Path) -> None:
    """And a list of occupations replaces nothing."""
    for name, entry in (
        ("misspellings", {"word": "great", "misspellings": ["graet"]}),
        ("swaps_names", {"word": "She", "swap": "They"}),
        ("stereotyped_occupations", {"gender": "male", "occupation": "cook"}),
    ):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(entry), encoding="utf-8")
    found = holistic(folder / "linear", folder / "classification.yaml", word_lists=tmp_path)
    sides = {side.name: " ".join(figure.name for figure in side.figures) for side in found.sides}
    assert "misspellings" in sides["robustness"] and "swaps_names" in sides["fairness"]
    assert "swaps_names" not in sides["robustness"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"group_by": "colour"}, ConfigError, "no row has a field 'colour'"),
        ({"group_by": "tags"}, DataError, "holds lists or objects"),
        ({"word_lists": "nowhere"}, DataError, "no folder with word lists"),
        ({"bias": ["nowhere"]}, DataError, "no such file or folder"),
        ({"rows": 100}, ConfigError, "size must be between 1 and 12"),
    ],
)
def test_wrong_input_is_told_before_anything_is_predicted(
    folder: Path, options: dict, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line."""
    monkeypatch.setattr("taskfit.strategy.predictor.load_predictor", None)
    with pytest.raises(error, match=said):
        holistic(folder / "linear", folder / "classification.yaml", **options)
