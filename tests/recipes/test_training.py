"""Steps 3 and 4: shapes, schedule, rows, optimisers, the loop that survives a kill, the scaling curve."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, DataError, StudyError, TrainingError
from tests.recipes.conftest import RECIPE

TOKENS = 6000


def _plan(**changes):  # type: ignore[no-untyped-def]
    from schedule import Plan

    small = {"first_batch": 256, "batch": 512, "growth_tokens": 1800, "length": 64, "decay_length": 128}
    return Plan(**{"size": "1m", "tokens": TOKENS, "warmup_steps": 3, "rate": 1e-2, **small, **changes})


def test_parameters_are_counted_as_torch_counts_them(encoded) -> None:  # type: ignore[no-untyped-def]
    """Tied embeddings once."""
    from network import SHAPES, load_tokenizer, new_model

    tokenizer = load_tokenizer(encoded.build / "tokenizer")
    for name in ("1m", "2m", "4m"):
        counted = sum(value.numel() for value in new_model(SHAPES[name], tokenizer, 0).parameters())
        assert SHAPES[name].parameters(len(tokenizer)) == counted


def test_work_is_what_torch_counts(encoded) -> None:  # type: ignore[no-untyped-def]
    """Products of forward and backward, by torch's own counter; attention there is over whole rows, not halves."""
    from network import SHAPES, load_tokenizer, new_model
    from torch.utils.flop_counter import FlopCounterMode

    tokenizer = load_tokenizer(encoded.build / "tokenizer")
    shape, length = SHAPES["2m"], 32
    model = new_model(shape, tokenizer, 0)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(1, length, dtype=torch.long)).logits.sum().backward()
    assert counter.get_total_flops() / length == pytest.approx(shape.flops_per_token(len(tokenizer), length), rel=0.05)


@settings(max_examples=50, deadline=None)
@given(st.integers(2_000, 300_000), st.floats(0.05, 0.6), st.floats(0, 0.9))
def test_a_schedule_reads_its_tokens_in_order_and_ends_near_zero(tokens: int, decay: float, growth: float) -> None:
    """Rows of each stage follow each other without a gap; the rate rises, stays and falls."""
    from schedule import steps_of

    plan = _plan(tokens=tokens, decay_share=decay, growth_tokens=int(tokens * growth))
    steps = steps_of(plan)
    for is_decay in (False, True):
        own = [step for step in steps if step.is_decay is is_decay]
        assert own and own[0].first_text == 0
        for before, step in pairwise(own):
            assert step.first_text == before.first_text + before.text_rows
            assert step.first_instruction == before.first_instruction + before.instruction_rows
    done = 0
    for step in steps:
        assert step.tokens_before == done
        done += (step.text_rows + step.instruction_rows) * step.length
    assert abs(done - tokens) <= 2 * plan.batch
    shares = [step.rate_share for step in steps]
    top = shares.index(max(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1]) and 0 < shares[-1] <= max(shares)
    sizes = [step.text_rows for step in steps if not step.is_decay]
    assert sizes == sorted(sizes)


def test_an_epoch_reads_every_row_once_and_the_next_shuffles_anew(tmp_path: Path) -> None:
    """At another offset, so that other tokens end a row; the same question gives the same answer."""
    from rows import rows_at

    stream = np.arange(1000, dtype=np.uint16)
    number = (1000 + 1) // 16 - 1
    first, second = (rows_at(stream, epoch * number, number, 16, seed=3) for epoch in (0, 1))
    for rows in (first, second):
        assert len(set(rows.flatten().tolist())) == number * 16
        assert (rows[:, 1:] - rows[:, :-1] == 1).all()
    assert first[:, 0].tolist() != second[:, 0].tolist()
    assert torch.equal(rows_at(stream, 5, 3, 16, seed=3), first[5:8])
    with pytest.raises(DataError, match="at least 2000 tokens"):
        rows_at(stream, 0, 1, 1000, seed=0)


