"""What instruction tuning never sees: whole types of tasks, and whole data sets of types that it does see.

The one list of them. ``families.py`` asks it before a task goes into the mixture; ``evaluate.py`` measures on them.
Types go out whole, as in Wei et al. 2022 (section 2.2): a model that has learnt emotions from one data set would know
too much about sentiment for "zero-shot" to mean anything, unless no task of that type was trained on.
"""

from __future__ import annotations

import re

__all__ = ["CATEGORIES", "DATA_SETS", "TYPES", "is_held_out"]

TYPES = {
    "sentiment": r"sentiment|sst|imdb|yelp|amazon|rotten|movie|review|polarity|good or bad",
    "question type": r"trec|question.?type|answer.?type|freebase_qa.*(topic|category)",
    "cause and effect": r"copa|cause|effect|cosmos|plausible",
    "word sense": r"\bwic\b|word_in_context|word_sense",
    "coreference": r"wsc|winograd|winogrande|winobias|coreference|quoref|definite_pronoun|pronoun",
    "paraphrase": r"paws|paraphras|qqp|mrpc|quora|duplicate|sentence_similarity",
    "toxicity": r"(?<![a-z])hate|offens|toxic|abusive",
    "citation intent": r"acl_arc|scicite|citation",
}
"""Type to what its tasks are called, in any data set: no task of such a name is trained on."""

CATEGORIES = (
    *("Text Quality Evaluation", "Question Understanding", "Paraphrasing", "Cause Effect Classification"),
    *("Sentence Sentiment Classification", "Sentiment Classification", "Sentence Sentiment Verification"),
)
"""Categories of the instruction collection that go out with the types."""

DATA_SETS = (
    *(
        "banking77",
        "ag_news",
        "agnews",
        "dialogsum",
        "samsum",
        "sst2",
        "sst5",
        "rte",
        "cb",
        "mmlu",
        "bbh",
        "mag_titles",
    ),
    *("gsm8k", "scan", "anli", "esnli", "scierc_relations", "chemprot", "llm_annotations_babe"),
)
"""Data sets that are held out whole though tasks of their type (intent, topic, entailment) are trained on."""

_TYPES = re.compile("|".join(TYPES.values()), re.IGNORECASE)
_SETS = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(DATA_SETS)})(?![a-z0-9])", re.IGNORECASE)


def is_held_out(*names: str, category: str = "") -> bool:
    """Return whether a task of these names (its own, its data set's, its source's) and category must not be trained on.

    Underscores part words: ``task_rte_x`` is of ``rte``.
    """
    if category in CATEGORIES:
        return True
    return any(_TYPES.search(name) or _SETS.search(name.replace("_", " ")) or _SETS.search(name) for name in names)
