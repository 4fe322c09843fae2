"""Services among strategies: what may use one, what a folder may name, what is kept."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from taskfit.errors import ConfigError, NoScoresError, PredictorError
from taskfit.inference.requests import Generate, Score
from taskfit.models.service import ServiceModel
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.strategy.predictor import load_predictor
from taskfit.strategy.service import check_may_ask, generating_strategies, service_engine
from taskfit.tasks.prompt import Prompt
from taskfit.testing.service import FakeService
from tests.strategy.small_tasks import small_task


@pytest.mark.parametrize("name", ["zero-shot", "few-shot(k=2)"])
def test_strategies_that_only_prompt_can_use_a_service(name: str) -> None:
    check_fit(parse(name), "generation", "service")


@pytest.mark.parametrize("name", ["lora", "full", "lora+few-shot(k=2)", "encoder"])
def test_strategies_with_weights_cannot(name: str) -> None:
    with pytest.raises(ConfigError, match="a service gives answers only"):
        check_fit(parse(name), "classification", "service")


def test_a_saved_predictor_asks_its_service_again(tmp_path: Path) -> None:
    task = small_task("generation")
    with FakeService(lambda text: f"to {text[-5:]}") as service:
        fitted = parse("few-shot(k=2)").fit(ServiceModel(service.name()), task, seed=0, budget=Budget())
        expected = list(fitted.predict(task.test))
        fitted.save(tmp_path / "p")
        assert list(load_predictor(tmp_path / "p").predict(task.test)) == expected
        other = ServiceModel(service.name("other"))
        with pytest.raises(PredictorError, match="was fitted on"):
            load_predictor(tmp_path / "p", model=other)
    assert fitted.predict_work.paid_prompt_tokens > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("https://elsewhere.example/v1#m", "the rows would be sent there"),
        ("https://elsewhere.example/v1?key=MY_API_KEY#m", "the rows and the key in MY_API_KEY would be sent there"),
        ("http://localhost/v1?key=MY_API_KEY#m", "the key in MY_API_KEY"),
        ("http://localhost/v1", "must end in #"),
        ("../../etc", "no service's address"),
    ],
)
def test_a_folder_may_not_send_rows_or_keys_elsewhere(name: str, words: str) -> None:
    with pytest.raises(PredictorError, match=words):
        check_may_ask(Path("folder"), name)
    check_may_ask(Path("folder"), "http://127.0.0.1:8000/v1#m")


def test_only_programs_that_can_generate_are_named() -> None:
    names = generating_strategies()
    assert any(name.startswith("zero-shot") for name in names)
    assert not {"lora", "full", "encoder", "majority", "linear"} & {*names}
    for name in names:
        parse(name)


def test_an_engine_that_cannot_score_says_what_still_works() -> None:
    with FakeService() as service:
        engine = service_engine(ServiceModel(service.name()))
        with pytest.raises(NoScoresError) as caught:
            engine.run([Score(Prompt("a?"), ("b", "c"))])
    assert str(caught.value.hint).endswith(", ".join(generating_strategies()))


def test_answers_are_kept_where_the_name_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service on this machine: only with cache=on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with FakeService() as service:
        for cache, expected in [("off", 2), ("auto", 4), ("on", 5)]:
            for _ in range(2):
                engine = service_engine(ServiceModel(service.name(cache=cache)))
                engine.run([Generate(Prompt("a?"), 3)])
            assert service.answered == expected
    assert engine.work.cached_answers == 1


def test_a_cap_in_money_takes_the_price_of_the_name() -> None:
    with FakeService() as service:
        engine = service_engine(ServiceModel(service.name(max_usd=1, usd_in=1, usd_out=1)))
        engine.run([Generate(Prompt("a?"), 3)])
    with pytest.raises(ConfigError, match="needs a price"):
        service_engine(ServiceModel("https://elsewhere.example/v1?max_usd=1#m"))


def test_the_hint_to_name_the_service_is_one_word_of_a_shell() -> None:
    """It is made to be copied, and the name in it is a stranger's."""
    name = "https://host.example/v1#m' ; rm -r ~ ; '"
    with pytest.raises(PredictorError) as caught:
        check_may_ask(Path("folder"), name)
    words = shlex.split(str(caught.value.hint))
    assert words[-2:] == ["--model", name]
