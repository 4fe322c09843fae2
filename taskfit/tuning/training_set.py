"""The examples of a training: of which tasks, in which wordings, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, TrainingError
from taskfit.tasks.chat import asked
from taskfit.tasks.mixture import allot, load_mixture, mixing_rates
from taskfit.tuning.examples import Faulty, build_examples, row_examples
from taskfit.tuning.rationales import balanced, rationale_example, weigh
from taskfit.tuning.teacher_answers import rows_by_answer, stepped

if TYPE_CHECKING:
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import PreparedProgram
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.prompt import Prompt
    from taskfit.tasks.task import Row, Task
    from taskfit.tuning.examples import Asks, Example
    from taskfit.tuning.taught import Taught

__all__ = ["VALIDATION_ROWS", "TrainingSet", "build_training_set", "validation_sample"]

VALIDATION_ROWS = 512
"""Most validation rows whose loss decides when to stop; more would cost more than they tell."""

_ORDER, _WORDING, _ROWS = 1, 2, 3
"""What a stream of random numbers is for; each has its own."""


@dataclass(frozen=True)
class TrainingSet:
    """What is learned, and what decides when to stop.

    Attributes:
        examples: every example that training will see.
        held_out: examples of validation rows; empty: nothing decides.
        pass_size: examples of one pass over the data.
        order: index of the example at each place of the training, one batch behind the other; None: each pass sees
            every example once, in an order of its own.
        notes: sentences for the user.
        labels: that the task has; 0 where it has none. Every one should be seen often enough.
    """

    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]
    pass_size: int
    order: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    labels: int = 0


def build_training_set(
    model: LanguageModel, task: Task, program: PreparedProgram, taught: Taught, *, seed: int
) -> TrainingSet:
    """Encode what a tuning method is to learn from.

    Args:
        model: encodes; its context has room for the answers.
        task: its training rows, and those of its mixture where ``taught`` asks for them; its validation rows are held
            out, or those of the others where they alone are learned.
        program: gives the prompt of the task's own rows. Rows of other tasks are asked without worked examples.
        taught: the method.
        seed: of every draw.

    Raises:
        TrainingError: rows cannot be learned from, or there are none. ConfigError: the task lacks what is asked for, or
            worked examples stand in prompts of drawn wordings.
    """
    taught.check_task(task)
    sources = _sources(task, program, taught)
    maker = _Maker(model, sources, taught)
    if len(sources) == 1 and (taught.wordings == "one" or len(sources[0].task.definition.wordings) == 1):
        rows = [(0, row, maker.own_wording(0)) for row in range(len(sources[0].rows))]
        order = None
        pass_size = sum(len(maker.indices(*draw)) for draw in rows)
    else:
        order, pass_size = _drawn_order(maker, taught, seed, len(task.definition.labels))
    maker.faulty.raise_if_any(maker.tried)
    examples, notes = maker.examples, list(_mixture_notes(sources))
    if taught.rationale > 0:
        examples = maker.weighed(taught.rationale)
        notes.append(
            f"{len(maker.rationales)} rationales are learned beside {len(examples) - len(maker.rationales)} answers, "
            f"together with {taught.rationale:g} of their weight"
        )
    elif any(example.weight != 1 for example in examples):
        examples = balanced(examples)
    held_out = tuple(_held_out(model, sources, taught))
    return TrainingSet(tuple(examples), held_out, pass_size, order, tuple(notes), len(task.definition.labels))


def validation_sample(rows: Sequence[Row], most: int = VALIDATION_ROWS) -> list[Row]:
    """Return at most ``most`` rows, spread evenly over the split."""
    if len(rows) <= most:
        return list(rows)
    return [rows[index * len(rows) // most] for index in range(most)]


@dataclass(frozen=True)
class _Source:
    """A task that gives rows.

    Attributes:
        program: None for another task than the one that is to be solved.
        quota: rows of one pass.
    """

    task: Task
    program: PreparedProgram | None
    quota: int

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.task.train

    @property
    def wording(self) -> int:
        return 0 if self.program is None else self.program.wording

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        """The prompt in the source's own wording."""
        if self.program is None:
            return asked(definition, row)
        return self.program.prompt(definition, row)


