from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.costs.architecture import Architecture
from taskfit.costs.catalogue import architecture_named, catalogue, find_architecture, plain_size
from taskfit.errors import ConfigError, ModelError

# Totals as the models' own pages print them.
PUBLISHED = {
    "bert-base": 109_482_240,
    "roberta-large": 355_359_744,
    "distilbert-base": 66_362_880,
    "t5-small": 60_506_624,
    "t5-3b": 2_851_598_336,
    "flan-t5-xl": 2_849_757_184,
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "pythia-70m": 70_426_624,
    "pythia-12b": 11_846_072_320,
    "opt-350m": 331_196_416,
    "opt-13b": 12_853_473_280,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-30b-a3b": 30_532_122_624,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952,
    "phi-2": 2_779_683_840,
}


def test_totals_are_the_published_ones() -> None:
    """Exactly, except where a model's size is only its name."""
    for name, total in PUBLISHED.items():
        assert find_architecture(name).parameters.total == total, name
    for name in catalogue():
        size = name.rsplit("-", 1)[-1]
        if name.startswith(("gpt3", "cerebras", "opt")) and size.endswith("b"):
            assert find_architecture(name).parameters.total == pytest.approx(float(size[:-1]) * 1e9, rel=0.08), name


@pytest.mark.parametrize("name", ["gpt3-125m", "opt-350m", "pythia-160m", "qwen3-0.6b", "gemma-3-1b", "t5-small"])
def test_a_catalogue_entry_builds_the_model_it_names(name: str) -> None:
    """Against transformers, on the meta device: no weights."""
    values = dict(catalogue()[name])
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    auto = transformers.AutoModelForSeq2SeqLM if "t5" in name else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    assert find_architecture(name).parameters.total == sum(one.numel() for one in model.parameters())


def test_a_mixture_uses_a_part_of_its_experts() -> None:
    """Mixtral has 46.7 billion parameters, of which a token meets 12.9 (Jiang et al. 2024)."""
    assert find_architecture("mixtral-8x7b").active_parameters == pytest.approx(12.88e9, rel=0.002)
    assert find_architecture("mistral-7b").active_parameters == 7_241_732_096


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
        ("Llama 3.1 8B", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("TheBloke/Mistral-7B-v0.1-GPTQ", "mistral-7b"),
        ("bert-base-uncased", "bert-base"),
        ("google/gemma-2-9b-it", "gemma-2-9b"),
        ("T0-11B", "flan-t5-xxl"),
    ],
)
def test_names_are_read_as_people_write_them(written: str, meant: str) -> None:
    """Owner, case and endings that do not change the architecture do not matter."""
    assert architecture_named(written) == architecture_named(meant) is not None


@settings(max_examples=25)
@given(st.floats(6e6, 5e12))
def test_a_plain_size_has_its_size(parameters: float) -> None:
    """Within 1 %, at every size."""
    assert plain_size(parameters).parameters.total == pytest.approx(parameters, rel=0.01)


def test_plain_sizes_have_the_shapes_of_published_models() -> None:
    """As deep as Llama, about as wide."""
    found = find_architecture("7B")
    assert found.layers == 32
    assert found.hidden == pytest.approx(4096, rel=0.05)
    assert find_architecture("150b").layers == pytest.approx(95, abs=3)
    assert find_architecture("100M").parameters.head == 0
    for size in (1e6, 1e14):
        with pytest.raises(ConfigError, match="between 5M and 10T"):
            plain_size(size)


def test_an_unknown_model_names_the_nearest_and_how_to_get_its_configuration() -> None:
    """A hub name without its configuration is not guessed."""
    with pytest.raises(ModelError, match=r"no configuration of 'org/lama-2-7b' at hand \(did you mean") as error:
        find_architecture("org/lama-2-7b")
    assert error.value.hint is not None
    assert "hf download org/lama-2-7b config.json" in error.value.hint


def test_a_folder_with_a_configuration_is_read(tmp_path: Path) -> None:
    """The file alone is enough; damaged ones are refused in a sentence."""
    (tmp_path / "config.json").write_text(json.dumps(catalogue()["gpt2"]))
    assert find_architecture(str(tmp_path)) == Architecture.from_config(catalogue()["gpt2"])
    assert find_architecture(str(tmp_path / "config.json")).hidden == 768
    huge = json.dumps({**catalogue()["gpt2"], "n_embd": 10**400})
    for text, why in (
        ("[1]", "must hold an object"),
        ("{", "cannot read"),
        ("[" * 200_000, "cannot read"),
        (huge, "n_embd must be a whole number of at least 1 and at most"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=why):
            find_architecture(str(tmp_path))
    with pytest.raises(ModelError, match="cannot read"):
        find_architecture(str(tmp_path / "none.json"))
