"""Do programs read recorded answers as their publishers did, and do programs of several steps reach the answer?

1. BIG-Bench Hard: 11,522 recorded completions of code-davinci-002, with worked rationales and without, go through the
   programs chain-of-thought and few-shot(answer=generate) and the replay engine. Held against the accuracy of each
   task that the authors published beside the completions (suzgunmirac/BIG-Bench-Hard, commit 9ee07bd,
   code-davinci-002-outputs/*_eval_metrics.jsonl), and item by item against their rule (what follows "the answer is",
   without the full stop, equals the target), which gives just these accuracies.
2. GSM8K: 5,276 recorded solutions of four models with a mark of each (openai/grade-school-math). Also the vote over
   the four, as self-consistency takes it; nobody has published that one.
3. SCAN (length split) and last letters have no recorded answers. An oracle stands in that can do one small step at a
   time, as the decompositions of Zhou et al. 2023 (sections 3.1 and 3.2) do, and knows nothing but what its prompt
   holds: a program gets the right answer only if it hands every earlier answer on. 15 rows of last letters have a wrong
   answer in the data (a double first name such as "Jose Antonio" counts as one word there); they are shown apart.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from common import arguments, finish, shared

from taskfit.inference.replay import ReplayEngine
from taskfit.inference.requests import Generate, Generated, Request
from taskfit.prompting.asking import CUE
from taskfit.prompting.chain import TRIGGER, ChainOfThought, PreparedChain
from taskfit.prompting.examples import Examples
from taskfit.prompting.least_to_most import DECOMPOSE, LeastToMost
from taskfit.prompting.reading import AnswerForm, read_number
from taskfit.prompting.self_refine import CRITICISE, ENOUGH, SelfRefine
from taskfit.prompting.shots import PreparedShots
from taskfit.prompting.step_back import ABSTRACT, StepBack
from taskfit.strategy.contract import PreparedProgram
from taskfit.strategy.run_program import run_programs
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.prompt import Shot
from taskfit.tasks.task import DataReport, Kind, Row, Task
from taskfit.testing import FakeEngine, generated

LABELS = {
    "boolean_expressions": ("True", "False"),
    "causal_judgement": ("Yes", "No"),
    "formal_fallacies": ("valid", "invalid"),
    "navigate": ("Yes", "No"),
    "sports_understanding": ("yes", "no"),
    "web_of_lies": ("Yes", "No"),
}
TEXTS = ("dyck_languages", "word_sorting")
NUMBERS = ("object_counting",)

# Right answers of (chain of thought, direct) that the authors count, their percentages times the number of rows.
PUBLISHED = {
    "boolean_expressions": (232, 221),
    "causal_judgement": (101, 119),
    "disambiguation_qa": (190, 168),
    "dyck_languages": (142, 117),
    "formal_fallacies": (126, 131),
    "geometric_shapes": (136, 80),
    "hyperbaton": (166, 151),
    "logical_deduction_five_objects": (137, 81),
    "logical_deduction_seven_objects": (97, 65),
    "logical_deduction_three_objects": (219, 132),
    "movie_recommendation": (226, 212),
    "navigate": (241, 126),
    "object_counting": (233, 113),
    "penguins_in_a_table": (116, 97),
    "reasoning_about_colored_objects": (229, 169),
    "salient_translation_error_detection": (152, 155),
    "snarks": (106, 109),
    "sports_understanding": (244, 182),
    "temporal_sequences": (242, 194),
    "tracking_shuffled_objects_five_objects": (224, 51),
    "tracking_shuffled_objects_seven_objects": (214, 36),
    "tracking_shuffled_objects_three_objects": (196, 94),
    "web_of_lies": (238, 129),
    "word_sorting": (101, 126),
}
SOLVERS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def main() -> None:
    """Run the three parts and print a table of each, then the last line."""
    quick = arguments(__doc__ or "").quick
    started = time.perf_counter()
    bbh = big_bench_hard()
    gsm8k = grade_school_maths()
    flows = oracle_flows(300 if quick else None)
    figures = {
        "bbh_items": sum(row["items"] for row in bbh),
        "bbh_tasks_as_published": sum(row["ours"] == row["published"] for row in bbh),
        "bbh_tasks": len(bbh),
        "bbh_items_that_differ": sum(row["differ"] for row in bbh),
        "bbh_unread": sum(row["unread"] for row in bbh),
        "gsm8k": gsm8k,
        "flows": flows,
        "wall_s": round(time.perf_counter() - started, 1),
    }
    finish("programs", [0], figures)


def big_bench_hard() -> list[dict[str, object]]:
    """Replay the completions through the programs; one record a task and method."""
    rows = _read(shared("llm_outputs_bbh") / "test.jsonl.gz")
    prompts = {row["task"]: _shots(row["cot_prompt"]) for row in _read(shared("bbh") / "cot_prompts.jsonl")}
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["method"]), []).append(row)
    table = []
    print(f"{'BIG-Bench Hard':42} {'method':7} items published ours differ unread")
    for (task, method), members in sorted(groups.items()):
        record = _replayed(task, method, members, prompts[task])
        table.append(record)
        figures = " ".join(f"{record[name]:6}" for name in ("items", "published", "ours", "differ", "unread"))
        print(f"{task:42} {method:7} {figures}")
    return table


def _replayed(task: str, method: str, members: list[dict[str, str]], shots: tuple[Shot, ...]) -> dict[str, object]:
    definition = _bbh_definition(task)
    is_chain = method == "cot"
    form: AnswerForm = "text" if task in TEXTS else ("number" if task in NUMBERS else "option")
    if is_chain:
        prepared: PreparedProgram = PreparedChain(examples=Examples(shots, k=len(shots)), form=form)
    else:
        direct = tuple(Shot(s.question, s.answer.rpartition("the answer is ")[2].rstrip(".")) for s in shots)
        prepared = PreparedShots(examples=Examples(direct, k=len(direct)), answer_by="generate")
    listed = [Row(f"{task}-{place}", {**row, "listed": _listed(row["input"])}) for place, row in enumerate(members)]
    answers = _replay(definition, prepared, listed, [row["prediction"] for row in members])
    right = [answer == row["target"] for answer, row in zip(answers, members, strict=True)]
    theirs = [_authors_rule(row["prediction"], is_chain) == row["target"] for row in members]
    return {
        "task": task,
        "method": method,
        "items": len(members),
        "published": PUBLISHED[task][0 if is_chain else 1],
        "ours": sum(right),
        "differ": sum(one != other for one, other in zip(right, theirs, strict=True)),
        "unread": sum(answer == "" for answer in answers),
    }


def _bbh_definition(task: str) -> TaskDefinition:
    if task in LABELS:
        return _definition(task, "classification", "Q: {{ input }}\nA:", labels=LABELS[task])
    if task in TEXTS + NUMBERS:
        return _definition(task, "generation", "Q: {{ input }}\nA:")
    return _definition(task, "choice", "Q: {{ input }}\nA:", options="{{ listed }}")


def _listed(text: str) -> list[dict[str, str]]:
    """Return the options of a question: "(A) text" lines behind "Options:"."""
    found = re.findall(r"^(\([A-Z]\)) ?(.*)$", text.split("Options:")[-1], re.MULTILINE)
    return [{"label": letter, "text": option.strip() or letter} for letter, option in found]


def _authors_rule(text: str, is_chain: bool) -> str:
    text = text.rpartition("the answer is ")[2] if is_chain else text
    return text.strip().removesuffix(".")


def _shots(prompt: str) -> tuple[Shot, ...]:
    """Return the worked rationales of a published prompt: "Q: ...", "A: Let's think step by step. ..."."""
    parts = re.split(r"\n+Q: ", prompt)[1:]
    pairs = (part.partition("\nA: ") for part in parts)
    return tuple(Shot(f"Q: {question}\nA:", answer.strip()) for question, _, answer in pairs)


def grade_school_maths() -> dict[str, object]:
    """Replay the solutions of four models, and the vote over all four."""
    rows = _read(shared("gsm8k") / "model_solutions.jsonl.gz")
    first = _read(shared("gsm8k") / "train.jsonl.gz")[0]
    shot = Shot(f"Q: {first['question']}", first["answer"].replace("#### ", "A: "))
    definition = _definition("gsm8k", "generation", "Q: {{ question }}")
    listed = [Row(f"gsm8k-{place}", row) for place, row in enumerate(rows)]
    golds = [read_number(row["ground_truth"]) for row in rows]
    single = PreparedChain(examples=Examples((shot,), k=1), form="number")
    figures: dict[str, object] = {}
    print(f"\n{'GSM8K':20} items published ours differ unread")
    for solver in SOLVERS:
        answers = _replay(definition, single, listed, [row[solver]["solution"] for row in rows])
        right = [answer == gold for answer, gold in zip(answers, golds, strict=True)]
        marks = [row[solver]["is_correct"] for row in rows]
        differ = sum(one != other for one, other in zip(right, marks, strict=True))
        figures[solver] = {"published": sum(marks), "ours": sum(right), "differ": differ}
        print(f"{solver:20} {len(rows)} {sum(marks):9} {sum(right):4} {differ:6} {answers.count(''):6}")
    vote = PreparedChain(examples=Examples((shot,), k=1), form="number", n=len(SOLVERS), temperature=0.7)
    texts = [text for row in rows for text in (row[solver]["solution"] for solver in SOLVERS)]
    answers = _replay(definition, vote, listed, texts)
    figures["vote_of_four"] = sum(answer == gold for answer, gold in zip(answers, golds, strict=True))
    print(f"{'vote of the four':20} {len(rows)} {'none':>9} {figures['vote_of_four']:4}")
    return figures


def oracle_flows(most: int | None) -> dict[str, dict[str, int]]:
    """Run programs with an oracle that does one small step at a time; all rows should come out right."""
    letters = [Row(f"letters-{n}", row) for n, row in enumerate(_read(shared("last_letters") / "test.jsonl"))][:most]
    scan = [Row(f"scan-{n}", row) for n, row in enumerate(_read(shared("scan") / "length_test.jsonl.gz"))][:most]
    spelled = _definition("last_letters", "generation", "{{ question }}")
    moves = _definition("scan", "generation", 'Which actions does "{{ commands }}" mean?')
    figures = {}
    print(f"\n{'oracle flows':36} items right faulty requests a row")
    for name, definition, rows, program, oracle, gold in (
        ("scan, least-to-most", moves, scan, LeastToMost(parts=6), scan_oracle, "actions"),
        ("last_letters, least-to-most", spelled, letters, LeastToMost(), letters_oracle, "answer"),
        ("last_letters, chain-of-thought", spelled, letters, ChainOfThought(), letters_oracle, "answer"),
        ("last_letters, step-back", spelled, letters, StepBack(), letters_oracle, "answer"),
        ("last_letters, self-refine", spelled, letters, SelfRefine(), letters_oracle, "answer"),
    ):
        engine = FakeEngine(lambda request, oracle=oracle: generated(request, oracle(request.prompt.text)))
        prepared = program.prepare(_task(definition, rows), seed=0)
        outcomes = run_programs(definition, prepared, rows, engine)
        right = sum(o.answer.answer == row.fields[gold] for o, row in zip(outcomes, rows, strict=True))
        faulty = sum(_is_faulty(row) for row in rows)
        figures[name] = {"items": len(rows), "right": right, "faulty_gold": faulty}
        print(f"{name:36} {len(rows):5} {right:5} {faulty:6} {len(engine.requests) / len(rows):.1f}")
    return figures


def _is_faulty(row: Row) -> bool:
    """Return whether the data's own answer to a row of last letters does not have one letter a word."""
    if "question" not in row.fields:
        return False
    names = re.findall(r'"([^"]+)"', str(row.fields["question"]))[0].split()
    return "".join(name[-1] for name in names) != row.fields["answer"]