def _sources(task: Task, program: PreparedProgram, taught: Taught) -> list[_Source]:
    """The tasks that are learned from, the task's own first, with their shares."""
    if taught.train_on == "task":
        return [_Source(task, program, len(task.train))]
    assert task.mixture is not None  # check_task has looked
    others = load_mixture(task)
    own = [(task, program)] if taught.train_on == "mixture" else []
    tasks: list[tuple[Task, PreparedProgram | None]] = [*own, *((other, None) for other in others)]
    sizes = [len(one.train) for one, _ in tasks]
    files = [task.mixture.own if given is not None else one.path for one, given in tasks]
    resolved = [None if file is None else file.resolve() for file in files]
    rates = mixing_rates(sizes, task.mixture, resolved)
    total = sum(min(size, task.mixture.cap or size) for size in sizes)
    quotas = allot(rates, total)
    return [_Source(one, given, quota) for (one, given), quota in zip(tasks, quotas, strict=True) if quota]


class _Maker:
    """Encodes each row in each wording at most once, when it is first drawn."""

    def __init__(self, model: LanguageModel, sources: Sequence[_Source], taught: Taught) -> None:
        self.model = model
        self.sources = sources
        self.taught = taught
        self.examples: list[Example] = []
        self.rationales: set[int] = set()
        self.faulty = Faulty()
        self.tried = 0
        self._made: dict[tuple[int, int, int], tuple[int, ...]] = {}

    def own_wording(self, source: int) -> int:
        return self.sources[source].wording

    def indices(self, source: int, row: int, wording: int) -> tuple[int, ...]:
        """Where the examples of a row stand in ``examples``; none where it is faulty."""
        key = (source, row, wording)
        if key not in self._made:
            self.tried += 1
            self._made[key] = tuple(self._encoded(self.sources[source], self.sources[source].rows[row], wording))
        return self._made[key]

    def weighed(self, weight: float) -> list[Example]:
        """The examples with the weights of answers and rationales."""
        places = sorted(self.rationales)
        answers = [place for place in range(len(self.examples)) if place not in self.rationales]
        pair = weigh([self.examples[p] for p in answers], [self.examples[p] for p in places], weight)
        placed = [*zip(answers, pair[0], strict=True), *zip(places, pair[1], strict=True)]
        return [example for _, example in sorted(placed, key=lambda one: one[0])]

    def _encoded(self, source: _Source, row: Row, wording: int) -> Iterator[int]:
        definition = source.task.definition
        try:
            prompt = source.prompt(definition, row)
            if wording != source.wording:
                prompt = replace(prompt, text=definition.prompt_text(row, wording))
            if self.taught.wordings == "all" and len(prompt.shots) > len(asked(definition, row).shots):
                raise ConfigError(
                    "wordings=all goes with zero-shot: worked examples are written in one wording",
                    "Leave out few-shot, or wordings=all.",
                )
            found = self._answers(definition, row, prompt, wording)
            reasons = self._rationale(source, row, prompt)
        except TrainingError as error:
            self.faulty.note(row.id, error)
            return
        for example in found:
            yield self._kept(source, example)
        if reasons is not None:
            index = self._kept(source, reasons)
            self.rationales.add(index)
            yield index

    def _answers(self, definition: TaskDefinition, row: Row, prompt: Prompt, wording: int) -> list[Example]:
        """The row's answer, or each that its teacher shares the row among, with its weight."""
        found: list[Example] = []
        for taught, weight in rows_by_answer(definition, row):
            made = row_examples(self.model, definition, taught, prompt, wording=wording, turns=self.taught.turns)
            found += [replace(example, weight=weight) for example in made]
        return found

    def _rationale(self, source: _Source, row: Row, prompt: Prompt) -> Example | None:
        if self.taught.rationale == 0:
            return None
        made = rationale_example(self.model, source.task.definition, row, prompt)
        return (
            None if made is None else replace(made, weight=stepped(1.0 if row.teacher is None else row.teacher.weight))
        )

    def _kept(self, source: _Source, example: Example) -> int:
        if source.program is None:  # ids are unique within a task only
            example = replace(example, row_id=f"{source.task.definition.name}/{example.row_id}")
        self.examples.append(example)
        return len(self.examples) - 1


