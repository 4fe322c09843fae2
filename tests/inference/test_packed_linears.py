"""Packed weights give what plain ones give, and leave no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from taskfit.inference import packed_linears as module
from taskfit.inference.packed_linears import packed_linears

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def is_packed(layer: nn.Module) -> bool:
    return "forward" in layer.__dict__


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (2, 5, 24)])
def test_packed_layers_compute_the_same(dtype: torch.dtype, has_bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 37, bias=has_bias).to(dtype)
    inputs = torch.randn(*shape, dtype=dtype)
    with torch.no_grad():
        expected = layer(inputs)
        with packed_linears(layer, 16):
            assert is_packed(layer)
            found = layer(inputs)
    assert found.dtype == dtype
    assert (found - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


def test_nothing_is_left_behind_even_after_an_error() -> None:
    layer = nn.Linear(8, 8)
    with pytest.raises(ZeroDivisionError), packed_linears(layer, 99):
        raise ZeroDivisionError
    assert not is_packed(layer)
    with packed_linears(layer, 99):
        pass
    with torch.no_grad():
        layer.weight.zero_()
    assert not layer(torch.ones(1, 8)).sub(layer.bias).any()


def test_no_positions_give_no_outputs() -> None:
    layer = nn.Linear(8, 5)
    with torch.no_grad(), packed_linears(layer, 99):
        assert layer(torch.empty(1, 0, 8)).shape == (1, 0, 5)


def test_inputs_of_another_format_are_refused_as_torch_does() -> None:
    layer = nn.Linear(8, 5)
    with torch.no_grad(), packed_linears(layer, 99), pytest.raises(RuntimeError, match="float64"):
        layer(torch.ones(1, 8, dtype=torch.float64))


def test_what_is_not_worth_it_or_not_plain_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Special(nn.Linear):
        """A layer with a meaning of its own."""

    for layer in (Special(8, 8), nn.Linear(8, 8).double(), nn.Linear(8, 8, device="meta")):
        with packed_linears(layer, 99):
            assert not is_packed(layer)
    plain = nn.Linear(8, 8)
    with packed_linears(plain, 15):
        assert not is_packed(plain)
    with packed_linears(plain, 99), packed_linears(plain, 99):
        assert is_packed(plain)
    monkeypatch.setattr(module, "_MOST_BYTES", 8 * 8 * 4 - 1)
    with packed_linears(plain, 99):
        assert not is_packed(plain)
