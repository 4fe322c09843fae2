"""The report of annotations in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskfit.distillation.agreement import Agreement, SystematicErrors
    from taskfit.distillation.report import Report
    from taskfit.evaluation.intervals import Interval

__all__ = ["lines_of"]


def lines_of(report: Report) -> list[str]:
    """Return the report as lines of Markdown."""
    return [
        f"# Labels of {report.teacher} for {report.task}",
        "",
        *(f"**Note: {warning}.**\n" for warning in report.warnings),
        *_work(report),
        *_quality(report),
        *_corpus(report),
        *_mean(report),
        *_exchange(report),
    ]


def _work(report: Report) -> list[str]:
    parts = ", ".join(f"{rows} {part}" for part, rows in report.labelled.items())
    price = "" if report.usd_of_labels is None else f", {report.usd_of_labels:.4f} USD at the teacher's price"
    spent = f"; {report.usd_spent:.4f} USD spent in all" if report.usd_spent else ""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in report.attempts.items())
    shares = ", ".join(f"{label} {share:.1%}" for label, share in report.shares.items())
    return [
        f"Rows labelled: {parts}. Attempts: {outcomes}.",
        f"Tokens: {report.tokens_in} read, {report.tokens_out} written{price}{spent}.",
        *([f"The teacher's labels: {shares}."] if shares else []),
        f"Confidence: {report.calibration}.",
        "",
    ]


def _quality(report: Report) -> list[str]:
    if report.agreement is None:
        return []
    return ["## How good the teacher is", "", *_agreement(report.agreement), *_errors(report.systematic), ""]


def _agreement(found: Agreement) -> list[str]:
    kappa = "not defined" if found.kappa is None else f"{found.kappa:.3f}"
    lines = [f"It agrees with people on {_interval(found.rate)} of {found.rows} rows; Cohen's kappa {kappa}.", ""]
    lines += ["| a person said | the teacher said | rows |", "|---|---|---|"]
    wrong = [(rows, pair) for pair, rows in found.confusion.items() if pair[0] != pair[1]]
    for rows, (person, teacher) in sorted(wrong, reverse=True)[:10]:
        lines.append(f"| {_cell(person)} | {_cell(teacher) or '(no label)'} | {rows} |")
    return [*lines, ""]


def _errors(found: SystematicErrors | None) -> list[str]:
    if found is None:
        return []
    if found.auc is None:
        return [f"{found.errors} errors in {found.rows} rows are too few to tell whether they are systematic."]
    figures = f"(AUC {found.auc:.2f}, permutation p = {found.p_value:.3f}, {found.errors} errors in {found.rows} rows)"
    if not found.is_systematic:
        return [f"No pattern was found in its errors {figures}; weak ones would not show."]
    words = ", ".join(f"“{word}”" for word in found.words)
    return [
        f"Its errors are systematic: they can be foretold from the text {figures}. A student will repeat them.",
        f"Words that go with errors: {words}.",
    ]


def _corpus(report: Report) -> list[str]:
    if not report.corpus:
        return []
    lines = [
        "## Shares in all rows",
        "",
        "| label | share | people's rows alone | teacher alone |",
        "|---|---|---|---|",
    ]
    for label, found in report.corpus.items():
        alone = "used" if found.weight == 0 else _interval(found.human)
        lines.append(f"| {_cell(label)} | {_interval(found.interval)} | {alone} | {found.machine:.1%} |")
    return [*lines, ""]


def _mean(report: Report) -> list[str]:
    if report.mean is None:
        return []
    found, human = report.mean.interval, report.mean.human
    alone = (
        "people's rows alone are used" if report.mean.weight == 0 else f"{human.low:.4g} to {human.high:.4g} without"
    )
    return [
        "## Mean over all rows",
        "",
        f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g}; {alone}); "
        f"the teacher alone says {report.mean.machine:.4g}.",
        "",
    ]


def _exchange(report: Report) -> list[str]:
    if report.exchange is None:
        return []
    lines = ["## What a label is worth", "", f"To the student {report.exchange['student']}:", ""]
    most = report.exchange["curves"]["teacher"][-1][0]
    for rate in report.exchange["rates"]:
        low, high, value = (
            f"more than {most}" if rate[name] is None else f"{rate[name]:.0f}" for name in ("low", "high", "teacher")
        )
        lines.append(
            f"- {rate['people']} labels of people (accuracy {rate['accuracy']:.3f}) are worth {value} of the teacher's "
            f"({low} to {high})"
        )
    gain = report.exchange["last_gain"]
    if gain is not None:
        verdict = "more may still help" if gain["is_worth_it"] else "stop: more labels of this teacher no longer help"
        lines.append(
            f"- From {gain['before']} to {gain['after']} labels of the teacher: {100 * gain['value']:+.1f} points "
            f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}); {verdict}."
        )
    return [*lines, ""]


def _interval(found: Interval) -> str:
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:60]
