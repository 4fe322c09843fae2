"""A data folder of a few rows a set, and the recipe's modules on the path while its tests run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.tiny_data import write_data

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "embedded_model"


@pytest.fixture(scope="package", autouse=True)
def modules() -> Iterator[None]:
    """The recipe's modules by their file names, as its steps import each other; other tests do not see them."""
    sys.path.insert(0, str(RECIPE))
    yield
    sys.path.remove(str(RECIPE))
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").parent == RECIPE:
            del sys.modules[name]


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every data set that the recipe reads, tiny."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="package")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The places of a run whose corpus is made."""
    from corpus import build
    from places import Places

    places = Places(data, tmp_path_factory.mktemp("build"))
    build(places)
    return places


@pytest.fixture(scope="package")
def encoded(made):  # type: ignore[no-untyped-def]
    """The same with a tokenizer of 400 entries, the corpus as ids, and the conversations."""
    import tasks
    import tokenizer

    tokenizer.build(made, 400)
    tasks.build(made)
    return made


@pytest.fixture(scope="package")
def trained(encoded, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The same with a model of the smallest shape that has read a few thousand tokens."""
    from pretrain import pretrain
    from schedule import Plan

    places = _copied(encoded, tmp_path_factory)
    small = {"first_batch": 512, "batch": 1024, "length": 64, "decay_length": 128, "warmup_steps": 3}
    pretrain(places, Plan("1m", 12_000, rate=1e-2, **small), "cpu", heldout=1)
    return places


@pytest.fixture(scope="package")
def finished(trained, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The same with the instruction-tuned model and its twin of random weights."""
    from instruct import instruct
    from network import export, load_tokenizer, new_model, shape_named

    places = _copied(trained, tmp_path_factory)
    instruct(places, epochs=0.02, rate=1e-3, seed=0, device="cpu")
    tokenizer = load_tokenizer(places.build / "instructed")
    export(new_model(shape_named("1m"), tokenizer, 1), tokenizer, places.build / "random")
    return places


def _copied(places, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The same places with a build folder of its own, so that what is made there stays out of other tests' way."""
    from places import Places

    folder = tmp_path_factory.mktemp("copy") / "build"
    shutil.copytree(places.build, folder)
    return Places(places.data, folder)
