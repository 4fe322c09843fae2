"""Zero-shot and few-shot prompting: one question a row, after no or k worked examples.

Labels and options are scored, not generated: every row gets a valid answer, with probabilities, from one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.inference.requests import Generate, Generated, Score, Scored
from taskfit.prompting.demonstrations import Select, choose_demonstrations
from taskfit.prompting.options import Normalise, likeliest_option
from taskfit.strategy.contract import Answer
from taskfit.strategy.parameters import check_types
from taskfit.tasks.prompt import Prompt, Shot

if TYPE_CHECKING:
    from taskfit.strategy.contract import Steps
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Task, Value

__all__ = ["FewShot", "PreparedShots", "ZeroShot"]


@dataclass(frozen=True)
class ZeroShot:
    """Ask with the task's wording alone.

    Source: Brown et al. 2020, section 2.
    """

    wording: int = 0
    """Which of the task's wordings to use; 0 is the first."""
    normalise: Normalise = "auto"
    """How options are scored: ``sum`` or ``mean`` over tokens; ``auto``: sum for classification, mean for choice."""

    uses_seed = uses_train = False

    def __post_init__(self) -> None:
        faults = Faults("zero-shot")
        check_types(self, faults)
        _check_at_least("wording", self.wording, 0, faults)
        faults.raise_as(ConfigError)

    def prepare(self, task: Task, *, seed: int) -> PreparedShots:
        """Check the wording; there is nothing to draw."""
        _check_wording(task.definition, self.wording)
        return PreparedShots(self.wording, self.normalise, ())

    def restore(self, values: Mapping[str, Value]) -> PreparedShots:
        """Build what ``to_json`` gave."""
        return _restored(values)


@dataclass(frozen=True)
class FewShot:
    """Ask after k worked examples, drawn once from the training rows and shown to every row.

    Source: Brown et al. 2020, section 2.
    """

    k: int = 4
    """Worked examples in the prompt."""
    select: Select = "balanced"
    """How they are drawn: ``balanced`` over labels or right options, or ``random``."""
    wording: int = 0
    """Which of the task's wordings to use, for examples and question alike; 0 is the first."""
    normalise: Normalise = "auto"
    """How options are scored: ``sum`` or ``mean`` over tokens; ``auto``: sum for classification, mean for choice."""

    def __post_init__(self) -> None:
        faults = Faults("few-shot")
        check_types(self, faults)
        _check_at_least("k", self.k, 1, faults)
        _check_at_least("wording", self.wording, 0, faults)
        faults.raise_as(ConfigError)

    def prepare(self, task: Task, *, seed: int) -> PreparedShots:
        """Draw the examples.

        Raises:
            ConfigError: there are fewer than k training rows, or no such wording.
        """
        definition = task.definition
        _check_wording(definition, self.wording)
        if self.k > len(task.train):
            raise ConfigError(f"few-shot needs k={self.k} training rows (got {len(task.train)}); lower k")
        rows = choose_demonstrations(definition, task.train, self.k, self.select, seed)
        shots = [
            Shot(definition.prompt_text(row, self.wording), definition.target_text(row, self.wording)) for row in rows
        ]
        return PreparedShots(self.wording, self.normalise, tuple(shots))

    def restore(self, values: Mapping[str, Value]) -> PreparedShots:
        """Build what ``to_json`` gave."""
        return _restored(values)


@dataclass(frozen=True)
class PreparedShots:
    """A wording and the worked examples before the question; none for zero-shot."""

    wording: int
    normalise: Normalise
    shots: tuple[Shot, ...]

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return the question after the examples, without any example that asks the same question.

        So a training row never sees its own answer: not when it is trained on, not when it is predicted.
        """
        question = definition.prompt_text(row, self.wording)
        return Prompt(question, tuple(shot for shot in self.shots if shot.question != question))

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Score the options, or generate; the steps of one row."""
        prompt = self.prompt(definition, row)
        if definition.kind == "generation":
            generated = cast("Generated", (yield Generate(prompt, definition.max_answer_tokens, stop=_stop(prompt))))
            text = generated.text.strip()
            return Answer(text, is_parsed=bool(text))
        options = definition.options(row, self.wording)
        scored = cast("Scored", (yield Score(prompt, tuple(option.text for option in options))))
        return likeliest_option(options, scored, definition.kind, self.normalise)

    def to_json(self) -> dict[str, Value]:
        """Return wording, normalisation and examples."""
        shots: list[Value] = [{"question": shot.question, "answer": shot.answer} for shot in self.shots]
        return {"wording": self.wording, "normalise": self.normalise, "shots": shots}


def _stop(prompt: Prompt) -> tuple[str, ...]:
    """Return the texts that end a generated answer.

    A model without chat turns goes on after its answer with an example of its own making, which a blank line starts,
    as in the prompt. So a blank line ends the answer, when there are examples and none of their answers holds one.
    """
    blank = "\n\n"
    return (blank,) if prompt.shots and not any(blank in shot.answer for shot in prompt.shots) else ()


def _check_at_least(name: str, value: object, least: int, faults: Faults) -> None:
    if isinstance(value, int) and value < least:
        faults.add(f"{name} must be at least {least} (got {value})")


def _check_wording(definition: TaskDefinition, wording: int) -> None:
    count = len(definition.wordings)
    if not 0 <= wording < count:
        raise ConfigError(f"wording must be between 0 and {count - 1}: the task has {count} (got {wording})")


def _restored(values: Mapping[str, Value]) -> PreparedShots:
    """Build the prepared program of a folder, checked.

    Raises:
        PredictorError: the values are not what ``to_json`` gives; all faults together.
    """
    faults = Faults("prompt of the predictor")
    wording, normalise, listed = (values.get(name) for name in ("wording", "normalise", "shots"))
    if not isinstance(wording, int) or isinstance(wording, bool):
        faults.add(f"wording must be a whole number (got {wording!r})")
    if normalise not in get_args(Normalise):
        faults.add(f"normalise must be one of {', '.join(get_args(Normalise))} (got {normalise!r})")
    if not isinstance(listed, list):
        faults.add(f"shots must be a list (got {type(listed).__name__})")
    shots = [_shot(value, faults) for value in listed] if isinstance(listed, list) else []
    faults.raise_as(PredictorError)
    return PreparedShots(cast("int", wording), cast("Normalise", normalise), tuple(shots))


def _shot(value: Value, faults: Faults) -> Shot:
    if isinstance(value, dict):
        question, answer = value.get("question"), value.get("answer")
        if isinstance(question, str) and isinstance(answer, str):
            return Shot(question, answer)
    faults.add("every example must have a question and an answer, both texts")
    return Shot("", "")
