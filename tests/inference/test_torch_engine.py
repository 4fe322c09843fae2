"""The torch engine against transformers' own methods, one request at a time."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import EngineError, ResourceError
from taskfit.inference import sharing
from taskfit.inference.requests import Generate, Score
from taskfit.inference.sharing import Sharing, declared_window
from taskfit.inference.torch_engine import TorchEngine
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing import PARAGRAPH
from tests.inference.naive import naive_greedy, naive_scores

DECODERS = ("llama", "gpt2", "chat")
ALL = (*DECODERS, "t5")
WORDS = PARAGRAPH.split()
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))

words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
labels = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join), min_size=1, max_size=5, unique=True
)
shots = st.sampled_from([(), (Shot("the harbour opens at six and the market wakes up. Open?", "yes"),) * 2])


def score_requests(texts, answers, worked):
    """One request a text; every second has the answers the other way round."""
    return [
        Score(Prompt(text, worked), tuple(answers if number % 2 else reversed(answers)))
        for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize("kind", ALL)
@FEW
@given(texts=st.lists(words, min_size=1, max_size=5), answers=labels, worked=shots)
def test_scores_equal_one_plain_pass_a_continuation(tiny, kind, texts, answers, worked):
    """Trees, shared beginnings and batches change nothing."""
    model = tiny(kind)
    requests = score_requests(texts, answers, worked)
    for request, response in zip(requests, TorchEngine(model).run(requests), strict=True):
        assert response.logprobs == pytest.approx(naive_scores(model, request), abs=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_scores_do_not_depend_on_order_or_batch_size(tiny, kind):
    """The same requests shuffled, in small batches and one by one."""
    model, draw = tiny(kind), random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 20))) for _ in range(9)]
    requests = score_requests(texts, ["yes", "no", "the red one", "the cats"], ())
    together = TorchEngine(model).run(requests)
    order = draw.sample(range(9), 9)
    shuffled = TorchEngine(model, batch_tokens=40).run([requests[place] for place in order])
    for place, response in zip(order, shuffled, strict=True):
        assert response.logprobs == pytest.approx(together[place].logprobs, abs=1e-4)
    for request, response in zip(requests, together, strict=True):
        assert TorchEngine(model).run([request])[0].logprobs == pytest.approx(response.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", DECODERS)
def test_trees_are_used_and_equal_separate_sequences(tiny, kind, monkeypatch):
    """Architectures whose attention cannot be packed get the plain way, with the same scores."""
    model = tiny(kind)
    requests = score_requests(["the tide turns once more", "boats"], ["yes", "the cats", "the cats who"], ())
    engine = TorchEngine(model)
    with_trees = engine.run(requests)
    assert engine._find_sharing()
    monkeypatch.setattr(sharing, "find_sharing", lambda model: None)
    separate = TorchEngine(model)
    for one, other in zip(with_trees, separate.run(requests), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert separate.work.computed_tokens > engine.work.computed_tokens
    assert separate.work.prompt_tokens == engine.work.prompt_tokens


def test_a_declared_window_counts_unless_it_is_switched_off(tiny, monkeypatch):
    """Nothing is generated behind a shared beginning that is longer than what every layer sees."""
    model = tiny("llama")
    assert declared_window(model) == float("inf")
    monkeypatch.setattr(model.module.config, "sliding_window", 50, raising=False)
    assert declared_window(model) == 50
    monkeypatch.setattr(model.module.config, "use_sliding_window", False, raising=False)
    assert declared_window(model) == float("inf")


def test_a_window_that_no_layer_says_is_trusted_no_further(tiny, monkeypatch):
    """The configuration has one, attention was not told of it: longer rows are scored one by one."""
    model = tiny("llama")
    monkeypatch.setattr(model.module.config, "sliding_window", 6, raising=False)
    engine = TorchEngine(model)
    request = Score(Prompt("the harbour opens at six and the market wakes up"), ("yes", "the cats"))
    assert engine.run([request])[0].logprobs == pytest.approx(naive_scores(model, request), abs=1e-4)
    assert any("one by one" in note for note in engine.notes)


def test_an_architecture_that_refuses_our_attention_is_found_out(tiny, monkeypatch):
    """Trying fails: nothing is shared; trying gives other numbers: nothing is shared either."""
    model = tiny("llama")
    forward = type(model.module).forward

    def refuse(self, *args, **inputs):
        if inputs.get("attention_mask") is None and inputs.get("position_ids") is not None:
            raise ValueError("positions are my own business")
        return forward(self, *args, **inputs)

    def ignore_positions(self, *args, **inputs):
        inputs.pop("position_ids", None)
        return forward(self, *args, **inputs)

    def keep_attention(self, name):
        """Leave the model's own attention where it is."""

    request = Score(Prompt("boats"), ("yes", "the cats", "the red one"))
    expected = naive_scores(model, request)
    changes = [("forward", refuse), ("forward", ignore_positions), ("set_attn_implementation", keep_attention)]
    for method, behaviour in changes:
        with monkeypatch.context() as patch:
            patch.setattr(type(model.module), method, behaviour)
            engine = TorchEngine(model)
            assert engine.run([request])[0].logprobs == pytest.approx(expected, abs=1e-4)
            assert engine._find_sharing() is None
            assert "one by one" in engine.notes[0]