def letters_oracle(prompt: str) -> str:
    """Append one letter to what the prompt already says, never more: the small step of each program."""
    words = re.findall(r'"([^"]+)"', prompt)
    names = words[0].split() if words else []
    known = dict(re.findall(r'Q: Take the last letters of "([^"]+)"\nA: (\w+)', prompt))
    if prompt.endswith(DECOMPOSE):
        return "\n".join(f'Take the last letters of "{" ".join(names[:n])}"' for n in range(1, len(names) + 1))
    if prompt.endswith("A:"):
        asked = words[-1].split()
        return known.get(" ".join(asked[:-1]), "") + asked[-1][-1]
    if prompt.endswith(TRIGGER):
        return "I take one letter after the other: " + " ".join(name[-1] for name in names)
    if prompt.endswith(CUE):
        return prompt.rpartition("one letter after the other: ")[2].partition("\n")[0].replace(" ", "") + "."
    if prompt.endswith(ABSTRACT):
        return f"Which letters do the words of '{' '.join(names)}' end with?"
    if prompt.endswith("?\nAnswer:"):
        return "They end with " + " ".join(word[-1] for word in prompt.partition("'")[2].partition("'")[0].split())
    if prompt.endswith(CRITICISE):
        draft = re.search(r"Answer: (\w+)", prompt)
        short = draft is not None and len(draft[1]) < len(names)
        return "letters are missing: " + "".join(name[-1] for name in names) if short else ENOUGH
    if prompt.endswith("Better answer:"):
        return prompt.rpartition("missing: ")[2].partition("\n")[0]
    if "They end with " in prompt:
        return prompt.partition("They end with ")[2].partition("\n")[0].replace(" ", "")
    return list(known.values())[-1] if known else names[0][-1]


