"""What the workshop finds, for every kind of task, and how its page says it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taskfit
from taskfit.errors import ConfigError, PredictorError
from taskfit.inference.requests import Score
from taskfit.studies.expectation import read_expectation
from taskfit.studies.interval_bar import Scale, interval_bar, scale_of
from taskfit.studies.prompt_workshop_page import workshop_json, workshop_page
from taskfit.studies.prompt_workshop_rows import Favourite, MixUp, favourite, mix_ups
from taskfit.studies.prompt_workshop_words import caveats, headline, reasons
from taskfit.testing import FakeEngine, generated, scored, tiny_decoder
from taskfit.testing.service import FakeService

FILMS = {"good": ("great", "warm"), "bad": ("awful", "cold"), "odd": ("strange", "weird")}


def write_task(folder, kind, wordings=("Film: {{ text }}", "About {{ text[:6] }}"), validation=24, name="films"):
    """Rows whose answer a keyword gives; the second wording hides it."""
    folder.mkdir(exist_ok=True)
    extra = {
        "classification": "labels: [bad, good, odd]\nmetrics: [macro_f1, accuracy]\n",
        "choice": "options: options\nmetrics: [accuracy]\n",
        "generation": "metrics: [rouge_l]\n",
    }[kind]
    for split, start, count in (("train", 0, 9), ("validation", 100, validation), ("test", 200, 6)):
        rows = [_row(kind, number) for number in range(start, start + count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ", options: '{{ options }}'" if kind == "choice" else ""
    templates = "".join(
        f"  - {{name: w{number}, prompt: {json.dumps(prompt)}, target: '{{{{ label }}}}'{options}}}\n"
        for number, prompt in enumerate(wordings)
    )
    sources = "data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}\n"
    path = folder / "task.yaml"
    path.write_text(
        f"name: {json.dumps(name)}\nkind: {kind}\n{sources}{extra}input: '{{{{ text }}}}'\n"
        f"target: '{{{{ label }}}}'\ntemplates:\n{templates}"
    )
    return path


def _row(kind, number):
    labels = list(FILMS)
    label = labels[number % 3]
    row = {"id": f"r{number}", "text": f"film {number}, a {FILMS[label][number // 3 % 2]} one", "label": label}
    if kind == "choice":
        row["options"] = labels[number % 2 :] + labels[: number % 2]
    if kind == "generation":
        row["label"] = f"they say the film is {label}"
    return row


def answer(request):
    """Say what the keyword gives; ``good`` where none is seen; nothing at all to a generation without one."""
    seen = [label for label, words in FILMS.items() if any(word in request.prompt.text for word in words)]
    if isinstance(request, Score):
        wanted = seen[0] if seen else "good"
        return scored(request, [0.0 if text == wanted else -9.0 for text in request.continuations])
    return generated(request, f"they say the film is {seen[0]}" if seen else "")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return str(tiny_decoder(tmp_path_factory.mktemp("models") / "decoder"))


@pytest.fixture(autouse=True)
def _engine(monkeypatch):
    monkeypatch.setattr("taskfit.strategy.predictor.engine_for", lambda model: FakeEngine(answer))


@pytest.mark.parametrize("kind", ["classification", "choice", "generation"])
def test_wording_that_hides_the_text_loses_the_rows_it_must(tmp_path, decoder, kind):
    """Of 24 rows the second wording gets those of one label right by luck (8), or none of the generated ones."""
    found = taskfit.prompts(write_task(tmp_path, kind), model=decoder)
    first, second = found.variants
    assert (first.name, second.name) == ("w0", "w1")
    assert first.metrics[found.metric].value == 1.0
    assert not second.versus.is_tied
    lost = 24 if kind == "generation" else 16
    assert (second.odd.lost_count, first.odd.won_count, first.odd.lost_count) == (lost, lost, 0)
    assert second.unparsed == (24 if kind == "generation" else 0)
    assert headline(found).endswith("the other is worse, beyond noise.")
    page = unescape(workshop_page(found))
    assert headline(found) in page
    assert ("✓" in page) == (kind != "generation")
    assert ("said <strong>" in page) == (kind != "generation")
    if kind == "choice":
        assert {mix.said for mix in second.mix_ups} <= {"option 1", "option 2", "option 3"}
    if kind == "classification":
        assert second.mix_ups == (MixUp("good", "bad", 8), MixUp("good", "odd", 8))
        assert second.favourite == Favourite("good", 24, 8)


def test_answers_that_cannot_be_parsed_are_told(tmp_path, decoder):
    """Two wordings that both lead to no answer at all: neither is better, and nothing is dropped."""
    found = taskfit.prompts(write_task(tmp_path, "generation", ("{{ text[:4] }}", "So: {{ text[:4] }}")), model=decoder)
    assert [variant.unparsed for variant in found.variants] == [24, 24]
    assert headline(found).endswith("the other cannot be told apart from it.")
    assert not any("accuracy" in sentence for sentence in caveats(found))
    ran = found.save(tmp_path / "saved")
    assert ran.wording == 0
    regression = taskfit.evaluate(tmp_path / "saved").regression
    assert regression.is_graded and regression.detectable == pytest.approx(0.1036, abs=1e-4)
    assert any(sentence.startswith("24 of 24 answers of w0 could not be parsed") for sentence in reasons(found))


def test_three_wordings_of_which_two_are_worse(tmp_path, decoder):
    """All others are worse."""
    wordings = ("{{ text }}", "{{ text[:4] }}", "So: {{ text[:4] }}")
    found = taskfit.prompts(write_task(tmp_path, "classification", wordings), model=decoder)
    assert headline(found).endswith("all other 2 are worse, beyond noise.")


def test_price_is_seconds_at_the_price_of_the_machine(tmp_path, decoder):
    """A dear machine makes the same seconds dear."""
    task = write_task(tmp_path, "classification")
    prices = tmp_path / "prices.yaml"
    prices.write_text("date: 2026-01-31\ncurrency: USD\nmachines:\n  mine: {price_usd_per_hour: 36.0}\n")
    found = taskfit.prompts(task, model=decoder, hardware="mine", prices=prices)
    for variant in found.variants:
        assert variant.usd_per_thousand_rows == pytest.approx(1000 * variant.s_per_row * 0.01)
    assert "36 USD an hour (mine, price of 2026-01-31)" in workshop_page(found)


def test_tokens_of_a_service_are_in_the_price_and_unread_answers_in_sight(tmp_path, monkeypatch):
    """The fake service bills words; two wordings of which the second is longer."""
    from taskfit.strategy.service import service_engine

    monkeypatch.setattr("taskfit.strategy.predictor.engine_for", service_engine)
    task = write_task(tmp_path, "classification", ("{{ text }}", "Now, please: {{ text }}"))
    prices = tmp_path / "prices.yaml"
    prices.write_text("date: 2026-01-31\ncurrency: USD\nmachines:\n  free: {price_usd_per_hour: 0.0}\n")
    with FakeService(lambda text: "no idea at all" if "please" in text else "good") as service:
        model = service.name(usd_in=1000.0, usd_out=0.0)
        found = taskfit.prompts(
            task, strategy="zero-shot(answer=generate)", model=model, hardware="free", prices=prices
        )
    first, second = found.variants
    for variant in found.variants:
        assert variant.usd_per_thousand_rows == pytest.approx(variant.tokens_mean)
    assert second.tokens_mean > first.tokens_mean > 0
    assert second.unparsed == 24
    assert any("no idea at all" in said.answer for row in second.odd.lost for said in row.said)


def test_hostile_texts_stay_texts(tmp_path, decoder):
    """Names, prompts and rows with markup neither run nor break the page."""
    wordings = ("<script>alert(1)</script>{{ text }}", "</pre><img src=x> {{ text[:6] }}")
    task = write_task(tmp_path, "classification", wordings, name="<b>films</b>")
    for split in ("validation", "test"):
        path = tmp_path / f"{split}.jsonl"
        path.write_text(path.read_text().replace(" one", " <svg onload=alert(1)> one"))
    page = workshop_page(taskfit.prompts(task, model=decoder))
    assert "<script" not in page and "<img" not in page and "<svg onload" not in page and "<b>films" not in page
    assert "&lt;script&gt;" in page


def test_prompts_longer_than_the_context_are_told(tmp_path, decoder, monkeypatch):
    """Cut rows and dropped examples are counted for each wording."""

    def too_long(request):
        return replace(answer(request), cut_tokens=5, dropped_shots=2)

    class Counting(FakeEngine):
        @property
        def work(self):
            return replace(super().work, dropped_shots=2 * len(self.requests))

    monkeypatch.setattr("taskfit.strategy.predictor.engine_for", lambda model: Counting(too_long))
    found = taskfit.prompts(write_task(tmp_path, "classification"), model=decoder)
    assert [(variant.cut_rows, variant.dropped_shots) for variant in found.variants] == [(24, 48), (24, 48)]
    assert any("24 rows cut, 48 worked examples left out" in sentence for sentence in reasons(found))


def test_saved_prompt_is_whole_and_says_what_it_was_worth(tmp_path, decoder):
    """The predictor and its expectation appear together; a folder that exists is never touched."""
    found = taskfit.prompts(write_task(tmp_path, "classification"), "few-shot(k=3)", model=decoder, draws=2)
    run = found.save(tmp_path / "best")
    assert (run.wording, run.draw) == (0, 0)
    expected = read_expectation(tmp_path / "best")
    assert (expected.split, expected.metric, expected.value, len(expected.rows)) == ("validation", "macro_f1", 1.0, 24)
    assert sorted(expected.files) == ["predictor.json", "prompt.txt"]
    with pytest.raises(PredictorError, match="exists already"):
        found.save(tmp_path / "best")
    with pytest.raises(ConfigError, match=r"no wording '7'; the task has 0 \(w0\), 1 \(w1\)"):
        found.save(tmp_path / "other", 7)
    evaluation = taskfit.evaluate(tmp_path / "best")
    assert evaluation.regression is not None and not evaluation.is_worse
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_json_is_plain_and_repeats_itself(tmp_path, decoder):
    """But for seconds, the same call gives the same findings."""
    task = write_task(tmp_path, "classification")

    def told() -> str:
        text = json.dumps(workshop_json(taskfit.prompts(task, "few-shot(k=2)", model=decoder, draws=2)))
        return re.sub(r'"(s_per_row|usd_per_thousand_rows)": [^,]+', "", text)

    assert told() == told()


def test_a_task_without_validation_rows_is_refused(tmp_path, decoder):
    """Wordings are never chosen on test rows, not even for want of others."""
    task = write_task(tmp_path, "classification", validation=0)
    with pytest.raises(taskfit.TaskfitError, match="validation"):
        taskfit.prompts(task, model=decoder)


labels = st.sampled_from("abc")


@given(st.lists(st.tuples(labels, labels), max_size=30))
def test_mix_ups_are_the_most_frequent_wrong_answers(given_and_right):
    """Counted again, one by one."""
    wrong = [pair for pair in given_and_right if pair[0] != pair[1]]
    found = mix_ups(given_and_right)
    assert all(mix.count == wrong.count((mix.said, mix.right)) for mix in found)
    assert [mix.count for mix in found] == sorted((wrong.count(pair) for pair in set(wrong)), reverse=True)[:5]
    most = favourite(given_and_right)
    if given_and_right:
        said = [pair[0] for pair in given_and_right]
        assert most.said == max(map(said.count, said))
        assert most.right == sum(pair[1] == most.answer for pair in given_and_right)
    else:
        assert most is None


shares = st.floats(min_value=-1, max_value=1)


@given(st.lists(shares, min_size=1, max_size=9))
def test_every_figure_lies_on_the_scale(values):
    """The ends hold all values, and marks lie between them, in order."""
    scale = scale_of(values)
    assert scale.low <= min(values) + 1e-9 and scale.high >= max(values) - 1e-9 and scale.high - scale.low > 0.09
    drawn = interval_bar(values[0], min(values), max(values), values, scale, is_best=True)
    places = [float(place) for place in re.findall(r'c?x[12]?="([\d.]+)"', drawn)]
    assert all(0 <= place <= 140 for place in places)
    assert Scale(0.0, 1.0).x(0.2) < Scale(0.0, 1.0).x(0.9)
