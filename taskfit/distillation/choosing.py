"""Which rows a teacher shall label: random, diverse, uncertain, or some of each; and random ones kept apart."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any, Literal, get_args

from taskfit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["SELECTIONS", "Chosen", "Select", "choose_rows", "shuffled"]

Select = Literal["random", "diverse", "uncertain", "mixed"]
SELECTIONS: tuple[Select, ...] = get_args(Select)

_MOST_CANDIDATES = 20_000
"""Rows looked at by clusters or a classifier; of more, a random sample of so many is."""
_WIDTH = 100
_NEEDED_LABELS = 2


@dataclass(frozen=True)
class Chosen:
    """Rows to label.

    Attributes:
        train: for students, by the selection asked for.
        audit: drawn at random from all rows, before any selection: what estimates about all rows may rest on.
        pool: rows with different texts that could have been chosen.
        seen: rows left out because their text stands in the task's labelled rows.
    """

    train: tuple[Row, ...]
    audit: tuple[Row, ...]
    pool: int
    seen: int


def choose_rows(
    definition: TaskDefinition,
    rows: Iterable[Row],
    count: int,
    *,
    audit: int,
    select: Select,
    labelled: Sequence[Row] = (),
    taken: Collection[Row] = (),
    seed: int = 0,
    encoder: LanguageModel | None = None,
) -> Chosen:
    """Choose ``count`` rows of different texts, ``audit`` of them at random and kept apart.

    The choice depends on the rows' texts and the seed, not on their order. Memory is that of the rows looked at.

    Args:
        definition: of the task.
        rows: streamed; without answers.
        audit: how many of them are kept apart.
        select: how the others are chosen.
        seed: another seed draws other rows.
        count: rows to label; all of them where there are no more.
        labelled: rows with answers that a classifier may learn from, for ``uncertain`` and ``mixed``.
        taken: rows of the task, whose texts are left out: a student is tested on them.
        encoder: gives the vectors for ``diverse``; None: TF-IDF does, reduced to 100 dimensions.

    Raises:
        ConfigError: count or audit out of range, or ``uncertain`` without labelled rows of two labels.
        DataError: no row is left; two rows have one id.
    """
    _check(definition, count, audit, select, labelled)
    most = count if select == "random" else max(count, _MOST_CANDIDATES)
    found, pool, seen = _draw(definition, rows, most, {_digest(definition, row) for row in taken}, seed)
    if not found:
        left_out = f", {seen} of them with a text of the task's own rows" if seen else ""
        raise DataError(f"no row is left to label{left_out}", "name a file of rows with --rows")
    _check_ids(found)
    kept_apart, rest = found[: min(audit, len(found))], found[min(audit, len(found)) :]
    wanted = min(count - len(kept_apart), len(rest))
    order = _ORDERS[select](_Pool(definition, rest, wanted, labelled, seed, encoder))
    return Chosen(tuple(rest[place] for place in order[:wanted]), tuple(kept_apart), pool, seen)


@dataclass(frozen=True)
class _Pool:
    definition: TaskDefinition
    rows: Sequence[Row]
    wanted: int
    labelled: Sequence[Row]
    seed: int
    encoder: LanguageModel | None

    @property
    def texts(self) -> list[str]:
        return [self.definition.input_text(row) for row in self.rows]


def _random(pool: _Pool) -> list[int]:
    return list(range(len(pool.rows)))  # they come in an order by chance


def _diverse(pool: _Pool) -> list[int]:
    """Take rows in turn from clusters: first the one nearest to each middle, then others by chance.

    Source: clusters as in Zhu et al. 2008 (sampling by clustering); the middle's neighbour as in k-means sampling,
    Yuan et al. 2020, section 4.
    """
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    if len(pool.rows) <= max(pool.wanted, 1):
        return _random(pool)
    vectors = _vectors(pool)
    clusters = min(pool.wanted, max(8, round(len(pool.rows) ** 0.5)))
    with threadpool_limits(1):
        fitted = MiniBatchKMeans(clusters, random_state=pool.seed, n_init=3, batch_size=1024).fit(vectors)
    distances = np.linalg.norm(vectors - fitted.cluster_centers_[fitted.labels_], axis=1)
    members: dict[int, list[int]] = {}
    for place, cluster in enumerate(fitted.labels_):
        members.setdefault(int(cluster), []).append(place)
    for places in members.values():
        places.insert(0, places.pop(min(range(len(places)), key=lambda n: distances[places[n]])))
    queues = [members[cluster] for cluster in sorted(members)]
    return [places[turn] for turn in range(max(map(len, queues))) for places in queues if turn < len(places)]


def _uncertain(pool: _Pool) -> list[int]:
    """Begin with the rows between whose two likeliest labels a linear classifier sees the least difference.

    Source: margin sampling, Scheffer, Decomain and Wrobel 2001; see Settles 2009, section 3.1.
    """
    import numpy as np

    from taskfit.tuning.tfidf import fit_linear

    golds = [pool.definition.gold(row)[0] for row in pool.labelled]
    numbers = {label: number for number, label in enumerate(sorted(set(golds)))}
    texts = [pool.definition.input_text(row) for row in pool.labelled]
    shares = fit_linear(texts, [numbers[gold] for gold in golds], (10.0,))[0].probabilities(pool.texts)
    ranked = np.sort(shares, axis=1)
    return [int(place) for place in np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable")]


def _mixed(pool: _Pool) -> list[int]:
    """Take one random, one diverse, one uncertain row in turn; without labelled rows, the first two."""
    ways: list[Callable[[_Pool], list[int]]] = [_random, _diverse]
    if _can_learn(pool.definition, pool.labelled):
        ways.append(_uncertain)
    orders = [way(pool) for way in ways]
    return list(dict.fromkeys(place for places in zip(*orders, strict=True) for place in places))


_ORDERS: dict[Select, Callable[[_Pool], list[int]]] = {
    "random": _random,
    "diverse": _diverse,
    "uncertain": _uncertain,
    "mixed": _mixed,
}


def _vectors(pool: _Pool) -> Any:
    if pool.encoder is not None:
        from taskfit.prompting.similarity import embed

        return embed(pool.encoder, pool.texts)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    try:
        features = TfidfVectorizer(sublinear_tf=True, min_df=1, max_features=50_000).fit_transform(pool.texts)
    except ValueError:  # no text holds a word
        features = TfidfVectorizer(analyzer="char").fit_transform([text or " " for text in pool.texts])
    if features.shape[1] > _WIDTH:
        features = TruncatedSVD(_WIDTH, random_state=pool.seed).fit_transform(features)
    else:
        features = features.toarray()
    return normalize(features)


def _check(definition: TaskDefinition, count: int, audit: int, select: Select, labelled: Sequence[Row]) -> None:
    if count < 1:
        raise ConfigError(f"count must be at least 1 (got {count})")
    if not 0 <= audit < count:
        raise ConfigError(f"audit must be between 0 and count - 1 = {count - 1} (got {audit})")
    if select == "uncertain" and not _can_learn(definition, labelled):
        raise ConfigError(
            "select=uncertain needs labelled training rows with two labels or more, to learn from what is uncertain",
            "take select=diverse, or mixed",
        )


def _can_learn(definition: TaskDefinition, labelled: Sequence[Row]) -> bool:
    if definition.kind != "classification":
        return False
    return len({definition.gold(row)[0] for row in labelled}) >= _NEEDED_LABELS


def _draw(
    definition: TaskDefinition, rows: Iterable[Row], most: int, taken: Collection[bytes], seed: int
) -> tuple[list[Row], int, int]:
    """Return a random sample with different texts, in an order by chance; the number of rows left, and left out.

    A row's place in the order is a hash of seed and text, so equal texts meet and memory holds the sample alone; the
    number of different texts is kept as 8 bytes each.
    """
    heap: list[tuple[bytes, int, Row]] = []
    known: set[int] = set()
    seen = 0
    for number, row in enumerate(rows):
        digest = _digest(definition, row)
        if digest in taken:
            seen += 1
            continue
        short = int.from_bytes(digest[:8], "big")
        if short in known:
            continue
        known.add(short)
        key = _inverted(sha256(f"{seed}\0".encode() + digest).digest())
        if len(heap) < most:
            heapq.heappush(heap, (key, -number, row))
        elif key > heap[0][0]:
            heapq.heapreplace(heap, (key, -number, row))
    return [row for _, _, row in sorted(heap, key=lambda entry: entry[:2], reverse=True)], len(known), seen


def _inverted(key: bytes) -> bytes:
    """Turn the order of hashes round: the heap gives up its smallest, and the smallest hashes are to stay."""
    return bytes(255 - byte for byte in key)


def _digest(definition: TaskDefinition, row: Row) -> bytes:
    return sha256(definition.question_text(row).encode("utf-8", "surrogatepass")).digest()


def _check_ids(rows: Sequence[Row]) -> None:
    ids: set[str] = set()
    for row in rows:
        if row.id in ids:
            raise DataError(f"the id {row.id!r} stands on two rows with different texts", "give each row its own id")
        ids.add(row.id)


def shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    """Return the rows in an order by chance that hangs on the seed alone."""
    order = sorted(rows, key=lambda row: row.id)
    Random(f"shuffled {seed}").shuffle(order)
    return order