def scan_oracle(prompt: str) -> str:
    """Translate a command of one action, repeat what the prompt has translated, or join two such; nothing longer."""
    known = dict(re.findall(r'Q: Translate "([^"]+)"\nA: ([A-Z_ ]+)', prompt))
    commands = re.findall(r'"([^"]+)"', prompt)
    if prompt.endswith(DECOMPOSE):
        return "\n".join(f'Translate "{part}"' for part in _scan_parts(commands[0]))
    command = commands[-1]
    for word, times in (("twice", 2), ("thrice", 3)):
        if command.endswith(word) and " and " not in command and " after " not in command:
            return " ".join([known[command.removesuffix(word).strip()]] * times)
    for joint in (" and ", " after "):
        if joint in command:
            first, _, second = command.partition(joint)
            parts = (first, second) if joint == " and " else (second, first)
            return " ".join(known[part] for part in parts)
    return known.get(command) or _scan_action(command)


def _scan_parts(command: str) -> Iterable[str]:
    for clause in re.split(r" and | after ", command):
        base = re.sub(r" (twice|thrice)$", "", clause)
        yield from dict.fromkeys((base, clause))


def _scan_action(command: str) -> str:
    """Translate "walk", "turn left", "jump opposite right", "look around left"."""
    verb, *rest = command.split()
    act = [] if verb == "turn" else [f"I_{verb.upper()}"]
    if not rest:
        return " ".join(act)
    turn = f"I_TURN_{rest[-1].upper()}"
    if rest[0] == "opposite":
        return " ".join([turn, turn, *act])
    return " ".join([turn, *act] * 4 if rest[0] == "around" else [turn, *act])