def test_a_stream_of_half_an_id_is_refused(tmp_path: Path) -> None:
    """As after a copy that was cut off."""
    from rows import open_stream

    path = tmp_path / "corpus.bin"
    for content in (b"", b"abc"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no stream of two-byte ids"):
            open_stream(path)


def test_documents_in_a_row_do_not_see_each_other(encoded) -> None:  # type: ignore[no-untyped-def]
    """The loss of a row is the sum of its documents' losses alone."""
    from network import SHAPES, labelled, load_tokenizer, new_model
    from pretrain import fastest_loss

    tokenizer = load_tokenizer(encoded.build / "tokenizer")
    model = new_model(SHAPES["2m"], tokenizer, 0)
    texts = [torch.tensor([[1, *range(10, 10 + count)]]) for count in (7, 12)]
    loss_sum = fastest_loss(model, tokenizer)
    apart = [loss_sum(model, labelled(text)) for text in texts]
    loss, tokens = loss_sum(model, labelled(torch.cat(texts, 1)))
    assert tokens == 19 == sum(count for _, count in apart)
    assert loss.item() == pytest.approx(sum(value.item() for value, _ in apart), rel=1e-4)
    chat = torch.tensor([[3, 20, 2, 4, 21, 2]])  # user, a word, end, assistant, a word, end
    alone, marked = (loss_sum(model, labelled(rows)) for rows in (chat, torch.cat([torch.tensor([[1]]), chat], 1)))
    assert marked[1] == alone[1] == 5 and marked[0].item() == pytest.approx(alone[0].item(), rel=1e-4)


def test_muon_and_adamw_train_every_weight_once(encoded) -> None:  # type: ignore[no-untyped-def]
    """Matrices inside the layers by Muon, all others by AdamW, norms without decay."""
    from network import SHAPES, load_tokenizer, new_model
    from optimizer import optimizers

    model = new_model(SHAPES["1m"], load_tokenizer(encoded.build / "tokenizer"), 0)
    for kind, count in (("muon", 2), ("adamw", 1)):
        found = optimizers(model, kind, 1e-3)  # type: ignore[arg-type]
        own = [id(value) for one in found for group in one.param_groups for value in group["params"]]
        assert len(found) == count
        assert sorted(own) == sorted(id(value) for value in model.parameters())
    assert len(found[0].param_groups[1]["params"]) == 2 * 6 + 1


def test_a_stopped_training_ends_with_the_same_bits(encoded, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Stopped in the first stage, at its end and in the decay, against one go."""
    import shutil

    from places import Places
    from pretrain import pretrain
    from schedule import steps_of

    plan = _plan()
    stable = sum(not step.is_decay for step in steps_of(plan))
    weights = []
    for name, stops in (("one", (None,)), ("many", (2, stable, stable + 1, None))):
        shutil.copytree(encoded.build, tmp_path / name)
        places = Places(encoded.data, tmp_path / name)
        for stop in stops:
            pretrain(places, plan, "cpu", heldout=0, until=stop)
        weights.append((places.build / "pretrained" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    with pytest.raises(StudyError, match="tokens was 6000, now 7000"):
        pretrain(places, _plan(tokens=7000), "cpu")


def test_a_retargeted_training_ends_with_the_bits_of_the_new_plan(encoded, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Fewer tokens while the rate is constant, then more after the end: the decay between leaves no trace."""
    import json
    import shutil

    from places import Places
    from pretrain import pretrain, retarget

    weights = []
    for name in ("straight", "further"):
        shutil.copytree(encoded.build, tmp_path / name)
        places = Places(encoded.data, tmp_path / name)
        if name == "further":
            with pytest.raises(DataError, match=r"pretrain-plan.json is missing"):
                retarget(places, 9000)
            pretrain(places, _plan(tokens=7000), "cpu", heldout=0, until=5)
            assert retarget(places, TOKENS) == _plan()
            with pytest.raises(ConfigError, match="5 steps at the constant rate are done"):
                retarget(places, 600)
            pretrain(places, _plan(), "cpu", heldout=0)
            shorter = (places.build / "pretrained" / "model.safetensors").read_bytes()
            assert retarget(places, 9000) == _plan(tokens=9000)
            assert (places.build / "pretrained" / "model.safetensors").read_bytes() == shorter
        pretrain(places, _plan(tokens=9000), "cpu", heldout=0)
        weights.append((places.build / "pretrained" / "model.safetensors").read_bytes())
        assert json.loads((places.build / "pretrain-plan.json").read_text())["tokens"] == 9000
    assert weights[0] == weights[1] != shorter


def test_a_killed_training_ends_with_the_same_bits(encoded, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A real kill -9 after the first checkpoint, in the middle of whatever it does."""
    import shutil

    from places import Places
    from pretrain import pretrain

    plan = _plan(tokens=20_000)
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[3]))\n"
        "from pathlib import Path; import loop; from places import Places; from pretrain import pretrain\n"
        "from schedule import Plan; loop.run_steps.__kwdefaults__['checkpoint_every_s'] = 0.0\n"
        f"pretrain(Places(Path(sys.argv[1]), Path(sys.argv[2])), {plan!r}, 'cpu', heldout=0)"
    )
    weights = []
    for name, is_killed in (("whole", False), ("killed", True)):
        folder = tmp_path / name
        shutil.copytree(encoded.build, folder)
        if is_killed:
            environment = {**os.environ, "PYTHONPATH": f"{RECIPE}{os.pathsep}{RECIPE.parents[1]}"}
            command = [sys.executable, "-c", code, str(encoded.data), str(folder), str(torch.get_num_threads())]
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
                while not (folder / "pretrain" / "checkpoint.safetensors").exists() and process.poll() is None:
                    time.sleep(0.005)
                time.sleep(0.02)
                process.send_signal(signal.SIGKILL)
            assert not (folder / "pretrained").exists()
        pretrain(Places(encoded.data, folder), plan, "cpu", heldout=0)
        weights.append((folder / "pretrained" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_training_learns(trained) -> None:  # type: ignore[no-untyped-def]
    """The loss falls below that of guessing among all entries."""
    report = trained.built("pretrain.json", "")
    assert report["losses"][0] == pytest.approx(math.log(400), rel=0.1)
    assert report["loss"] < 0.9 * report["losses"][0]


def test_a_loss_that_is_not_finite_stops_the_training(encoded, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """With the step, and what to lower."""
    from loop import Course, run_steps
    from network import SHAPES, load_tokenizer, new_model

    model = new_model(SHAPES["1m"], load_tokenizer(encoded.build / "tokenizer"), 0)

    def loss_sum(module, batch):  # type: ignore[no-untyped-def]
        return module.lm_head.weight.sum() * math.nan, 1

    course = Course((1e-3,), lambda step: [{"input_ids": torch.ones(1, 2)}], loss_sum, "adamw", {})
    with pytest.raises(TrainingError, match="loss of step 1 is nan"):
        run_steps(model, course, tmp_path)


def test_bits_of_a_text_do_not_depend_on_windows_that_hold_it_whole(trained) -> None:  # type: ignore[no-untyped-def]
    """Against one pass over the whole text; and every token is predicted once when it needs several windows."""
    from network import document_bits, load_tokenizer
    from transformers import AutoModelForCausalLM

    folder = trained.build / "pretrained"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), load_tokenizer(folder)
    text = "The quiet river by the old mill runs on through the winter morning."
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        exact = model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1) / math.log(2)
    ((whole, characters),) = document_bits(model, tokenizer, [text])
    ((parts, _),) = document_bits(model, tokenizer, [text], length=16)
    assert characters == len(text)
    assert whole == pytest.approx(exact, rel=0.02)
    assert parts == pytest.approx(exact, rel=0.2)


def test_windows_predict_every_token_once() -> None:
    """Each new part begins where the last one ended, with at least half a window before it."""
    from network import _windows

    for count in (2, 16, 17, 18, 40, 100):
        ids = list(range(count))
        predicted = [token for window, first in _windows(ids, 16) for token in window[first:]]
        assert predicted == ids[1:]
        assert all(first >= 8 or window[0] == 0 for window, first in _windows(ids, 16))


def test_the_scaling_curve_is_found_again() -> None:
    """Points from a known curve; its best size for some work is the best of the known one."""
    from curve import Curve, Point, best_point, fit_curve
    from scaling import markdown, report_of

    true = Curve(2.0, 1.5, 2.5, 0.35)
    points = [Point(n, d, true.loss(n, d)) for n in (1e6, 2e6, 4e6) for d in (1e6, 3e6, 9e6)]
    found = fit_curve(points)
    for name in ("floor", "a", "b", "power"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.05)
    assert best_point(found, 1e16, 8192)[0] == best_point(true, 1e16, 8192)[0]
    report = report_of(points, [1e15, 1e17], 8192)
    assert report["best"][0]["same_without_one"] == "9 of 9"
    assert report["best"][1]["tokens"] > report["best"][0]["tokens"]
    assert "tell no curve" not in markdown(report)
    flat = [Point(n, d, 7.0 + (n == 1e6)) for n in (1e6, 2e6, 4e6) for d in (1e6, 3e6, 9e6)]
    assert "tell no curve" in markdown(report_of(flat, [1e15], 8192))
    with pytest.raises(DataError, match="at least 4 trainings"):
        fit_curve(points[:3])


def test_the_scaling_study_runs_only_what_is_missing(encoded, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """And draws its picture and tables."""
    import argparse

    from places import Places
    from scaling import markdown, picture, report_of, run_points

    places = Places(encoded.data, tmp_path)
    for name in ("tokenizer", "corpus.bin", "instructions.bin", "heldout.jsonl"):
        (tmp_path / name).symlink_to(encoded.build / name)
    options = argparse.Namespace(rate=1e-2, seed=0, device="cpu")
    points = run_points(places, ["1m", "2m"], [3_000, 6_000], options)
    marks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("scaling/*/pretrain.json")}
    assert run_points(places, ["1m", "2m"], [3_000, 6_000], options) == points and len(marks) == 4
    assert all(path.stat().st_mtime_ns == moment for path, moment in marks.items())
    report = report_of(points, [1e15], 400)
    assert "same without one point" in markdown(report)
    assert picture(report).startswith("<svg")


def test_size_and_tokens_come_from_the_measured_rate_and_the_hours(encoded, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """By tokens a weight without a fitted curve, else by the curve."""
    import pretrain
    from network import SHAPES, load_tokenizer

    tokenizer = load_tokenizer(encoded.build / "tokenizer")
    assert pretrain.measure("1m", tokenizer, "cpu", tokens=512) > 0
    monkeypatch.setattr(pretrain, "measure", lambda size, *rest: 5000.0)
    sizes = [pretrain.choose(hours, tokenizer, "cpu", 10)[0] for hours in (0.1, 1, 4, 100)]
    assert sizes == sorted(sizes, key=list(SHAPES).index) and sizes[0] != sizes[-1]
    size, tokens, rate = pretrain.choose(3, tokenizer, "cpu", 10)
    assert tokens == int(rate * 3 * 3600) >= 10 * SHAPES[size].parameters(len(tokenizer))
    from curve import Curve

    assert pretrain.choose(3, tokenizer, "cpu", 10, Curve(2.0, 1e-6, 1.0, 0.3))[0] == "1m"
    assert pretrain.choose(3, tokenizer, "cpu", 10, Curve(2.0, 1.0, 1e-6, 0.3))[0] == "15m"
    with pytest.raises(ConfigError, match="expected a size of 1m"):
        pretrain.shape_named("7m")


def test_a_plan_says_what_it_takes_and_is_gone_on_with(encoded, tmp_path: Path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The same command again takes the plan that was begun, at whatever speed the machine is; other options differ."""
    import argparse

    import pretrain
    from places import Places

    (tmp_path / "tokenizer").symlink_to(encoded.build / "tokenizer")
    places = Places(encoded.data, tmp_path)
    defaults = {"tokens": None, "rate": None, "optimizer": None, "seed": None, "device": "cpu", "ratio": 10.0}
    chosen = argparse.Namespace(size="1m", hours=0.1, **defaults)
    monkeypatch.setattr(pretrain, "measure", lambda size, *rest: 5000.0)
    plan = pretrain._plan(chosen, places)
    assert plan.tokens == 1_800_000 and plan.warmup_steps == 10
    assert "1m: 0.3 M weights, 1.8 M tokens" in capsys.readouterr().err
    pretrain._keep_plan(tmp_path / "pretrain-plan.json", plan)
    monkeypatch.setattr(pretrain, "measure", lambda size, *rest: 4000.0)
    assert pretrain._plan(chosen, places) == plan
    chosen.rate = 1e-3
    with pytest.raises(StudyError, match=r"rate was 0.004, now 0.001"):
        pretrain._keep_plan(tmp_path / "pretrain-plan.json", pretrain._plan(chosen, places))
    chosen.hours = -1
    (tmp_path / "pretrain-plan.json").unlink()
    with pytest.raises(ConfigError, match="must be above 0"):
        pretrain._plan(chosen, places)
