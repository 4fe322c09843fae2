"""Generation in slots, constrained or not, against plain one-request-at-a-time loops."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import random
from collections.abc import Callable

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfit.errors import EngineError, ResourceError
from taskfit.inference import continuous
from taskfit.inference.answers import Answer
from taskfit.inference.continuous import slot_bytes, tokens_to_keep
from taskfit.inference.requests import Generate, Generated, Score
from taskfit.inference.slots import Bank, common_start, plan_bank
from taskfit.inference.torch_engine import TorchEngine
from taskfit.models import LanguageModel
from taskfit.models.encoding import encode
from taskfit.models.quiet import quiet_transformers
from taskfit.tasks.prompt import Prompt, Shot
from taskfit.testing import PARAGRAPH
from tests.inference.naive import naive_greedy

WORDS = PARAGRAPH.split()
FEW = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
    "initializer_range": 0.15,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
CONFIGS = {  # by name of the configuration class; windows so short that they matter
    "LlamaConfig": GROUPED,
    "Qwen2Config": GROUPED,
    "MistralConfig": GROUPED | {"sliding_window": 8},
    "GemmaConfig": GROUPED | {"head_dim": 8},
    "Gemma2Config": GROUPED | {"head_dim": 8, "sliding_window": 8},
    "GPTNeoXConfig": SIZES,
    "GPT2Config": {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 160},
}
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"label": {"enum": ["yes", "no"]}, "boats": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["label", "boats"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="session")
def other(tiny: Callable[[str], LanguageModel]) -> Callable[..., LanguageModel]:
    """Return a function from the name of a configuration class to a tiny random model of it."""
    made: dict[str, LanguageModel] = {}

    def get(name: str, **sizes: object) -> LanguageModel:
        import transformers

        if name not in made:
            torch.manual_seed(0)
            with quiet_transformers():
                config = getattr(transformers, name)(**(sizes or CONFIGS[name]))
                module = transformers.AutoModelForCausalLM.from_config(config).eval()
            made[name] = dataclasses.replace(tiny("llama"), module=module)
        return made[name]

    return get


def drawn(number: int, longest: int, seed: int, **fields: object) -> list[Generate]:
    """Requests with prompts and answers of all lengths."""
    draw = random.Random(seed)
    return [
        Generate(
            Prompt(" ".join(draw.choices(WORDS, k=draw.randint(1, 14)))),
            draw.randint(1, longest),
            **{"seed": draw.randrange(1000), **fields},
        )
        for _ in range(number)
    ]


def plain_loop(model: LanguageModel, request: Generate) -> list[int]:
    """Sample one answer with a whole pass a token; the formula of the nucleus in a loop."""
    ids = list(encode(model, request.prompt, room=request.max_tokens).prompt)
    generator = torch.Generator().manual_seed(request.seed)
    tokens: list[int] = []
    while len(tokens) < request.max_tokens and not (tokens and tokens[-1] in model.end_token_ids):
        with torch.no_grad():
            logits = model.module(torch.tensor([ids + tokens])).logits[0, -1].double()
        chances = torch.softmax(logits / request.temperature, -1).tolist()
        order = range(len(chances))
        if request.top_p < 1:
            order = sorted(order, key=lambda token: -chances[token])
            sums = itertools.accumulate(chances[token] for token in order)
            order = [token for token, total in zip(order, sums, strict=False) if total - chances[token] < request.top_p]
        aim = float(torch.rand((), generator=generator, dtype=torch.float64)) * sum(chances[token] for token in order)
        for token in order:
            aim -= chances[token]
            if aim < 0:
                break
        tokens.append(token)
    return tokens


def as_text(model: LanguageModel, tokens: list[int]) -> str:
    ended = tokens[-1] in model.end_token_ids
    return model.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True).removeprefix(" ")


def close(responses: list[Generated]) -> list[Generated]:
    return [dataclasses.replace(one, logprob=pytest.approx(one.logprob, abs=1e-3)) for one in responses]


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_answers_equal_transformers_for_every_family(other, name):
    """Rows that leave and enter, chunks of prompts, windows and capped scores change nothing."""
    model = other(name)
    requests = drawn(9, 14, seed=3)
    engine = TorchEngine(model, batch_tokens=12)  # so that rows wait for slots, and prompts are read in parts
    responses = engine.run(requests)
    assert engine._slot_bytes
    for request, response in zip(requests, responses, strict=True):
        expected = naive_greedy(model, request)
        assert response.tokens == len(expected)
        assert response.text == as_text(model, expected)


@pytest.mark.parametrize("name", ["BloomConfig", "FalconConfig"])
def test_a_family_with_attention_of_its_own_gets_fixed_batches(other, name):
    """Positions that are no input, or a bias in attention: found out by trying, and answered rightly."""
    small = {"vocab_size": 512, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    model = other(name, **small, alibi=True) if name == "FalconConfig" else other(name, **small)
    engine = TorchEngine(model)
    requests = drawn(5, 6, seed=5)
    for request, response in zip(requests, engine.run(requests), strict=True):
        assert response.text == as_text(model, naive_greedy(model, request))
    assert engine._slot_bytes == 0


def test_a_text_keeps_the_spaces_that_were_written(tiny):
    """Some tokenizers are set to take those before punctuation out, and a stop text with one would never be seen."""
    tokenizer = copy.deepcopy(tiny("t5").tokenizer)
    tokenizer.clean_up_tokenization_spaces = True
    model = dataclasses.replace(tiny("t5"), tokenizer=tokenizer)
    tokens = tokenizer("the cats , who sleep . Later", add_special_tokens=False)["input_ids"]
    for stop, text in (((), "the cats , who sleep . Later"), ((" .",), "the cats , who sleep")):
        request = Generate(Prompt("Who?"), len(tokens), stop)
        answer = Answer(model, request, encode(model, request.prompt))
        for token in tokens:
            if answer.finish is None:
                answer.add(token, -1.0)
        assert answer.result().text == text


WINDOWED = GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1, "eos_token_id": 2, "head_dim": 8}
FIXED_WITH_WINDOWS = {
    "GptOssConfig": WINDOWED | {"sliding_window": 8},
    "Llama4TextConfig": WINDOWED | {"attention_chunk_size": 8, "intermediate_size_mlp": 64},
}


@pytest.mark.parametrize("name", FIXED_WITH_WINDOWS)
def test_rows_that_are_taken_out_of_a_batch_leave_the_windows_of_the_others_as_they_were(other, name):
    """A layer with a window keeps its last tokens only; what it has forgotten still counts for positions."""
    model = other(name, **FIXED_WITH_WINDOWS[name])
    engine = TorchEngine(model)
    requests = [Generate(Prompt(" ".join(WORDS[i : i + 4 + 3 * i])), (3, 5, 24, 24, 30)[i]) for i in range(5)]
    for request, response in zip(requests, engine.run(requests), strict=True):
        assert response.text == as_text(model, naive_greedy(model, request))
    assert engine._slot_bytes == 0


@pytest.mark.parametrize("name", ["GPTNeoConfig", "GPTJConfig"])
def test_a_long_prompt_and_a_long_answer_need_not_fit_into_the_context_together(other, name):
    """A finished row is read on beside the others, and padding takes places too."""
    old = {"vocab_size": 512, "eos_token_id": 2, "initializer_range": 0.2}
    sizes = {"GPTNeoConfig": {"max_position_embeddings": 80, "hidden_size": 32, "num_layers": 2, "num_heads": 4}}
    sizes["GPTNeoConfig"] |= {"attention_types": [[["global", "local"], 1]], "window_size": 8}
    sizes["GPTJConfig"] = {"n_positions": 80, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}
    model = dataclasses.replace(other(name, **old, **sizes[name]), context=80)
    requests = [Generate(Prompt(" ".join(WORDS[:22])), 3), *(Generate(Prompt(WORDS[i]), 60) for i in range(5))]
    engine = TorchEngine(model)
    for request, response in zip(requests, engine.run(requests), strict=True):
        assert response.text == as_text(model, naive_greedy(model, request))
    assert engine._slot_bytes == 0


def test_a_recurrent_model_is_refused(other):
    """It keeps no keys and values."""
    model = other("MambaConfig", vocab_size=512, hidden_size=32, num_hidden_layers=2)
    with pytest.raises(EngineError, match="keeps no keys and values"):
        TorchEngine(model).run(drawn(2, 3, seed=1))


def test_an_attention_that_gives_other_numbers_is_found_out(tiny, monkeypatch):
    """A model that ignores our positions runs in fixed batches."""
    model = tiny("llama")
    forward = type(model.module).forward

    def ignore_positions(self, *args, **inputs):
        inputs.pop("position_ids", None)
        return forward(self, *args, **inputs)

    with torch.no_grad():
        assert slot_bytes(model)
        monkeypatch.setattr(type(model.module), "forward", ignore_positions)
        assert not slot_bytes(model)
    assert model.module.config._attn_implementation != "taskfit_slots"


@FEW
@given(
    seed=st.integers(0, 99),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    batch_tokens=st.sampled_from([5, 15, 4096]),
    worked=st.sampled_from([(), (Shot("the harbour opens at six and the market wakes up. Open?", "yes"),) * 2]),
)
def test_samples_equal_a_plain_loop_whatever_runs_beside_them(tiny, seed, top_p, batch_tokens, worked):
    """Each answer is what its own seed draws from whole passes, in any company and order."""
    model = tiny("gpt2")
    requests = [
        dataclasses.replace(request, prompt=dataclasses.replace(request.prompt, shots=worked))
        for request in drawn(7, 9, seed, temperature=0.8, top_p=top_p)
    ]
    random.Random(seed).shuffle(requests)
    for request, response in zip(requests, TorchEngine(model, batch_tokens=batch_tokens).run(requests), strict=True):
        expected = plain_loop(model, request)
        assert (response.text, response.tokens) == (as_text(model, expected), len(expected))


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_many_answers_at_once_are_those_of_one_at_a_time(tiny, kind):
    """More requests than slots, with samples, stops and constraints side by side."""
    model = tiny(kind)
    requests = drawn(20, 10, seed=7, temperature=1.0)
    requests[3] = dataclasses.replace(requests[3], stop=("e",))
    requests[4] = dataclasses.replace(requests[4], choices=("yes", "the cats"), max_tokens=9)
    together = TorchEngine(model, batch_tokens=10).run(requests)
    assert [TorchEngine(model).run([request])[0] for request in requests] == close(together)


def test_bfloat16_chooses_what_one_at_a_time_chooses_almost_always(tiny):
    """Rounding is coarser there; a choice differs only where two tokens are nearly as likely."""
    model = tiny("llama")
    module = type(model.module)(model.module.config).bfloat16().eval()
    module.load_state_dict(model.module.state_dict())
    coarse = dataclasses.replace(model, module=module, dtype=torch.bfloat16)
    requests = [dataclasses.replace(request, max_tokens=1) for request in drawn(40, 1, seed=9)]
    engine = TorchEngine(coarse)
    together, alone = engine.run(requests), [engine.run([request])[0] for request in requests]
    assert sum(one.text == two.text for one, two in zip(together, alone, strict=True)) >= 38


def test_rows_enter_as_others_leave(tiny, monkeypatch):
    """The number of passes is near what the tokens need, not what the longest of each batch needs."""
    model, passes = tiny("llama"), []
    run_pass = continuous.run_pass
    monkeypatch.setattr(continuous, "run_pass", lambda *a: passes.append(len(a[1].ids[0])) or run_pass(*a))
    requests = [Generate(Prompt(f"boats {WORDS[n]}"), 40 if n % 8 == 0 else 2) for n in range(32)]
    TorchEngine(model, batch_tokens=25).run(requests)  # 200 tokens: 4 slots of the longest
    assert len(passes) < 60  # four at a time, in fixed batches of the order given: 8 times 40


def test_banks_never_take_more_than_they_may(tiny, monkeypatch):
    """What is kept at once stays within the budget, the shared beginning included."""
    model, most = tiny("llama"), []
    step = continuous._Run._step

    def watched(self):
        kept = sum(bank.slots * bank.capacity for bank in self._banks)
        most.append((kept + (self._shared.capacity if self._shared else 0), self._tokens))
        return step(self)

    monkeypatch.setattr(continuous._Run, "_step", watched)
    worked = (Shot("the harbour opens at six and the market wakes up. Open?", "yes"),)
    requests = [dataclasses.replace(r, prompt=Prompt(r.prompt.text, worked)) for r in drawn(25, 20, seed=2)]
    TorchEngine(model, batch_tokens=15).run(requests)
    assert most and all(kept <= budget == 120 for kept, budget in most)


@given(
    needs=st.lists(st.integers(1, 300), min_size=1, max_size=60).map(lambda found: sorted(found, reverse=True)),
    free_tokens=st.integers(0, 5000),
    free_rows=st.integers(0, 100),
)
def test_a_bank_fits_and_is_at_least_half_needed(needs, free_tokens, free_rows):
    """The plan holds for any lengths."""
    slots, capacity = plan_bank(needs, free_tokens, free_rows)
    assert capacity == needs[0]
    assert 0 <= slots <= free_rows and slots * capacity <= free_tokens
    assert sum(needs[:slots]) * 2 >= slots * capacity
    if slots < min(free_rows, free_tokens // capacity):
        assert slots == len(needs) or needs[slots] * 2 < capacity


def test_kept_tokens_are_planned_from_the_weights(tiny):
    """At least a batch, at most eight; between these a gibibyte, or half of what the weights take."""
    model = tiny("llama")
    with torch.no_grad():
        assert slot_bytes(model) == 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, width, bytes
    assert tokens_to_keep(model, 100, 256) == 800
    assert tokens_to_keep(model, 100, 1 << 22) == 256
    assert tokens_to_keep(model, 100, 1 << 40) == 100


@given(one=st.lists(st.integers(0, 1), max_size=20), other=st.lists(st.integers(0, 1), max_size=20))
def test_common_start_is_where_a_loop_stops(one, other):
    """Halving finds the same place."""
    expected = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert common_start(one, other) == expected


def test_a_row_longer_than_the_budget_runs_alone(tiny):
    """It is answered all the same."""
    model = tiny("llama")
    requests = [Generate(Prompt(" ".join(WORDS[:40])), 5), Generate(Prompt("boats"), 3)]
    assert TorchEngine(model).run(requests) == close(TorchEngine(model, batch_tokens=3).run(requests))


def test_what_prompts_share_is_read_once(tiny):
    """All prompts, some of them, or one asked several times: never computed twice."""
    model = tiny("gpt2")

    def computed(texts):
        engine = TorchEngine(model)
        answers = engine.run([Generate(Prompt(text), 1, temperature=1.0, seed=n) for n, text in enumerate(texts)])
        return engine.work.computed_tokens, [answer.prompt_tokens for answer in answers]

    long, another = " ".join(WORDS[:25]), " ".join(WORDS[30:60])
    count, lengths = computed([long] * 5)
    assert count == lengths[0] - 1 + 5  # what they share is all but the last token
    once, lengths = computed([long, another])
    again, _ = computed([long, another] * 4)
    assert once == sum(lengths)
    assert again == once + 6  # six more rows, each with its last token
    families = [f"{text} {word}" for text in (long, another) for word in ("boats", "cats", "fish")]
    count, lengths = computed(families)
    assert count < sum(lengths) / 2


def test_slots_are_moved_together_when_few_are_left(tiny, monkeypatch):
    """The last rows do not drag empty slots along, and go on where they were."""
    model, moves = tiny("llama"), []
    copy = Bank.copy
    monkeypatch.setattr(Bank, "copy", lambda self, slot, source, number, length: (
        moves.append((slot, number)) or copy(self, slot, source, number, length)
    ))  # fmt: skip
    requests = [Generate(Prompt(f"{word} boats"), 20 if n > 8 else 3, temperature=1.0, seed=n)
                for n, word in enumerate(WORDS[:10])]  # fmt: skip
    requests = [
        dataclasses.replace(r, prompt=Prompt(r.prompt.text + " at sea" * (9 - n))) for n, r in enumerate(requests)
    ]
    together = TorchEngine(model).run(requests)
    assert moves
    assert [TorchEngine(model).run([request])[0] for request in requests] == close(together)


def test_memory_that_runs_out_halves_rows_and_budget(tiny, monkeypatch):
    """All is answered; a single row that does not fit is an error."""
    model = tiny("llama")
    requests = drawn(8, 5, seed=4)
    expected = TorchEngine(model).run(requests)
    run_pass = continuous.run_pass

    def scarce(module, planned, parts, most=30):
        if planned.ids.shape[1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run_pass(module, planned, parts)

    monkeypatch.setattr(continuous, "slot_bytes", lambda model: 1024)
    monkeypatch.setattr(continuous, "run_pass", scarce)
    assert TorchEngine(model).run(requests) == close(expected)
    monkeypatch.setattr(continuous, "run_pass", lambda *a: scarce(*a, most=0))
    with pytest.raises(ResourceError, match="single row"):
        TorchEngine(model).run(requests)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "chat", "t5"])
@FEW
@given(data=st.data())
def test_a_stop_text_is_seen_with_the_very_token_that_completes_it(tiny, kind, data):
    """Looking at the newest tokens only finds what decoding the whole answer at every token finds."""
    model = tiny(kind)
    tokens = data.draw(st.lists(st.integers(3, model.tokenizer.vocab_size - 1), min_size=1, max_size=30))
    text = model.tokenizer.decode(tokens, skip_special_tokens=True)
    first = data.draw(st.integers(0, max(len(text) - 1, 0)))
    stop = text[first : first + data.draw(st.integers(1, 9))] or "boats"
    request = Generate(Prompt("boats"), 99, stop=(stop, "never-this"))
    answer = Answer(dataclasses.replace(model, end_token_ids=(-1,)), request, encode(model, request.prompt))
    decoded = [model.tokenizer.decode(tokens[: n + 1], skip_special_tokens=True) for n in range(len(tokens))]
    expected = next((number for number, so_far in enumerate(decoded) if stop in so_far), None)
    seen = None
    for number, token in enumerate(tokens):
        answer.add(token, 0.0)
        if answer.finish is not None:
            seen = number
            break
    assert seen == expected


CHOICES = ("yes", "yes sir", "no  way", "Nö", "the cats who have been waiting")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "chat", "t5"])
def test_an_answer_is_one_of_the_choices(tiny, kind):
    """Also when sampled hot, when one text goes on as another, and where the tokenizer merges spaces."""
    model = tiny(kind)
    requests = [
        Generate(
            Prompt(f"{word} boats"), 40, temperature=heat, seed=n, choices=CHOICES if kind != "t5" else CHOICES[:2]
        )
        for n, word in enumerate(WORDS[:12])
        for heat in (0.0, 3.0)
    ]
    for request, response in zip(requests, TorchEngine(model).run(requests), strict=True):
        assert response.text in request.choices
        assert response.finish == "end"


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_the_logprob_of_a_choice_is_its_score(tiny, kind):
    """Under the model without the constraint, so it compares with what Score gives."""
    model = tiny(kind)
    prompt, choices = Prompt("is it so?"), ("yes", "no", "the cats")
    answer, scored = TorchEngine(model).run([Generate(prompt, 9, choices=choices), Score(prompt, choices)])
    place = choices.index(answer.text)
    assert answer.logprob == pytest.approx(scored.logprobs[place], abs=1e-4)
    assert (answer.tokens, answer.prompt_tokens) == (scored.tokens[place], scored.prompt_tokens)


def test_choices_are_drawn_in_proportion(tiny):
    """Single-token texts: how often each comes follows the model's own odds."""
    model = tiny("llama")
    prompt, choices = Prompt("boats"), (" the", " and", " a")
    requests = [Generate(prompt, 3, temperature=1.0, seed=seed, choices=choices) for seed in range(300)]
    *answers, scored = TorchEngine(model).run([*requests, Score(prompt, choices)])
    assert set(scored.tokens) == {1}
    total = sum(map(math.exp, scored.logprobs))
    for text, logprob in zip(choices, scored.logprobs, strict=True):
        share, chance = sum(answer.text == text for answer in answers) / 300, math.exp(logprob) / total
        assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / 300) + 1e-3


