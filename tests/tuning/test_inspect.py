"""Looking inside: changes, spectra and neighbours, against numbers worked out another way."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from taskfit.errors import ConfigError, PredictorError
from taskfit.models import load
from taskfit.models.language_model import LanguageModel
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import parse
from taskfit.testing import tiny_decoder, tiny_encoder
from taskfit.tuning.changes import Change, by_block, changes
from taskfit.tuning.inspect import Inspection, inspect_predictor
from taskfit.tuning.neighbours import NEAREST, read_vectors
from taskfit.tuning.spectrum import effective_rank, rank_for, spectra
from tests.strategy.small_tasks import small_task

TASK = small_task("classification", train=8, validation=4, test=4)
PACE = "epochs=1, min_steps=2, batch=4"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each architecture."""
    root = tmp_path_factory.mktemp("models")
    return {"decoder": tiny_decoder(root / "decoder"), "encoder": tiny_encoder(root / "encoder")}


def _load(folder: Path) -> LanguageModel:
    return load(folder, dtype="float32", device="cpu")


def _inside(models: dict[str, Path], name: str, out: Path) -> Inspection:
    architecture = "encoder" if name.startswith("encoder") else "decoder"
    parse(name).fit(_load(models[architecture]), TASK, seed=0, budget=Budget()).save(out)
    return inspect_predictor(out)


# Spectra


def test_the_effective_rank_counts_equal_directions() -> None:
    """Some equal values use as many; one value uses one; none uses none."""
    assert effective_rank([2.0] * 7) == pytest.approx(7.0)
    assert effective_rank([3.0, 0.0, 0.0]) == pytest.approx(1.0)
    assert effective_rank([0.0, 0.0]) == 0.0
    shares = [0.5, 0.25, 0.25]
    assert effective_rank([6.0, 3.0, 3.0]) == pytest.approx(math.prod(share**-share for share in shares))


def test_directions_for_a_share_of_the_norm() -> None:
    """Squares count: of 3, 1, 1 the first holds 9 of 11."""
    assert rank_for([3.0, 1.0, 1.0], 0.9) == 2
    assert rank_for([3.0, 1.0, 1.0], 9 / 11) == 1
    assert rank_for([1.0] * 10, 0.9) == 9
    assert rank_for([0.0], 0.9) == 0


@pytest.mark.parametrize(
    "name", ["lora(rank=3, alpha=5)", "rslora(rank=3)", "adalora(rank=2, initial_rank=3)", "vera(rank=4)"]
)
def test_singular_values_are_those_of_what_is_added_to_the_weights(models: dict[str, Path], name: str) -> None:
    """Compared with the merged weights less the base's, in numpy."""
    import numpy as np

    model, base = _load(models["decoder"]), _load(models["decoder"])
    method = parse(name).weights
    model.module = method.wrap(model, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for value in (
            value for key, value in model.module.named_parameters() if "lora_" in key or "vera_lambda" in key
        ):
            value.add_(torch.randn_like(value) * 0.1)
    found = spectra(model.module)
    before, after = base.module.state_dict(), method.merge(model).module.state_dict()
    assert len(found) == 14
    for one in found:
        delta = (after[f"{one.layer}.weight"] - before[f"{one.layer}.weight"]).double().numpy()
        expected = np.linalg.svd(delta, compute_uv=False)[: one.rank]
        assert one.values == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)
        assert one.effective == pytest.approx(effective_rank(one.values))


# Changes


def test_changes_are_counted_and_measured_in_float64() -> None:
    """Against a loop; tensors under two names count once, whole numbers never."""
    before = {"a.0.w": torch.tensor([3.0, 4.0]), "a.0.b": torch.tensor([1.0]), "n": torch.tensor([1])}
    before["tied"] = before["a.0.w"]
    after = {
        "a.0.w": torch.tensor([3.0, 6.0]),
        "a.0.b": torch.tensor([1.0]),
        "n": torch.tensor([2]),
        "more": torch.ones(1),
    }
    after["tied"] = after["a.0.w"]
    assert changes(before, after) == [Change("a.0.w", 2, 1, 2.0, 5.0), Change("a.0.b", 1, 0, 0.0, 1.0)]


