"""Pre-training that goes on: text is packed without mixing, learned, and the result is tuned or asked."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskfit.errors import ConfigError, DataError, TrainingError
from taskfit.strategy.composed import Composed
from taskfit.strategy.contract import Budget
from taskfit.strategy.grammar import full_name, parse
from taskfit.strategy.predictor import load_predictor
from taskfit.tasks.sources import FileSource
from taskfit.tasks.task import Row, Task
from taskfit.tasks.text import Document, documents_of, task_documents
from taskfit.tuning import pretraining
from taskfit.tuning.answers import mean_loss
from taskfit.tuning.examples import IGNORED, Example, collate
from taskfit.tuning.loss import full_logits_loss, gathered_loss
from taskfit.tuning.packing import pack, packed_example, pieces_of, unpacked
from taskfit.tuning.pretraining import ContinuedPretraining
from taskfit.tuning.preview import preview
from tests.tasks.conftest import json_lines
from tests.tuning.keyword_task import NOUNS, Family, keyword_task, rows, tiny_model

QUICK = "length=64, epochs=1, min_steps=6, batch=4, learning_rate=0.003"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this file's tiny models lie."""
    return tmp_path_factory.mktemp("models")


def texts(count: int) -> list[str]:
    """Different texts of different lengths."""
    return [
        f"the {NOUNS[n % 12]} and the {NOUNS[(n * 5 + 1) % 12]} met in the harbour, said number {n}. " * (1 + n % 4)
        for n in range(count)
    ]


@pytest.fixture
def written(tmp_path: Path) -> Task:
    """A task file's folder with 30 texts beside it."""
    (tmp_path / "texts.jsonl").write_text(json_lines([{"text": text} for text in texts(30)]), encoding="utf-8")
    return replace(keyword_task(8, 4), path=tmp_path / "task.yaml")


def change_of(name: str) -> ContinuedPretraining:
    strategy = parse(name)
    assert isinstance(strategy, Composed) and isinstance(strategy.weights, ContinuedPretraining)
    return strategy.weights


# --- packing


@given(st.lists(st.integers(1, 50), max_size=60))
def test_every_piece_is_packed_once_and_fits(lengths: list[int]) -> None:
    """No sequence is longer than allowed, and no two of them could have been one."""
    groups = pack(lengths, 50)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    sizes = sorted(sum(lengths[index] for index in group) for group in groups)
    assert all(size <= 50 for size in sizes)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > 50


def test_a_text_begins_and_ends_as_the_models_do(folder: Path) -> None:
    """BOS once where there is one, EOS at the end; long ones are cut into pieces, nothing is lost."""
    for family, has_start in (("llama", True), ("gpt2", False)):
        model = tiny_model(folder, family)  # type: ignore[arg-type]
        (whole,) = pieces_of(model, Document("a", texts(4)[3]), 512)
        assert (whole[0] == model.tokenizer.bos_token_id) == has_start or not has_start
        assert whole[-1] == model.tokenizer.eos_token_id
        assert whole.count(model.tokenizer.eos_token_id) == 1
        pieces = pieces_of(model, Document("a", texts(4)[3]), 16)
        assert tuple(token for piece in pieces for token in piece) == whole
        assert all(len(piece) == 16 for piece in pieces[:-1])


def test_a_control_token_in_a_text_is_text(folder: Path) -> None:
    """A page about tokenizers must not end in its middle."""
    model = tiny_model(folder, "llama")
    (piece,) = pieces_of(model, Document("a", "the token </s> ends it"), 512)
    assert piece.count(model.tokenizer.eos_token_id) == 1


def test_first_tokens_of_texts_are_never_learned(folder: Path) -> None:
    """What stands before them belongs to another text; positions begin anew with each, and with padding."""
    example = packed_example("a", [(1, 5, 6), (1, 7), (1, 8, 9, 2)])
    batch = collate([example, Example("b", (1,), (4, 5, 2))], "decoder", 0)
    assert "attention_mask" not in batch
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3], [0, 1, 2, 3, 0, 1, 2, 3, 4]]
    first = batch["labels"][0].tolist()
    assert first == [IGNORED, 5, 6, IGNORED, 7, IGNORED, 8, 9, 2]
    assert example.learned == 6


