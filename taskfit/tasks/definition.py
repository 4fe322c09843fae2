"""What a task asks, apart from its rows: kind, wordings, labels, metrics. A predictor folder holds a copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, DataError, TaskError, TaskfitError, nearest
from taskfit.tasks.options import options_from
from taskfit.tasks.task import Kind, Option, Row
from taskfit.tasks.template import evaluate, render

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["TaskDefinition", "Wording"]


@dataclass(frozen=True)
class Wording:
    """One way to put the task into words.

    Attributes:
        name: unique among the wordings of its task.
        prompt: Jinja2 source that turns a row's fields into the question.
        target: Jinja2 source of the text that answers it (for classification: the label's text).
        label_texts: label value to the text this wording uses for it; empty where texts are the values themselves.
        options: Jinja2 source of a list, for kind ``choice``: the row's own options. For the other kinds, a list that
            templates see as ``answer_choices``, in its own order (promptsource templates index it by label).

    Templates see the row's fields by name, the mapping ``row`` of all fields, and the list ``answer_choices``: the
    texts of ``options``, or of the labels.
    """

    name: str
    prompt: str
    target: str
    label_texts: Mapping[str, str]
    options: str | None = None


@dataclass(frozen=True)
class TaskDefinition:
    """A task without rows.

    Attributes:
        text: Jinja2 source of the row's input alone, without instruction; what encoders and TF-IDF read.
        references: Jinja2 sources of the right answers that metrics compare with (label value, option or text).
        labels: label values in a fixed order; empty unless ``kind`` is ``classification``.
        metrics: names; the first decides.
        group: field that names what rows belong together (a dialogue, a customer), or None.
        max_answer_tokens: most tokens to generate, for kind ``generation``.
        messages: Jinja2 source of the conversation that each row holds (see :mod:`taskfit.tasks.chat`), or None.

    The methods raise TaskError, with the row's id, where a template does not fit the row's fields.
    """

    name: str
    kind: Kind
    wordings: tuple[Wording, ...]
    text: str
    references: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    instruction: str | None = None
    rationale: str | None = None
    group: str | None = None
    max_answer_tokens: int = 64
    messages: str | None = None

    def prompt_text(self, row: Row, wording: int = 0) -> str:
        """Render the question for ``row`` in the given wording.

        It never ends in white space, whatever the template says: a model would read a token it has hardly ever seen
        before an answer.
        """
        return self._rendered(self._wording(wording).prompt, row, wording).rstrip()

    def target_text(self, row: Row, wording: int = 0) -> str:
        """Render the answer to train on: the label's or option's text, or the wording's target.

        It is the very text that :meth:`options` lists, so that what is trained is what is scored.

        Raises:
            DataError: the row's answer is no label or option of the task.
        """
        if self.kind == "generation":
            return self.written_target(row, wording)
        answer = next(iter(self.gold(row)), "")
        options = self.options(row, wording)
        for option in options:
            if option.value == answer:
                return option.text
        known = [option.value for option in options]
        raise DataError(f"row {row.id}: answer '{answer}' is none of the {len(known)} options{nearest(answer, known)}")

    def written_target(self, row: Row, wording: int = 0) -> str:
        """Render the wording's target template as it stands; :meth:`target_text` is the answer to train on."""
        if row.teacher is not None:
            return row.teacher.answer.strip()
        return self._rendered(self._wording(wording).target, row, wording).strip()

    def options(self, row: Row, wording: int = 0) -> tuple[Option, ...]:
        """Return what may be answered: the labels, or the row's own options; empty for generation."""
        chosen = self._wording(wording)
        if self.kind == "classification":
            return tuple(Option(label, chosen.label_texts.get(label, label)) for label in self.labels)
        if self.kind == "choice" and chosen.options is not None:
            return self._listed(chosen.options, row)
        return ()

    def input_text(self, row: Row) -> str:
        """Render the row's input alone, without white space around it."""
        return self._rendered(self.text, row, 0).strip()

    def question_text(self, row: Row) -> str:
        """Return what tells one question from another: the input, and the texts of a choice row's options, sorted."""
        options = sorted(option.text for option in self.options(row)) if self.kind == "choice" else []
        return "\n".join([self.input_text(row), *options])

    def gold(self, row: Row) -> tuple[str, ...]:
        """Return the right answers, in the terms in which predictions answer: label value, option value, or texts.

        Empty references are left out. The text of an option, or of a label in the first wording, counts as its value.
        A teacher's answer goes before those of the data.
        """
        if row.teacher is not None:
            return (row.teacher.answer,)
        texts = (self._rendered(source, row, 0).strip() for source in self.references)
        answers = tuple(dict.fromkeys(text for text in texts if text))
        if self.kind == "generation" or (
            self.kind == "classification" and all(text in self.labels for text in answers)
        ):
            return answers
        options = self.options(row)
        values = {option.value for option in options}
        by_text = {option.text: option.value for option in options}
        return tuple(dict.fromkeys(text if text in values else by_text.get(text, text) for text in answers))

    def rationale_text(self, row: Row) -> str:
        """Render the reasons given for the row's answer; empty where the task or the row has none."""
        if row.teacher is not None:
            return row.teacher.rationale.strip()
        if self.rationale is None:
            return ""
        try:
            return self._rendered(self.rationale, row, 0).strip()
        except TaskError:  # reasons are often there for some rows only
            return ""

    def to_json(self) -> dict[str, Value]:
        """Return the definition as plain JSON values; ``from_json`` gives it back."""
        from taskfit.tasks.definition_json import definition_to_json

        return definition_to_json(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Value]) -> TaskDefinition:
        """Build a definition from what ``to_json`` gave; it is checked as anything read from outside.

        Raises:
            TaskError: a key is missing, unknown or of the wrong type, or a template does not compile.
        """
        from taskfit.tasks.definition_json import definition_from_json

        return definition_from_json(values)

    def _wording(self, number: int) -> Wording:
        if not 0 <= number < len(self.wordings):
            raise ConfigError(f"wording must be between 0 and {len(self.wordings) - 1} (got {number})")
        return self.wordings[number]

    def _rendered(self, source: str, row: Row, wording: int) -> str:
        values: dict[str, object] = {**row.fields, "row": row.fields}
        if "answer_choices" in source and (choices := self._answer_choices(row, wording)):
            values["answer_choices"] = choices
        try:
            return render(source, values)
        except TaskfitError as error:
            raise TaskError(f"row {row.id}: {error.message}", error.hint) from error

    def _answer_choices(self, row: Row, wording: int) -> list[str]:
        source = self._wording(wording).options
        options = self.options(row, wording) if source is None else self._listed(source, row)
        return [option.text for option in options]

    def _listed(self, source: str, row: Row) -> tuple[Option, ...]:
        try:
            return options_from(evaluate(source, {**row.fields, "row": row.fields}))
        except TaskfitError as error:
            raise type(error)(f"row {row.id}: {error.message}", error.hint) from error