def test_many_labels_cost_little_more_than_one(tiny):
    """The prompt is computed once for all labels, the shots once for all rows."""
    model = tiny("gpt2")
    worked = (Shot("is the review positive or negative? I liked the film.", "positive"),) * 3
    one, many = TorchEngine(model), TorchEngine(model)
    answers = [f"{first} {second}" for first in ("the", "red") for second in WORDS[:20]]
    prompts = [Prompt(f"is the review positive or negative? I saw {word}.", worked) for word in WORDS[:12]]
    one.run([Score(prompt, ("yes",)) for prompt in prompts])
    many.run([Score(prompt, tuple(dict.fromkeys(answers))) for prompt in prompts])
    assert one.work.prompt_tokens == many.work.prompt_tokens > 12 * 70
    assert one.work.computed_tokens < one.work.prompt_tokens / 4
    assert many.work.computed_tokens < many.work.prompt_tokens + 12 * many.work.answer_tokens / 12


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_work_counts_what_was_asked_and_computed(tiny, kind):
    """A hand-countable request."""
    model = tiny(kind)
    engine = TorchEngine(model)
    (response,) = engine.run([Score(Prompt("the harbour opens"), ("yes", "no"))])
    work = engine.work
    assert work.prompt_tokens == response.prompt_tokens
    assert work.answer_tokens == sum(response.tokens)
    assert work.cut_tokens == work.dropped_shots == work.cut_rows == 0
    length, lengths = response.prompt_tokens, response.tokens
    if kind == "t5":
        inner = [size - 1 for size in lengths if size > 1]
        assert work.computed_tokens == length
        assert work.decoder_tokens == 1 + len(inner) * max(inner, default=0)
        assert work.head_tokens == 1 + sum(inner)
        assert work.attended_pairs == length**2 + 1 + length + sum(n * (n + 3) // 2 + n * length for n in inner)
    else:
        inner = sum(size - 1 for size in lengths)  # "yes" and "no" share no beginning
        assert work.computed_tokens == length + inner
        assert work.head_tokens == 1 + inner
        depths = sum(n * (n - 1) // 2 for n in lengths)
        assert work.attended_pairs == length * (length + 1) // 2 + inner * length + depths


@pytest.mark.parametrize("kind", ALL)
@FEW
@given(texts=st.lists(words, min_size=1, max_size=4), worked=shots, tokens=st.integers(1, 9))
def test_greedy_text_equals_transformers_one_row_at_a_time(tiny, kind, texts, worked, tokens):
    """Padding, shared beginnings and rows that leave change nothing."""
    model = tiny(kind)
    requests = [Generate(Prompt(text, worked), tokens + number) for number, text in enumerate(texts)]
    for request, response in zip(requests, TorchEngine(model).run(requests), strict=True):
        expected = naive_greedy(model, request)
        assert response.tokens == len(expected)
        ends = expected[-1] in model.end_token_ids
        assert response.finish == ("end" if ends else "length")
        text = model.tokenizer.decode(expected[:-1] if ends else expected, skip_special_tokens=True)
        plain = kind in ("llama", "gpt2")
        assert response.text == (text.removeprefix(" ") if plain else text)


@pytest.mark.parametrize("kind", ALL)
def test_sampled_text_does_not_depend_on_its_neighbours(tiny, kind):
    """Each request draws from its own seed."""
    model, draw = tiny(kind), random.Random(2)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 15))) for _ in range(7)]
    requests = [
        Generate(Prompt(text), 3 + number, temperature=0.8, top_p=0.9, seed=number) for number, text in enumerate(texts)
    ]
    together = TorchEngine(model).run(requests)
    assert TorchEngine(model, batch_tokens=30).run(requests[::-1])[::-1] == [
        dataclasses.replace(response, logprob=pytest.approx(response.logprob, abs=1e-4)) for response in together
    ]
    alone = [TorchEngine(model).run([request])[0].text for request in requests]
    assert alone == [response.text for response in together]


