"""Reasoning before answering: one chain of thought, or many sampled ones that vote.

With ``k=0`` the model is told to think step by step, and a second request asks for the answer to its own reasoning.
With ``k`` worked examples, whose answers are the task's rationales, one request gives both. A change of the weights
cannot be trained on it: tasks hold the answer that should come, not the reasoning that should lead to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast, get_args

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.inference.requests import Generate, Score, Scored
from taskfit.prompting.asking import (
    CUE,
    AnswerBy,
    answer_form,
    ask,
    check_at_least,
    check_wording,
    continued,
    generated_text,
    read_answer,
    request_seed,
    stop_texts,
    vote,
)
from taskfit.prompting.demonstrations import Select
from taskfit.prompting.examples import Examples, draw_examples, examples_from_json
from taskfit.prompting.options import default_unit, likeliest_option, option_scores
from taskfit.prompting.reading import AnswerForm
from taskfit.strategy.contract import Answer, Usage
from taskfit.strategy.parameters import check_types
from taskfit.tasks.prompt import Prompt

if TYPE_CHECKING:
    from taskfit.inference.requests import Request
    from taskfit.strategy.contract import Steps
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Option, Row, Task, Value

__all__ = ["TRIGGER", "ChainOfThought", "PreparedChain", "SelfConsistency", "reasoned"]

TRIGGER = "Let's think step by step."
"""Source: Kojima et al. 2022, section 3."""


@dataclass(frozen=True)
class ChainOfThought:
    """Let the model reason before it answers.

    Sources: Wei et al. 2022, section 2 (k > 0, worked rationales); Kojima et al. 2022, section 3 (k = 0, two requests).
    """

    k: int = 0
    """Worked examples with the task's rationales; 0: the model is told to think step by step."""
    select: Select = "random"
    """How they are chosen: see ``few-shot``."""
    wording: int = 0
    """Which of the task's wordings to use; 0 is the first."""
    max_tokens: int = 256
    """Most tokens of reasoning."""
    answer: AnswerBy = "generate"
    """After reasoning with k = 0, options are read from a ``generate``d answer, or all of them are ``score``d."""

    is_trainable = False

    def __post_init__(self) -> None:
        _check("chain-of-thought", self)

    @property
    def uses_seed(self) -> bool:
        """Whether examples are drawn."""
        return self.k > 0

    uses_train = uses_seed

    def check(self, task: Task) -> None:
        """Refuse a task without this wording, or with fewer than k rationales.

        Raises:
            ConfigError: it has fewer.
        """
        _check_task("chain-of-thought", self, task)

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes: reasoning, and with k = 0 a second request for the answer."""
        return Usage(1.0 if self.k else 2.0, self.max_tokens / 2, is_generated=self.answer == "generate")

    def prepare(self, task: Task, *, seed: int) -> PreparedChain:
        """Draw the worked rationales.

        Raises:
            ConfigError: fewer than k training rows have a rationale, or no such wording.
        """
        return _prepared("chain-of-thought", self, task, seed, PreparedChain(answer_by=self.answer))

    def restore(self, values: Mapping[str, Value]) -> PreparedChain:
        """Build what ``to_json`` gave."""
        return _restored(values)


@dataclass(frozen=True)
class SelfConsistency:
    """Sample n chains of thought and take the answer that most of them give; the shares of votes are probabilities.

    Source: Wang et al. 2023, section 2 (unweighted vote).
    """

    n: int = 5
    """Chains sampled for a row."""
    temperature: float = 0.7
    """Of the samples; above 0."""
    top_p: float = 1.0
    """Nucleus that samples are drawn from."""
    k: int = 0
    """Worked examples with the task's rationales; 0: the model is told to think step by step."""
    select: Select = "random"
    """How they are chosen: see ``few-shot``."""
    wording: int = 0
    """Which of the task's wordings to use; 0 is the first."""
    max_tokens: int = 256
    """Most tokens of reasoning."""

    is_trainable = False

    def __post_init__(self) -> None:
        faults = Faults("self-consistency")
        check_at_least("n", self.n, 2, faults)
        if isinstance(self.temperature, int | float) and not self.temperature > 0:
            faults.add(f"temperature must be above 0, or all chains are the same (got {self.temperature})")
        if isinstance(self.top_p, int | float) and not 0 < self.top_p <= 1:
            faults.add(f"top_p must be above 0 and at most 1 (got {self.top_p})")
        _check("self-consistency", self, faults)

    @property
    def uses_train(self) -> bool:
        """Whether examples are drawn."""
        return self.k > 0

    def check(self, task: Task) -> None:
        """Refuse a task without this wording, or with fewer than k rationales.

        Raises:
            ConfigError: it has fewer.
        """
        _check_task("self-consistency", self, task)

    def usage(self, definition: TaskDefinition, rows: int) -> Usage:
        """Return what a row takes: n times a chain of thought."""
        return Usage(self.n * (1.0 if self.k else 2.0), self.n * self.max_tokens / 2, is_generated=True)

    def prepare(self, task: Task, *, seed: int) -> PreparedChain:
        """Draw the worked rationales.

        Raises:
            ConfigError: fewer than k training rows have a rationale, or no such wording.
        """
        sampled = PreparedChain(n=self.n, temperature=float(self.temperature), top_p=float(self.top_p))
        return _prepared("self-consistency", self, task, seed, sampled)

    def restore(self, values: Mapping[str, Value]) -> PreparedChain:
        """Build what ``to_json`` gave."""
        return _restored(values)


