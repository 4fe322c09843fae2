"""What was labelled, at what price, how good it is, and what cannot be known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfit.distillation.agreement import Agreement, SystematicErrors, agreement, systematic_errors
from taskfit.distillation.confidence import own_confidence
from taskfit.distillation.exchange import (
    Student,
    exchange_rate,
    frozen_student,
    last_gain,
    learning_curves,
    linear_student,
)
from taskfit.distillation.known import Known, confidences_of, known_rows
from taskfit.distillation.prevalence import Estimate, mean_of_corpus, shares_of_corpus
from taskfit.distillation.report_text import lines_of
from taskfit.distillation.teacher import usd_of
from taskfit.errors import ConfigError
from taskfit.files import write_text

if TYPE_CHECKING:
    from taskfit.distillation.config import AnnotateConfig
    from taskfit.distillation.ledger import Label, Ledger, Part
    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Predictor
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Task

__all__ = ["Report", "make_report", "write_report"]

_SHOWN_FAILURES = 20
_FEWEST_HUMAN = 3
_FEWEST_CURVE = 32
_MOST_CURVE = 4000


@dataclass(frozen=True)
class Report:
    """Everything the report says.

    Attributes:
        labelled: part (train, audit, human) to rows with a label.
        attempts: outcome to attempts.
        failures: (row id, outcome, message) of rows without a label.
        shares: label to its share among the teacher's labels of rows without people's, for classification.
        usd_of_labels: price of the tokens of the accepted labels; None where the teacher has no known price.
        usd_spent: what all runs spent, lost answers included.
        agreement, systematic: against people's labels; None without any.
        corpus: label to its share among all rows to label; empty where nothing allows it.
        mean: of what labels count, over all rows to label; None where nobody asked, or nothing allows it.
        exchange: curves, rates and the last gain, where they were asked for and possible.
        warnings: what makes labels doubtful, and what cannot be known.
    """

    task: str
    teacher: str
    labelled: Mapping[str, int]
    attempts: Mapping[str, int]
    failures: Sequence[tuple[str, str, str]]
    shares: Mapping[str, float]
    tokens_in: int
    tokens_out: int
    usd_of_labels: float | None
    usd_spent: float
    agreement: Agreement | None
    systematic: SystematicErrors | None
    calibration: str
    corpus: Mapping[str, Estimate]
    exchange: Mapping[str, Any] | None
    warnings: Sequence[str]
    mean: Estimate | None = None


def make_report(
    task: Task,
    ledger: Ledger,
    teacher: Predictor,
    people: Mapping[str, str],
    config: AnnotateConfig,
    notes: Sequence[str] = (),
    encoder: LanguageModel | None = None,
) -> tuple[Report, dict[str, float | None]]:
    """Return the report, and row id to calibrated confidence.

    Args:
        task: with people's labels, if there are any.
        ledger: with the teacher's.
        teacher: whose name and price are told.
        config: what was asked for.
        people: row id to the label that a person gave in a review; it goes before the data's.
        notes: more warnings, of the rows with people's labels.
        encoder: gives the vectors that the exchange rate's student learns from; None: it learns from TF-IDF.

    Raises:
        ConfigError: ``config.values`` lacks a label.
    """
    definition = task.definition
    labels = {part: list(ledger.labels(part)) for part in ("train", "audit", "human")}
    known = known_rows(definition, ledger, labels, people)
    calibrator = known.calibrator
    given = [found for part in labels.values() for found in part]
    confidences = confidences_of(calibrator, given)
    tokens = sum(found.tokens_in for found in given), sum(found.tokens_out for found in given)
    machine = [found for part in ("train", "audit") for found in labels[part]]
    counts = Counter(found.answer for found in machine)
    is_classification = definition.kind == "classification"
    sample = _sample(known, ledger, labels, people, config) if is_classification else None
    report = Report(
        task=definition.name,
        teacher=teacher.strategy,
        labelled={part: len(found) for part, found in labels.items()},
        attempts=dict(ledger.attempts()),
        failures=ledger.failures(),
        shares={name: counts[name] / max(1, len(machine)) for name in definition.labels},
        tokens_in=tokens[0],
        tokens_out=tokens[1],
        usd_of_labels=usd_of(teacher, *tokens),
        usd_spent=ledger.spent_usd,
        agreement=agreement(known.people, known.teacher) if known.rows else None,
        systematic=_systematic(definition, known, config.seed),
        calibration=calibrator.note,
        corpus={} if sample is None else shares_of_corpus(definition.labels, *sample),
        exchange=_exchange(task, known, labels["train"], config, encoder) if config.has_exchange else None,
        warnings=tuple(notes),
        mean=_mean(definition, sample, config),
    )
    return _with_warnings(report, given, known, config), confidences


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.json`` and ``report.md``."""
    values = {"format": 1, **asdict(report)}
    if report.agreement is not None:
        values["agreement"]["confusion"] = [[*pair, rows] for pair, rows in sorted(report.agreement.confusion.items())]
    write_text(folder / "report.json", json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    write_text(folder / "report.md", "\n".join(lines_of(report)) + "\n")


def _systematic(definition: TaskDefinition, known: Known, seed: int) -> SystematicErrors | None:
    if not known.rows:
        return None
    texts = [definition.input_text(row) for row in known.rows]
    return systematic_errors(texts, [not right for right in known.is_right], seed=seed)


def _sample(
    known: Known, ledger: Ledger, labels: Mapping[str, list[Label]], people: Mapping[str, str], config: AnnotateConfig
) -> tuple[list[str], list[str], list[str]] | None:
    """Return people's labels, the teacher's of the same rows, and the teacher's of others; None where they are too few.

    People's rows are the reviewed audit rows, else the task's rows as their like. Among the latter are rows that the
    teacher gave no label (""), so the others' are counted, too; a review shows labelled rows only.
    """
    has_audit = sum(known.is_audit) >= _FEWEST_HUMAN
    taken = [n for n, is_audit in enumerate(known.is_audit) if is_audit or not has_audit]
    parts: tuple[Part, ...] = ("audit", "train") if config.select == "random" else ("audit",)
    machine: list[str] = []
    for part in parts:
        said = {found.row.id: found.answer for found in labels[part]}
        rows = list(said) if has_audit else [row.id for row in ledger.rows(part)]
        machine += [said.get(row, "") for row in rows if part == "train" or row not in people]
    if len(taken) < _FEWEST_HUMAN or not any(machine):
        return None
    return [known.people[n] for n in taken], [known.teacher[n] for n in taken], machine


def _mean(
    definition: TaskDefinition, sample: tuple[list[str], list[str], list[str]] | None, config: AnnotateConfig
) -> Estimate | None:
    """Estimate the mean of what labels count; rows that the teacher has no label for count their middle there."""
    if config.values is None:
        return None
    if set(config.values) != set(definition.labels):
        raise ConfigError(
            f"values must give a number for each of {', '.join(definition.labels)} (got {', '.join(config.values)})"
        )
    if sample is None:
        return None
    middle = (min(config.values.values()) + max(config.values.values())) / 2
    people, teacher, machine = ([config.values.get(one, middle) for one in part] for part in sample)
    return mean_of_corpus(people, teacher, machine)


def _exchange(
    task: Task, known: Known, train: Sequence[Label], config: AnnotateConfig, encoder: LanguageModel | None
) -> dict[str, Any] | None:
    definition = task.definition
    enough = min(len(task.train), len(train), len(known.rows)) >= _FEWEST_CURVE
    if definition.kind != "classification" or not enough:
        return None
    rows = list(task.train)[:_MOST_CURVE]
    people = [definition.input_text(row) for row in rows], [definition.gold(row)[0] for row in rows]
    some = train[:_MOST_CURVE]
    teacher = [definition.input_text(found.row) for found in some], [found.answer for found in some]
    test = [definition.input_text(row) for row in known.rows], known.people
    student: Student = linear_student
    name = "TF-IDF and logistic regression"
    if encoder is not None:
        from taskfit.prompting.similarity import embed

        student = frozen_student(lambda texts: embed(encoder, texts))
        name = f"vectors of {encoder.name} and logistic regression"
    curves = learning_curves({"people": people, "teacher": teacher}, test, student, draws=3, seed=config.seed)
    gain = last_gain(curves["teacher"], seed=config.seed)
    rates = exchange_rate(curves["people"], curves["teacher"], seed=config.seed)
    return {
        "student": name,
        "curves": {name: list(zip(curve.sizes, curve.accuracy, strict=True)) for name, curve in curves.items()},
        "rates": [_finite(asdict(rate)) for rate in rates],
        "last_gain": None if gain is None else {**asdict(gain), "is_worth_it": gain.is_worth_it},
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Say None for infinity, which JSON has no word for."""
    return {name: None if value == float("inf") else value for name, value in values.items()}


def _with_warnings(report: Report, given: Sequence[Label], known: Known, config: AnnotateConfig) -> Report:
    warnings = list(report.warnings) if known.rows else []
    answers = {found.answer for found in given}
    if len(answers) == 1 and len(given) > 1:
        warnings.append(f"the teacher gave all {len(given)} rows the same label, {answers.pop()!r}: it learnt nothing")
    unread = report.attempts.get("no valid answer", 0)
    if unread:
        warnings.append(f"{unread} answers were no valid label; these rows have none, see `failures` in report.json")
    own = {own_confidence(found.answer, found.probabilities) for found in given}
    if len(own) == 1 and own != {None} and len(given) > 1:
        warnings.append("the teacher is equally sure of all rows: its confidences rank nothing")
    if not known.rows:
        warnings.append(
            "no row has a person's label: how often the teacher is right, whether its errors are systematic, what its "
            "confidences are worth and the shares of labels in all rows cannot be known; review some: --review"
        )
    elif report.corpus and not any(known.is_audit):
        warnings.append(
            "shares of labels in all rows rest on the task's labelled rows, as if those were drawn from the same rows; "
            "review the audit rows to do without that: --review"
        )
    elif report.corpus and report.failures:
        warnings.append(
            f"shares of labels are those of rows that the teacher could label: {len(report.failures)} others have none"
        )
    cut = sum(found.cut_tokens > 0 for found in given)
    if cut:
        warnings.append(f"{cut} rows were cut to the model's context")
    if config.has_exchange and report.exchange is None:
        warnings.append(
            f"no exchange rate: it needs a classification task and {_FEWEST_CURVE} rows or more of people's training "
            "labels, the teacher's labels and people's labels to test on"
        )
    return replace(report, warnings=tuple(warnings))