def test_seeds_give_other_texts(tiny):
    """Sampling is no greedy choice in disguise."""
    prompt = Prompt("the boats")
    requests = [Generate(prompt, 8, temperature=1.0, seed=seed) for seed in range(6)]
    assert len({response.text for response in TorchEngine(tiny("gpt2")).run(requests)}) > 3


def test_a_tiny_nucleus_is_greedy(tiny):
    """top_p near zero keeps the likeliest token only."""
    prompt = Prompt("the boats")
    greedy, nucleus = TorchEngine(tiny("gpt2")).run(
        [Generate(prompt, 8), Generate(prompt, 8, temperature=1.0, top_p=1e-6, seed=3)]
    )
    assert greedy.text == nucleus.text


def test_logprob_of_generated_text_is_its_score(tiny):
    """What Generate says of its tokens is what the model says of them in a plain pass."""
    model = tiny("gpt2")
    request = Generate(Prompt("the boats"), 6)
    (response,) = TorchEngine(model).run([request])
    ids = [*model.tokenizer("the boats")["input_ids"], *naive_greedy(model, request)]
    with torch.no_grad():
        logprobs = model.module(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    start = len(ids) - response.tokens
    expected = sum(float(logprobs[place - 1, ids[place]]) for place in range(start, len(ids)))
    assert response.logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(tiny, kind):
    """The text before the first stop text, which may lie inside a token."""
    model = tiny(kind)
    request = Generate(Prompt("later the nets"), 12, temperature=1.0, seed=4)
    (full,) = TorchEngine(model).run([request])
    assert len(full.text) > 6
    stop = full.text[3:5]
    (stopped,) = TorchEngine(model).run([dataclasses.replace(request, stop=("never-this", stop))])
    assert stopped.text == full.text[: full.text.find(stop)]
    assert stopped.finish == "stop"
    assert stopped.tokens <= full.tokens


def test_a_model_that_ends_ends_the_answer(tiny):
    """The end token counts as a token and leaves no trace in the text."""
    model = tiny("gpt2")
    first = naive_greedy(model, Generate(Prompt("boats"), 3))
    ending = dataclasses.replace(model, end_token_ids=(first[2],))
    (response,) = TorchEngine(ending).run([Generate(Prompt("boats"), 10)])
    assert (response.finish, response.tokens) == ("end", 3)
    assert response.text == model.tokenizer.decode(first[:2]).removeprefix(" ")


def test_mixed_requests_keep_their_order(tiny):
    """Scores and texts come back where they were asked."""
    engine = TorchEngine(tiny("llama"))
    score, text = Score(Prompt("boats"), ("yes", "no")), Generate(Prompt("boats"), 2)
    responses = engine.run([text, score, text])
    assert [type(response).__name__ for response in responses] == ["Generated", "Scored", "Generated"]
    assert responses[0] == responses[2]
    assert engine.run([]) == []


def test_cut_prompts_are_counted(tiny):
    """Nothing is left out in silence."""
    engine = TorchEngine(tiny("llama"))
    worked = (Shot("is it so?", "yes"), Shot("or not?", "no"))
    long = Prompt(" ".join(WORDS * 3), worked)
    scored, generated = engine.run([Score(long, ("yes", "no")), Generate(long, 5)])
    assert scored.cut_tokens > 0 and scored.dropped_shots == 2
    assert generated.cut_tokens > 0 and generated.dropped_shots == 2
    assert engine.work.cut_tokens == scored.cut_tokens + generated.cut_tokens
    assert (engine.work.cut_rows, engine.work.dropped_shots) == (2, 4)


@pytest.mark.parametrize("kind", ALL)
def test_dropout_is_off_and_the_mode_is_given_back(tiny, kind):
    """A model in the middle of training is scored as it will be used."""
    model = tiny(kind)
    request = Score(Prompt("boats"), ("yes", "no"))
    expected = TorchEngine(model).run([request])
    frozen = next(model.module.children())
    model.module.train()
    frozen.eval()
    modes = [part.training for part in model.module.modules()]
    try:
        assert TorchEngine(model).run([request]) == expected
        assert [part.training for part in model.module.modules()] == modes
    finally:
        model.module.eval()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Score(Prompt("a"), ()), "at least one continuation"),
        (Score(Prompt("a"), ("yes", "")), "a continuation is empty"),
        (Score(Prompt("a"), ("yes", " yes")), "'yes' and ' yes' have the same tokens"),
        (Generate(Prompt("a"), 0), "max_tokens must be at least 1"),
        (Generate(Prompt("a"), 1, temperature=-1.0), "temperature must be at least 0"),
        (Generate(Prompt("a"), 1, top_p=0.0), "top_p must be above 0"),
        (Generate(Prompt("a"), 1, stop=("",)), "a stop text is empty"),
        (Generate(Prompt("a"), 999), "context"),
    ],
)
def test_an_impossible_request_is_refused_with_its_reason(tiny, request_, message):
    """The message names what is wrong."""
    with pytest.raises(EngineError, match=message):
        TorchEngine(tiny("gpt2")).run([request_])