def test_blocks_add_up() -> None:
    """Lengths as the root of squares."""
    found = by_block(
        [
            Change("m.layers.0.q.weight", 4, 4, 3.0, 6.0),
            Change("m.layers.0.k.weight", 4, 1, 4.0, 8.0),
            Change("m.layers.10.k.weight", 4, 0, 0.0, 0.0),
            Change("m.norm.weight", 2, 2, 1.0, 2.0),
        ]
    )
    assert [(one.block, one.values, one.changed) for one in found] == [
        ("m.layers.0", 8, 5),
        ("m.layers.10", 4, 0),
        ("m.norm", 2, 2),
    ]
    assert (found[0].norm, found[0].base_norm, found[0].relative) == (5.0, 10.0, 0.5)
    assert found[1].relative == 0.0


@pytest.mark.parametrize(
    "name", ["full", "norms", "last-layers(n=1)", "head-only", "random-mask(share=0.1)", "lora", "ia3", "dora"]
)
def test_only_what_a_method_trains_has_changed(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    """And something has."""
    opening = name.removesuffix(")") + (", " if name.endswith(")") else "(")
    found = _inside(models, f"{opening}{PACE}, learning_rate=0.05)", tmp_path / "p")
    changed = {one.name for one in found.tensors if one.changed}
    expected = {
        "full": lambda _: True,
        "norms": lambda key: "norm" in key,
        "last-layers(n=1)": lambda key: ".layers.1." in key,
        "head-only": lambda key: "lm_head" in key,
    }.get(name, lambda key: "proj" in key)
    assert changed
    assert all(expected(key) for key in changed)
    assert not found.added
    assert bool(found.updates) == (name in ("lora", "dora"))
    assert found.values == sum(value.numel() for value in _load(models["decoder"]).module.parameters())


def test_a_packed_bases_updates_are_its_changes(models: dict[str, Path], tmp_path: Path) -> None:
    """They cannot be merged, but they can be seen."""
    pytest.importorskip("bitsandbytes")

    found = _inside(models, f"qlora(bits=8, rank=2, {PACE})", tmp_path / "p")
    assert len(found.tensors) == len(found.updates) > 0
    assert all(one.norm > 0 for one in found.tensors)


def test_networks_and_deep_vectors_stand_beside_the_base(models: dict[str, Path], tmp_path: Path) -> None:
    """Their values are those that train; no weight of the base has changed."""
    adapter = _inside(models, f"adapter(bottleneck=2, {PACE})", tmp_path / "a")
    prefix = _inside(models, f"prefix-tuning(tokens=3, {PACE})", tmp_path / "b")
    assert not any(one.changed for one in (*adapter.tensors, *prefix.tensors))
    assert len(adapter.added) == 2
    assert all(one.norm > 0 and one.values > 0 for one in adapter.added)
    assert [one.where for one in prefix.added] == ["keys and values of layer 0", "keys and values of layer 1"]
    assert not prefix.vectors


def test_encoders_are_compared_below_their_head(models: dict[str, Path], tmp_path: Path) -> None:
    """Whole, and tuned in part."""
    whole = _inside(models, f"encoder({PACE})", tmp_path / "a")
    part = _inside(models, f"encoder(tune=lora(rank=2), {PACE})", tmp_path / "b")
    assert any(one.changed for one in whole.tensors)
    assert part.updates
    assert {one.name for one in part.tensors if one.changed} <= {f"{one.layer}.weight" for one in part.updates}


def test_a_searched_predictor_is_looked_into_like_any_other(models: dict[str, Path], tmp_path: Path) -> None:
    """What was chosen is what is inside."""
    found = _inside(models, f"tune(strategy=lora(rank=2, {PACE}), tries=1)", tmp_path / "p")
    assert found.strategy.startswith("lora(")
    assert found.updates[0].rank == 2


def test_a_model_with_continued_pretraining_is_compared_with_the_published_one(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """Alone, tuned in part, and below another method, whose updates come on top."""
    whole = _inside(models, f"continued-pretraining({PACE})", tmp_path / "a")
    part = _inside(models, f"continued-pretraining(tune=lora(rank=2), {PACE})", tmp_path / "b")
    both = _inside(models, f"continued-pretraining({PACE})+lora(rank=2, {PACE})", tmp_path / "c")
    assert any(one.changed and "norm" in one.name for one in whole.tensors)
    assert any(one.changed for one in part.tensors)
    assert not any(one.changed and "norm" in one.name for one in part.tensors)
    assert any(one.changed and "norm" in one.name for one in both.tensors)
    assert len(both.updates) > 0 == len(part.updates)


# Neighbours


def test_a_vector_that_is_a_tokens_embedding_is_nearest_to_that_token(models: dict[str, Path]) -> None:
    """At cosine 1; the others are those that plain numpy finds."""
    import numpy as np

    model = _load(models["decoder"])
    table = model.module.get_input_embeddings().weight.detach()
    special = set(model.tokenizer.all_special_ids)
    ids = [token for token in range(len(model.tokenizer)) if token not in special][7:9]
    vectors, cosines, clusters = read_vectors(model, 3.0 * table[ids])
    for vector, token in zip(vectors, ids, strict=True):
        assert vector.tokens[0] == model.tokenizer.decode([token])
        assert vector.cosines[0] == pytest.approx(1.0, abs=1e-5)
        assert vector.norm == pytest.approx(3 * float(table[token].norm()), rel=1e-5)
        own = table.numpy().astype(np.float64)
        directions = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)  # the padding's is 0
        order = [
            k for k in np.argsort(-directions @ directions[token]) if k not in special and k < len(model.tokenizer)
        ]
        nearest = directions[order[:NEAREST]]
        pairs = [nearest[i] @ nearest[j] for i in range(NEAREST) for j in range(i)]
        assert vector.tightness == pytest.approx(float(np.mean(pairs)), abs=1e-4)
    assert cosines[0][0] == pytest.approx(1.0, abs=1e-5)
    assert cosines[0][1] == pytest.approx(clusters.mean_cosine, abs=1e-5)


def test_planted_clusters_are_found_and_noise_is_not_called_one(models: dict[str, Path]) -> None:
    """Tokens put close together around four centres, and vectors on those centres; then vectors at random."""
    model = _load(models["decoder"])
    table = model.module.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(4, table.shape[1], generator=generator)
    special = set(model.tokenizer.all_special_ids)
    ids = [token for token in range(len(model.tokenizer)) if token not in special][:32]
    with torch.no_grad():
        table.copy_(torch.randn(table.shape, generator=generator))
        for place, token in enumerate(ids):
            table[token] = centres[place % 4] + 0.05 * torch.randn(table.shape[1], generator=generator)
    planted = read_vectors(model, centres.clone())[2]
    noise = read_vectors(model, torch.randn(40, table.shape[1], generator=generator))[2]
    assert planted.above_random == 4
    assert planted.vectors > 0.95
    assert noise.above_random <= 8


def test_soft_prompts_show_their_neighbours(models: dict[str, Path], tmp_path: Path) -> None:
    """One record a vector, cosines of all pairs."""
    found = _inside(models, f"prompt-tuning(tokens=4, {PACE})", tmp_path / "p")
    assert [one.number for one in found.vectors] == [0, 1, 2, 3]
    assert all(len(one.tokens) == NEAREST for one in found.vectors)
    assert len(found.cosines) == len(found.cosines[0]) == 4
    assert found.clusters is not None
    assert not any(one.changed for one in found.tensors)


# Bad input


@pytest.mark.parametrize("name", ["majority", "few-shot(k=1)"])
def test_a_predictor_without_trained_weights_is_refused(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    """The message names it, and what inspect is for."""
    strategy = parse(name)
    model = _load(models["decoder"]) if strategy.architectures else None
    strategy.fit(model, TASK, seed=0, budget=Budget()).save(tmp_path / "p")
    with pytest.raises(ConfigError, match="trains no weights of a language model") as caught:
        inspect_predictor(tmp_path / "p")
    assert "lora" in str(caught.value.hint)


def test_a_folder_that_is_no_predictor_is_refused(tmp_path: Path) -> None:
    """As by every command."""
    with pytest.raises(PredictorError, match=r"has no predictor\.json"):
        inspect_predictor(tmp_path)