@dataclass(frozen=True)
class PreparedChain:
    """How chains are asked for, and how an answer is read from them.

    Attributes:
        wording: of question and examples.
        examples: worked rationales; none: the model is told to think.
        form: what answers look like.
        max_tokens: of the reasoning.
        answer_by: how the second request asks.
        n: chains sampled.
        temperature: of the samples; 0 with one chain: the likeliest one.
        top_p: nucleus of the samples.
        seed: of the fit; with row and number it decides a sample.
    """

    wording: int = 0
    examples: Examples = field(default_factory=Examples)
    form: AnswerForm = "option"
    max_tokens: int = 256
    answer_by: AnswerBy = "generate"
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """Return what the reasoning follows."""
        question = definition.prompt_text(row, self.wording)
        shots = self.examples.shown(definition, row, question)
        if not shots:
            question += (" " if question.endswith(":") else "\n") + TRIGGER
        return Prompt(question, shots)

    def answer(self, definition: TaskDefinition, row: Row) -> Steps:
        """Reason, answer, and vote where there are several chains."""
        prompt = self.prompt(definition, row)
        chains = cast("tuple[object, ...]", (yield tuple(self._chain(prompt, row, number) for number in range(self.n))))
        texts = [generated_text(chain) for chain in chains]
        if prompt.shots:
            read = [read_answer(definition, row, text, self.form, self.wording, needs_cue=True) for text in texts]
        else:
            options = definition.options(row, self.wording)
            wave = tuple(self._second(definition, prompt, text, options) for text in texts)
            given = cast("tuple[object, ...]", (yield wave))
            read = [self._read(definition, row, t, g, options) for t, g in zip(texts, given, strict=True)]
        if self.n == 1:
            return read[0]
        return vote(read, [option.value for option in definition.options(row, self.wording)])

    def _chain(self, prompt: Prompt, row: Row, number: int) -> Request:
        return Generate(
            prompt,
            self.max_tokens,
            stop_texts(prompt),
            self.temperature,
            self.top_p,
            request_seed(self.seed, row, number),
        )

    def _second(self, definition: TaskDefinition, prompt: Prompt, text: str, options: tuple[Option, ...]) -> Request:
        after = Prompt(f"{prompt.text} {text}\n{CUE}")
        if self.answer_by == "score" and options:
            return Score(after, tuple(option.text for option in options))
        return ask(after, definition.max_answer_tokens)

    def _read(
        self, definition: TaskDefinition, row: Row, text: str, given: object, options: tuple[Option, ...]
    ) -> Answer:
        if isinstance(given, Scored):
            unit = default_unit(definition.kind, "auto")
            told = given if definition.kind == "choice" else None
            return replace(likeliest_option(options, option_scores(options, given, unit), told), raw=text)
        said = generated_text(given)
        read = read_answer(definition, row, continued(said), self.form, self.wording, needs_cue=True)
        return replace(read, raw=f"{text}\n{CUE} {said}")

    def to_json(self) -> dict[str, Value]:
        """Return plain JSON values."""
        return {
            "wording": self.wording,
            "examples": self.examples.to_json(),
            "form": self.form,
            "max_tokens": self.max_tokens,
            "answer": self.answer_by,
            "n": self.n,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }


def reasoned(definition: TaskDefinition, row: Row, wording: int) -> str | None:
    """Return the answer of a worked rationale: the reasons, then the target behind a cue; None without reasons."""
    reasons = definition.rationale_text(row)
    return f"{reasons.rstrip()} So the answer is {definition.target_text(row, wording)}." if reasons else None


def _check_task(name: str, program: ChainOfThought | SelfConsistency, task: Task) -> None:
    check_wording(task.definition, program.wording)
    told = sum(bool(task.definition.rationale_text(row)) for row in task.train) if program.k else 0
    if told < program.k:
        raise ConfigError(f"{name} needs k={program.k} training rows with a rationale (got {told}); lower k")


def _prepared(
    name: str, program: ChainOfThought | SelfConsistency, task: Task, seed: int, made: PreparedChain
) -> PreparedChain:
    check_wording(task.definition, program.wording)
    examples = draw_examples(
        task, program.k, program.select, wording=program.wording, seed=seed, answer=reasoned, program=name
    )
    return replace(
        made,
        wording=program.wording,
        examples=examples,
        form=answer_form(task),
        max_tokens=program.max_tokens,
        seed=seed,
    )


def _check(name: str, program: ChainOfThought | SelfConsistency, faults: Faults | None = None) -> None:
    faults = Faults(name) if faults is None else faults
    check_types(program, faults)
    for parameter, least in (("k", 0), ("wording", 0), ("max_tokens", 1)):
        check_at_least(parameter, getattr(program, parameter), least, faults)
    faults.raise_as(ConfigError)


def _restored(values: Mapping[str, Value]) -> PreparedChain:
    faults = Faults("prompt of the predictor")
    examples = examples_from_json(values.get("examples"), faults)
    numbers = {name: values.get(name) for name in ("wording", "max_tokens", "n", "seed")}
    faults_of = [name for name, value in numbers.items() if type(value) is not int]
    rates = {name: values.get(name) for name in ("temperature", "top_p")}
    faults_of += [name for name, value in rates.items() if not isinstance(value, int | float)]
    for name in faults_of:
        faults.add(f"{name} must be a number (got {values.get(name)!r})")
    for name in ("n", "max_tokens"):
        check_at_least(name, numbers[name], 1, faults)
    form, answer = values.get("form"), values.get("answer")
    if form not in get_args(AnswerForm) or answer not in get_args(AnswerBy):
        faults.add(f"form and answer must be known ones (got {form!r} and {answer!r})")
    faults.raise_as(PredictorError)
    return PreparedChain(
        examples=examples,
        form=cast("AnswerForm", form),
        answer_by=cast("AnswerBy", answer),
        **numbers,  # type: ignore[arg-type]
        **rates,  # type: ignore[arg-type]
    )
