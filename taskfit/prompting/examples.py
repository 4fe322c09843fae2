"""The worked examples of a prompt: drawn once and shown to every row, or chosen for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Literal, cast, get_args

from taskfit.errors import ConfigError, Faults
from taskfit.prompting.demonstrations import Select, choose_demonstrations
from taskfit.tasks.prompt import Shot

if TYPE_CHECKING:
    from taskfit.prompting.similarity import Ranker
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Task, Value

__all__ = ["Examples", "Order", "answered", "draw_examples", "examples_from_json"]

Order = Literal["fixed", "shuffled", "similar-last"]


@dataclass(frozen=True)
class Examples:
    """A pool of worked examples, and which of them a row is shown in which order.

    Attributes:
        shots: the pool.
        texts: the inputs that likeness is measured on, one an example; empty where nothing is ranked.
        k: most examples shown to a row; the pool is larger only where they are chosen by likeness.
        order: ``fixed``: as drawn, and the likest first where they are chosen by likeness; ``shuffled``: another
            order for every row, decided by seed and row; ``similar-last``: the likest nearest to the question.
        by: ``bm25``, or the encoder that measures likeness.
        fingerprint: of that encoder.
        seed: of the shuffling.
    """

    shots: tuple[Shot, ...] = ()
    texts: tuple[str, ...] = ()
    k: int = 0
    order: Order = "fixed"
    by: str = "bm25"
    fingerprint: str = ""
    seed: int = 0

    @property
    def is_shared(self) -> bool:
        """Whether every row is shown the same examples in the same order (but for its own)."""
        return not self.texts and self.order != "shuffled"

    def shown(self, definition: TaskDefinition, row: Row, question: str) -> tuple[Shot, ...]:
        """Return the examples before a row's question, without any that asks the same question.

        So a training row never sees its own answer: not when it is trained on, not when it is predicted.
        """
        places = [place for place, shot in enumerate(self.shots) if shot.question != question]
        if self.texts and places:
            scores = self._ranker.scores(definition.input_text(row))
            places = sorted(places, key=lambda place: (-scores[place], place))[: self.k]
        if self.order == "similar-last":
            places = places[::-1]
        if self.order == "shuffled":
            Random(f"order {self.seed} {row.id}").shuffle(places)
        return tuple(self.shots[place] for place in places)

    @cached_property
    def _ranker(self) -> Ranker:
        from taskfit.prompting.similarity import ranker

        return ranker(self.texts, self.by, self.fingerprint)

    def to_json(self) -> dict[str, Value]:
        """Return the pool and how it is used; :func:`examples_from_json` gives it back."""
        shots: list[Value] = []
        for place, shot in enumerate(self.shots):
            text: dict[str, Value] = {"text": self.texts[place]} if self.texts else {}
            shots.append({"question": shot.question, "answer": shot.answer, **text})
        how: dict[str, Value] = {"k": self.k, "order": self.order, "by": self.by, "seed": self.seed}
        return {"shots": shots, **how, "fingerprint": self.fingerprint}


def draw_examples(
    task: Task,
    k: int,
    select: Select,
    *,
    wording: int,
    seed: int,
    order: Order = "fixed",
    by: str = "bm25",
    answer: Callable[[TaskDefinition, Row, int], str | None] | None = None,
    program: str = "few-shot",
) -> Examples:
    """Choose the worked examples of a program.

    Args:
        task: its training rows are the pool.
        k: how many a row is shown; 0: none.
        select: how they are chosen: see :func:`taskfit.prompting.demonstrations.choose_demonstrations`; ``similar``
            keeps all training rows and chooses by likeness for each question.
        wording: of the questions and answers.
        seed: decides draws and shuffles.
        order: see :class:`Examples`.
        by: ``bm25``, or the name of an encoder.
        answer: what an example answers; None from it leaves the row out. Default: the row's target.
        program: who asks, for messages.

    Raises:
        ConfigError: there are fewer than k rows to show, or ``by`` is no encoder.
    """
    if k == 0:
        return Examples()
    definition = task.definition
    written = answer if answer is not None else answered
    rows = [row for row in task.train if written(definition, row, wording) is not None]
    if k > len(rows):
        kind = "training rows" if answer is None else "training rows with a rationale"
        hint = None if answer is None else "name the rationale in the task file, or take k=0"
        raise ConfigError(f"{program} needs k={k} {kind} (got {len(rows)}); lower k", hint)
    chosen = choose_demonstrations(definition, rows, k, select, seed, by)
    shots = tuple(Shot(definition.prompt_text(row, wording), written(definition, row, wording) or "") for row in chosen)
    is_ranked = select == "similar" or order == "similar-last"
    texts = tuple(definition.input_text(row) for row in chosen) if is_ranked else ()
    return Examples(shots, texts, k, order, by, _fingerprint(by) if is_ranked else "", seed)


def answered(definition: TaskDefinition, row: Row, wording: int) -> str:
    """Return the answer of an ordinary worked example: the row's target."""
    return definition.target_text(row, wording)


def examples_from_json(values: object, faults: Faults) -> Examples:
    """Build the examples of a predictor folder, checked; what is wrong is noted."""
    if not isinstance(values, Mapping):
        faults.add(f"examples must be an object (got {type(values).__name__})")
        return Examples()
    listed = values.get("shots")
    if not isinstance(listed, list):
        faults.add(f"shots must be a list (got {type(listed).__name__})")
        return Examples()
    shots = tuple(_shot(value, faults) for value in listed)
    texts = tuple(value["text"] for value in listed if isinstance(value, dict) and isinstance(value.get("text"), str))
    k, seed, order, by = (values.get(name) for name in ("k", "seed", "order", "by"))
    if texts and len(texts) != len(shots):
        faults.add(f"every example or none must have a text to compare (got {len(texts)} of {len(shots)})")
    if type(k) is not int or type(seed) is not int or not isinstance(by, str) or order not in get_args(Order):
        faults.add(f"k and seed must be whole numbers, by a text, order a known one (got {k!r}, {seed!r}, {by!r})")
        return Examples()
    fingerprint = str(values.get("fingerprint", ""))
    return Examples(shots, texts, k, cast("Order", order), by, fingerprint, seed)


def _shot(value: Value, faults: Faults) -> Shot:
    if isinstance(value, dict):
        question, answer = value.get("question"), value.get("answer")
        if isinstance(question, str) and isinstance(answer, str):
            return Shot(question, answer)
    faults.add("every example must have a question and an answer, both texts")
    return Shot("", "")


def _fingerprint(by: str) -> str:
    from taskfit.prompting.similarity import encoder_fingerprint

    return encoder_fingerprint(by)