@pytest.mark.parametrize("family", ["llama", "gpt2", "plain", "chat"])
@pytest.mark.parametrize("loss", [gathered_loss, full_logits_loss])
def test_the_packed_loss_is_that_of_each_text_by_itself(folder: Path, family: Family, loss) -> None:  # type: ignore[no-untyped-def]
    """Text by text, within 1e-5: no attention across, positions from 0 (learned ones in GPT-2)."""
    model = tiny_model(folder, family)
    pieces = [pieces_of(model, Document("a", text), 512)[0] for text in texts(7)]
    packed = packed_example("a", pieces)
    other = packed_example("b", pieces[:2])  # shorter, so that there is padding
    with torch.no_grad():
        together = float(loss(model.module, collate([packed, other], "decoder", 0))[0])
        alone = [float(loss(model.module, collate([one], "decoder", 0))[0]) for one in unpacked(packed)]
    assert [one.prompt + one.answer for one in unpacked(packed)] == pieces
    assert together == pytest.approx(sum(alone) + sum(alone[:2]), rel=1e-5)
    for number, expected in enumerate(alone):  # only this text is learned
        others = [n for n in range(len(pieces)) if n != number]
        starts = [sum(map(len, pieces[:n])) for n in range(len(pieces))]
        spans = [(max(starts[n] - 1, 0), starts[n] + len(pieces[n]) - 1) for n in others]
        read = tuple(sorted([*spans, *([(starts[number] - 1, starts[number])] if number else [])]))
        own = replace(packed, read=read)
        with torch.no_grad():
            got, tokens = loss(model.module, collate([own], "decoder", 0))
        assert tokens == len(pieces[number]) - 1
        assert float(got) == pytest.approx(expected, rel=1e-5)


def test_gradients_of_packed_texts_are_those_of_single_ones(folder: Path) -> None:
    """Not only the loss."""
    model = tiny_model(folder, "llama")
    pieces = [pieces_of(model, Document("a", text), 512)[0] for text in texts(5)]

    def gradient(examples: list[Example]) -> torch.Tensor:
        model.module.zero_grad()
        model.module.requires_grad_(True)
        for example in examples:
            gathered_loss(model.module, collate([example], "decoder", 0))[0].backward()
        return torch.cat([value.grad.flatten() for value in model.module.parameters() if value.grad is not None])

    packed = packed_example("a", pieces)
    together, apart = gradient([packed]), gradient(unpacked(packed))
    assert float((together - apart).norm() / apart.norm()) < 1e-5


