"""Log-probabilities of answers under a decoder: what rows share is computed once, whatever they share.

Rows are sorted by their prompts; a beginning that several share becomes a segment, computed once, and so on inside
each group. A row goes through the model as the rest of its prompt followed by the tree of its answers: a mask lets
every node see the prompt and the nodes above it, and positions count along the path, so each node has the very hidden
state that it would have in a sequence of its own. Rows are packed into one sequence (see
:mod:`taskfit.inference.cascade`), and only the positions where something is predicted reach the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from taskfit.inference.batches import Size, in_halves, in_order
from taskfit.inference.cascade import KeysValues, Pack, Piece, cascading, pack
from taskfit.inference.forward import check_finite, forward, hidden_states, long_tensor, output_layer, vocabulary_size
from taskfit.inference.prefix_tree import WORTH_SHARING, PrefixTree, build_prefix_tree
from taskfit.inference.trie import Trie, build_trie
from taskfit.inference.vocabulary import token_logprobs
from taskfit.models.work import Work

if TYPE_CHECKING:
    from taskfit.inference.sharing import Sharing
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["score_shared"]

Scores = tuple[float, ...]


def score_shared(
    model: LanguageModel,
    encoded: Sequence[Encoded],
    batch_tokens: int,
    sharing: Sharing,
    *,
    cache_bytes: int,
    worth_sharing: int = WORTH_SHARING,
) -> tuple[list[Scores], Work]:
    """Score all answers of all prompts.

    Args:
        model: a decoder whose attention can be replaced.
        encoded: prompts and answers, none empty.
        batch_tokens: most positions that go through at once; where memory runs out, batches are halved.
        sharing: what is known of the model (see :mod:`taskfit.inference.sharing`).
        cache_bytes: most memory for keys and values of shared segments at any time. Where they need more, rows are
            taken in rounds; a single beginning that is larger is not shared.
        worth_sharing: fewest tokens of a shared segment.

    Returns:
        (log-probability of each answer of each prompt; what was computed)

    Raises:
        EngineError: the model gives NaN.
        ResourceError: memory runs out on a single row.
    """
    most_tokens = cache_bytes // sharing.bytes_per_token
    tree = build_prefix_tree([row.prompt for row in encoded], worth_sharing=worth_sharing, most_tokens=most_tokens)
    run = _Run(model, encoded, tree, batch_tokens, sharing)
    for rows in _rounds(tree, most_tokens):
        run.score(rows)
    return [run.scores[row] for row in range(len(encoded))], run.work


def _rounds(tree: PrefixTree, most_tokens: int) -> Iterator[list[int]]:
    """Yield rows, in order, as many at a time as their segments fit into the memory for them."""
    rows: list[int] = []
    held: dict[int, int] = {}
    for row in tree.order:
        chain = tree.chain(tree.behind[row])
        held.update({number: len(tree.segments[number].tokens) for number in chain})
        if rows and sum(held.values()) > most_tokens:
            yield rows
            rows, held = [], {number: len(tree.segments[number].tokens) for number in chain}
        rows.append(row)
    if rows:
        yield rows


class _Run:
    """The segments that are held, and the scores so far."""

    def __init__(
        self, model: LanguageModel, encoded: Sequence[Encoded], tree: PrefixTree, batch_tokens: int, sharing: Sharing
    ) -> None:
        self._model, self._encoded, self._tree = model, encoded, tree
        self._batch_tokens, self._sharing = batch_tokens, sharing
        self._held: dict[int, KeysValues] = {}
        self.scores: dict[int, Scores] = {}
        self.work = Work()

    def score(self, rows: Sequence[int]) -> None:
        """Score some rows, the segments before them first; drop segments of rounds before that are not needed."""
        needed = {number for row in rows for number in self._tree.chain(self._tree.behind[row])}
        self._held = {number: held for number, held in self._held.items() if number in needed}
        missing = sorted(needed - self._held.keys())
        for level in sorted({self._tree.segments[number].level for number in missing}):
            self._read([number for number in missing if self._tree.segments[number].level == level])
        pieces = {row: self._row_piece(row) for row in rows}
        vocabulary = 0 if self._sharing.has_plain_head else vocabulary_size(self._model.module)
        sizes = [Size(pieces[row].size, 0, len(_trie(pieces[row]).heads) * vocabulary) for row in rows]
        for batch in in_order(sizes, self._batch_tokens):
            chosen = [rows[place] for place in batch]
            found = in_halves(chosen, lambda some: self._score_batch([pieces[row] for row in some]))
            self.scores.update(zip(chosen, found, strict=True))

    def _row_piece(self, row: int) -> Piece:
        prompt, answers = self._encoded[row].prompt, self._encoded[row].answers
        return Piece(prompt[self._tree.start(row) :], build_trie(answers), self._behind(self._tree.behind[row]))

    def _behind(self, segment: int) -> tuple[KeysValues, ...]:
        return tuple(self._held[number] for number in self._tree.chain(segment))

    def _read(self, segments: Sequence[int]) -> None:
        """Compute keys and values of segments whose beginnings are held."""
        chosen = [self._tree.segments[number] for number in segments]
        pieces = [Piece(segment.tokens, None, self._behind(segment.above)) for segment in chosen]
        for batch in in_order([Size(piece.size) for piece in pieces], self._batch_tokens):
            found = in_halves(batch, lambda some: self._read_batch([pieces[place] for place in some]))
            self._held.update(zip((segments[place] for place in batch), found, strict=True))

    def _read_batch(self, pieces: Sequence[Piece]) -> list[KeysValues]:
        packed = pack(pieces, self._model.device, keeps=True)
        nothing = torch.zeros(0, dtype=torch.long, device=self._model.device)
        with cascading(self._model.module, packed):
            hidden_states(self._model.module, nothing, **_inputs(packed))
        self._count(pieces, 0)
        return [packed.keys_values(number, piece) for number, piece in enumerate(pieces)]

    def _score_batch(self, pieces: Sequence[Piece]) -> list[Scores]:
        packed = pack(pieces, self._model.device)
        columns, heads, tokens = _edges(pieces, packed)
        device, module = self._model.device, self._model.module
        places, asked = long_tensor(heads, device), long_tensor(tokens, device)
        with cascading(module, packed):
            if self._sharing.has_plain_head:
                hidden = hidden_states(module, long_tensor(columns, device), **_inputs(packed))
                edges = token_logprobs(output_layer(module), hidden, places, asked)
            else:
                rows = torch.zeros(len(columns), dtype=torch.long, device=device)
                logits, _ = forward(module, rows, long_tensor(columns, device), **_inputs(packed))
                edges = logits[places, asked] - logits.logsumexp(-1)[places]
        check_finite(edges, self._model.name)
        self._count(pieces, len(columns))
        return _sum_paths(pieces, edges)

    def _count(self, pieces: Sequence[Piece], heads: int) -> None:
        self.work += Work(
            computed_tokens=sum(piece.size for piece in pieces),
            attended_pairs=sum(piece.pairs for piece in pieces),
            head_tokens=heads,
        )


def _inputs(packed: Pack) -> dict[str, Any]:
    return {"input_ids": packed.ids, "position_ids": packed.positions, "use_cache": False}


def _trie(piece: Piece) -> Trie:
    assert piece.trie is not None
    return piece.trie


def _edges(pieces: Sequence[Piece], packed: Pack) -> tuple[list[int], list[int], list[int]]:
    """Return the positions where something is predicted; for each edge of each trie its one of them, and its token."""
    columns: list[int] = []
    heads: list[int] = []
    tokens: list[int] = []
    for piece, offset in zip(pieces, packed.offsets, strict=True):
        trie = _trie(piece)
        place = {node: len(columns) + number for number, node in enumerate(trie.heads)}
        columns += [offset + len(piece.tokens) + node for node in trie.heads]  # the root is the prompt's last token
        heads += [place[node] for node in trie.edge_nodes]
        tokens += trie.edge_tokens
    return columns, heads, tokens


def _sum_paths(pieces: Sequence[Piece], edges: Tensor) -> list[Scores]:
    """Add up log-probabilities of edges along the path of each answer."""
    values = edges.double().cpu().numpy()
    scores: list[Scores] = []
    first = 0
    for piece in pieces:
        trie = _trie(piece)
        own = values[first : first + len(trie.edge_nodes)]
        scores.append(tuple(float(own[list(path)].sum()) for path in trie.paths))
        first += len(own)
    return scores
