"""Linear layers by oneDNN: values and gradients against torch's own, and where they stand aside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fuse.models.linear
from fuse.models.linear import Linear, linear
from mmsa_cache.native import onednn

SHAPES = [(64, 300), (5, 13, 300), (2, 3, 40, 300)]


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    if not onednn.SERVES:
        pytest.skip("this torch does not choose between MKL and oneDNN")
    monkeypatch.setattr(fuse.models.linear, "_WORTH", 0)


def taken(result: torch.Tensor) -> bool:
    return type(result.grad_fn).__name__ == "_OneDnnBackward"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.Linear(300, 70, bias=bias).double()
    mine = Linear(300, 70, bias=bias)
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(shape)
    x32, x64 = x.clone().requires_grad_(), x.double().requires_grad_()
    weights = torch.randn(*shape[:-1], 70)
    mine(x32).tanh().mul(weights).sum().backward()
    theirs(x64).tanh().mul(weights.double()).sum().backward()
    assert taken(mine(x32))
    torch.testing.assert_close(x32.grad, x64.grad.float(), rtol=1e-4, atol=1e-5)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad.float(), rtol=1e-4, atol=1e-4)


def test_strided_inputs_and_weights() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 64).t().requires_grad_()
    weight = torch.randn(300, 140)[:, ::2].t().requires_grad_()
    found = linear(x, weight)
    assert taken(found)
    torch.testing.assert_close(found, x @ weight.t(), rtol=1e-4, atol=1e-4)
    grad = torch.randn(70, 64).t()
    of_x, of_weight = torch.autograd.grad(found, [x, weight], grad)
    torch.testing.assert_close(of_x, grad @ weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_weight, grad.t() @ x, rtol=1e-4, atol=1e-4)


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = onednn.linear
    monkeypatch.setattr(onednn, "linear", lambda *args: (calls.append(1), real(*args))[1])
    layer = Linear(30, 20)
    layer(torch.randn(8, 30)).sum().backward()  # features are cached: their gradient is not needed
    assert len(calls) == 2
    assert layer.weight.grad is not None
    assert layer.bias.grad.tolist() == [8.0] * 20


def test_torch_serves_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Linear(30, 20)
    x = torch.randn(8, 30)
    assert taken(layer(x))
    assert not taken(layer.double()(x.double()))
    layer.float()
    stacked = torch.randn(4, 8, 30)
    torch.testing.assert_close(torch.func.vmap(layer)(stacked), layer(stacked))
    exported = torch.export.export(layer, (x,))
    assert "mkldnn" not in str(exported.graph)
    monkeypatch.setattr(fuse.models.linear, "_WORTH", 8 * 30 * 20 + 1)
    assert not taken(layer(x))
    monkeypatch.setattr(fuse.models.linear, "_WORTH", 0)
    monkeypatch.setattr(onednn, "SERVES", False)
    assert not taken(layer(x))


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(8, 30, requires_grad=True)
    (first,) = torch.autograd.grad(Linear(30, 20)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
