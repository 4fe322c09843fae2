"""Look inside a fitted predictor: what its tuning has changed, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from taskfit.errors import ConfigError
from taskfit.strategy.grammar import parse
from taskfit.strategy.manifest import read_manifest
from taskfit.strategy.predictor import load_predictor
from taskfit.strategy.stages import Stages
from taskfit.tuning.changes import BlockChange, Change, by_block, changes
from taskfit.tuning.full import Full
from taskfit.tuning.neighbours import Clusters, Vector, read_vectors
from taskfit.tuning.pretraining import ContinuedPretraining
from taskfit.tuning.spectrum import Spectrum, spectra

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.manifest import BaseModel
    from taskfit.tuning.method import Method

__all__ = ["Added", "Inspection", "inspect_predictor"]


@dataclass(frozen=True)
class Added:
    """Something trained that stands beside the base's weights: a network, or the vectors of a layer.

    Attributes:
        where: the layer it belongs to.
        values: how many trained.
        norm: their length; of a network, that of its second matrix, which starts at 0.
    """

    where: str
    values: int
    norm: float


@dataclass(frozen=True)
class Inspection:
    """What is inside a predictor.

    Attributes:
        strategy: its canonical name; of a search, the point that was chosen.
        base: the model it was fitted on.
        values: of the base.
        blocks: the change of each block's weights.
        tensors: the same, tensor by tensor.
        added: what stands beside the weights.
        updates: the low-rank updates; empty for other methods.
        vectors: the vectors before the prompt, where they are embeddings.
        cosines: between these, shape (vectors, vectors).
        clusters: what their neighbours show; None without vectors.
    """

    strategy: str
    base: str
    values: int
    blocks: tuple[BlockChange, ...]
    tensors: tuple[Change, ...]
    added: tuple[Added, ...]
    updates: tuple[Spectrum, ...]
    vectors: tuple[Vector, ...]
    cosines: tuple[tuple[float, ...], ...]
    clusters: Clusters | None


def inspect_predictor(folder: str | Path) -> Inspection:
    """Load a predictor and its base, both in float32, and compare them.

    Raises:
        ConfigError: its strategy trains no weights of a language model.
        PredictorError: the folder is damaged. ModelError: the base cannot be loaded.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest.base is None or manifest.base.architecture == "service":
        raise _nothing_inside(manifest.strategy)
    predictor: Any = load_predictor(folder, model=_load_base(manifest.base) if manifest.needs_base else None)
    change: Any = getattr(predictor, "method", None) or getattr(predictor, "weights", None)
    if change is None:
        raise _nothing_inside(manifest.strategy)
    method: Method = _last(change)
    base = _load_base(manifest.base)
    if hasattr(predictor, "classifier"):  # an encoder below a linear layer of its own
        base.module = getattr(base.module, "base_model", base.module)
    model: LanguageModel = predictor.model
    updates = spectra(model.module)
    added = tuple(_added(model))
    found = _input_vectors(model)
    vectors, cosines, clusters = read_vectors(base, found) if found is not None else ([], [], None)
    tensors = _changes(base, model, method)
    return Inspection(
        strategy=parse(manifest.strategy_in_full).name,
        base=manifest.base.name,
        values=sum(value.numel() for value in base.module.parameters()),
        blocks=tuple(by_block(tensors)),
        tensors=tuple(tensors),
        added=added,
        updates=tuple(updates),
        vectors=tuple(vectors),
        cosines=tuple(tuple(row) for row in cosines),
        clusters=clusters,
    )


def _last(change: Any) -> Any:
    """The method whose changes the loaded model carries; those of pre-training stand in the weights themselves."""
    last = change.second if isinstance(change, Stages) else change
    return Full() if isinstance(last, ContinuedPretraining) else last


def _load_base(base: BaseModel) -> LanguageModel:
    from taskfit.models import load

    where = base.folder if base.folder and Path(base.folder).is_dir() else base.name
    return replace(load(where, dtype="float32"), name=base.name)


def _nothing_inside(strategy: str) -> ConfigError:
    return ConfigError(
        f"{strategy} trains no weights of a language model, so there is nothing to look into",
        "inspect shows what tuning has changed, such as lora, full, prompt-tuning or encoder",
    )


def _changes(base: LanguageModel, model: LanguageModel, method: Method) -> list[Change]:
    """The change of every tensor of the base; of a packed one, of the tensors that have an update."""
    before = dict(base.module.state_dict())
    try:
        tuned = method.merge(model).module.state_dict()
    except ConfigError:  # it cannot be folded into a plain model: added parts, an untied head, or a packed base
        tuned = model.module.state_dict()
        if not before.keys() <= tuned.keys():
            return list(_update_changes(before, model.module))
    return changes({name: value for name, value in before.items() if name in tuned}, tuned)


def _update_changes(before: dict[str, torch.Tensor], module: torch.nn.Module) -> Iterator[Change]:
    """The updates of a packed base, whose own weights stay."""
    for name, layer in module.named_modules():
        target = f"{name.removeprefix('base_model.model.')}.weight"
        if hasattr(layer, "get_delta_weight") and target in before:
            delta = cast("torch.Tensor", cast("Any", layer).get_delta_weight("default")).detach().cpu()
            yield from changes({target: before[target]}, {target: before[target].cpu() + delta})


def _added(model: LanguageModel) -> Iterator[Added]:
    from taskfit.tuning.bottleneck import Bottlenecks
    from taskfit.tuning.virtual_tokens import DeepVectors, InputVectors

    for part in model.module.modules():
        if isinstance(part, Bottlenecks):
            tensors = part.named_tensors()
            for where in dict.fromkeys(name.rpartition(".")[0].rpartition(".")[0] for name in tensors):
                own = {name: value for name, value in tensors.items() if name.startswith(f"{where}.")}
                up = next(value for name, value in own.items() if name.endswith("up.weight"))
                yield Added(where, sum(value.numel() for value in own.values()), float(up.norm()))
        elif isinstance(part, InputVectors):
            vectors = part.vectors()
            yield Added("before the embeddings", vectors.numel(), float(vectors.norm()))
        elif isinstance(part, DeepVectors):
            table = part.vectors()
            layers = part.shape[0]
            for layer, vectors in enumerate(table.view(len(table), layers, -1).unbind(1)):
                yield Added(f"keys and values of layer {layer}", vectors.numel(), float(vectors.norm()))


def _input_vectors(model: LanguageModel) -> torch.Tensor | None:
    from taskfit.tuning.virtual_tokens import InputVectors

    found = [part for part in model.module.modules() if isinstance(part, InputVectors)]
    return found[0].vectors() if found else None
