"""The response cache: never another model's answer, nothing computed or paid twice, whole after any crash."""

from __future__ import annotations

import copy
import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, EngineError, ServiceError
from taskfit.inference.http_call import Retry
from taskfit.inference.http_engine import HttpEngine
from taskfit.inference.requests import Generate, Request, Response, Score
from taskfit.inference.response_cache import CachedEngine, _prepare, default_cache
from taskfit.inference.torch_engine import TorchEngine
from taskfit.models import LanguageModel, load
from taskfit.models.service import ServiceModel
from taskfit.models.work import Work
from taskfit.tasks.prompt import Prompt
from taskfit.testing import FakeEngine, generated, scored, tiny_decoder
from taskfit.testing.service import FakeService

Tiny = Callable[[str], LanguageModel]


class NamedEngine(FakeEngine):
    """A fake engine that says which model it asks."""

    def __init__(self, name: str = "one") -> None:
        super().__init__(lambda request: _answer(name, request))
        self.name = name

    def identity(self) -> Mapping[str, str]:
        return {"engine": "fake", "model": self.name}


def _answer(name: str, request: Request) -> Response:
    if isinstance(request, Score):
        return scored(request, [-float(len(name + text)) for text in request.continuations])
    return generated(request, f"{name} {request.prompt.text} {request.seed}")


def asks(number: int, **parameters: object) -> list[Request]:
    return [Generate(Prompt(f"Question {n}?"), 5, **parameters) for n in range(number)]  # type: ignore[arg-type]


REQUESTS = st.lists(
    st.builds(Generate, st.builds(Prompt, st.sampled_from("abc")), st.integers(1, 2), seed=st.integers(0, 1))
    | st.builds(Score, st.builds(Prompt, st.sampled_from("abc")), st.sampled_from([("a",), ("b", "c")])),
    max_size=8,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30, deadline=None
)
@given(waves=st.lists(REQUESTS, max_size=4))
def test_answers_and_tokens_are_those_of_the_engine_without_a_cache(tmp_path: Path, waves: list[list[Request]]) -> None:
    path = tmp_path / "answers.sqlite"
    for leftover in tmp_path.iterdir():
        leftover.unlink()
    plain, inner = NamedEngine(), NamedEngine()
    cached = CachedEngine(inner, path)
    for wave in waves:
        assert cached.run(wave) == plain.run(wave)
    assert replace(cached.work, cached_answers=0) == plain.work
    asked = [request for wave in waves for request in wave]
    assert len(inner.requests) == len(set(asked)) == len(asked) - cached.work.cached_answers


