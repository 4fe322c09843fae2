"""Steps 2, 3 and 5: the tokenizer, what is asked in which words, and what of it is learnt."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfit.errors import ConfigError, DataError, StudyError
from tests.recipes.tiny_data import LEAKED


def _conversations(places) -> list[dict]:  # type: ignore[no-untyped-def, type-arg]
    from places import read_lines

    return list(read_lines(places.build / "instructions.jsonl"))


def test_nothing_that_is_held_out_gets_into_the_mixture(encoded) -> None:  # type: ignore[no-untyped-def]
    """Neither a type, nor a data set, nor a category."""
    names = {row["family"] for row in _conversations(encoded)}
    assert "induction sum" in names and "task1_open_writing" in names and "t0 quartz" in names
    for gone in ("induction sentiment", "t0 trec", "t0 ag_news", "task4_yelp_stars", "task5_wellformed"):
        assert gone not in names


@pytest.mark.parametrize(
    ("name", "is_out"),
    [
        *(("task363_sst2_polarity_classification", True), ("banking77", True), ("t0 paws", True), ("glue_rte", True)),
        *(("super_glue/cb", True), ("imdb", True), ("task1_whatever", False), ("clinc150 intent", False)),
        *(("task_cbt_fill", False), ("mnli", False), ("start", False)),
    ],
)
def test_held_out_names_are_told_from_names_that_hold_them(name: str, is_out: bool) -> None:
    """``cb`` is no ``cbt``, and ``hate`` not in ``whatever``."""
    from held_out import is_held_out

    assert is_held_out(name) is is_out


def test_only_openly_licensed_instances_are_trained_on(encoded) -> None:  # type: ignore[no-untyped-def]
    """Non-commercial ones are not, and none stated is not open."""
    from licences import is_open

    names = {row["family"] for row in _conversations(encoded)}
    assert not names & {"task2_closed_writing", "task3_silent_writing"}
    assert is_open(["CC BY-SA 4.0", "MIT"]) and is_open(["Apache 2.0"])
    for closed in (
        ["CC BY-NC 4.0"],
        ["CC BY-NC-SA 3.0"],
        ["MIT", "Unknown"],
        [],
        None,
        ["CC BY-SA 4.0", "RACE license"],
    ):
        assert not is_open(closed)


def test_evaluation_text_is_not_asked_about(encoded) -> None:  # type: ignore[no-untyped-def]
    """An item that is an evaluation text, or a line of it, is left out."""
    from evaluation_text import EvaluationText
    from text_hashes import WordHashes

    words = WordHashes()
    evaluated = EvaluationText.read(encoded, words)
    assert evaluated.holds(f"Message: so\n{LEAKED.upper()}!", words)
    assert not evaluated.holds("Message: so\n" + " ".join(LEAKED.split()[:9]), words)
    assert all(not evaluated.holds(row["messages"][-2]["content"], words) for row in _conversations(encoded))


def test_wordings_of_both_collections_are_filled(encoded) -> None:  # type: ignore[no-untyped-def]
    """A Jinja template and one with slots, each with its answer."""
    from wordings import worded_rows

    rows = list(worded_rows(encoded, 10))
    by_collection = {row.collection: row for row in rows}
    assert by_collection["promptsource_templates"].answer in ("Yes", "No")
    assert "OPTIONS:\n- yes" in by_collection["flan_templates"].prompt
    assert Counter(row.data_set for row in rows) == {"boolq": 10, "mnli": 10}


def test_a_conversation_ends_with_an_answer_among_its_options() -> None:
    """Whatever layout, wording, shots and names are drawn."""
    from families import Family, Item
    from tasks import conversation

    items = [Item(f"text {at}", ("red", "green", "blue")[at % 3]) for at in range(30)]
    family = Family("f", "s", "MIT", ("Which colour?",), items, "Text", ("red", "green", "blue"))
    family.group_by_label()
    for seed in range(200):
        messages = conversation(random.Random(seed), family)
        assert messages[-1]["role"] == "assistant" and messages[-2]["role"] == "user"
        assert messages[-1]["content"].strip()
        assert all(one["role"] == ("assistant", "user")[at % 2] for at, one in enumerate(reversed(messages[1:])))


def test_the_tokenizer_keeps_any_text_and_parts_digits(encoded) -> None:  # type: ignore[no-untyped-def]
    """Bytes that no training text held come through; markers are single tokens, never made from text."""
    from network import load_tokenizer

    tokenizer = load_tokenizer(encoded.build / "tokenizer")
    for text in ("12345 naïve 漢字 🙂\x00\n\t  end", "", " leading"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert len(tokenizer("2026", add_special_tokens=False)["input_ids"]) == 4
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True, return_dict=False
    )
    assert [ids[0], ids[-1]] == tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    assert tokenizer.bos_token_id not in ids


def test_the_stream_holds_every_document_between_its_markers(encoded) -> None:  # type: ignore[no-untyped-def]
    """Decoded, it is the corpus again."""
    from network import load_tokenizer
    from places import read_lines
    from rows import open_stream

    tokenizer = load_tokenizer(encoded.build / "tokenizer")
    ids = open_stream(encoded.build / "corpus.bin").tolist()
    texts = [row["text"] for row in read_lines(encoded.build / "corpus.jsonl")]
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == len(texts)
    first = ids[1 : ids.index(tokenizer.eos_token_id)]
    assert tokenizer.decode(first) == texts[0]


def test_another_vocabulary_is_refused_while_the_first_is_there(encoded) -> None:  # type: ignore[no-untyped-def]
    """Ids of one tokenizer are nothing to another."""
    import tokenizer

    with pytest.raises(ConfigError, match="has 400 entries, not 500"):
        tokenizer.build(encoded, 500)
    with pytest.raises(ConfigError, match="262 to 65536 entries, got 100"):
        tokenizer.train_tokenizer(["a"], 100)


def test_more_entries_make_longer_tokens(encoded) -> None:  # type: ignore[no-untyped-def]
    """And the output layer's share of the work grows."""
    from tokenizer import compare

    small, large = compare(encoded, (300, 600))
    assert small["characters_per_token"] < large["characters_per_token"]
    assert small["6m: output layer's share of work"] < large["6m: output layer's share of work"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(3, 1200), min_size=1, max_size=60))