def _replay(definition: TaskDefinition, prepared: PreparedProgram, rows: list[Row], texts: list[str]) -> list[str]:
    """Give the recorded texts to the program's own requests, in order, and return the answers it reads.

    Rows run one by one: a few questions stand twice, with different completions.
    """
    asked: list[list[Request]] = []
    for row in rows:
        first = next(prepared.answer(definition, row))
        asked.append(list(first) if isinstance(first, tuple) else [first])
    given = iter(texts)
    pairs = [[(request, _recorded(request, next(given))) for request in wave] for wave in asked]
    answers = []
    for row, own in zip(rows, pairs, strict=True):
        [outcome] = run_programs(definition, prepared, [row], ReplayEngine(own))
        answers.append(outcome.answer.answer)
    return answers


def _recorded(request: Request, text: str) -> Generated:
    if not isinstance(request, Generate):
        raise TypeError(f"a recorded text answers a Generate request (got {type(request).__name__})")
    return generated(request, text)


def _definition(
    name: str, kind: Kind, prompt: str, *, labels: tuple[str, ...] = (), options: str | None = None
) -> TaskDefinition:
    target = "{{ target | default(answer) | default(actions) }}"
    wording = Wording("published", prompt, target, {}, options)
    return TaskDefinition(name, kind, (wording,), prompt, (target,), labels, ("accuracy",), max_answer_tokens=256)


def _task(definition: TaskDefinition, rows: list[Row]) -> Task:
    return Task(definition, {"train": (), "validation": tuple(rows[:20]), "test": tuple(rows)}, "", DataReport())


def _read(path: Path) -> list[dict[str, object]]:
    opened: Callable[..., Iterable[str]] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