def test_a_model_that_mixes_packed_texts_gets_them_one_by_one(
    folder: Path, written: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried on one sequence, and said."""
    losses = iter([2.0, 2.5])
    monkeypatch.setattr("taskfit.tuning.answers.mean_loss", lambda model, examples, chosen: next(losses))
    said: list[str] = []
    model, change = tiny_model(folder, "llama"), change_of(f"continued-pretraining(text=texts.jsonl, {QUICK})")
    data = pretraining._as_it_packs(model, change.text_set(model, written, seed=0), None, Budget(say=said.append)).data  # type: ignore[arg-type]
    assert all(len(example.documents) == 0 for example in data.examples)
    assert data.pass_size == len(data.examples) > 10
    assert said[0].startswith("this model does not keep packed texts apart (loss 2.0000 together, 2.5000 apart)")


# --- text


def test_text_files_are_documents_and_rows_of_tables_too(tmp_path: Path) -> None:
    """Compressed or not; the same text counts once."""
    import gzip

    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(b"# three"))
    (tmp_path / "c.jsonl").write_text(json_lines([{"body": "four"}, {"body": "four"}, {"body": " "}]), encoding="utf-8")
    beside = tmp_path / "task.yaml"
    assert [one.text for one in documents_of("*.txt", beside, "text")] == ["one\n\ntwo"]
    assert [one.text for one in documents_of("b.md.gz", beside, "text")] == ["# three"]
    assert [one.text for one in documents_of("c.jsonl", beside, "body")] == ["four"]
    assert [one.text for one in documents_of(str(tmp_path / "a.txt"), None, "text")] == ["one\n\ntwo"]


def test_the_tasks_own_text_leaves_out_what_is_tested(tmp_path: Path) -> None:
    """Training inputs and rows without an answer, but none that stands in validation or test."""
    task = keyword_task(3, 2)
    path = tmp_path / "more.jsonl"
    more = [{"text": "a new text", "label": ""}, {"text": str(task.test[0].fields["text"]), "label": ""}]
    path.write_text(json_lines(more), encoding="utf-8")
    task = replace(task, unlabelled=(FileSource(str(path)),))
    found = [document.text for document in task_documents(task)]
    assert found == [*(str(row.fields["text"]) for row in task.train), "a new text"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, r"none\.txt: cannot be read as text"),
        ("*.none", None, "no file has a name like this"),
        ("a.txt", b"  \n", "no text in 1 files"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as text"),
        ("a.txt.gz", b"no gzip", "cannot be read as text"),
        ("a.jsonl", b'{"body": "x"}\n', "row 1 has no text in the field 'text' .it has body."),
        ("a.jsonl", b'{"text": 7}\n', "has no text in the field"),
    ],
)
def test_faulty_text_is_refused_before_anything_runs(
    folder: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """With the file."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    task = replace(keyword_task(8, 4), path=tmp_path / "task.yaml")
    with pytest.raises(DataError, match=message):
        parse(f'continued-pretraining(text="{name}")').check_task(task)  # type: ignore[attr-defined]


def test_too_little_text_is_refused(folder: Path) -> None:
    """One short text cannot be learned and looked at."""
    task = keyword_task(1, 0)
    with pytest.raises(TrainingError, match="too little text"):
        change_of("continued-pretraining").text_set(tiny_model(folder, "llama"), task, seed=0)
    empty = replace(
        task, splits={"train": (Row("a", {"text": "", "label": "positive"}),), "validation": (), "test": ()}
    )
    with pytest.raises(DataError, match="hold no text"):
        change_of("continued-pretraining").check_task(empty)


def test_held_out_text_is_no_learned_text(folder: Path, written: Task) -> None:
    """About a twentieth of the tokens, whole documents where they are short."""
    model, change = tiny_model(folder, "llama"), change_of(f"continued-pretraining(text=texts.jsonl, {QUICK})")
    data = change.text_set(model, written, seed=0).data
    parts = (data.examples, data.held_out)
    learned, held_out = ({one.prompt + one.answer for e in part for one in unpacked(e)} for part in parts)
    assert held_out and not learned & held_out
    sizes = [sum(map(len, part)) for part in (learned, held_out)]
    assert 0.03 < sizes[1] / sum(sizes) < 0.15
    assert data.notes[0].startswith("30 documents of the files texts.jsonl")


def test_of_one_long_text_the_end_is_held_out(folder: Path, tmp_path: Path) -> None:
    """A book is learned but for its last pages."""
    model = tiny_model(folder, "llama")
    (tmp_path / "book.txt").write_text(" ".join(texts(30)), encoding="utf-8")
    task = replace(keyword_task(4, 2), path=tmp_path / "task.yaml")
    change = change_of("continued-pretraining(text=book.txt, length=32)")
    data = change.text_set(model, task, seed=0).data
    pieces = pieces_of(model, documents_of("book.txt", task.path, "text")[0], 32)
    held_out = [one.prompt + one.answer for example in data.held_out for one in unpacked(example)]
    assert sorted(held_out) == sorted(pieces[-len(held_out) :])
    assert 1 <= len(held_out) < len(pieces) / 5


def test_the_order_of_files_and_rows_changes_nothing(folder: Path, written: Task) -> None:
    """Only the texts count; other texts make another trial."""
    model, change = tiny_model(folder, "llama"), change_of(f"continued-pretraining(text=texts.jsonl, {QUICK})")
    before, hash_before = change.text_set(model, written, seed=0).data, change.other_data(written)
    assert written.path is not None
    path = written.path.with_name("texts.jsonl")
    path.write_text(json_lines([{"text": text} for text in texts(30)[::-1]]), encoding="utf-8")
    assert change.text_set(model, written, seed=0).data == before
    path.write_text(json_lines([{"text": text} for text in texts(29)]), encoding="utf-8")
    assert change.other_data(written) != hash_before


def test_a_preview_of_packed_text_shows_where_texts_meet(folder: Path, written: Task) -> None:
    """First tokens stand outside the marks; nothing is said of ends, duplicates or conflicts."""
    model, change = tiny_model(folder, "llama"), change_of(f"continued-pretraining(text=texts.jsonl, {QUICK})")
    data = change.text_set(model, written, seed=0).data
    seen = preview(model, data, 4)
    assert (seen.unended_rows, seen.duplicate_rows, seen.conflicting_rows) == (0, (), ())
    assert seen.supervised_tokens == sum(len(one.answer) for e in data.examples for one in unpacked(e))
    several = replace(data, examples=tuple(e for e in data.examples if len(e.documents) > 1))
    assert preview(model, several, 4).shown[0].count("⟦") == len(several.examples[0].documents)


# --- learning


def perplexities(said: list[str]) -> tuple[float, float]:
    (line,) = [line for line in said if line.startswith("perplexity of held-out text")]
    found = re.search(r"tokens\): ([\d.]+) before, ([\d.]+) after", line)
    assert found is not None
    return float(found[1]), float(found[2])


@pytest.mark.parametrize("tune", ["", ", tune=lora(rank=4)"])
def test_the_perplexity_of_held_out_text_falls(folder: Path, written: Task, tune: str) -> None:
    """It is said before and after, and is that of the model that comes out."""
    said: list[str] = []
    model = tiny_model(folder, "llama")
    change = change_of(f"continued-pretraining(text=texts.jsonl, {QUICK}{tune})")
    work = change.change(model, written, None, seed=0, budget=Budget(say=said.append))  # type: ignore[arg-type]
    before, after = perplexities(said)
    assert after < before
    held_out = list(change.text_set(model, written, seed=0).data.held_out)
    assert math.exp(mean_loss(model, held_out)) == pytest.approx(after, abs=0.01)
    assert work.trained_tokens + work.trained_frozen_tokens > 0
    assert not any("lora" in name for name, _ in model.module.named_parameters())


@pytest.mark.parametrize("second", ["lora(rank=2, ", "full(", "prompt-tuning(tokens=4, ", "norms("])
def test_what_comes_after_is_saved_and_predicts_the_same(
    folder: Path, tmp_path: Path, written: Task, second: str
) -> None:
    """The folder holds the base that was made, so that the one it was made of is not needed."""
    name = f"continued-pretraining(text=texts.jsonl, {QUICK})+{second}epochs=1, min_steps=2, batch=4)"
    said: list[str] = []
    strategy = parse(name)
    assert parse(strategy.name) == parse(full_name(strategy)) == strategy
    made = strategy.fit(
        tiny_model(folder, "llama"), written, seed=0, budget=Budget(folder=tmp_path / "s", say=said.append)
    )
    perplexities(said)
    made.save(tmp_path / "saved")
    loaded = load_predictor(tmp_path / "saved")
    expected = list(made.predict(rows(6)))
    assert list(loaded.predict(rows(6))) == expected
    loaded.save(tmp_path / "again")
    shutil.rmtree(tmp_path / "saved")
    assert list(load_predictor(tmp_path / "again").predict(rows(6))) == expected


def test_alone_it_is_followed_by_asking(folder: Path, tmp_path: Path, written: Task) -> None:
    """And the predictor's folder is a whole model."""
    strategy = parse(f"continued-pretraining({QUICK}, tune=lora(rank=2))")
    assert isinstance(strategy, Composed) and strategy.pretraining is None
    made = strategy.fit(tiny_model(folder, "llama"), written, seed=0, budget=Budget())
    made.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").is_file()
    assert list(load_predictor(tmp_path / "saved").predict(rows(6))) == list(made.predict(rows(6)))


def test_a_killed_fit_goes_on_in_the_stage_where_it_was(folder: Path, tmp_path: Path, written: Task) -> None:
    """Stopped in the second stage and made again, it gives the very predictions of one that ran through."""

    class StopError(Exception):
        pass

    name = f"continued-pretraining(text=texts.jsonl, {QUICK})+full(epochs=1, min_steps=6, batch=4)"

    def fit(scratch: str, stop: bool = False) -> list[object]:
        trained: list[str] = []

        def say(line: str) -> None:
            trained.append(line)
            if stop and sum(line.startswith("step 2 of") for line in trained) and "perplexity" in "".join(trained):
                raise StopError

        budget = Budget(folder=tmp_path / scratch, say=say)
        made = parse(name).fit(tiny_model(folder, "llama"), written, seed=0, budget=budget)
        return [*made.predict(rows(6)), sum(line.startswith("step") for line in trained)]

    through = fit("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taskfit.tuning.train_report.SAY_EVERY_S", -1.0)
        with pytest.raises(StopError):
            fit("b", stop=True)
    assert fit("b")[:-1] == through[:-1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("continued-pretraining(length=2)", "length must be at least 8"),
        ("continued-pretraining(tune=prompt-tuning)", "tune must be full or a method that can be merged"),
        ("continued-pretraining(tune=qlora)", "tune must be full or a method that can be merged"),
        ("continued-pretraining(tune=lora+few-shot)", "tune must be full or a method that can be merged"),
        ("continued-pretraining(tune=lora(epochs=7))", "not inside tune"),
        ("continued-pretraining(tune=lora(wordings=all))", "not inside tune"),
        ("continued-pretraining+continued-pretraining", "are both pre-training"),
        ("encoder(tune=continued-pretraining+lora)", "tune must be a change of weights alone"),
        ("encoder(tune=continued-pretraining)", "tune must be a change of weights alone"),
        ("continued-pretraining+chain-of-thought", "there is no prompt to train on"),
    ],
)
def test_faulty_names_are_refused(name: str, message: str) -> None:
    """With what would do."""
    with pytest.raises(ConfigError, match=message):
        parse(name)
