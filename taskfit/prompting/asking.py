"""What programs share: how a question is put, and how a generated text becomes an answer."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Literal, TypeVar, cast, get_type_hints

from taskfit.errors import ConfigError, Faults, PredictorError
from taskfit.inference.requests import Generate, Generated, Score, Scored
from taskfit.prompting.options import default_unit, likeliest_option, option_scores
from taskfit.prompting.reading import AnswerForm, plain_number, read_number, read_option, read_text
from taskfit.strategy.contract import Answer
from taskfit.strategy.parameters import type_fits, type_text
from taskfit.tasks.prompt import Prompt

if TYPE_CHECKING:
    from taskfit.inference.requests import Request, Response
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Task, Value

__all__ = [
    "CUE",
    "AnswerBy",
    "answer_form",
    "ask",
    "check_at_least",
    "check_wording",
    "continued",
    "flat_from_json",
    "generated_text",
    "last_step",
    "read_answer",
    "request_seed",
    "stem",
    "stop_texts",
    "vote",
]

AnswerBy = Literal["generate", "score"]
CUE = "Therefore, the answer is"
"""What makes a model say its answer after its reasoning. Source: Kojima et al. 2022, section 3."""

_SAMPLE = 200
_DIGITS_ALONE = re.compile(r"[^\d./]")
_Flat = TypeVar("_Flat")


def answer_form(task: Task) -> AnswerForm:
    """Return what answers of the task look like: options, numbers (all targets of a sample are), or texts.

    Numbers are read as plain digits, without opening and closing zeros. Targets that have some ("02139", "3.50") are
    texts, but where ``numeric_match`` decides: no answer read as a number could be the same text.
    """
    definition = task.definition
    if definition.kind != "generation":
        return "option"
    targets = [definition.target_text(row) for row in (task.validation or task.train)[:_SAMPLE]]
    is_same: Callable[[str], bool] = _has_value if definition.metrics[:1] == ("numeric_match",) else _is_plain
    return "number" if targets and all(map(is_same, targets)) else "text"


def _has_value(target: str) -> bool:
    return plain_number(target) is not None


def _is_plain(target: str) -> bool:
    """Return whether a target is a number whose digits are those that :func:`read_number` gives."""
    plain = plain_number(target)
    return plain is not None and _DIGITS_ALONE.sub("", plain) == _DIGITS_ALONE.sub("", target)


def read_answer(
    definition: TaskDefinition, row: Row, text: str, form: AnswerForm, wording: int, *, needs_cue: bool = False
) -> Answer:
    """Read a generated text as the row's answer; what cannot be read is marked, and kept in ``raw``.

    Args:
        definition: of the task.
        row: whose options are meant.
        text: as generated.
        form: what to read.
        wording: whose label texts are meant.
        needs_cue: the text is reasoning: only what follows a cue counts. Otherwise a ``text`` is taken whole.
    """
    found: str | None
    if form == "option":
        found = read_option(text, definition.options(row, wording), needs_cue=needs_cue)
    elif form == "number":
        found = read_number(text, needs_cue=needs_cue)
    else:
        found = read_text(text) if needs_cue else text.strip() or None
    return Answer(found or "", is_parsed=found is not None, raw=text)


def continued(text: str) -> str:
    """Return what was generated after :data:`CUE` as a text that can be read: the cue and its first line."""
    lines = text.strip().splitlines()
    return f"{CUE} {lines[0] if lines else ''}"


def generated_text(response: object) -> str:
    """Return the stripped text of a response to a :class:`Generate` request."""
    return cast("Generated", response).text.strip()


def ask(prompt: Prompt, max_tokens: int, *, stop: tuple[str, ...] | None = None) -> Generate:
    """Return the request for the likeliest text after a prompt."""
    return Generate(prompt, max_tokens, stop=stop_texts(prompt) if stop is None else stop)


def last_step(
    definition: TaskDefinition,
    row: Row,
    prompt: Prompt,
    *,
    answer: AnswerBy,
    form: AnswerForm,
    wording: int,
    after_cue: bool = False,
) -> Generator[Request | tuple[Request, ...], Response | tuple[Response, ...], Answer]:
    """Ask for the answer itself, by scoring the options or by generating; the last step of many programs.

    Args:
        definition: of the task.
        row: whose answer is asked for.
        prompt: ends where the answer begins.
        answer: ``score`` where there are options.
        form: what to read from a generated answer.
        wording: whose label texts are meant.
        after_cue: the prompt ends in :data:`CUE`.
    """
    if answer == "score" and form == "option":
        options = definition.options(row, wording)
        scored = cast("Scored", (yield Score(prompt, tuple(option.text for option in options))))
        unit = default_unit(definition.kind, "auto")
        told = scored if definition.kind == "choice" else None
        return likeliest_option(options, option_scores(options, scored, unit), told)
    text = generated_text((yield ask(prompt, definition.max_answer_tokens)))
    return read_answer(definition, row, continued(text) if after_cue else text, form, wording, needs_cue=after_cue)


def stop_texts(prompt: Prompt) -> tuple[str, ...]:
    """Return the texts that end a generated answer.

    A model without chat turns goes on after its answer with an example of its own making, which a blank line starts,
    as in the prompt. So a blank line ends the answer, when there are examples and none of their answers holds one.
    """
    blank = "\n\n"
    return (blank,) if prompt.shots and not any(blank in shot.answer for shot in prompt.shots) else ()


def stem(question: str) -> str:
    """Return the question without its closing line where that only asks for the answer ("Answer:", "Label:")."""
    head, _, last = question.rpartition("\n")
    is_request = head.strip() != "" and last.strip().endswith(":") and len(last.split()) <= 3
    return head.rstrip() if is_request else question


def vote(answers: Sequence[Answer], values: Sequence[str] = ()) -> Answer:
    """Return the most frequent answer, the first to be given of equals, with the shares of the votes.

    Answers that could not be read have no vote; where none could, neither can the vote.

    Args:
        answers: at least one.
        values: values that get a share even without a vote: the options.

    Source: Wang et al. 2023, section 2.
    """
    read = [answer for answer in answers if answer.is_parsed]
    if not read:
        return Answer("", is_parsed=False, raw=answers[0].raw)
    ballots = [one.answer if one.answer in values else " ".join(one.answer.split()).casefold() for one in read]
    counts = Counter(ballots)
    winner = counts.most_common(1)[0][0]  # of equals the first to be counted
    first: dict[str, Answer] = {}
    for ballot, answer in zip(ballots, read, strict=True):
        first.setdefault(ballot, answer)
    given = {first[key].answer: count / len(read) for key, count in counts.items()}
    return Answer(first[winner].answer, dict.fromkeys(values, 0.0) | given, raw=first[winner].raw)


def request_seed(seed: int, row: Row, number: int) -> int:
    """Return the seed of a row's sample: decided by the fit's seed, the row and the sample's number alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {row.id}".encode()).digest()[:4], "big")


def check_at_least(name: str, value: object, least: int, faults: Faults) -> None:
    """Note a whole number below its least value."""
    if isinstance(value, int) and value < least:
        faults.add(f"{name} must be at least {least} (got {value})")


def check_wording(definition: TaskDefinition, wording: int) -> None:
    """Check that the task has the wording.

    Raises:
        ConfigError: it has not.
    """
    count = len(definition.wordings)
    if not 0 <= wording < count:
        raise ConfigError(f"wording must be between 0 and {count - 1}: the task has {count} (got {wording})")


def flat_from_json(made: type[_Flat], values: Mapping[str, Value]) -> _Flat:
    """Build a dataclass whose fields are all plain values from what its ``to_json`` gave, checked.

    Raises:
        PredictorError: a value is missing or of the wrong type; all faults together.
    """
    faults = Faults("prompt of the predictor")
    hints = get_type_hints(made)
    found = {}
    for field in fields(cast("type", made)):
        found[field.name] = values.get(field.name)
        if not type_fits(found[field.name], hints[field.name]):
            faults.add(f"{field.name} must be {type_text(hints[field.name])} (got {found[field.name]!r})")
    faults.raise_as(PredictorError)
    return made(**found)