def test_another_engine_object_and_another_process_find_the_answers(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.sqlite"
    expected = CachedEngine(NamedEngine(), path).run(asks(3))
    later = NamedEngine()
    assert CachedEngine(later, path).run(asks(3)) == expected
    assert later.requests == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_models_seeds_and_parameters_are_not_found(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    CachedEngine(NamedEngine("one"), path).run(asks(2, temperature=1.0))
    for engine, requests in [
        (NamedEngine("two"), asks(2, temperature=1.0)),
        (NamedEngine("one"), asks(2, temperature=1.0, seed=1)),
        (NamedEngine("one"), asks(2)),
    ]:
        CachedEngine(engine, path).run(requests)
        assert len(engine.requests) == 2


class TestTwoModelsNeverShareAnEntry:
    REQUEST = Score(Prompt("Is the review positive or negative?"), ("positive", "negative"))

    def hits(self, model: LanguageModel, path: Path) -> bool:
        """Whether the request is answered without this model; where it is, the answer is this model's."""
        engine = TorchEngine(model)
        cached = CachedEngine(engine, path)
        (answer,) = cached.run([self.REQUEST])
        is_hit = engine.work == Work()
        (expected,) = TorchEngine(model).run([self.REQUEST])
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)  # type: ignore[union-attr]
        assert is_hit == (cached.work.cached_answers == 1)
        assert cached.work.prompt_tokens == TorchEngine(model).work.prompt_tokens + expected.prompt_tokens
        return is_hit

    def test_the_same_model_loaded_again_does(self, tiny: Tiny, tmp_path: Path) -> None:
        model = tiny("llama")
        assert not self.hits(model, tmp_path / "c")
        assert self.hits(load(model.folder, dtype="float32", device="cpu"), tmp_path / "c")
        moved = shutil.copytree(model.folder, tmp_path / "moved")
        assert self.hits(load(moved, dtype="float32", device="cpu"), tmp_path / "c")

    def test_one_folder_whose_weights_were_replaced(self, tmp_path: Path) -> None:
        folder = tiny_decoder(tmp_path / "model", seed=0)
        assert not self.hits(load(folder, dtype="float32", device="cpu"), tmp_path / "c")
        shutil.rmtree(folder)
        tiny_decoder(folder, seed=1)
        assert not self.hits(load(folder, dtype="float32", device="cpu"), tmp_path / "c")

    def test_another_number_format(self, tiny: Tiny, tmp_path: Path) -> None:
        model = tiny("llama")
        engine = TorchEngine(load(model.folder, dtype="bfloat16", device="cpu"))
        assert not self.hits(model, tmp_path / "c")
        CachedEngine(engine, tmp_path / "c").run([self.REQUEST])
        assert engine.work.computed_tokens > 0

    def test_an_adapter_its_strength_and_switching_it_off(self, tiny: Tiny, tmp_path: Path) -> None:
        import torch
        from peft import LoraConfig, get_peft_model

        path, base = tmp_path / "c", tiny("llama")
        assert not self.hits(base, path)
        torch.manual_seed(0)
        model = replace(base, module=copy.deepcopy(base.module))
        settings_ = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], init_lora_weights=False)
        with warnings.catch_warnings():  # peft reads a name that transformers has renamed
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            wrapped = get_peft_model(model.module, settings_)
        model = replace(model, module=wrapped)
        assert not self.hits(model, path)
        assert self.hits(model, path)
        layer = next(part for part in wrapped.modules() if "scaling" in vars(part) and isinstance(part.scaling, dict))
        layer.scaling["default"] *= 2
        assert not self.hits(model, path)
        with wrapped.disable_adapter():
            assert not self.hits(model, path)  # as good as the base model; known as itself

    def test_one_engine_whose_model_is_trained_between_calls(self, tiny: Tiny, tmp_path: Path) -> None:
        import torch

        model = replace(tiny("llama"), module=copy.deepcopy(tiny("llama").module))
        engine = TorchEngine(model)
        cached = CachedEngine(engine, tmp_path / "c")
        answers = [cached.run([self.REQUEST])[0]]
        weights = list(model.module.parameters())
        optimiser = torch.optim.SGD(weights, lr=0.1)
        model.module(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
        optimiser.step()
        answers.append(cached.run([self.REQUEST])[0])
        weights[0].data[10] += 0.5  # behind autograd's back: no version is counted
        answers.append(cached.run([self.REQUEST])[0])
        with torch.no_grad():
            model.module.lm_head.weight[:] = model.module.lm_head.weight.flip(0)  # the same numbers in another order
        answers.append(cached.run([self.REQUEST])[0])
        assert cached.work.cached_answers == 0
        assert len({repr(answer) for answer in answers}) == 4

    def test_another_tokenizer_or_chat_template_over_the_same_weights(self, tiny: Tiny, tmp_path: Path) -> None:
        model = tiny("chat")
        assert not self.hits(model, tmp_path / "c")
        tokenizer = copy.deepcopy(model.tokenizer)
        tokenizer.chat_template = tokenizer.chat_template.replace("message['role']", "'x' + message['role']")
        assert not self.hits(replace(model, tokenizer=tokenizer), tmp_path / "c")
        assert not self.hits(replace(model, has_chat_template=False), tmp_path / "c")
        assert not self.hits(replace(model, context=100), tmp_path / "c")

    def test_models_of_one_service_and_one_model_of_two_services(self, tmp_path: Path) -> None:
        with FakeService(lambda t: "a", models=["m", "n"]) as first, FakeService(lambda t: "b", models=["m"]) as second:
            for service, model in [(first, "m"), (first, "n"), (second, "m")]:
                engine = HttpEngine(ServiceModel(service.name(model)))
                answer = CachedEngine(engine, tmp_path / "c").run(asks(1))[0]
                assert answer.text == service.answer("")  # type: ignore[union-attr]
        assert (first.answered, second.answered) == (2, 1)


def test_a_service_is_paid_once_and_its_tokens_are_told_every_time(tmp_path: Path) -> None:
    with FakeService() as service:
        works = []
        for _ in range(2):
            cached = CachedEngine(HttpEngine(ServiceModel(service.name())), tmp_path / "c")
            cached.run([*asks(4), *asks(4)])
            works.append(cached.work)
    first, second = works
    assert service.answered == 4
    assert (first.paid_prompt_tokens, second.paid_prompt_tokens) == (8, 0)
    assert first.service_prompt_tokens == second.service_prompt_tokens == second.prompt_tokens == 16
    assert first.service_answer_tokens == second.service_answer_tokens == 8
    assert (first.cached_answers, second.cached_answers) == (4, 8)


def test_what_was_paid_before_a_failure_is_in_the_cache(tmp_path: Path) -> None:
    with FakeService(faults=[None, None, "refused"]) as service:
        model = ServiceModel(service.name(concurrency=1))
        cached = CachedEngine(HttpEngine(model, retry=Retry(calls=1)), tmp_path / "c")
        with pytest.raises(ServiceError):
            cached.run(asks(5))
        cached.run(asks(5))
    assert service.answered == 5


def _write(path: Path, start: int, number: int) -> None:
    for n in range(start, start + number):
        CachedEngine(NamedEngine(), path).run([Generate(Prompt(f"{n}"), 5)])


def test_several_processes_share_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "answers.sqlite"
    processes = [context.Process(target=_write, args=(path, start, 20)) for start in (0, 10, 20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    engine = NamedEngine()
    CachedEngine(engine, path).run([Generate(Prompt(f"{n}"), 5) for n in range(40)])
    assert engine.requests == []


def test_a_process_killed_while_writing_leaves_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    process = multiprocessing.get_context("fork").Process(target=_write, args=(path, 0, 100_000))
    process.start()
    while not path.exists() or len(_rows(path)) < 20:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = len(_rows(path))
    engine = NamedEngine()
    requests: Sequence[Request] = [Generate(Prompt(f"{n}"), 5) for n in range(kept + 5)]
    assert CachedEngine(engine, path).run(requests) == NamedEngine().run(requests)
    assert len(engine.requests) == 5


def _rows(path: Path) -> list[object]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT key FROM answers").fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def _execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("change", ["answer = replace(answer, 'one', 'two')", "key = zeroblob(32)", "checksum = NULL"])
def test_an_entry_that_was_changed_is_computed_again(tmp_path: Path, change: str) -> None:
    path = tmp_path / "c"
    expected = CachedEngine(NamedEngine(), path).run(asks(1))
    _execute(path, f"UPDATE answers SET {change}")
    engine = NamedEngine()
    assert CachedEngine(engine, path).run(asks(1)) == expected
    assert len(engine.requests) == 1


def test_an_entry_of_a_later_version_is_computed_again(tmp_path: Path) -> None:
    from taskfit.inference.response_cache import _checksum

    path = tmp_path / "c"
    CachedEngine(NamedEngine(), path).run(asks(1))
    connection = sqlite3.connect(path, isolation_level=None)
    (key,) = connection.execute("SELECT key FROM answers").fetchone()
    text = '{"response": {"kind": "drawn"}, "work": {}}'
    connection.execute("UPDATE answers SET answer = ?, checksum = ?", (text, _checksum(key, text)))
    connection.close()
    engine = NamedEngine()
    CachedEngine(engine, path).run(asks(1))
    assert len(engine.requests) == 1


def test_a_file_that_is_no_cache_is_told_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("notes " * 1000, encoding="utf-8")
    foreign = tmp_path / "foreign.sqlite"
    _execute(foreign, "CREATE TABLE mine (x)")
    later = tmp_path / "later.sqlite"
    CachedEngine(NamedEngine(), later).run(asks(1))
    _execute(later, "PRAGMA user_version = 2")
    for path, words in [(text, "damaged, or no cache"), (foreign, "another program's"), (later, "format 2")]:
        before = path.read_bytes()
        with pytest.raises(EngineError, match=words) as caught:
            CachedEngine(NamedEngine(), path).run(asks(1))
        assert "Move the file away" in str(caught.value.hint)
        assert path.read_bytes() == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(EngineError, match="cannot be opened"):
        CachedEngine(NamedEngine(), tmp_path / "folder").run(asks(1))


def test_a_damaged_file_is_an_error_or_a_right_answer_and_never_a_wrong_one(tmp_path: Path) -> None:
    path = tmp_path / "c"
    expected = CachedEngine(NamedEngine(), path).run(asks(50))
    content = path.read_bytes()
    for at in range(0, len(content), 997):
        path.write_bytes(content[:at] + bytes(40) + content[at + 40 :])
        for leftover in ("c-wal", "c-shm"):
            (tmp_path / leftover).unlink(missing_ok=True)
        try:
            assert CachedEngine(NamedEngine(), path).run(asks(50)) == expected
        except EngineError as error:
            assert str(path) in error.message


@pytest.mark.parametrize("moment", range(3))
def test_a_file_that_another_process_makes_at_this_moment_is_no_other_programs(tmp_path: Path, moment: int) -> None:
    """Trials start together; whoever comes second finds tables that were not there a statement before."""
    path = tmp_path / "answers.sqlite"
    mine, theirs = (sqlite3.connect(path, isolation_level=None) for _ in range(2))

    class Meanwhile:
        statements = 0

        def execute(self, sql: str) -> SimpleNamespace:
            row = mine.execute(sql).fetchone()
            if self.statements == moment:
                _prepare(theirs, path)
            self.statements += 1
            return SimpleNamespace(fetchone=lambda: row)

    _prepare(Meanwhile(), path)  # type: ignore[arg-type]
    for connection in (mine, theirs):
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (0,)
        connection.close()


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "c"
    CachedEngine(NamedEngine(), path).run([])
    CachedEngine(NamedEngine(), path).run(asks(1))
    _execute(path, "CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    with pytest.warns(RuntimeWarning, match="not kept .* disk is full") as caught:
        assert CachedEngine(NamedEngine(), path).run(asks(5)) == NamedEngine().run(asks(5))
    assert len(caught) == 1


def test_an_engine_that_does_not_say_its_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FakeEngine cannot be kept"):
        CachedEngine(FakeEngine(lambda request: generated(request, "")), tmp_path / "c")  # type: ignore[arg-type]


def test_the_users_file_lies_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/taskfit/answers.sqlite")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/taskfit/answers.sqlite"