def _drawn_order(maker: _Maker, taught: Taught, seed: int, labels: int) -> tuple[tuple[int, ...], int]:
    """Examples in the order in which they are learned, as many as training may take, and those of the first pass."""
    order: list[int] = []
    pass_size = needed = 0
    number = 0
    while number == 0 or len(order) < needed:
        drawn = [index for draw in _one_pass(maker, taught, seed, number) for index in maker.indices(*draw)]
        maker.faulty.raise_if_any(maker.tried)
        order += drawn
        number += 1
        if number == 1:
            pass_size = len(drawn)
            needed = taught.batch * taught.steps(pass_size, labels)
    return tuple(order), pass_size


def _one_pass(maker: _Maker, taught: Taught, seed: int, number: int) -> list[tuple[int, int, int]]:
    """(source, row, wording) of every row of a pass, in a random order."""
    import numpy as np

    drawn: list[tuple[int, int, int]] = []
    for place, source in enumerate(maker.sources):
        rows = _rows_of_pass(len(source.rows), source.quota, [seed, _ROWS, place], number)
        wordings = [source.wording] * len(rows)
        if taught.wordings == "all":
            count = len(source.task.definition.wordings)
            wordings = np.random.default_rng([seed, _WORDING, place, number]).integers(count, size=len(rows)).tolist()
        drawn += [(place, row, wording) for row, wording in zip(rows, wordings, strict=True)]
    shuffled = np.random.default_rng([seed, _ORDER, number]).permutation(len(drawn))
    return [drawn[index] for index in shuffled]


def _rows_of_pass(rows: int, quota: int, seed: list[int], number: int) -> list[int]:
    """The next ``quota`` rows of an endless stream in which each row comes once before any comes again."""
    import numpy as np

    found: list[int] = []
    cycle, skipped = divmod(number * quota, rows)
    while len(found) < quota:
        order = np.random.default_rng([*seed, cycle]).permutation(rows).tolist()
        found += order[skipped : skipped + quota - len(found)]
        cycle, skipped = cycle + 1, 0
    return found


def _held_out(model: LanguageModel, sources: Sequence[_Source], taught: Taught) -> Iterator[Example]:
    """Examples of validation rows: the task's own, or where it is held out those of the others, by their shares."""
    judges = [source for source in sources if source.program is not None] or list(sources)
    total = sum(source.quota for source in judges)
    shares = allot([source.quota / total for source in judges], VALIDATION_ROWS)
    for source, share in zip(judges, shares, strict=True):
        rows = validation_sample(source.task.validation, share) if share else []
        if rows:
            program: Asks = source.program if source.program is not None else _Asked()
            yield from build_examples(model, source.task.definition, program, rows, turns=taught.turns)


class _Asked:
    """Asks in a task's first wording, without worked examples; only what training needs of a program."""

    wording = 0

    def prompt(self, definition: TaskDefinition, row: Row) -> Prompt:
        return asked(definition, row)


def _mixture_notes(sources: Sequence[_Source]) -> Iterator[str]:
    if all(source.program is not None for source in sources):
        return
    total = sum(source.quota for source in sources)
    shares = ", ".join(
        f"{source.task.definition.name} {source.quota} of {len(source.rows)} ({source.quota / total:.0%})"
        for source in sources
    )
    yield f"a pass holds {total} rows of {len(sources)} tasks: {shares}"
    for source in sources:
        if source.program is None:
            yield from source.task.report.notes
    if all(source.program is None for source in sources):
        yield "the task's own training and validation rows are not looked at; validation rows of the others decide"
