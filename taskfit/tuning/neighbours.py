"""What trained vectors before a prompt are near to: their nearest vocabulary tokens, and whether these cluster."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from taskfit.models.language_model import LanguageModel

__all__ = ["NEAREST", "Clusters", "Vector", "nearest_tokens", "read_vectors"]

NEAREST = 5
"""Neighbours of each vector, as in Lester et al. 2021, section 7."""

_DRAWS = 200


@dataclass(frozen=True)
class Vector:
    """One trained vector.

    Attributes:
        number: its place before the prompt, from 0.
        norm: its length.
        tokens: texts of the nearest vocabulary tokens by cosine, the nearest first.
        cosines: theirs to the vector.
        tightness: mean cosine of all pairs of these tokens: near 1, they mean much the same to the model.
    """

    number: int
    norm: float
    tokens: tuple[str, ...]
    cosines: tuple[float, ...]
    tightness: float


@dataclass(frozen=True)
class Clusters:
    """Whether the neighbours of the vectors lie nearer to each other than neighbours of anything would.

    Attributes:
        vectors: median tightness of the trained vectors.
        random_directions: of vectors drawn at random: what the space does by itself.
        vocabulary: of tokens of the vocabulary, each without itself: what meaning looks like.
        above_random: vectors tighter than 95 % of the random directions; by chance it is a twentieth.
        mean_cosine: mean cosine of all pairs of trained vectors: near 1, all of them say the same.
        median_norm: of the trained vectors.
        vocabulary_norm: median length of the vocabulary's embeddings.
    """

    vectors: float
    random_directions: float
    vocabulary: float
    above_random: int
    mean_cosine: float
    median_norm: float
    vocabulary_norm: float


def read_vectors(
    model: LanguageModel, vectors: torch.Tensor, *, seed: int = 0
) -> tuple[list[Vector], list[list[float]], Clusters]:
    """Return what each vector is near to, the cosines between the vectors, and whether neighbours cluster.

    Args:
        model: whose vocabulary is meant.
        vectors: shape (vectors, width), in the space of the input embeddings.
        seed: of the random directions and the tokens that they are compared with.

    Source: Lester et al. 2021, section 7, who found tight clusters of meaning by looking; the comparison with random
    directions is ours.
    """
    import torch

    table = _embeddings(model)
    ids = _plain_ids(model, len(table))
    known = torch.nn.functional.normalize(table[ids], dim=1)
    own = vectors.detach().float().cpu()
    found = [_vector(number, own, known, ids, model.tokenizer) for number in range(len(own))]
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(_DRAWS, known.shape[1], generator=generator)
    drawn = known[torch.randperm(len(known), generator=generator)[:_DRAWS]]
    by_chance = [_tightness(known[nearest_tokens(one, known, NEAREST)]) for one in random]
    of_tokens = [_tightness(known[nearest_tokens(one, known, NEAREST + 1)[1:]]) for one in drawn]
    limit = sorted(by_chance)[int(0.95 * len(by_chance))]
    turned = torch.nn.functional.normalize(own, dim=1)
    cosines = (turned @ turned.T).clamp(-1, 1)
    clusters = Clusters(
        vectors=median(one.tightness for one in found),
        random_directions=median(by_chance),
        vocabulary=median(of_tokens),
        above_random=sum(one.tightness > limit for one in found),
        mean_cosine=_tightness(turned) if len(own) > 1 else 1.0,
        median_norm=median(one.norm for one in found),
        vocabulary_norm=float(table[ids].norm(dim=1).median()),
    )
    return found, [[float(value) for value in row] for row in cosines.tolist()], clusters


def nearest_tokens(vector: torch.Tensor, known: torch.Tensor, count: int) -> torch.Tensor:
    """Return the rows of ``known`` (of length 1) with the highest cosine to the vector, the nearest first."""
    return (known @ vector).topk(count).indices


def _vector(number: int, own: torch.Tensor, known: torch.Tensor, ids: torch.Tensor, tokenizer: Any) -> Vector:
    import torch

    vector = own[number]
    nearest = nearest_tokens(vector, known, NEAREST)
    cosines = known[nearest] @ torch.nn.functional.normalize(vector, dim=0)
    return Vector(
        number=number,
        norm=float(vector.norm()),
        tokens=tuple(tokenizer.decode([token]) for token in ids[nearest].tolist()),
        cosines=tuple(float(value) for value in cosines.tolist()),
        tightness=_tightness(known[nearest]),
    )


def _tightness(directions: torch.Tensor) -> float:
    """Mean cosine over all pairs of rows, each of length 1, shape (rows, width)."""
    count = len(directions)
    together = float((directions @ directions.T).sum()) - count
    return together / (count * (count - 1))


def _embeddings(model: LanguageModel) -> torch.Tensor:
    module: Any = model.module
    table: torch.Tensor = module.get_input_embeddings().weight.detach().float().cpu()
    return table


def _plain_ids(model: LanguageModel, rows: int) -> torch.Tensor:
    """Ids of tokens that stand for text; rows beyond the tokenizer's vocabulary are padding of the table."""
    import torch

    special = set(model.tokenizer.all_special_ids)
    count = min(rows, len(model.tokenizer))
    return torch.tensor([token for token in range(count) if token not in special])
