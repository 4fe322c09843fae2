"""Promptsource files are read as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskfit.errors import TaskError
from taskfit.tasks import load_task
from taskfit.tasks.promptsource import read_promptsource, split_template
from taskfit.tasks.template import render

from .conftest import WriteTask

FILE = """
dataset: news
templates:
  24e44a81: !Template
    answer_choices: World politics ||| Sports ||| Business
    id: 24e44a81
    jinja: "What label best describes this article?\\n{{text}} ||| \\n{{answer_choices[label]}}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      metrics:
      - Accuracy
      original_task: true
    name: classify
    reference: ''
  8fdc1056: !Template
    answer_choices: Politician ||| Athlete ||| Businessman
    id: 8fdc1056
    jinja: "{% set who = answer_choices[label] %}Who reads this?\\n{{text}} ||| {{ who }}"
    name: recommend
    reference: ''
"""
ROWS = [{"text": f"news {n}", "label": n % 3} for n in range(30)]


def test_texts_of_labels_are_learnt_from_the_templates(write_task: WriteTask) -> None:
    """Each wording has its own text for a label; the label's value is the same in all."""
    path = write_task(
        "name: n\nkind: classification\ndata: rows.jsonl\npromptsource: p.yaml\ntarget: label\n",
        rows__jsonl=ROWS,
        p__yaml=FILE,
    )
    task = load_task(path)
    definition, row = task.definition, next(row for row in task.train if row.fields["label"] == 1)
    assert [wording.name for wording in definition.wordings] == ["classify", "recommend"]
    assert definition.labels == ("0", "1", "2")
    assert definition.gold(row) == ("1",)
    assert [definition.target_text(row, wording) for wording in (0, 1)] == ["Sports", "Athlete"]
    assert definition.prompt_text(row, 1) == f"Who reads this?\n{row.fields['text']}"
    assert definition.input_text(row) == row.fields["text"]
    assert any("input that encoders read is `text`" in note for note in task.report.notes)


def test_without_a_target_the_labels_are_the_texts_of_the_first_wording(write_task: WriteTask) -> None:
    """The file alone is enough."""
    path = write_task(
        "name: n\nkind: classification\ndata: rows.jsonl\npromptsource: p.yaml\n", rows__jsonl=ROWS, p__yaml=FILE
    )
    definition = load_task(path).definition
    assert definition.labels == ("Business", "Sports", "World politics")
    assert definition.wordings[1].label_texts == {
        "Business": "Businessman",
        "Sports": "Athlete",
        "World politics": "Politician",
    }


@pytest.mark.parametrize(
    "source",
    [
        "Q: {{a}} ||| {{b}}",
        "{% set c = b %}Q: {{a}} ||| {{c}}",
        "{% if a %}Q: {{a}} ||| {{b}}{% endif %}",
        "{% macro f(x) %}{{x}}{% endmacro %}Q: {{f(a)}} ||| {{f(b)}}",
        "{% raw %}Q: {% endraw %}{{a}} ||| {{b}}",
    ],
)
def test_both_halves_are_those_of_the_whole(source: str) -> None:
    """The same as rendering the template and dividing it afterwards."""
    whole = render(source, {"a": "one", "b": "two"}).split("|||")
    halves = [render(half, {"a": "one", "b": "two"}) for half in split_template(source)]
    assert [half.strip() for half in halves] == [half.strip() for half in whole] == ["Q: one", "two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n", "needs a mapping `templates`"),
        ("templates: {x: 7}\n", "template x needs a text `jinja`"),
        ("templates: {x: !Template {name: n, jinja: no halves}}\n", "template 'n': a template needs"),
        ("templates: {x: !Template {name: n, jinja: '{{ a ||| b'}}\n", "is no Jinja2 template"),
        ("templates: {x: {name: n, jinja: 'a ||| b', answer_choices: '{{'}}\n", "is no Jinja2 template"),
        (
            "templates: {x: {name: n, jinja: 'a ||| b'}, y: {name: n, jinja: 'a ||| b'}}\n",
            "two templates have the name 'n'",
        ),
    ],
)
def test_broken_files_are_named(tmp_path: Path, text: str, said: str) -> None:
    """With the template's name."""
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(TaskError) as caught:
        read_promptsource(tmp_path / "p.yaml")
    assert said in caught.value.message
