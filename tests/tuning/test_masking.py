"""Text with tokens taken out: masked as BERT's, corrupted as T5's; the loss is the model's own; it composes."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskfit.errors import ConfigError, DataError, TrainingError
from taskfit.models.language_model import LanguageModel
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import full_name, parse
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks.task import Task
from taskfit.tuning.answers import choose, mean_loss
from taskfit.tuning.encoder import Encoder
from taskfit.tuning.examples import IGNORED, Example, collate
from taskfit.tuning.loss import sequence_to_sequence_loss
from taskfit.tuning.masked_loss import full_masked_loss, masked_loss
from taskfit.tuning.masking import Masks, Sentinels, masks_of, sentinels_of, span_mask
from taskfit.tuning.preview import preview
from tests.tasks.conftest import json_lines
from tests.tuning.keyword_task import keyword_task, rows, tiny_model
from tests.tuning.test_pretraining import change_of, texts

QUICK = "length=64, epochs=1, min_steps=6, batch=4, learning_rate=0.003"
TUNE = "epochs=1, min_steps=3, batch=4"
MASKS = Masks(mask=4, special=frozenset({0, 2, 3, 4}), words=tuple(range(5, 105)))
SENTINELS = Sentinels(ids=tuple(range(200, 300)), end=(1,))
WORDS = st.lists(st.integers(5, 104), min_size=2, max_size=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def written(tmp_path: Path) -> Task:
    """A task file's folder with 30 texts beside it."""
    (tmp_path / "texts.jsonl").write_text(json_lines([{"text": text} for text in texts(30)]), encoding="utf-8")
    return replace(keyword_task(8, 4), path=tmp_path / "task.yaml")


# --- masked tokens


@given(WORDS, st.integers(0, 10**6))
def test_fifteen_percent_of_the_tokens_are_masked_and_special_ones_never(ids: list[int], seed: int) -> None:
    """At least one; what is learned is what stood there; everything else is as it was."""
    text = (2, *ids, 3)
    made = MASKS.masked("a", text, [seed])
    assert made.learned == max(1, round(0.15 * len(ids)))
    assert all(text[place] == token and token not in MASKS.special for place, token in made.masked)
    hidden = dict(made.masked)
    assert all(shown == text[place] for place, shown in enumerate(made.prompt) if place not in hidden)
    assert made.labels == tuple(hidden.get(place, IGNORED) for place in range(len(text)))
    assert made == MASKS.masked("a", text, [seed])


def test_shares_of_masked_random_and_kept_tokens_are_those_of_transformers_own_collator(folder: Path) -> None:
    """80, 10 and 10 %, within four standard deviations of each other."""
    from transformers import DataCollatorForLanguageModeling

    model = tiny_model(folder, "masked-bert")
    masks = masks_of(model)
    ids = [masks.words[place % len(masks.words)] for place in range(400)]
    ours: list[tuple[int, int]] = []
    theirs: list[tuple[int, int]] = []
    collator = DataCollatorForLanguageModeling(model.tokenizer, mlm_probability=0.15, seed=1)
    for seed in range(60):
        made = masks.masked("a", ids, [seed])
        ours += [(made.prompt[place], token) for place, token in made.masked]
        batch = collator([{"input_ids": ids}])
        labels = batch["labels"][0]
        theirs += [(int(batch["input_ids"][0, p]), int(labels[p])) for p in torch.where(labels != IGNORED)[0]]

    def shares(found: list[tuple[int, int]]) -> list[float]:
        masked = sum(shown == masks.mask for shown, _ in found)
        kept = sum(shown == token for shown, token in found)
        return [masked / len(found), kept / len(found), (len(found) - masked - kept) / len(found)]

    assert len(ours) == 60 * 60
    for one, other, expected in zip(shares(ours), shares(theirs), (0.8, 0.1, 0.1), strict=True):
        for share in (one, other):
            assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / len(ours))


