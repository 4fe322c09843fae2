"""Search spaces: what is drawn, what is left alone, and that every tuning method declares one."""

from __future__ import annotations

import pytest

from taskfit.errors import ConfigError
from taskfit.strategy.grammar import parse
from taskfit.strategy.parameters import parameters_of, type_fits
from taskfit.strategy.space import OneOf, Times, draw, part_of, searchable, varied
from taskfit.strategy.table import STRATEGIES, load_class

SPACE = {"learning_rate": Times(0.25, 4.0), "rank": OneOf((4, 8))}
TUNED = [name for name, row in STRATEGIES.items() if row.part == "weights"] + ["encoder", "linear", "few-shot"]


@pytest.mark.parametrize("name", TUNED)
def test_every_tuning_method_declares_a_small_space_of_its_own_parameters(name: str) -> None:
    """Names and values are those of the class, and it has a default to surround."""
    made = load_class(name)
    known = parameters_of(made)
    assert 1 <= len(made.space) <= 3
    for parameter, choice in made.space.items():
        assert not known[parameter].is_required
        if isinstance(choice, OneOf):
            assert all(type_fits(value, known[parameter].hint) for value in choice.values)
            for value in choice.values:
                assert varied(parse(name), {parameter: value}).name.startswith(name)
        else:
            assert 0 < choice.low < 1 < choice.high


def test_a_draw_uses_every_stretch_of_a_range_once() -> None:
    """Seven points lie in seven equal stretches of the logarithm; values of a choice come equally often."""
    import math

    drawn = draw(SPACE, {"learning_rate": 0.01}, 8, "seed")
    places = sorted(math.log(point["learning_rate"] / 0.0025) / math.log(16) * 8 for point in drawn)
    assert all(number - 0.05 <= place <= number + 1.05 for number, place in enumerate(places))
    assert sorted(point["rank"] for point in drawn) == [4] * 4 + [8] * 4


def test_equal_seeds_draw_equal_points_and_others_do_not() -> None:
    """Nothing else is drawn from."""
    own = {"learning_rate": 0.01}
    assert draw(SPACE, own, 5, "one") == draw(SPACE, own, 5, "one")
    assert draw(SPACE, own, 5, "one") != draw(SPACE, own, 5, "two")
    assert draw(SPACE, own, 0, "one") == []


def test_rates_are_round_numbers_that_read_well_in_a_name() -> None:
    """Two digits."""
    assert all(
        len(f"{point['learning_rate']:.15g}".replace(".", "").lstrip("0")) <= 2
        for point in draw(SPACE, {"learning_rate": 0.0123456}, 9, "seed")
    )


def test_what_the_user_has_set_is_not_searched() -> None:
    """The rest is."""
    assert set(searchable(parse("lora"))) == {"learning_rate", "rank"}
    assert set(searchable(parse("lora(rank=4)"))) == {"learning_rate"}
    assert searchable(parse("lora(rank=4, learning_rate=0.001)")) == {}
    assert searchable(parse("majority")) == {}


def test_the_part_that_trains_is_the_part_that_varies() -> None:
    """Of a sum the change of weights, of a program alone the program, of a whole strategy itself."""
    both = parse("lora+few-shot(k=2)")
    assert part_of(both) == both.weights
    assert varied(both, {"rank": 4}).name == "lora(rank=4)+few-shot(k=2)"
    assert varied(parse("few-shot"), {"k": 1}).name == "few-shot(k=1)"
    assert varied(parse("encoder"), {"pool": "cls"}).name == "encoder(pool=cls)"
    with pytest.raises(ConfigError, match="rank must be at least 1"):
        varied(both, {"rank": 0})