def test_packed_rows_hold_every_conversation_once_and_whole(lengths: list[int]) -> None:
    """None is cut; those longer than the context are left out."""
    from instruct import packed_rows
    from network import CONTEXT

    bos, assistant, end = 1, 4, 2
    conversations = [[3, *[10 + at] * (length - 3), assistant, 9, end][:length] for at, length in enumerate(lengths)]
    rows = packed_rows(conversations, 0)
    found = []
    for ids, learnt in rows:
        assert len(ids) == len(learnt) <= CONTEXT and ids[0] == bos
        starts = [at for at, token in enumerate(ids) if token == bos] + [len(ids)]
        found += [ids[start + 1 : stop] for start, stop in pairwise(starts)]
    assert sorted(found) == sorted(one for one in conversations if len(one) < CONTEXT)


def test_only_the_assistants_turns_are_learnt_with_their_end() -> None:
    """Two turns: user, answer, user, answer."""
    from instruct import supervised

    user, assistant, end = 3, 4, 2
    ids = [user, 10, end, assistant, 11, 12, end, user, 13, end, assistant, 14, end]
    learnt = [token for token, is_learnt in zip(ids, supervised(ids), strict=True) if is_learnt]
    assert learnt == [11, 12, end, 14, end]


def test_instructing_goes_on_with_the_same_bits(trained, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Stopped after two steps and run again; another rate is refused."""
    import shutil

    import instruct as module
    from instruct import instruct
    from places import Places

    monkeypatch.setattr(module, "ROWS_A_STEP", 2)
    both = []
    for name, stops in (("one", (None,)), ("two", (2, None))):
        shutil.copytree(trained.build, tmp_path / name, symlinks=True)
        places = Places(trained.data, tmp_path / name)
        for stop in stops:
            report = instruct(places, epochs=0.06, rate=1e-3, seed=0, device="cpu", until=stop)
        both.append((places.build / "instructed" / "model.safetensors").read_bytes())
        assert report["unseen_nats_per_token"] > 0
    assert both[0] == both[1]
    with pytest.raises(StudyError, match="rate was"):
        instruct(places, epochs=0.06, rate=2e-3, seed=0, device="cpu")


def test_an_earlier_step_that_was_not_run_is_named(made, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """By its file, as README has it."""
    from instruct import instruct
    from places import Places
    from pretrain import pretrain
    from schedule import Plan
    from tokenizer import build

    places = Places(made.data, tmp_path)
    with pytest.raises(DataError, match=r"corpus.jsonl is missing") as found:
        build(places, 400)
    assert "Run corpus.py first" in (found.value.hint or "")
    with pytest.raises(DataError, match="tokenizer is missing"):
        pretrain(places, Plan("1m", 1000), "cpu")
    with pytest.raises(DataError, match="pretrained is missing"):
        instruct(places, epochs=1, rate=1e-3, seed=0, device="cpu")


def test_the_report_counts_what_was_left_out(encoded) -> None:  # type: ignore[no-untyped-def]
    """Conversations by source add up, and licences stand beside them."""
    report = json.loads((encoded.build / "tasks.json").read_text())
    assert sum(report["by_source"].values()) == report["conversations"] == len(_conversations(encoded))
    assert {source for source, _ in report["licences"]} == set(report["by_source"])
