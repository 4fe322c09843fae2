from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from taskfit.costs.prices import DEFAULT_MACHINE, age_warning, label_price, load_prices, machine, money
from taskfit.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    """Write a user's price file."""
    path = folder / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_table_is_whole() -> None:
    """Every machine has a price, a source and a date; the default machine is there."""
    table = load_prices()
    assert DEFAULT_MACHINE in table.machines
    assert len(table.machines) >= 8
    for entry in table.machines.values():
        assert 0 < entry.price_usd_per_hour < 100, entry.name
        assert entry.source
        assert entry.date > datetime.date(2026, 1, 1)
        assert bool(entry.gpu) == (entry.gpu_memory_gb > 0)


def test_an_hour_costs_the_price_of_an_hour() -> None:
    """Half an hour costs half of it."""
    found = machine(load_prices())
    assert money(1800.0, found) == found.price_usd_per_hour / 2


def test_the_users_entries_win_and_add(tmp_path: Path) -> None:
    """One known machine replaced, one added, the others kept."""
    text = "date: 2026-10-01\ncurrency: USD\nmachines:\n  this-machine: {price_usd_per_hour: 0.5, cores: 4}\n"
    table = load_prices(write(tmp_path, text + "  mine: {price_usd_per_hour: 2, source: contract}\n"))
    assert machine(table).price_usd_per_hour == 0.5
    assert machine(table).cores == 4
    assert machine(table).date == datetime.date(2026, 10, 1)
    assert machine(table, "mine").source == "contract"
    assert machine(table, "cpu-2core").date == machine(load_prices(), "cpu-2core").date


def test_a_price_of_a_known_machine_leaves_what_it_has(tmp_path: Path) -> None:
    """Who gives a price of their own need not say again that an L4 is a GPU."""
    text = "date: 2026-10-01\ncurrency: USD\nmachines:\n  gpu-l4: {price_usd_per_hour: 0.44, memory_gb: 48}\n"
    own, shipped = (machine(table, "gpu-l4") for table in (load_prices(write(tmp_path, text)), load_prices()))
    assert (own.price_usd_per_hour, own.memory_gb, own.source) == (0.44, 48, "")
    assert (own.gpu, own.cores, own.gpu_memory_gb) == (shipped.gpu, shipped.cores, shipped.gpu_memory_gb)
    other = text.replace("memory_gb: 48", "gpu: H100, gpu_memory_gb: 80")
    assert machine(load_prices(write(tmp_path, other)), "gpu-l4").gpu == "H100"


def test_old_prices_warn() -> None:
    """After 90 days, not before; the sentence says what to do."""
    found = machine(load_prices())
    assert age_warning(found, found.date + datetime.timedelta(days=90)) is None
    warning = age_warning(found, found.date + datetime.timedelta(days=91))
    assert warning is not None
    assert "91 days ago" in warning
    assert "--prices FILE" in warning
    assert age_warning(found) == age_warning(found, datetime.date.today())


def test_an_unknown_machine_names_the_nearest() -> None:
    """A typing error is not answered with a guess."""
    with pytest.raises(ConfigError, match=r"did you mean 'gpu-h100'\?") as error:
        machine(load_prices(), "gpu-h10")
    assert error.value.hint is not None


def test_all_faults_of_a_price_file_are_reported_together(tmp_path: Path) -> None:
    """No date, no currency, unknown keys, impossible prices."""
    text = (
        "format: 2\ndtae: 2026-01-01\nmachines:\n  a: {price_usd_per_hour: -1, colour: red}\n"
        "  b: 5\n  c: {cores: 2}\n  d: {price_usd_per_hour: true}\n  e: {price_usd_per_hour: .inf}\n"
    )
    with pytest.raises(ConfigError) as error:
        load_prices(write(tmp_path, text))
    for part in (
        "unknown key 'dtae' (did you mean 'date'?)",
        "date must say when",
        "format must be 1 (got 2)",
        "got 'no currency'",
        "a: price_usd_per_hour must be a number of at least 0 (got -1)",
        "a: unknown key 'colour'",
        "b must have a price_usd_per_hour (got 5)",
        "c: price_usd_per_hour must be a number of at least 0 (got None)",
        "d: price_usd_per_hour",
        "e: price_usd_per_hour",
    ):
        assert part in str(error.value), part


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- 1\n- 2\n", "expected the keys"),
        ("a: [", "cannot read the price file"),
        ("date: 2026-01-01\ncurrency: EUR\nmachines: {}\n", "got 'EUR'"),
        ("date: 2026-01-01\ncurrency: USD\nmachines: []\n", "machines must map"),
        ("date: soon\ncurrency: USD\nmachines: {}\n", "got 'soon'"),
        ("date: 2026-13-45\ncurrency: USD\nmachines: {}\n", "cannot read the price file"),
        ("[" * 3000, "cannot read the price file"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, text: str, why: str) -> None:
    """Each with a reason."""
    with pytest.raises(ConfigError, match=why):
        load_prices(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is part of the message."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_prices(tmp_path / "nowhere.yaml")


def test_prices_of_labels_are_read_and_checked(tmp_path: Path) -> None:
    """A file may hold labels alone; a faulty entry is named."""
    path = tmp_path / "prices.yaml"
    path.write_text("date: 2026-11-01\ncurrency: USD\nlabels: {mine: {usd_per_label: 0.5, source: us}}\n")
    table = load_prices(path)
    assert label_price(table, "mine").usd_per_label == 0.5
    assert label_price(table, "crowd").source
    path.write_text("date: 2026-11-01\ncurrency: USD\nlabels: {a: 3, b: {usd_per_lable: 1}}\n")
    with pytest.raises(ConfigError) as error:
        load_prices(path)
    assert "a must have a usd_per_label" in error.value.message
    assert "did you mean 'usd_per_label'" in error.value.message
