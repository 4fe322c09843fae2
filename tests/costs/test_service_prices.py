"""What a service's tokens cost, who says so, and what is refused."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from taskfit.costs.meter import Measured
from taskfit.costs.prices import PriceTable, ServicePrice, load_prices, machine
from taskfit.costs.service_prices import find_service_price, service_note, service_price
from taskfit.costs.trial_cost import TrialCost, trial_cost
from taskfit.errors import ConfigError
from taskfit.models.service import read_service_name
from taskfit.models.work import Work

TEXT = """
date: 2026-10-01
currency: USD
services:
  api.example.com: {usd_per_mtok_in: 1, usd_per_mtok_out: 2}
  api.example.com/big: {usd_per_mtok_in: 3, usd_per_mtok_out: 4, source: the page}
"""


@pytest.fixture
def table(tmp_path: Path) -> PriceTable:
    path = tmp_path / "prices.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return load_prices(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("https://api.example.com/v1#big", (3, 4)),
        ("https://api.example.com/v1#small", (1, 2)),
        ("https://api.example.com/v1?usd_in=5&usd_out=6#big", (5, 6)),
        ("https://api.example.com/v1?usd_out=6#big", (0, 6)),
        ("http://localhost:8000/v1#big", (0, 0)),
    ],
)
def test_the_nearest_word_counts(table: PriceTable, name: str, expected: tuple[float, float]) -> None:
    """The name itself, then host and model, then the host, then nothing on this machine."""
    price = service_price(read_service_name(name), table)
    assert (price.usd_per_mtok_in, price.usd_per_mtok_out) == expected


def test_a_service_elsewhere_without_a_price_is_refused(table: PriceTable) -> None:
    service = read_service_name("https://elsewhere.example/v1#big")
    assert find_service_price(service, table) is None
    with pytest.raises(ConfigError, match=r"no price for the tokens of elsewhere\.example") as caught:
        service_price(service, table)
    assert "elsewhere.example/big" in str(caught.value.hint)


def test_machines_stay_where_a_file_holds_services_only(table: PriceTable) -> None:
    assert machine(table).price_usd_per_hour == machine(load_prices()).price_usd_per_hour
    assert load_prices().services == {}


def test_faulty_entries_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(
        "date: 2026-01-01\ncurrency: USD\nservices:\n  a: 3\n  b: {usd_per_mtok_in: -1, usd_per_mtok_ot: 2}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load_prices(path)
    for words in ("a must have", "b: usd_per_mtok_in", "did you mean 'usd_per_mtok_out'", "b: usd_per_mtok_out must"):
        assert words in caught.value.message


def test_the_note_tells_source_date_and_age(table: PriceTable) -> None:
    service = read_service_name("https://api.example.com/v1#big")
    old = ServicePrice("x", 1, 2, "the page", datetime.date(2020, 1, 1))
    assert "the page, 2020-01-01" in service_note(service, old)
    assert "days ago, check it" in service_note(service, old)
    assert "check it" not in service_note(service, ServicePrice("x", 1, 2, "", datetime.date.today()))


def _measured(kind: str) -> Measured:
    return Measured(kind, wall_s=36.0, cpu_s=1.0, peak_memory_bytes=1, start_memory_bytes=1)  # type: ignore[arg-type]


def test_a_trials_cost_holds_machine_and_tokens_and_what_was_paid_apart() -> None:
    """Of a thousand tokens read, 400 came from the cache: they cost on new rows, and were not paid now."""
    work = Work(service_prompt_tokens=1000, service_answer_tokens=10, paid_prompt_tokens=600, cached_answers=4)
    cost = trial_cost(
        _measured("fit"),
        _measured("predict"),
        Work(),
        work,
        rows_predicted=10,
        artefact_bytes=1,
        architecture=None,
        needs_model=True,
        machine=machine(load_prices()),
        service=ServicePrice("x", 100.0, 1000.0, "", datetime.date.today()),
    )
    hourly = machine(load_prices()).price_usd_per_hour / 100
    assert cost.usd_service_predict == pytest.approx(0.11)
    assert cost.usd_predict == pytest.approx(hourly + 0.11)
    assert cost.usd_fit == pytest.approx(hourly)
    assert cost.usd_paid == pytest.approx(0.06)
    assert TrialCost.from_json(cost.to_json()) == cost


def test_a_record_written_before_services_reads_as_free_of_them() -> None:
    cost = trial_cost(
        _measured("fit"),
        _measured("predict"),
        Work(),
        Work(prompt_tokens=5),
        rows_predicted=1,
        artefact_bytes=1,
        architecture=None,
        needs_model=False,
        machine=machine(load_prices()),
    )
    values = cost.to_json()
    for name in ("usd_service_fit", "usd_service_predict", "usd_paid"):
        del values[name]
    for work in ("fit_work", "predict_work"):
        values[work] = {k: v for k, v in values[work].items() if not k.startswith(("service", "paid", "cached"))}
    assert TrialCost.from_json(values) == cost
