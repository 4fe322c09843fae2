"""Conversations: the assistant's turns are learned, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskfit.models.language_model import LanguageModel
from taskfit.prompting.shots import ZeroShot
from taskfit.tasks.chat import chat_sources
from taskfit.tasks.definition import TaskDefinition, Wording
from taskfit.tasks.task import DataReport, Row, Task
from taskfit.tuning.examples import IGNORED, Example, Turns, build_examples, collate
from tests.tuning.keyword_task import Family, tiny_model

TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "the boat was good"},
    {"role": "assistant", "content": "yes it was"},
    {"role": "user", "content": "and the fish"},
    {"role": "assistant", "content": "the fish was bad"},
    {"role": "user", "content": "thank you"},
    {"role": "assistant", "content": "bye"},
]

MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{{ '\\n' }}"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template of ``tiny_decoder(chat=True)``, with the marks by which transformers finds the assistant's tokens."""

FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}(earlier) {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Shows the assistant's old turns otherwise than it wrote them, as templates do that leave out old thoughts."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


def chat_task(*talks: list[dict[str, str]]) -> Task:
    text, answer = chat_sources("{{ messages }}")
    definition = TaskDefinition(
        name="talks",
        kind="generation",
        wordings=(Wording("chat", text, answer, {}),),
        text=text,
        references=(answer,),
        labels=(),
        metrics=("exact_match",),
        messages="{{ messages }}",
    )
    rows = tuple(Row(f"t{number}", {"messages": talk}) for number, talk in enumerate(talks))  # type: ignore[dict-item]
    return Task(definition, {"train": rows, "validation": (), "test": rows}, "f" * 64, DataReport())


def built(model: LanguageModel, turns: Turns = "all", talk: list[dict[str, str]] = TALK) -> list[Example]:
    task = chat_task(talk)
    return build_examples(model, task.definition, ZeroShot().prepare(task, seed=0), task.train, turns=turns)


def learned(model: LanguageModel, example: Example) -> list[str]:
    """The stretches that are learned, decoded."""
    pieces: list[list[int]] = [[]]
    for label in example.labels:
        if label != IGNORED:
            pieces[-1].append(label)
        elif pieces[-1]:
            pieces.append([])
    return [model.tokenizer.decode(piece) for piece in pieces if piece]


def test_all_turns_are_learned_in_one_sequence(folder: Path) -> None:
    """Each with its end of turn; the user and the system are only read."""
    model = tiny_model(folder, "chat")
    (example,) = built(model)
    end = model.tokenizer.decode([model.end_token_ids[0]])
    assert learned(model, example) == [f"yes it was{end}", f"the fish was bad{end}", f"bye{end}"]
    assert example.learned == sum(label != IGNORED for label in example.labels)


def test_the_mask_is_that_of_transformers(folder: Path) -> None:
    """``apply_chat_template`` with the same template and marks around what the assistant says."""
    model = tiny_model(folder, "chat")
    (example,) = built(model)
    theirs = model.tokenizer.apply_chat_template(
        TALK, chat_template=MARKED, return_assistant_tokens_mask=True, return_dict=True
    )
    batch = collate([example], model.architecture, 0)
    ours = batch["input_ids"][0].tolist()
    mask = [int(label != IGNORED) for label in batch["labels"][0].tolist()]
    shown = len(ours) - 1  # without the BOS, which the template leaves to others
    assert ours[1:] == theirs["input_ids"][:shown]
    assert mask[1:] == theirs["assistant_masks"][:shown]
    assert sum(theirs["assistant_masks"][shown:]) == 0


def test_the_last_turn_alone_can_be_learned(folder: Path) -> None:
    """The others are read."""
    model = tiny_model(folder, "chat")
    (example,) = built(model, "last")
    assert len(learned(model, example)) == 1
    assert learned(model, example)[0].startswith("bye")


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_where_turns_cannot_share_a_sequence_each_has_its_own(folder: Path, family: Family) -> None:
    """Without a template no end stands behind old turns; an encoder–decoder has one answer a sequence."""
    model = tiny_model(folder, family)
    examples = built(model)
    assert [example.row_id for example in examples] == ["t0, turn 1", "t0, turn 2", "t0"]
    assert all(not example.read and example.answer[-1] in model.end_token_ids for example in examples)
    texts = [model.tokenizer.decode(example.answer[:-1]).strip() for example in examples]
    assert texts == ["yes it was", "the fish was bad", "bye"]


def test_a_template_that_rewrites_old_turns_splits_them(folder: Path) -> None:
    """Learned is what would be said, never what a template makes of it later."""
    model = tiny_model(folder, "chat")
    model.tokenizer.chat_template = FORGETFUL
    examples = built(model)
    assert [example.row_id for example in examples] == ["t0, turn 1", "t0, turn 2", "t0"]
    assert all("(earlier)" not in model.tokenizer.decode(example.answer) for example in examples)
    assert "(earlier) yes it was" in model.tokenizer.decode(examples[1].prompt)


def test_old_turns_go_first_where_the_context_is_short(folder: Path) -> None:
    """What is left out of the whole is still learned by itself."""
    model = tiny_model(folder, "chat")
    (whole,) = built(model)
    examples = built(replace(model, context=whole.length - 2))
    assert examples[-1].dropped_shots >= 1
    assert [learned(model, example)[-1].split("<")[0] for example in examples] == [
        "yes it was",
        "the fish was bad",
        "bye",
    ]