def test_encoders_and_bad_batches_are_refused(tiny):
    """An encoder generates nothing."""
    with pytest.raises(EngineError, match="is an encoder") as caught:
        TorchEngine(tiny("bert"))
    assert "head" in str(caught.value.hint)
    with pytest.raises(EngineError, match="batch_tokens"):
        TorchEngine(tiny("gpt2"), batch_tokens=0)


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("request_", [Score(Prompt("a"), ("yes", "no")), Generate(Prompt("a"), 2)])
def test_nan_is_an_error(tiny, kind, request_):
    """A broken weight is never a score."""
    model = tiny(kind)
    weight = model.module.get_output_embeddings().weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[5] = float("nan")
        with pytest.raises(EngineError, match="NaN"):
            TorchEngine(model).run([request_])
    finally:
        with torch.no_grad():
            weight.copy_(kept)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_where_memory_runs_out_batches_are_halved(tiny, kind, monkeypatch):
    """Large batches fail, small ones do; the scores are the same."""
    model = tiny(kind)
    requests = [Score(Prompt(f"boats {word}"), ("yes", "the cats")) for word in WORDS[:7]]
    expected = TorchEngine(model).run(requests)
    forward = type(model.module).forward

    def run_out(self, *args, **inputs):
        ids = inputs.get("input_ids")
        ids = inputs["decoder_input_ids"] if ids is None else ids
        if len(ids) > 2:
            raise torch.OutOfMemoryError("tried to allocate too much")
        return forward(self, *args, **inputs)

    monkeypatch.setattr(type(model.module), "forward", run_out)
    for one, other in zip(TorchEngine(model).run(requests), expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_memory_that_is_too_small_for_one_row_is_said(tiny, monkeypatch):
    """A row cannot be halved."""
    model = tiny("llama")

    def run_out(self, *args, **inputs):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(sharing, "find_sharing", lambda model: Sharing(True, 1))
    monkeypatch.setattr(type(model.module), "forward", run_out)
    with pytest.raises(ResourceError, match="single row"):
        TorchEngine(model).run([Score(Prompt("a"), ("yes", "no"))])


def test_other_errors_are_no_lack_of_memory(tiny, monkeypatch):
    """A bug keeps its traceback."""
    model = tiny("llama")

    def fail(self, *args, **inputs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(sharing, "find_sharing", lambda model: Sharing(True, 1))
    monkeypatch.setattr(type(model.module), "forward", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        TorchEngine(model).run([Score(Prompt("a"), ("yes", "no"))])


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning", "ignore:fan_in_fan_out:UserWarning")
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_lora_wrapped_models_score_as_themselves(tiny, kind):
    """The engine reads a PEFT wrapper as it reads the model inside."""
    import copy

    from peft import LoraConfig, get_peft_model

    model = tiny(kind)
    module = get_peft_model(
        copy.deepcopy(model.module), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    tuned = dataclasses.replace(model, module=module.eval())
    request = Score(Prompt("boats", (Shot("the harbour opens at six, does it not?", "yes"),)), ("yes", "the cats"))
    (response,) = TorchEngine(tuned).run([request])
    assert response.logprobs == pytest.approx(naive_scores(tuned, request), abs=1e-4)
    assert response.logprobs != pytest.approx(naive_scores(model, request), abs=1e-2)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_tokens_put_in_front_are_scored_and_refused_for_generating(tiny, kind):
    """Prompt tuning: our mask is refused, so each answer gets a sequence of its own."""
    import copy

    from peft import PromptTuningConfig, get_peft_model

    model = tiny(kind)
    module = get_peft_model(copy.deepcopy(model.module), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=3))
    tuned = dataclasses.replace(model, module=module.eval())
    engine = TorchEngine(tuned)
    requests = [Score(Prompt("boats are"), ("yes", "the cats")), Score(Prompt("cats"), ("yes",))]
    for request, response in zip(requests, engine.run(requests), strict=True):
        assert response.logprobs == pytest.approx(naive_scores(tuned, request, in_front=3), abs=1e-4)
        assert response.logprobs != pytest.approx(naive_scores(model, request), abs=1e-3)
    with pytest.raises(EngineError, match="PromptTuningConfig puts tokens in front"):
        engine.run([Generate(Prompt("boats"), 2)])


def test_plain_attention_gets_a_mask_of_numbers(tiny):
    """An architecture without fused attention scores alike."""
    from transformers import AutoModelForCausalLM

    model = tiny("llama")
    module = AutoModelForCausalLM.from_pretrained(model.folder, attn_implementation="eager").eval()
    eager = dataclasses.replace(model, module=module)
    engine = TorchEngine(eager)
    request = Score(Prompt("boats are"), ("yes", "the cats"))
    assert engine.run([request])[0].logprobs == pytest.approx(naive_scores(model, request), abs=1e-4)
    assert engine._find_sharing()


def test_layers_with_windows_of_their_own_get_no_trees(tiny, monkeypatch):
    """Transformers refuses to name one window then."""

    class Mixed:
        @property
        def sliding_window(self):
            raise RuntimeError("may vary across layers")

    model = tiny("llama")
    monkeypatch.setattr(type(model.module.config), "get_text_config", lambda self: Mixed())
    assert sharing.declared_window(model) == 0


def test_an_output_layer_that_is_passed_by_is_an_error(tiny, monkeypatch):
    """Logits of all positions are not those that were asked for."""
    model = tiny("gpt2")
    monkeypatch.setattr(type(model.module), "get_output_embeddings", lambda self: torch.nn.Linear(1, 508))
    monkeypatch.setattr(sharing, "find_sharing", lambda model: Sharing(True, 1))
    with pytest.raises(EngineError, match="does not use its output layer"):
        TorchEngine(model).run([Score(Prompt("boats are"), ("yes", "the cats"))])


def test_a_decoder_side_without_a_first_token_is_an_error(tiny, monkeypatch):
    """Nothing is guessed."""
    model = tiny("t5")
    monkeypatch.setattr(model.module.config, "decoder_start_token_id", None)
    with pytest.raises(EngineError, match="decoder_start_token_id"):
        TorchEngine(model).run([Score(Prompt("boats are"), ("yes",))])


def test_half_precision_is_close(tiny):
    """bfloat16 takes the quick way too, and agrees to its three digits."""
    import copy

    model = tiny("llama")
    half = dataclasses.replace(model, module=copy.deepcopy(model.module).bfloat16(), dtype=torch.bfloat16)
    engine = TorchEngine(half)
    requests = [Score(Prompt(f"boats are {word}"), ("yes", "the cats")) for word in WORDS[:5]]
    for one, other in zip(engine.run(requests), TorchEngine(model).run(requests), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, rel=0.03)
    assert engine._find_sharing()