@pytest.mark.parametrize("kind", ["llama", "gpt2", "chat"])
def test_an_answer_satisfies_its_schema(tiny, kind):
    """At any temperature, from random weights, beside free answers."""
    requests = [
        Generate(Prompt(f"{word} boats"), 60, temperature=heat, top_p=0.95, seed=n, json_schema=SCHEMA)
        for n, word in enumerate(WORDS[:6])
        for heat in (0.0, 3.0)
    ]
    free = drawn(3, 5, seed=1)
    *responses, _, _, _ = TorchEngine(tiny(kind)).run([*requests, *free])
    for response in responses:
        jsonschema.validate(json.loads(response.text), json.loads(SCHEMA))
        assert response.finish == "end" and "\n" not in response.text


@pytest.mark.parametrize("fields", [{"choices": ("the cats who have been waiting",)}, {"json_schema": SCHEMA}])
def test_too_few_tokens_for_a_constraint_are_said(tiny, fields):
    """Finish tells that the text is only a beginning."""
    (response,) = TorchEngine(tiny("gpt2")).run([Generate(Prompt("boats"), 2, **fields)])
    assert (response.finish, response.tokens) == ("length", 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"json_schema": "{"}, "must be JSON"),
        ({"json_schema": "[1]"}, "must be a JSON object"),
        ({"json_schema": '{"type": "nonsense"}'}, "Invalid type: nonsense"),
        ({"json_schema": '{"$ref": "#/nowhere"}'}, "cannot be followed"),
        ({"choices": ("yes", "")}, "a choice is empty"),
        ({"choices": ("yes", " yes")}, "have the same tokens"),
        ({"choices": ("yes",), "stop": ("e",)}, "exclude each other"),
        ({"choices": ("yes",), "json_schema": "{}"}, "exclude each other"),
    ],
)
def test_an_impossible_constraint_is_refused_with_its_reason(tiny, fields, message):
    """Before anything is computed."""
    engine = TorchEngine(tiny("gpt2"))
    with pytest.raises(EngineError, match=message):
        engine.run([Generate(Prompt("a"), 5), Generate(Prompt("a"), 5, **fields)])
    assert engine.work.computed_tokens == 0


def test_a_tokenizer_that_cannot_follow_bytes_is_refused(tiny):
    """T5's pieces have no bytes; choices work with them."""
    with pytest.raises(EngineError, match="cannot be held to a JSON schema") as caught:
        TorchEngine(tiny("t5")).run([Generate(Prompt("a"), 5, json_schema="{}")])
    assert "choices" in str(caught.value.hint)
