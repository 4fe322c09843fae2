"""Everything is checked before anything runs."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from taskfit.errors import ConfigError, ModelError, StudyError
from taskfit.strategy.grammar import parse
from taskfit.studies.folder import locked
from taskfit.studies.forecast import Forecaster
from taskfit.studies.needs import check_task, shots, usage, uses_seed, uses_train
from taskfit.studies.plan import check_disk, plan
from taskfit.studies.spec import Limits, ModelFacts, StudyConfig, short_names, trial_id
from taskfit.studies.study_file import open_folder, read_study
from taskfit.studies.test_rows import read_test_rows
from tests.strategy.small_tasks import small_task
from tests.studies.fakes import FAKES, load_task, write_task


@pytest.fixture
def task(tmp_path):
    return load_task(write_task(tmp_path / "task.json"))


def make(task, **settings):
    return plan(task, StudyConfig(**{"strategies": ("right(0.9)",), **settings}), rooms=FAKES)


def test_trials_cross_models_strategies_seeds_and_sizes(task):
    """Every combination that makes sense is there once, the first seed of everything first."""
    found = make(
        task, strategies=("right(0.9)", "model-right(0.8)"), models=("a", "b"), seeds=2, train_sizes=(10, None)
    )
    cells = [(t.strategy, t.model, t.seed, t.train_rows) for t in found.trials]
    assert len(cells) == len(set(cells)) == (1 + 2) * 2 * 2
    assert [t.seed for t in found.trials] == [0] * 6 + [1] * 6
    assert {t.model for t in found.trials if t.strategy == "right(0.9)"} == {None}
    assert len({t.id for t in found.trials}) == 12


def test_all_rows_and_the_number_of_rows_are_the_same_size(task):
    """A size equal to the whole training set is no second trial."""
    assert len(make(task, seeds=1, train_sizes=(30, None)).trials) == 1


def test_all_faults_of_a_config_come_together(task):
    """One error names every wrong option and every unknown strategy."""
    with pytest.raises(ConfigError) as caught:
        make(
            task,
            strategies=("rigth(0.9)", "right(0.9)"),
            seeds=0,
            train_sizes=(31, 0),
            jobs=0,
            timeout_s=-1.0,
            limits=Limits(usd=0.0),
        )
    message = caught.value.message
    for part in ("rigth", "seeds", "jobs", "timeout_s", "limits.usd", "got 31", "got 0", "between 1 and 30"):
        assert part in message


def test_empty_lists_are_faults(task):
    """No strategy and no size is nothing to run."""
    with pytest.raises(ConfigError, match="strategies must name at least one"):
        make(task, strategies=())
    with pytest.raises(ConfigError, match="train_sizes must name at least one"):
        make(task, train_sizes=())


def test_empty_test_set_is_a_fault(tmp_path):
    """Nothing can be compared without test rows."""
    with pytest.raises(ConfigError, match="test set must hold at least one row"):
        make(load_task(write_task(tmp_path / "t.json", test=0)))


def test_strategy_that_does_not_fit_is_left_out_with_the_reason(task):
    """An encoder cannot be prompted; the plan says so and runs the rest."""
    found = make(task, strategies=("right(0.9)", "model-right(0.8)"), models=("encoder-x",))
    assert [t.strategy for t in found.trials] == ["right(0.9)"] * 3
    (skipped,) = found.skipped
    assert (skipped.strategy, skipped.model) == ("model-right(0.8)", "encoder-x")
    assert skipped.reason == "needs a model of architecture decoder (got encoder)"


def test_nothing_left_to_run_is_an_error_with_the_reasons(task):
    """A plan without trials is refused."""
    with pytest.raises(ConfigError, match="needs a model of architecture decoder"):
        make(task, strategies=("model-right(0.8)",), models=("encoder-x",))


def test_model_that_cannot_be_used_is_found_before_anything_runs(task):
    """The model is loaded in a process of its own and its error comes back as it is."""
    with pytest.raises(ModelError, match="has no tokenizer") as caught:
        make(task, strategies=("model-right(0.8)",), models=("broken",))
    assert caught.value.hint == "save the tokenizer into the folder"


def test_unused_models_are_said(task):
    """Models named for strategies that need none are no silent matter."""
    assert any("not used" in note for note in make(task, models=("a",)).notes)


def test_task_without_a_file_is_refused(task):
    """Trials read the task again, so there must be a file."""
    with pytest.raises(ConfigError, match="read from a file"):
        make(replace(task, path=None))


def test_small_test_set_and_detectable_difference_are_said(task):
    """24 rows show large differences only, and the plan says how large."""
    found = make(task)
    assert 0.2 < found.detectable_difference < 0.5
    assert any("24 test rows can show" in note for note in found.notes)


def test_generation_has_no_detectable_difference_in_accuracy(task):
    """Overlap metrics are no shares of right rows, so nothing is claimed about them."""
    generation = replace(task, definition=replace(task.definition, kind="generation", metrics=("rouge_l",)))

    def parse(name):
        return SimpleNamespace(name=name, architectures=frozenset(), kinds=frozenset({"generation"}))

    found = plan(generation, StudyConfig(strategies=("any",)), rooms=replace(FAKES, parse=parse))
    assert found.detectable_difference is None and not any("rows" in note for note in found.notes)


def test_every_trial_is_priced_and_unknown_hardware_is_refused(task):
    """Forecasts come with the plan; a machine without a price is an error."""
    assert all(t.forecast_s > 0 and t.forecast_usd > 0 for t in make(task).trials)
    with pytest.raises(ConfigError, match="no price for the machine"):
        make(task, hardware="cray-1")


def test_trial_id_depends_on_everything_that_decides_the_result():
    """Changing any part of a trial changes its id; equal parts give the same."""
    base = ("task", "lora", "m", "fp", 0, None)
    others = [("x", *base[1:]), ("task", "full", "m", "fp", 0, None), ("task", "lora", "n", "fp", 0, None)]
    others += [("task", "lora", "m", "fq", 0, None), ("task", "lora", "m", "fp", 1, None)]
    others += [("task", "lora", "m", "fp", 0, 64)]
    assert trial_id(*base) == trial_id(*base)
    assert len({trial_id(*parts) for parts in (base, *others)}) == 7


def test_folder_of_another_plan_is_refused_and_untouched(task, tmp_path):
    """Each difference is named; the folder keeps every byte."""
    folder = tmp_path / "study"
    open_folder(make(task), task, folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(StudyError) as caught:
        open_folder(make(task, strategies=("right(0.8)",), seeds=2), task, folder)
    assert "strategies was right(0.9), now right(0.8)" in caught.value.message
    assert "seeds was 3, now 2" in caught.value.message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_keeps_the_versions_and_the_machine_of_its_first_run(task, tmp_path):
    """Its trials were computed with them, whatever runs the study again."""
    open_folder(make(task), task, tmp_path / "study")
    path = tmp_path / "study" / "study.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"versions": {"python": "3.0"}, "machine": {"cores": 999}}))
    open_folder(make(task, volume=7), task, tmp_path / "study")
    found = read_study(tmp_path / "study")
    assert (found.versions, found.machine) == ({"python": "3.0"}, {"cores": 999})
    assert found.plan.config.volume == 7


def test_going_on_with_other_versions_is_said(task, tmp_path):
    """Figures of two versions would stand beside each other without a word."""
    assert open_folder(make(task), task, tmp_path / "study").notes == make(task).notes
    assert open_folder(make(task), task, tmp_path / "study").notes == make(task).notes
    path = tmp_path / "study" / "study.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"versions": values["versions"] | {"torch": "1.0"}}))
    [note] = set(open_folder(make(task), task, tmp_path / "study").notes) - set(make(task).notes)
    assert f"torch 1.0 is {values['versions']['torch']} now" in note and "--out" in note


def test_what_should_be_retained_is_part_of_the_plan(task, tmp_path):
    """The task file may name it, and its text may change: seeds measured on others are not one candidate."""
    notes, rows = tmp_path / "notes.jsonl", ['{"text": "the tide comes in"}', '{"text": "the boat goes out"}']
    notes.write_text("\n".join(rows))
    asking = replace(task, retain=(str(notes),))
    open_folder(make(asking), asking, tmp_path / "study")
    open_folder(make(asking), asking, tmp_path / "study")
    notes.write_text("\n".join(rows).replace("out", "on"))
    with pytest.raises(StudyError, match="another plan: retained was notes"):
        open_folder(make(asking), asking, tmp_path / "study")
    with pytest.raises(StudyError, match=r"another plan: retained was notes.*now None"):
        open_folder(make(task), task, tmp_path / "study")


def test_volume_and_limits_may_change_between_runs(task, tmp_path):
    """No result depends on them, so the folder is the same study."""
    open_folder(make(task), task, tmp_path / "study")
    open_folder(make(task, volume=7, timeout_s=9.0), task, tmp_path / "study")
    assert read_study(tmp_path / "study").plan.config.volume == 7


def test_folder_with_other_files_is_refused(task, tmp_path):
    """A study never moves into somebody's folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(StudyError, match="no study folder"):
        open_folder(make(task), task, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.txt"]


def test_folder_in_use_is_refused(task, tmp_path):
    """The lock is held while another process works."""
    with locked(tmp_path / "study"), pytest.raises(StudyError, match="another process"):
        open_folder(make(task), task, tmp_path / "study")


def test_plan_survives_its_file(task, tmp_path):
    """What is read from ``study.json`` is the plan that was written, with versions and machine."""
    made = make(task, limits=Limits(usd=3.0), train_sizes=(10, None), prices=None)
    open_folder(made, task, tmp_path / "study")
    study = read_study(tmp_path / "study")
    assert study.plan == replace(made, task_path=made.task_path.resolve(), definition=study.plan.definition)
    assert study.versions["python"] and study.machine["cores"] >= 1
    rows = read_test_rows(tmp_path / "study")
    assert [row.row_id for row in rows] == [row.id for row in task.test]
    assert rows[0].gold == ("billing",) and rows[0].text == "billing test 0"


@pytest.mark.parametrize("content", ["", "[]", '{"format": 9}', '{"format": 1, "plan": {}}'])
def test_damaged_study_file_is_named(tmp_path, content):
    """A broken ``study.json`` is an error, never a guess."""
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(StudyError, match=r"study\.json"):
        read_study(tmp_path)
    (tmp_path / "study.json").unlink()
    (tmp_path / "test_rows.parquet").write_bytes(b"no parquet")
    with pytest.raises(StudyError, match=r"no study\.json"):
        read_study(tmp_path)
    with pytest.raises(StudyError, match="cannot be read"):
        read_test_rows(tmp_path)


def test_disk_that_cannot_hold_the_study_is_said_before_it_starts(task, tmp_path):
    """Whole models are saved by some strategies; too little space is found now."""
    found = make(task, strategies=("model-right(0.9)",), models=("a",))
    check_disk(found, tmp_path / "not" / "yet")
    whole = replace(found.trials[0], strategy="full")
    huge = replace(found.models[0], weight_bytes=10**18)
    with pytest.raises(ConfigError, match="GB are free"):
        check_disk(replace(found, trials=(whole,), models=(huge,)), tmp_path)


def strategy(name, **attributes):
    return SimpleNamespace(name=name, **attributes)


def test_what_strategies_draw_on():
    """Known strategies without chance run once; a stranger may say so himself."""
    assert not uses_seed(strategy("majority")) and not uses_seed(parse("zero-shot(wording=1)"))
    assert uses_seed(parse("lora+zero-shot")) and uses_seed(parse("few-shot(k=4)"))
    assert not uses_train(parse("zero-shot")) and uses_train(parse("lora")) and uses_train(strategy("linear"))
    assert not uses_seed(strategy("stranger", uses_seed=False))
    assert shots(strategy("few-shot(k=4)", program=SimpleNamespace(k=4))) == 4
    assert shots(strategy("majority")) == 0


def test_more_shots_than_training_rows_is_a_fault(task):
    """The smallest training set must hold the worked examples."""

    def parse(name):
        return SimpleNamespace(name=name, architectures=frozenset(), kinds=frozenset({"classification"}), k=8)

    with pytest.raises(ConfigError, match="needs 8 training rows"):
        plan(task, StudyConfig(strategies=("few",), train_sizes=(5,)), rooms=replace(FAKES, parse=parse))


def test_folders_are_shown_by_as_little_as_tells_them_apart():
    """Names stay names; of folders the last part, or more where that is not enough."""
    assert short_names(["minilm", "org/name", "/a/b/model"]) == {
        "minilm": "minilm",
        "org/name": "org/name",
        "/a/b/model": "model",
    }
    assert short_names(["/a/b/model", "/a/c/model", "./model"]) == {
        "/a/b/model": "b/model",
        "/a/c/model": "c/model",
        "./model": "./model",
    }


def test_a_folder_remembers_the_defaults_it_was_made_with():
    """When a later version changes a default, the same short name is another plan."""
    from taskfit.studies.study_file import _in_full

    assert "min_steps=" in _in_full("encoder")
    assert _in_full("encoder") == _in_full("encoder(epochs=4)")
    assert _in_full("not-in-the-table") == "not-in-the-table"


def test_what_programs_ask_reaches_the_forecast():
    """A chain of thought generates, a vote asks n times, a strategy of another package is taken as one request."""
    definition = small_task("classification").definition
    assert usage(parse("zero-shot"), definition, 50).requests == 1
    assert not usage(parse("zero-shot"), definition, 50).is_generated
    assert usage(parse("self-consistency(n=7)"), definition, 50).requests == 14
    assert usage(parse("zero-shot(calibrate=auto)"), definition, 50).fit_requests == 50
    assert not usage(parse("few-shot(select=similar)"), definition, 50).are_shots_shared
    assert usage(strategy("stranger"), small_task("generation").definition, 50).is_generated


def test_a_service_that_echoes_is_foreseen_to_be_asked_for_every_option():
    """Of labels and of a row's own options alike; what is generated is asked for once."""

    def usd(kind, scores):
        task = small_task(kind)
        texts = [task.definition.prompt_text(row) for row in task.test]
        price = Forecaster(task, SimpleNamespace(), None, texts, ["word"], texts)
        name = f"http://localhost:1/v1?style=completions&scores={scores}&usd_in=1&usd_out=1#m"
        facts = ModelFacts(name, "service", "f", 512, 0)
        return price.of(parse("zero-shot"), facts, None)[1]

    for kind in ("classification", "choice"):
        options = len(small_task(kind).definition.options(small_task(kind).test[0]))
        assert options > 1
        assert usd(kind, "echo") == pytest.approx(options * usd(kind, "top"))
    assert usd("generation", "echo") == usd("generation", "top")


def test_a_program_that_the_task_cannot_feed_is_left_out_with_the_reason():
    """One wording is no ensemble, and without rationales there are no worked chains."""
    task = small_task("classification")
    one = replace(task, definition=replace(task.definition, wordings=task.definition.wordings[:1]))
    for name, reason in (
        ("prompt-ensemble", "2 wordings or more"),
        ("chain-of-thought(k=2)", "with a rationale (got 0)"),
        ("few-shot(wording=1)", "wording must be between 0 and 0"),
        ("step-back(wording=1)", "wording must be between 0 and 0"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_task(parse(name), one)
        assert reason in caught.value.message
    check_task(parse("chain-of-thought"), one)
    check_task(strategy("stranger"), one)


def test_encoders_that_fill_masks_are_told_from_those_that_do_not():
    """By the class they were saved with."""

    def facts(architecture, config):
        return ModelFacts("m", architecture, "f", 512, 1000, config)

    assert facts("encoder", {"architectures": ["BertForMaskedLM"]}).has_masked_head
    assert not facts("encoder", {"architectures": ["BertModel"]}).has_masked_head
    assert not facts("encoder", {}).has_masked_head
    assert not facts("decoder", {"architectures": ["LlamaForCausalLM"]}).has_masked_head


def test_labels_are_counted_priced_and_limited(task):
    """Training and validation rows; a limit below the smallest training size contradicts it."""
    found = make(task, train_sizes=(10, None), seeds=1)
    assert [spec.labels for spec in found.trials] == [16, 36]
    with pytest.raises(ConfigError, match="contradict each other"):
        make(task, train_sizes=(10, 20), limits=Limits(labels=5))
    with pytest.raises(ConfigError, match="nothing would be measured"):
        make(task, limits=Limits(forgetting=0.1), retain=("none",))
    with pytest.raises(ConfigError, match=r"limits\.forgetting must be at least 0"):
        make(task, limits=Limits(forgetting=-0.1))
    with pytest.raises(ConfigError, match="usd_per_label must be at least 0"):
        make(task, usd_per_label=-1.0)
    with pytest.raises(ConfigError, match="volume must be at least 1"):
        make(task, volume=0)


def test_five_test_rows_are_said_to_be_too_few_before_anything_runs(tmp_path):
    """With how many are needed, to rank at all and to show ten points."""
    few = load_task(write_task(tmp_path / "few.json", test=5))
    notes = " ".join(make(few).notes)
    assert "the test set has 5 rows, and at least 20 are needed" in notes
    assert "5 test rows can show" in notes and "10.0 points would need about" in notes
