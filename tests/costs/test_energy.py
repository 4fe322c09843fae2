from __future__ import annotations

import pytest

from taskfit.costs.energy import energy, grids
from taskfit.errors import ConfigError


def test_an_hour_of_a_device_is_its_power_with_server_and_building() -> None:
    """700 W, 1.2 for the server, 1.25 for the building."""
    found = energy(1.0, 700.0, grid="france")
    assert found.kwh == pytest.approx(1.05)
    assert found.kg_co2e == pytest.approx(1.05 * grids()["france"] / 1000)
    assert energy(2.0, 700.0).kwh == pytest.approx(2 * found.kwh)


def test_the_users_figure_wins_and_strange_ones_are_refused() -> None:
    """Grids by name, or grams."""
    assert energy(1.0, 1000.0, grams_per_kwh=0).kg_co2e == 0
    assert energy(1.0, 1000.0).grid == "world"
    with pytest.raises(ConfigError, match=r"unknown grid 'wrld' \(did you mean 'world'\?\)"):
        energy(1.0, 1.0, grid="wrld")
    with pytest.raises(ConfigError, match="at least 0"):
        energy(1.0, 1.0, grams_per_kwh=-1)
