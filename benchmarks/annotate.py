"""Does what ``taskfit annotate`` says of a teacher hold on real labels of real language models?

Recorded labels with people's labels beside them (`llm_annotations_babe`, `llm_annotations_global_warming`): agreement
and systematic errors of each teacher; how often the intervals for shares of the corpus hold the true share, and how
many human rows they save; what a teacher's label is worth; whether a cascade keeps its promise.
"""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
from common import arguments, finish
from teachers import read

from taskfit.distillation.agreement import agreement, systematic_errors
from taskfit.distillation.confidence import fit_calibrator
from taskfit.distillation.exchange import exchange_rate, last_gain, learning_curves, linear_student
from taskfit.distillation.prevalence import shares_of_corpus
from taskfit.distillation.thresholds import Escalation, certify
from taskfit.tuning.tfidf import fit_linear

SEED = 0
BABE = ("gpt_4", "zephyr", "flan_t5_xl", "llama_7b")


def sets() -> dict[str, tuple[list[str], list[str], list[str]]]:
    """Return name of a teacher to texts, people's labels and its labels."""
    found = {}
    rows = read("llm_annotations_babe", "train")
    for teacher in BABE:
        kept = [row | {"said": row["llm_labels"]["zero-shot"].get(teacher)} for row in rows]
        found[f"babe/{teacher}"] = columns([row for row in kept if row["said"] is not None], "label", "said")
    rows = read("llm_annotations_global_warming", "train")
    kept = [row for row in rows if row["gpt_label"] is not None and row["gold_label"] is not None]
    found["global_warming/gpt"] = columns(kept, "gold_label", "gpt_label")
    return found


def columns(rows: list[dict], gold: str, teacher: str) -> tuple[list[str], list[str], list[str]]:
    """Return texts and two columns of labels, numbers in one form."""
    return [row["text"] for row in rows], [label(row[gold]) for row in rows], [label(row[teacher]) for row in rows]


def label(value: object) -> str:
    """Return a label as text: 1 and 1.0 are the same."""
    return str(int(value)) if isinstance(value, int | float) else str(value)


def quality(texts: list[str], people: list[str], teacher: list[str], permutations: int) -> dict[str, object]:
    """Return agreement on all rows, and what 500 rows say of systematic errors."""
    some = np.random.default_rng(SEED).permutation(len(texts))[:500]
    errors = systematic_errors(
        [texts[n] for n in some], [people[n] != teacher[n] for n in some], permutations=permutations
    )
    all_rows = agreement(people, teacher)
    return {
        "rows": all_rows.rows,
        "agreement": round(all_rows.rate.value, 4),
        "kappa": None if all_rows.kappa is None else round(all_rows.kappa, 3),
        "error_auc": None if errors.auc is None else round(errors.auc, 3),
        "error_p": errors.p_value,
        "words": errors.words[:5],
    }


def coverage(people: list[str], teacher: list[str], human: int, repeats: int) -> dict[str, object]:
    """Draw human rows from the corpus again and again; the truth is the share among all rows."""
    random = np.random.default_rng(SEED)
    labels = sorted(set(people))
    truth = {name: people.count(name) / len(people) for name in labels}
    held = naive = 0
    saved = []
    for _ in range(repeats):
        order = random.choice(len(people), len(people), replace=True)  # a corpus of this law
        first, rest = order[:human], order[human:]
        found = shares_of_corpus(
            labels, [people[n] for n in first], [teacher[n] for n in first], [teacher[n] for n in rest]
        )
        one = labels[-1]
        held += found[one].interval.low <= truth[one] <= found[one].interval.high
        saved.append(found[one].human_rows_saved)
        spread = 1.96 * math.sqrt(found[one].machine * (1 - found[one].machine) / len(rest))
        naive += abs(found[one].machine - truth[one]) <= spread
    return {
        "coverage": round(held / repeats, 3),
        "coverage_machine_alone": round(naive / repeats, 3),
        "human_rows_saved": round(float(np.mean(saved)), 2),
    }


