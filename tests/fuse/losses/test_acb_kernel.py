"""The CUDA kernel of the ACB loss, as a C++ compiler of the CPU understands it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from fuse.losses import acb
from fuse.losses.acb import MARGINS, STATISTICS, AdaptiveClassBalancedLoss
from fuse.losses.acb_kernel import NAME, SOURCE, find_kernel
from tests.support.kernels import OnTheCpu

MEMBERS, ROWS = 2, 300


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> OnTheCpu:
    return OnTheCpu(SOURCE, NAME, tmp_path_factory.mktemp("acb"))


@pytest.fixture
def by_kernel(compiled: OnTheCpu, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(acb, "find_kernel", lambda logits: compiled)
    return monkeypatch


def losses_of(classes: int, statistics: str, margin: str) -> list[AdaptiveClassBalancedLoss]:
    return [
        AdaptiveClassBalancedLoss(classes, 0.3, 0.7, statistics, margin) for _ in range(MEMBERS)
    ]


def learned(
    losses: list[AdaptiveClassBalancedLoss], logits: Tensor, labels: Tensor, stacked: bool
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Values and gradients of two batches, and the statistics afterwards."""
    losses, skeleton = copy.deepcopy(losses), copy.deepcopy(losses[0])
    _, buffers = torch.func.stack_module_state(list(losses))

    def one(buffers: dict[str, Tensor], logits: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(skeleton, buffers, (logits, labels))
        return found

    values, slopes = [], []
    for turn in (logits, logits.flip(1)):
        given = turn.clone().requires_grad_()
        if stacked:
            found = torch.func.vmap(one)(buffers, given, labels)
        else:
            found = torch.stack([of(*row) for of, *row in zip(losses, given, labels, strict=True)])
        values.append(found)
        slopes.append(torch.autograd.grad(found, given, torch.tensor([1.0, 2.0]))[0])
    if not stacked:
        buffers = torch.func.stack_module_state(list(losses))[1]
    return torch.stack(values).detach(), torch.stack(slopes), buffers


@pytest.mark.parametrize(
    ("classes", "training", "stacked"), [(2, True, True), (3, True, False), (8, False, True)]
)
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("statistics", STATISTICS)
def test_the_kernel_gives_what_the_operations_of_torch_do(
    by_kernel: pytest.MonkeyPatch,
    statistics: str,
    margin: str,
    classes: int,
    training: bool,
    stacked: bool,
) -> None:
    torch.manual_seed(classes)
    losses = losses_of(classes, statistics, margin)
    for number, loss in enumerate(losses, start=1):
        loss.train(training)
        loss.difficulty_sum += torch.arange(classes) * number
        loss.sample_count += 10 * number
    logits = 4 * torch.randn(MEMBERS, ROWS, classes)
    labels = torch.randint(classes, (MEMBERS, ROWS))
    found = learned(losses, logits, labels, stacked)
    by_kernel.undo()
    torch.testing.assert_close(found, learned(losses, logits, labels, False), rtol=2e-5, atol=1e-7)


def test_what_is_not_finite_or_has_no_label_gives_no_finite_loss(
    by_kernel: pytest.MonkeyPatch,
) -> None:
    (loss, _) = losses_of(3, "running", "batch")
    logits, labels = torch.randn(8, 3), torch.randint(3, (8,))
    assert loss(logits, labels).isfinite()
    for value in (float("nan"), float("inf")):
        wrong = logits.clone()
        wrong[3, 1] = value
        assert loss(wrong, labels).isnan()
    labels[2] = -1
    assert loss(logits, labels).isnan()
    with pytest.raises(ValueError, match="at least one sample"):
        loss(logits[:0], labels[:0])


def test_far_logits_give_finite_slopes(by_kernel: pytest.MonkeyPatch) -> None:
    losses = losses_of(3, "running", "batch")
    logits = torch.tensor([[1e4, -1e4, 0.0], [80.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).expand(2, -1, -1)
    labels = torch.tensor([[1, 0, 2]] * 2)
    found = learned(losses, logits, labels, True)
    by_kernel.undo()
    expected = learned(losses, logits, labels, False)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-7)
    assert found[1].isfinite().all()


def test_other_logits_are_left_to_torch() -> None:
    for logits in (torch.zeros(2, 9), torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3)):
        assert find_kernel(logits) is None
