"""Text with tokens taken out, to be told again: masked tokens for encoders, corrupted spans for encoder–decoders.

Every draw comes from the numbers it is given, so the same text is masked in the same way whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from taskfit.errors import ConfigError
from taskfit.tuning.examples import Example

if TYPE_CHECKING:
    import numpy as np

    from taskfit.models.language_model import LanguageModel

__all__ = ["Masks", "Sentinels", "masks_of", "sentinels_of"]

MASKED_SHARE = 0.15
"""Share of the tokens that are taken out: Devlin et al. 2019, section 3.1, and Raffel et al. 2020, section 3.1.4."""

SHOWN_AS_MASK, SHOWN_AS_OTHER = 0.8, 0.1
"""Of a masked token: shown as [MASK], shown as a random token; else as it is. Devlin et al. 2019, section 3.1."""

SPAN_TOKENS = 3
"""Mean length of a corrupted span: Raffel et al. 2020, section 3.3.4."""

FOLDS = 7
"""Parts of a text that are masked in turn when it is judged, so that about 15 % of it are hidden at a time."""


@dataclass(frozen=True)
class Masks:
    """How an encoder's texts are masked.

    Attributes:
        mask: id of the mask token.
        special: ids that are never masked.
        words: ids that may stand in a masked token's place.
    """

    mask: int
    special: frozenset[int]
    words: tuple[int, ...]

    def masked(self, name: str, ids: Sequence[int], draws: Sequence[int]) -> Example:
        """Return the text with 15 % of its tokens, at least one, hidden and to be learned.

        Of these 80 % are shown as the mask, 10 % as a random token and 10 % as they are.

        Args:
            name: of the example.
            ids: of the text, special tokens included; at least one is not special.
            draws: what the random numbers come from.
        """
        import numpy as np

        rng = np.random.default_rng(list(draws))
        places = self._places(ids)
        count = max(1, round(MASKED_SHARE * len(places)))
        chosen = sorted(rng.choice(places, size=count, replace=False).tolist())
        shown = list(ids)
        for place, luck in zip(chosen, rng.random(count).tolist(), strict=True):
            if luck < SHOWN_AS_MASK:
                shown[place] = self.mask
            elif luck < SHOWN_AS_MASK + SHOWN_AS_OTHER:
                shown[place] = self.words[int(rng.integers(len(self.words)))]
        return Example(name, tuple(shown), (), masked=tuple((place, ids[place]) for place in chosen))

    def in_turn(self, name: str, ids: Sequence[int]) -> list[Example]:
        """Return the text several times, every token shown as the mask, and asked for, in one of them.

        The mean loss over all tokens is the logarithm of a pseudo-perplexity: as in Salazar et al. 2020, section 2,
        but a seventh of the text at a time instead of one token.
        """
        places = self._places(ids)
        found = []
        for start in range(min(FOLDS, len(places))):
            hidden = places[start::FOLDS]
            shown = list(ids)
            for place in hidden:
                shown[place] = self.mask
            masked = tuple((place, ids[place]) for place in hidden)
            found.append(Example(f"{name}, part {start + 1}", tuple(shown), (), masked=masked))
        return found

    def _places(self, ids: Sequence[int]) -> list[int]:
        return [place for place, token in enumerate(ids) if token not in self.special]


@dataclass(frozen=True)
class Sentinels:
    """How an encoder–decoder's texts are corrupted.

    Attributes:
        ids: of the tokens that stand for spans, in order.
        end: behind the text and behind the answer.
    """

    ids: tuple[int, ...]
    end: tuple[int, ...]

    def corrupted(self, name: str, ids: Sequence[int], draws: Sequence[int]) -> Example:
        """Return the text with 15 % of its tokens taken out in spans of 3 on average, to be told in order.

        Each span taken out is one sentinel in what is read; in what is learned each stretch that stayed is one. As in
        the authors' code (``random_spans_noise_mask``), the text begins with a stretch that stays.

        Args:
            name: of the example.
            ids: of the text, two or more, without special tokens.
            draws: what the random numbers come from.
        """
        import numpy as np

        is_hidden = span_mask(len(ids), len(self.ids), np.random.default_rng(list(draws)))
        read = self._shortened(ids, is_hidden)
        told = self._shortened(ids, [not hidden for hidden in is_hidden])
        return Example(name, (*read, *self.end), (*told, *self.end))

    def _shortened(self, ids: Sequence[int], is_hidden: Sequence[bool]) -> list[int]:
        """The ids with every hidden stretch replaced by the next sentinel."""
        sentinels, found = iter(self.ids), list[int]()
        for hidden, stretch in groupby(zip(ids, is_hidden, strict=True), key=lambda pair: pair[1]):
            found += [next(sentinels)] if hidden else [token for token, _ in stretch]
        return found


def span_mask(length: int, most_spans: int, rng: np.random.Generator) -> list[bool]:
    """Return which of ``length`` tokens, two or more, are taken out: stretches that stay and spans in turn.

    Source: Raffel et al. 2020, sections 3.1.4 and 3.3.4, and ``random_spans_noise_mask`` of the authors' code.
    """
    hidden = min(max(1, round(MASKED_SHARE * length)), length - 1)
    spans = min(max(1, round(hidden / SPAN_TOKENS)), length - hidden, most_spans)
    lengths = zip(_parts(length - hidden, spans, rng), _parts(hidden, spans, rng), strict=True)
    return [value for kept, taken in lengths for value in (*[False] * kept, *[True] * taken)]


def masks_of(model: LanguageModel) -> Masks:
    """Return how texts are masked for this encoder.

    Raises:
        ConfigError: it has no head that tells masked tokens, or its tokenizer no mask.
    """
    tokenizer: Any = model.tokenizer
    if not model.has_masked_head or tokenizer.mask_token_id is None:
        raise ConfigError(
            f"model {model.name!r} is an encoder without a masked-token head, so it cannot go on with its pre-training",
            "Take one that was saved with it: `architectures` in its config.json ends with ForMaskedLM.",
        )
    special = frozenset(int(token) for token in tokenizer.all_special_ids)
    words = tuple(token for token in range(len(tokenizer)) if token not in special)
    return Masks(int(tokenizer.mask_token_id), special, words)


def sentinels_of(model: LanguageModel) -> Sentinels:
    """Return how texts are corrupted for this encoder–decoder.

    Raises:
        ConfigError: its tokenizer has no sentinels.
    """
    from taskfit.models.text_format import text_format

    vocabulary = model.tokenizer.get_vocab()
    found: list[int] = []
    while (token := vocabulary.get(f"<extra_id_{len(found)}>")) is not None:
        found.append(int(token))
    if not found:
        raise ConfigError(
            f"the tokenizer of {model.name!r} has no sentinels (<extra_id_0> and on), so it cannot go on with its "
            "pre-training on corrupted spans",
            "Take a model of the T5 family.",
        )
    return Sentinels(tuple(found), text_format(model.tokenizer).tail)


def _parts(items: int, parts: int, rng: np.random.Generator) -> list[int]:
    """``items`` split into ``parts`` of one or more, all splits alike."""
    cuts = sorted((rng.permutation(items - 1)[: parts - 1] + 1).tolist())
    return [stop - start for start, stop in zip([0, *cuts], [*cuts, items], strict=True)]