def worth(texts: list[str], people: list[str], teacher: list[str], draws: int, size: int) -> dict[str, object]:
    """Return the exchange rate for the linear student: a quarter of rows is people's, half the teacher's."""
    order = np.random.default_rng(SEED).permutation(len(texts))[:size]
    parts = np.split(order, [len(order) // 4, 3 * len(order) // 4])
    take = [
        ([texts[n] for n in part], [column[n] for n in part])
        for part, column in zip(parts, (people, teacher, people), strict=True)
    ]
    curves = learning_curves({"people": take[0], "teacher": take[1]}, take[2], linear_student, draws=draws)
    rates = exchange_rate(curves["people"], curves["teacher"])
    gain = last_gain(curves["teacher"])
    return {
        "people": [
            [size, round(value, 3)]
            for size, value in zip(curves["people"].sizes, curves["people"].accuracy, strict=True)
        ],
        "teacher": [
            [size, round(value, 3)]
            for size, value in zip(curves["teacher"].sizes, curves["teacher"].accuracy, strict=True)
        ],
        "rates": [
            [rate.people, *(None if math.isinf(x) else round(x) for x in (rate.teacher, rate.low, rate.high))]
            for rate in rates
        ],
        "stops": gain is not None and not gain.is_worth_it,
    }


def promise(texts: list[str], people: list[str], teacher: list[str], repeats: int) -> dict[str, object]:
    """Fit a linear student on teacher's labels; certify on 300 rows, judge on the rest, again and again."""
    random = np.random.default_rng(SEED)
    order = random.permutation(len(texts))
    train, rest = order[: len(order) // 3], order[len(order) // 3 :]
    names = sorted(set(teacher))
    numbers = [names.index(teacher[n]) for n in train]
    shares = fit_linear([texts[n] for n in train], numbers, (10.0,))[0].probabilities([texts[n] for n in rest])
    sure, said = shares.max(axis=1), shares.argmax(axis=1)
    wrong = np.array([names[one] != teacher[n] for one, n in zip(said, rest, strict=True)])
    found = {}
    for agreed in (0.9, 0.95):
        broken, answered = 0, []
        for _ in range(repeats):
            mixed = random.permutation(len(rest))
            held, judge = mixed[:300], mixed[300:]
            make = partial(escalation, sure, wrong)
            threshold = certify(make(held), agreed, 0.9)
            if threshold is None:
                continue
            broken += bool(make(judge).losses(threshold).mean() > 1 - agreed)
            answered.append(float(make(judge).by(threshold)[0].mean()))
        found[str(agreed)] = {
            "broken": round(broken / repeats, 3),
            "student_share": round(float(np.mean(answered or [0])), 3),
        }
    return found


def escalation(sure: np.ndarray, wrong: np.ndarray, rows: np.ndarray) -> Escalation:
    """Return the chosen rows, with a teacher that is always right."""
    return Escalation(sure[rows], np.full(len(rows), np.inf), wrong[rows], np.zeros(len(rows), dtype=bool))


def calibration() -> dict[str, object]:
    """GPT's own confidence on global_warming: its error before and after, learnt on 300 rows, judged on the others."""
    rows = [r for r in read("llm_annotations_global_warming", "train") if r["gpt_confidence"] is not None]
    order = np.random.default_rng(SEED).permutation(len(rows))
    own = np.array([min(1.0, max(0.0, float(rows[n]["gpt_confidence"]))) for n in order])
    right = np.array([label(rows[n]["gpt_label"]) == label(rows[n]["gold_label"]) for n in order])
    found = fit_calibrator(own[:300].tolist(), right[:300].tolist())
    new = np.array(found.confidence(own[300:].tolist()), dtype=float)
    return {
        "brier_own": round(float(((own[300:] - right[300:]) ** 2).mean()), 4),
        "brier_calibrated": round(float(((new - right[300:]) ** 2).mean()), 4),
        "mean_own": round(float(own[300:].mean()), 3),
        "mean_calibrated": round(float(new.mean()), 3),
        "accuracy": round(float(right[300:].mean()), 3),
    }


def main() -> None:
    """Run all questions on all teachers."""
    quick = arguments(str(__doc__).splitlines()[0]).quick
    permutations, repeats, draws, size = (199, 200, 2, 1200) if quick else (999, 2000, 5, 4000)
    teachers = sets()
    if quick:
        teachers = {name: teachers[name] for name in ("babe/zephyr", "global_warming/gpt")}
    figures: dict[str, object] = {"calibration_gpt": calibration()}
    for name, (texts, people, teacher) in teachers.items():
        figures[name] = {
            "quality": quality(texts, people, teacher, permutations),
            "shares_100_human_rows": coverage(people, teacher, 100, repeats),
            "worth": worth(texts, people, teacher, draws, size),
            "cascade": promise(texts, people, teacher, repeats // 4),
        }
        print(name, json.dumps(figures[name]), flush=True)
    finish("annotate", [SEED], figures)


if __name__ == "__main__":
    main()
