"""Layers of members that are mapped over: the numbers of each alone, in as few operations."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fuse.models.attention import MultiHeadAttention
from fuse.models.head import Head
from fuse.models.linear import Linear
from fuse.models.stacked_layers import BatchNorm

MEMBERS, ROWS = 3, 8
Stacked = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]
"""What modules give, the gradients of the sum of its squares, and their buffers afterwards."""


class Counting(TorchDispatchMode):
    """Counts operations by name, those of all members being one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def together(modules: list[nn.Module], *inputs: Tensor) -> Stacked:
    parameters, buffers = torch.func.stack_module_state(modules)
    skeleton = copy.deepcopy(modules[0])

    def one(parameters: Any, buffers: Any, *inputs: Tensor) -> Any:
        found = torch.func.functional_call(skeleton, (parameters, buffers), inputs)
        return found[0] if isinstance(found, tuple) else found

    found = torch.func.vmap(one)(parameters, buffers, *inputs)
    gradients = torch.autograd.grad(found.square().sum(), list(parameters.values()))
    return found, dict(zip(parameters, gradients, strict=True)), buffers


def alone(modules: list[nn.Module], *inputs: Tensor) -> Stacked:
    found, gradients, buffers = [], [], []
    for module, *own in zip(modules, *inputs, strict=True):
        out = module(*own)
        out = out[0] if isinstance(out, tuple) else out
        out.square().sum().backward()
        found.append(out)
        gradients.append({name: p.grad for name, p in module.named_parameters()})
        buffers.append(dict(module.named_buffers()))
    return (
        torch.stack(found),
        {name: torch.stack([of[name] for of in gradients]) for name in gradients[0]},
        {name: torch.stack([of[name] for of in buffers]) for name in buffers[0]},
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: Linear(5, 4), (ROWS, 5)),
        (lambda: Linear(5, 4, bias=False), (ROWS, 2, 5)),
        (lambda: Linear(5, 4), (ROWS, 2, 3, 5)),
        (lambda: BatchNorm(5), (ROWS, 5)),
        (lambda: Head(5, 3, 0.0, (6, 4)), (ROWS, 5)),
    ],
)
def test_members_give_and_learn_what_each_does_alone(
    make: Callable[[], nn.Module], shape: tuple[int, ...], training: bool
) -> None:
    torch.manual_seed(0)
    modules = [make().train(training) for _ in range(MEMBERS)]
    inputs = torch.randn(MEMBERS, *shape)
    stacked = together([copy.deepcopy(module) for module in modules], inputs)
    torch.testing.assert_close(stacked, alone(modules, inputs), rtol=1e-4, atol=1e-5)


def test_gradients_inside_and_around_the_mapping_are_the_same() -> None:
    layer, x = Linear(5, 4).requires_grad_(False), torch.randn(MEMBERS, ROWS, 5)

    def total(x: Tensor) -> Tensor:
        return layer(x).square().sum()

    def of_all(x: Tensor) -> Tensor:
        return torch.func.vmap(total)(x).sum()

    expected = torch.autograd.functional.jacobian(of_all, x)
    for found in (torch.func.vmap(torch.func.grad(total))(x), torch.func.grad(of_all)(x)):
        torch.testing.assert_close(found, expected)


def test_a_hidden_layer_of_many_members_is_as_few_operations_as_of_one() -> None:
    counts = []
    for members in (2, 5):
        modules: list[nn.Module] = [Head(5, 3, 0.0, (6,)).train() for _ in range(members)]
        with Counting() as counting:
            _, gradients, _ = together(modules, torch.randn(members, ROWS, 5))
        assert all(value.is_contiguous() for value in gradients.values()), "copied when joined"
        counts.append(counting.found)
    assert counts[0] == counts[1]
    assert (counts[0]["baddbmm_"], counts[0]["native_batch_norm"], counts[0]["bmm"]) == (2, 1, 3)
    assert not counts[0].keys() & {"ones", "addmm", "mm"}, "what vmap makes of them"


@pytest.mark.parametrize("members", [2, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_without_dropout_is_one_operation_for_all_members(
    members: int, masked: bool
) -> None:
    torch.manual_seed(0)
    modules: list[nn.Module] = [MultiHeadAttention(8, 2, 0.0) for _ in range(members)]
    inputs = [torch.randn(members, ROWS, 4, 8), torch.randn(members, ROWS, 6, 8)]
    if masked:
        inputs.append(torch.rand(members, ROWS, 6) < 0.5)
    else:
        modules = [Unmasked(module) for module in modules]
    with Counting() as counting:
        stacked = together([copy.deepcopy(module) for module in modules], *inputs)
    torch.testing.assert_close(stacked, alone(modules, *inputs), rtol=1e-4, atol=1e-5)
    kernels = [name for name in counting.found if "scaled_dot_product" in name]
    assert [counting.found[name] for name in kernels] == [1] * len(kernels)
    assert kernels


class Unmasked(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, key: Tensor) -> Any:
        return self.attention(query, key, None)


def test_members_compute_in_half_precision_what_they_are_told_to() -> None:
    layers: list[nn.Module] = [Linear(64, 32) for _ in range(MEMBERS)]
    x = torch.randn(MEMBERS, ROWS, 64)
    exact, half = together(layers, x), None
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        half = together(layers, x)
    assert half[0].dtype == torch.bfloat16
    assert {value.dtype for value in half[1].values()} == {torch.float32}
    torch.testing.assert_close(half[0].float(), exact[0], rtol=0.02, atol=0.05)
    for name, value in half[1].items():
        torch.testing.assert_close(value, exact[1][name], rtol=0.05, atol=0.2)
