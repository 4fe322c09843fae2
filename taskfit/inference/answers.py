"""One answer as it grows: which token comes next, and whether it ends there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

from taskfit.inference.constraints import constraint_of
from taskfit.inference.forward import check_finite, long_tensor
from taskfit.inference.requests import Generate, Generated
from taskfit.inference.sampling import Chooser

if TYPE_CHECKING:
    from taskfit.models.encoding import Encoded
    from taskfit.models.language_model import LanguageModel

__all__ = ["Answer", "add_tokens", "room"]

_SLACK = 4  # tokens before a stop text that may change how its first character reads: bytes of one, a leading space


class Answer:
    """The answer to one request as it grows.

    Attributes:
        last: the newest token.
        finish: why it ended; None while it goes on.
    """

    def __init__(self, model: LanguageModel, request: Generate, encoded: Encoded) -> None:
        self._model, self._request, self._encoded = model, request, encoded
        self._chooser = Chooser(request)
        self._constraint = constraint_of(model, request, encoded)
        self._hidden = frozenset(model.tokenizer.all_special_ids) if request.stop else frozenset()
        self._stop_tokens = _SLACK + max((len(stop.encode()) for stop in request.stop), default=0)
        self._tail: list[int] = []
        self._tokens: list[int] = []
        self._logprob = 0.0
        self.last = 0
        self.finish: Literal["end", "stop", "length"] | None = None

    def choose(self, logits: Tensor, likeliest: int) -> int:
        """Return the next token, from logits of shape (vocabulary,) and the likeliest of all."""
        if self._constraint is None:
            return self._chooser.choose(logits, likeliest)
        allowed = self._constraint.allowed().to(logits.device)
        among = logits[allowed]
        return int(allowed[self._chooser.choose(among, int(among.argmax()))])

    def add(self, token: int, logprob: float) -> None:
        """Take the next token, and see whether the answer ends with it."""
        self.last = token
        self._tokens.append(token)
        self._logprob += logprob
        if token in self._model.end_token_ids or (self._constraint is not None and self._constraint.add(token)):
            self.finish = "end"
        elif self._stops(token):
            self.finish = "stop"
        elif len(self._tokens) == self._request.max_tokens:
            self.finish = "length"

    def result(self) -> Generated:
        """Return the finished answer."""
        assert self.finish is not None
        return Generated(
            text=self._text(),
            finish=self.finish,
            logprob=self._logprob,
            tokens=len(self._tokens),
            prompt_tokens=len(self._encoded.prompt),
            cut_tokens=self._encoded.cut_tokens,
            dropped_shots=self._encoded.dropped_shots,
        )

    def _text(self) -> str:
        chosen = self._constraint.text if self._constraint is not None and self.finish == "end" else None
        if chosen is not None:
            return chosen
        ended = bool(self._tokens) and self._tokens[-1] in self._model.end_token_ids
        text = self._decode(self._tokens[:-1] if ended else self._tokens)
        text = text[: self._stop_place(text)]
        is_plain = self._model.architecture == "decoder" and not self._model.has_chat_template
        if is_plain and not self._request.prompt.text[-1:].isspace():
            text = text.removeprefix(" ")  # the one space that stands between question and answer
        return text

    def _stops(self, token: int) -> bool:
        """Look for a stop text among the newest tokens only; where one seems to be, in the whole answer."""
        if not self._request.stop or token in self._hidden:
            return False
        self._tail = [*self._tail[-self._stop_tokens :], token]
        if self._stop_place(self._decode(self._tail)) is None:
            return False
        return self._stop_place(self._decode(self._tokens)) is not None

    def _decode(self, tokens: Sequence[int]) -> str:
        decode = (
            self._model.tokenizer.decode
        )  # some tokenizers would take spaces before punctuation out of what was said
        return str(decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _stop_place(self, text: str) -> int | None:
        places = [place for stop in self._request.stop if (place := text.find(stop)) >= 0]
        return min(places, default=None)


def room(request: Generate, encoded: Encoded) -> int:
    """Return the most tokens that an answer can have: of choices the longest, and its end."""
    return min(request.max_tokens, 1 + max(map(len, encoded.answers), default=request.max_tokens))


def add_tokens(answers: Sequence[Answer], logits: Tensor, model_name: str) -> None:
    """Let each answer choose its next token, from logits of shape (answers, vocabulary).

    Raises:
        EngineError: a log-probability is NaN or infinite.
    """
    likeliest = logits.argmax(-1).tolist()
    tokens = [answer.choose(logits[row], likeliest[row]) for row, answer in enumerate(answers)]
    logprobs = -cross_entropy(logits, long_tensor(tokens, logits.device), reduction="none")
    check_finite(logprobs, model_name)
    for answer, token, logprob in zip(answers, tokens, logprobs.tolist(), strict=True):
        answer.add(token, logprob)