def test_the_masked_loss_is_transformers_own_on_its_own_masks(folder: Path) -> None:
    """Loss and gradients, for the masks that its collator drew, gathered and at every position."""
    from transformers import DataCollatorForLanguageModeling

    model = tiny_model(folder, "masked-bert")
    model.module.requires_grad_(True)
    pieces = [tuple(model.tokenizer(text)["input_ids"]) for text in texts(5)]
    theirs = DataCollatorForLanguageModeling(model.tokenizer, seed=3)([{"input_ids": list(ids)} for ids in pieces])
    examples = [
        Example(
            "a",
            tuple(theirs["input_ids"][row, : len(ids)].tolist()),
            (),
            masked=tuple((p, ids[p]) for p in range(len(ids)) if theirs["labels"][row, p] != IGNORED),
        )
        for row, ids in enumerate(pieces)
    ]
    batch = collate(examples, "encoder", model.tokenizer.pad_token_id)
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(batch[name], theirs[name])
    expected = model.module(**{name: theirs[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    gradients = torch.autograd.grad(expected, list(model.module.parameters()), allow_unused=True)
    for loss in (masked_loss, full_masked_loss):
        found, tokens = loss(model.module, batch)
        assert tokens == int((theirs["labels"] != IGNORED).sum())
        torch.testing.assert_close(found / tokens, expected)
        own = torch.autograd.grad(found / tokens, list(model.module.parameters()), allow_unused=True)
        for mine, other in zip(own, gradients, strict=True):
            if mine is not None and other is not None:
                torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    assert not model.module.base_model._forward_hooks
    assert choose(model, examples).loss_sum is masked_loss


def test_a_head_that_looks_at_other_tokens_gets_all_of_them(folder: Path) -> None:
    """It is found out by trying, and said."""
    model = tiny_model(folder, "masked-bert")
    masks = masks_of(model)
    examples = [masks.masked("a", tuple(model.tokenizer(text)["input_ids"]), [0]) for text in texts(4)]

    def shift(module: torch.nn.Module, given: object, made: torch.Tensor) -> torch.Tensor:
        return made + made.mean(dim=1, keepdim=True)

    model.module.cls.register_forward_hook(shift)  # type: ignore[union-attr, operator]
    chosen = choose(model, examples)
    assert chosen.loss_sum is full_masked_loss and not chosen.gathers and chosen.finding is not None


@given(WORDS)
def test_judged_text_hides_every_token_once(ids: list[int]) -> None:
    """About a seventh at a time, always as the mask."""
    text = (2, *ids, 3)
    parts = MASKS.in_turn("a", text)
    assert sorted(place for part in parts for place, _ in part.masked) == list(range(1, len(text) - 1))
    assert all(part.prompt[place] == MASKS.mask for part in parts for place, _ in part.masked)
    assert max(part.learned for part in parts) <= math.ceil(len(ids) / 7)


def test_the_pseudo_perplexity_is_that_of_masks_set_one_by_one_in_each_part(folder: Path) -> None:
    """The mean over all tokens of -log p, by hand from the model's own logits."""
    model = tiny_model(folder, "masked-bert")
    ids = tuple(model.tokenizer(texts(1)[0])["input_ids"])
    parts = masks_of(model).in_turn("a", ids)
    total = 0.0
    for part in parts:
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([part.prompt])).logits[0].double().log_softmax(-1)
        total -= sum(float(logits[place, token]) for place, token in part.masked)
    assert mean_loss(model, parts) == pytest.approx(total / sum(part.learned for part in parts), rel=1e-5)


# --- corrupted spans


def restored(example: Example) -> list[int]:
    """The text put together again from what is read and what is told."""

    def stretches(ids: tuple[int, ...]) -> list[list[int]]:
        return [list(group) for is_mark, group in groupby(ids[:-1], key=lambda token: token >= 200) if not is_mark]

    kept, hidden = stretches(example.prompt), stretches(example.answer)
    return [token for pair in zip(kept, hidden, strict=True) for part in pair for token in part]


@given(WORDS, st.integers(0, 10**6))
def test_spans_put_back_give_the_text(ids: list[int], seed: int) -> None:
    """Sentinels in order, the first stretch stays, both sides end as texts do."""
    made = SENTINELS.corrupted("a", ids, [seed])
    assert restored(made) == ids
    assert made.prompt[-1] == made.answer[-1] == 1
    for side in (made.prompt, made.answer):
        marks = [token for token in side if token >= 200]
        assert marks == list(range(200, 200 + len(marks)))
    assert made.prompt[0] == ids[0] and made.answer[0] == 200
    hidden = len(ids) + 1 - (len(made.prompt) - sum(token >= 200 for token in made.prompt))
    assert hidden == min(max(1, round(0.15 * len(ids))), len(ids) - 1)


def reference_mask(length: int, rng: np.random.Generator) -> np.ndarray:
    """``random_spans_noise_mask`` as the T5 authors describe it, in numpy."""
    noise = min(max(int(np.round(length * 0.15)), 1), length - 1)
    spans = max(int(np.round(noise / 3.0)), 1)

    def segmentation(items: int, segments: int) -> np.ndarray:
        first = (np.arange(items - 1) < segments - 1).astype(int)
        rng.shuffle(first)
        return np.bincount(np.cumsum(np.concatenate([[0], first])), minlength=segments)

    lengths = np.stack([segmentation(length - noise, spans), segmentation(noise, spans)], axis=1).reshape(-1)
    starts = np.zeros(length, dtype=int)
    starts[np.cumsum(lengths)[:-1]] = 1
    return np.cumsum(starts) % 2 == 1


def test_spans_fall_as_in_the_authors_recipe() -> None:
    """Same number of tokens and spans; every place is hidden as often as there, within five standard deviations."""
    draws = 3000
    ours = np.array([span_mask(60, 100, np.random.default_rng([1, n])) for n in range(draws)])
    theirs = np.array([reference_mask(60, np.random.default_rng([2, n])) for n in range(draws)])
    assert (ours.sum(1) == 9).all() and (theirs.sum(1) == 9).all()
    starts = [(np.diff(masks.astype(int), axis=1) == 1).sum(1) for masks in (ours, theirs)]
    assert (starts[0] == 3).all() and (starts[1] == 3).all()
    gap = np.abs(ours.mean(0) - theirs.mean(0))
    deviation = np.sqrt(2 * theirs.mean(0) * (1 - theirs.mean(0)) / draws)
    assert (gap <= 5 * deviation + 1e-9).all()


def test_few_sentinels_make_fewer_spans() -> None:
    """As many as there are."""
    made = Sentinels((200, 201), (1,)).corrupted("a", list(range(5, 105)), [0])
    assert restored(made) == list(range(5, 105))
    assert [token for token in made.prompt if token >= 200] == [200, 201]


def test_the_loss_of_spans_is_the_models_own(folder: Path) -> None:
    """Labels and sums go through transformers unchanged."""
    model = tiny_model(folder, "span-t5")
    sentinels = sentinels_of(model)
    assert len(sentinels.ids) == 40
    examples = [
        sentinels.corrupted("a", model.tokenizer(text)["input_ids"][:-1], [n]) for n, text in enumerate(texts(3))
    ]
    batch = collate(examples, "encoder-decoder", model.tokenizer.pad_token_id)
    loss, tokens = sequence_to_sequence_loss(model.module, batch)
    own = model.module(**batch).loss
    torch.testing.assert_close(loss / tokens, own)


# --- texts


@pytest.mark.parametrize("family", ["masked-bert", "span-t5"])
def test_every_pass_hides_other_tokens_and_each_seed_has_its_own(folder: Path, written: Task, family: str) -> None:
    """Held-out text is hidden in one way for all seeds; the order of files changes nothing."""
    model = tiny_model(folder, family)  # type: ignore[arg-type]
    change = change_of("continued-pretraining(text=texts.jsonl, length=64, epochs=2, min_steps=0, batch=4)")
    one, same, other = (change.text_set(model, written, seed=seed) for seed in (0, 0, 1))
    assert one == same
    count = one.data.pass_size
    first, second = one.data.examples[:count], one.data.examples[count : 2 * count]
    hidden = [(a.masked or a.answer) != (b.masked or b.answer) for a, b in zip(first, second, strict=True)]
    assert sum(hidden) > 0.6 * count  # a last stretch of a few tokens has few places
    assert one.data.examples != other.data.examples and one.data.held_out == other.data.held_out
    assert one.judged == other.judged
    order = one.data.order
    assert order is not None and len(order) >= change.steps(count, 0) * change.batch
    assert sorted(order[:count]) == list(range(count)) and sorted(order[count : 2 * count]) == list(
        range(count, 2 * count)
    )


def test_a_control_token_in_a_text_is_text_for_an_encoder_too(folder: Path, tmp_path: Path) -> None:
    """A page about masks holds none."""
    model = tiny_model(folder, "masked-bert")
    (tmp_path / "a.txt").write_text("the [MASK] token and [SEP] and [CLS] " * 20, encoding="utf-8")
    task = replace(keyword_task(4, 2), path=tmp_path / "task.yaml")
    found = change_of("continued-pretraining(text=a.txt, length=32)").text_set(model, task, seed=0)
    masks = masks_of(model)
    for example in found.data.examples:
        original = list(example.prompt)
        for place, token in example.masked:
            original[place] = token
        assert original[0] == model.tokenizer.cls_token_id and original[-1] == model.tokenizer.sep_token_id
        assert not masks.special & (set(original[1:-1]) - {model.tokenizer.unk_token_id})


def test_a_preview_marks_hidden_tokens(folder: Path, written: Task) -> None:
    """Nothing is said of ends, duplicates or conflicts."""
    model = tiny_model(folder, "masked-bert")
    change = change_of("continued-pretraining(text=texts.jsonl, length=64, epochs=2, min_steps=0, batch=4)")
    data = change.text_set(model, written, seed=0).data
    seen = preview(model, data, 4)
    assert (seen.unended_rows, seen.duplicate_rows, seen.conflicting_rows) == (0, (), ())
    shown = sum(place < 2 * 60 for place, _ in data.examples[0].masked)
    assert seen.shown[0].count("⟦") == shown > 0
    assert seen.supervised_tokens == sum(len(example.masked) for example in data.examples)


# --- learning


def perplexities(said: list[str], what: str) -> tuple[float, float]:
    """Of held-out text, before and after."""
    (line,) = [line for line in said if line.startswith(f"{what} of held-out text")]
    found = re.search(r"tokens\): ([\d.]+) before, ([\d.]+) after", line)
    assert found is not None
    return float(found[1]), float(found[2])


def judged_loss(model: LanguageModel, name: str, task: Task) -> float:
    """The perplexity that the model has now."""
    return math.exp(mean_loss(model, change_of(name).text_set(model, task, seed=0).judged))


@pytest.mark.parametrize("tune", ["", ", tune=lora(rank=4)"])
@pytest.mark.parametrize(("family", "what"), [("masked-bert", "pseudo-perplexity"), ("span-t5", "perplexity of spans")])
def test_the_perplexity_of_held_out_text_falls(folder: Path, written: Task, family: str, what: str, tune: str) -> None:
    """It is said before and after, and is that of the model that comes out."""
    said: list[str] = []
    model = tiny_model(folder, family)  # type: ignore[arg-type]
    name = f"continued-pretraining(text=texts.jsonl, {QUICK}{tune})"
    start = judged_loss(model, name, written)
    change_of(name).change(model, written, None, seed=0, budget=Budget(say=said.append))  # type: ignore[arg-type]
    before, after = perplexities(said, what)
    assert after < before == pytest.approx(start, abs=0.01)
    assert judged_loss(model, name, written) == pytest.approx(after, abs=0.02)
    assert not any("lora" in part for part, _ in model.module.named_parameters())


@pytest.mark.parametrize(
    ("family", "second"),
    [
        ("masked-bert", f"encoder({TUNE})"),
        ("masked-bert", f"encoder(tune=lora(rank=2), {TUNE})"),
        ("span-t5", f"lora(rank=2, {TUNE})"),
        ("span-t5", f"full({TUNE})"),
    ],
)
def test_what_comes_after_is_saved_and_predicts_the_same(
    folder: Path, tmp_path: Path, written: Task, family: str, second: str
) -> None:
    """From the folder alone, saved again too; the name parses back."""
    strategy = parse(f"continued-pretraining(text=texts.jsonl, {QUICK})+{second}")
    assert parse(strategy.name) == parse(full_name(strategy)) == strategy
    said: list[str] = []
    model = tiny_model(folder, family)  # type: ignore[arg-type]
    made = strategy.fit(model, written, seed=0, budget=Budget(folder=tmp_path / "s", say=said.append))
    assert any("of held-out text" in line for line in said)
    made.save(tmp_path / "saved")
    expected = list(made.predict(rows(6)))
    loaded = load_predictor(tmp_path / "saved")
    assert list(loaded.predict(rows(6))) == expected
    loaded.save(tmp_path / "again")
    shutil.rmtree(tmp_path / "saved")
    assert list(load_predictor(tmp_path / "again").predict(rows(6))) == expected
    plain = parse(second).fit(tiny_model(folder, family), written, seed=0, budget=Budget())  # type: ignore[arg-type]
    assert list(plain.predict(rows(6))) != expected  # what was learned first counts


@pytest.mark.parametrize("stage", ["first", "second"])
def test_a_killed_fit_of_an_encoder_goes_on_bit_for_bit(
    folder: Path, tmp_path: Path, written: Task, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while masks are learned, or labels, and made again."""

    class StopError(Exception):
        pass

    name = f"continued-pretraining(text=texts.jsonl, {QUICK})+encoder(epochs=1, min_steps=6, batch=4)"
    monkeypatch.setattr("taskfit.tuning.train_report.SAY_EVERY_S", -1.0)

    def fit(scratch: str, stop: bool = False) -> list[object]:
        is_second = False

        def say(line: str) -> None:
            nonlocal is_second
            is_second = is_second or "perplexity" in line
            if stop and line.startswith("step 2 of") and is_second == (stage == "second"):
                raise StopError

        budget = Budget(folder=tmp_path / scratch, say=say)
        made = parse(name).fit(tiny_model(folder, "masked-bert"), written, seed=0, budget=budget)
        return list(made.predict(rows(6)))

    through = fit("a")
    with pytest.raises(StopError):
        fit("b", stop=True)
    assert fit("b") == through


# --- bad input


def test_models_without_the_parts_are_refused_before_anything_runs(folder: Path, written: Task) -> None:
    """An encoder without its head, a tokenizer without sentinels."""
    with pytest.raises(ConfigError, match="without a masked-token head"):
        parse("continued-pretraining+encoder").fit(tiny_model(folder, "bert"), written, seed=0, budget=Budget())
    with pytest.raises(ConfigError, match="has no sentinels"):
        parse("continued-pretraining+lora").fit(tiny_model(folder, "t5"), written, seed=0, budget=Budget())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder(pretraining=lora)", "pretraining must be continued-pretraining"),
        ("encoder(pretraining=continued-pretraining+lora)", "pretraining must be continued-pretraining"),
        ("continued-pretraining+encoder(pretraining=continued-pretraining)", "pretraining is given twice"),
        ("continued-pretraining+linear", "linear stands alone"),
        ("continued-pretraining+encoder+few-shot", "encoder stands alone"),
    ],
)
def test_faulty_names_are_refused(name: str, message: str) -> None:
    """With what would do."""
    with pytest.raises(ConfigError, match=message):
        parse(name)


def test_the_text_of_an_encoders_pretraining_counts(written: Task) -> None:
    """It is checked before a plan, and other text makes another trial."""
    strategy = parse("continued-pretraining(text=texts.jsonl)+encoder")
    assert isinstance(strategy, Encoder)
    assert strategy.name == "encoder(pretraining=continued-pretraining(text=texts.jsonl))"
    before = strategy.other_data(written)
    assert written.path is not None and before != parse("encoder").other_data(written) == ""  # type: ignore[attr-defined]
    written.path.with_name("texts.jsonl").write_text(json_lines([{"text": "another"}]), encoding="utf-8")
    assert strategy.other_data(written) != before
    with pytest.raises(DataError, match=r"none\.txt"):
        parse("continued-pretraining(text=none.txt)+encoder").check_task(written)  # type: ignore[attr-defined]


def test_a_head_that_fails_on_fewer_tokens_gets_all_of_them(folder: Path) -> None:
    """As one that wants the batch's shape back."""
    model = tiny_model(folder, "masked-bert")
    examples = [masks_of(model).masked("a", tuple(model.tokenizer(text)["input_ids"]), [0]) for text in texts(4)]

    def shaped(module: torch.nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> torch.Tensor:
        if len(given[0]) != len(examples):
            raise ValueError("the batch has lost rows")
        return made

    model.module.cls.register_forward_hook(shaped)  # type: ignore[union-attr, operator]
    assert choose(model, examples).loss_sum is full_masked_loss


def test_a_broken_encoder_is_refused_before_it_trains(folder: Path) -> None:
    """Its weights are named as the fault."""
    model = tiny_model(folder, "masked-bert")
    next(model.module.parameters()).data.fill_(float("nan"))
    examples = [masks_of(model).masked("a", tuple(model.tokenizer(texts(1)[0])["input_ids"]), [0])]
    with pytest.raises(TrainingError, match="logits that are not finite"):
        choose(model, examples)
