"""Names of services: what they say, what they must not say, and what stands in for the model."""

from __future__ import annotations

import contextlib
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import ModelError
from taskfit.models import load
from taskfit.models.service import Service, ServiceModel, is_service_name, read_service_name


def test_a_name_says_where_and_which() -> None:
    service = read_service_name("http://localhost:8000/v1/#Qwen/Qwen3-8B")
    assert service == Service("http://localhost:8000/v1", "Qwen/Qwen3-8B")
    assert service.is_local
    assert read_service_name("HTTPS://API.Example.com/v1#m").base_url == "https://api.example.com/v1"
    assert read_service_name("http://[::1]:8000/v1#m").base_url == "http://[::1]:8000/v1"


def test_options_are_the_fields_of_the_service() -> None:
    name = (
        "https://api.example.com/v1?key=EXAMPLE_API_KEY&style=completions&scores=echo&usd_in=0.2&usd_out=0&max_usd=5"
        "&max_tokens=1000&concurrency=3&requests_per_minute=60&tokens_per_minute=9000&timeout_s=1.5&cache=off#m"
    )
    service = read_service_name(name)
    where = ("https://api.example.com/v1", "m", "EXAMPLE_API_KEY")
    assert service == Service(*where, "completions", "echo", 0.2, 0.0, 5.0, 1000, 3, 60, 9000, 1.5, "off")
    assert all(f"{field.name}=" in name for field in fields(Service) if field.name not in ("base_url", "model"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http://localhost/v1", "model's name there"),
        ("http:///v1#m", "name a host"),
        ("http://localhost:port/v1#m", "cannot be read"),
        ("http://[::1/v1#m", "cannot be read"),
        ("http://localhost/v1?style=poem#m", "style must be one of chat, completions"),
        ("http://localhost/v1?stile=chat#m", "did you mean 'style'"),
        ("http://localhost/v1?style=chat&style=chat#m", "twice"),
        ("http://localhost/v1?concurrency=0#m", "concurrency must be a whole number above 0"),
        ("http://localhost/v1?concurrency=2.5#m", "whole number"),
        ("http://localhost/v1?max_usd=nan#m", "max_usd"),
        ("http://localhost/v1?max_usd=inf#m", "max_usd"),
        ("http://localhost/v1?max_usd=0#m", "above 0"),
        ("http://localhost/v1?usd_in=-1#m", "usd_in"),
        ("http://localhost/v1?nothing#m", "cannot be read"),
        ("http://example.com/v1?key=EXAMPLE_API_KEY#m", "unencrypted"),
    ],
)
def test_faulty_names_are_refused_with_the_form(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load(name)


@pytest.mark.parametrize(
    "name",
    [
        "https://me:sk-secret@host/v1#m",
        "https://host/v1?key=sk-secret#m",
        "https://host/v1?sk-secret#m",
        "https://host:sk-secret/v1#m",
    ],
)
def test_a_secret_in_a_name_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(name)
    assert "sk-secret" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("[::1]", True),
        ("a.localhost", True),
        ("127.0.0.1.example.com", False),
        ("localhost.com", False),
    ],
)
def test_only_this_machine_is_local(host: str, is_local: bool) -> None:
    assert read_service_name(f"https://{host}/v1#m").is_local == is_local


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text())
def test_any_text_is_a_name_or_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(ModelError):
        read_service_name(f"http://localhost{text}")


def test_folders_and_hub_names_are_no_services() -> None:
    assert not any(map(is_service_name, ("taskfit-tiny", "http/model", "./http://", 3)))


def test_what_decides_answers_is_in_the_fingerprint_and_nothing_else() -> None:
    def mark(name: str) -> str:
        return load(name).fingerprint

    base = mark("http://localhost:1/v1#m")
    others = [
        "http://localhost:2/v1#m",
        "http://localhost:1/v2#m",
        "https://localhost:1/v1#m",
        "http://localhost:1/v1#n",
        "http://localhost:1/v1?style=completions#m",
        "http://localhost:1/v1?scores=top#m",
    ]
    assert len({base, *map(mark, others)}) == 1 + len(others)
    assert base == mark("http://localhost:1/v1?concurrency=2&max_usd=3&key=MY_KEY&cache=on&timeout_s=1#m")


def test_a_service_model_has_no_weights_and_says_so() -> None:
    model = load("http://localhost:8000/v1#m")
    assert isinstance(model, ServiceModel)
    assert model.architecture == "service"
    assert model == ServiceModel(model.name) != ServiceModel("http://localhost:8000/v1#n")
    assert "localhost" in repr(model)
    for part in ("module", "tokenizer", "dtype", "device"):
        with pytest.raises(ModelError, match=f"its {part} cannot be reached"):
            getattr(model, part)
    assert not hasattr(model, "no_such_thing")
