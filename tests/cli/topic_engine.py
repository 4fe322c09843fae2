"""An engine that knows the topics task of these tests as far as the prompt lets it see."""

from __future__ import annotations

import re

from taskfit.inference.requests import Request, Response, Score
from taskfit.testing import FakeEngine, scored

FOOD = ("soup", "bread", "cheese", "apple")
MUSIC = ("drum", "violin", "song", "choir")


class TopicEngine:
    """Says ``food`` or ``music`` by the keyword in the question; it never learns anything else.

    Attributes:
        mistaken: numbers of rows (``time 7``) that it answers wrongly, whatever the prompt.

    A question without a keyword is answered ``food``. A worked example that gives the wrong answer turns it round.
    """

    def __init__(self) -> None:
        self.mistaken: set[int] = set()

    def engine(self, model: object = None) -> FakeEngine:
        """Return a fresh engine; in the form of ``taskfit.strategy.predictor.engine_for``."""
        return FakeEngine(self._answer)

    def _answer(self, request: Request) -> Response:
        assert isinstance(request, Score)
        topic = _topic(request.prompt.text)
        number = re.search(r"time (\d+)", request.prompt.text)
        is_turned = number is not None and int(number.group(1)) in self.mistaken
        is_turned ^= any(_topic(shot.question) != shot.answer for shot in request.prompt.shots)
        wanted = topic if not is_turned else {"food": "music", "music": "food"}[topic]
        return scored(request, [0.0 if text == wanted else -5.0 for text in request.continuations])


def _topic(text: str) -> str:
    return "music" if any(word in text for word in MUSIC) else "food"
