"""Losses against independent NumPy formulas, finite differences and their limits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fuse.losses.acb import MARGINS, STATISTICS
from fuse.losses.loss import Loss
from fuse.losses.losses import (
    LOSSES,
    CrossEntropyLoss,
    FocalLoss,
    LogitAdjustedLoss,
    build_loss,
)
from fuse.textbook import ReportLoss

CLASSES = 3
Batch = tuple[np.ndarray, np.ndarray]
EPOCH_BORDER = 3
"""Number of batches before the second epoch in `batches_of`."""


def random_batch(seed: int, rows: int, labels: list[int] | None = None) -> Batch:
    """Float64 logits ``(rows, CLASSES)`` and labels ``(rows,)``, as NumPy."""
    rng = np.random.default_rng(seed)
    z = 2.0 * rng.standard_normal((rows, CLASSES))
    y = rng.integers(0, CLASSES, rows) if labels is None else np.array(labels)
    return z, y


def batches_of(seed: int) -> list[Batch]:
    """Batches of several sizes; class 2 is first seen in the third, class 1 is not in the last."""
    return [
        random_batch(seed, 4, [0, 1, 1, 0]),
        random_batch(seed + 1, 1, [1]),
        random_batch(seed + 2, 6, [2, 2, 0, 1, 2, 0]),
        random_batch(seed + 3, 5, [0, 2, 1, 1, 1]),
        random_batch(seed + 4, 3, [2, 0, 0]),
    ]


def tensors(z: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(z), torch.tensor(y)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def true_class(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return softmax(z)[np.arange(len(y)), y]


def weights_and_gammas(seen: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """w_c and γ_c from every sample counted so far, kept as they came: no running sums."""
    z = np.concatenate([z for z, _ in seen])
    y = np.concatenate([y for _, y in seen])
    wrong = 1.0 - true_class(z, y)
    d = np.array([wrong[y == c].mean() if (y == c).any() else 0.0 for c in range(CLASSES)])
    return 1.0 + 5.0 * np.log(1.0 + d), 1.5 + 3.0 * np.log(1.0 + d)


def acb(
    z: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    gamma: np.ndarray,
    alpha: float,
    beta: float,
    margin: str,
) -> float:
    """ACB with w and γ given."""
    p_t = true_class(z, y)
    focal = np.mean(w[y] * (1.0 - p_t) ** gamma[y] * -np.log(p_t))
    p = np.sort(softmax(z), axis=1)
    gap = p[:, -1] - p[:, -2]
    edge = np.exp(-2.0 * gap.mean()) if margin == "batch" else np.exp(-2.0 * gap).mean()
    return float(alpha * focal + beta * edge)


def counted(batches: list[Batch], i: int, statistics: str) -> list[Batch]:
    """The batches whose samples make d_c when batch i is weighed."""
    start = {"running": 0, "epoch": 0 if i < EPOCH_BORDER else EPOCH_BORDER, "batch": i}
    return batches[start[statistics] : i + 1]


def train_on(loss: Loss, batches: list[Batch]) -> list[float]:
    """Values of the loss over two epochs of training."""
    loss.train()
    values = []
    for i, (z, y) in enumerate(batches):
        if i in (0, EPOCH_BORDER):
            loss.start_epoch()
        values.append(float(loss(*tensors(z, y))))
    return values


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize(("alpha", "beta"), [(0.25, 0.75), (1.3, 0.4)])
def test_acb_equals_the_formula(statistics: str, margin: str, alpha: float, beta: float) -> None:
    batches = batches_of(10)
    loss = build_loss("acb", alpha=alpha, beta=beta, statistics=statistics, margin=margin)
    expected = [
        acb(z, y, *weights_and_gammas(counted(batches, i, statistics)), alpha, beta, margin)
        for i, (z, y) in enumerate(batches)
    ]
    np.testing.assert_allclose(train_on(loss, batches), expected, rtol=1e-12)


def test_acb_defaults_are_those_of_the_report() -> None:
    batches = batches_of(20)
    explicit = build_loss(
        "acb", classes=3, alpha=0.25, beta=0.75, statistics="running", margin="batch"
    )
    assert train_on(build_loss("acb"), batches) == train_on(explicit, batches)


def test_the_three_statistics_differ_only_where_they_should() -> None:
    batches = batches_of(30)
    running, epoch, batch = (
        train_on(build_loss("acb", statistics=name), batches) for name in STATISTICS
    )
    assert running[0] == epoch[0] == batch[0]
    assert running[:EPOCH_BORDER] == epoch[:EPOCH_BORDER]
    assert epoch[EPOCH_BORDER] == batch[EPOCH_BORDER]
    assert abs(running[1] - batch[1]) > 1e-6
    assert abs(running[EPOCH_BORDER] - epoch[EPOCH_BORDER]) > 1e-6
    assert abs(epoch[-1] - batch[-1]) > 1e-6


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("statistics", STATISTICS)
def test_acb_gradient_equals_finite_differences_with_w_and_gamma_constant(
    statistics: str, margin: str
) -> None:
    batches = batches_of(40)
    loss = build_loss("acb", alpha=0.6, beta=0.9, statistics=statistics, margin=margin)
    train_on(loss, batches[:-1])
    z, y = batches[-1]
    logits = torch.tensor(z, requires_grad=True)
    loss(logits, torch.tensor(y)).backward()
    w, gamma = weights_and_gammas(counted(batches, len(batches) - 1, statistics))
    step = 1e-6
    expected = np.empty_like(z)
    for where in np.ndindex(*z.shape):
        up, down = z.copy(), z.copy()
        up[where] += step
        down[where] -= step
        rise = acb(up, y, w, gamma, 0.6, 0.9, margin) - acb(down, y, w, gamma, 0.6, 0.9, margin)
        expected[where] = rise / (2 * step)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-6, atol=1e-8)


def test_value_and_gradient_equal_those_of_the_plain_loss_that_bench_train_compares_with() -> None:
    plain, ours = ReportLoss(CLASSES, 0.25, 0.75).double(), build_loss("acb")
    for z, y in batches_of(45):
        found = []
        for loss in (plain, ours):
            logits = torch.tensor(z, requires_grad=True)
            value = loss(logits, torch.tensor(y))
            value.backward()
            found.append((value.detach(), logits.grad))
        torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)


def focal(z: np.ndarray, y: np.ndarray, gamma: float) -> float:
    p_t = true_class(z, y)
    return float(np.mean((1.0 - p_t) ** gamma * -np.log(p_t)))


def smoothed(z: np.ndarray, y: np.ndarray, weights: Sequence[float], smoothing: float) -> float:
    """Cross-entropy against explicit soft targets, each class's term with its weight."""
    target = np.full_like(z, smoothing / CLASSES)
    target[np.arange(len(y)), y] += 1.0 - smoothing
    w = np.array(weights)
    return float(-(target * w * np.log(softmax(z))).sum() / w[y].sum())


def adjusted(z: np.ndarray, y: np.ndarray, prior: Sequence[float], tau: float) -> float:
    """In the form of Menon et al. 2021, eq. 10, right: a sum over margins, no softmax."""
    total = 0.0
    for row, true in zip(z, y, strict=True):
        ratios = (np.array(prior) / prior[true]) ** tau
        total += math.log(sum(ratios * np.exp(row - row[true])))
    return total / len(y)


W, PRIOR = [0.25, 2.5, 1.0], [0.5, 0.125, 0.375]


@pytest.mark.parametrize(
    ("settings_", "formula"),
    [
        *(
            ({"name": "focal", "gamma": gamma}, partial(focal, gamma=gamma))
            for gamma in (0.0, 0.5, 1.0, 2.0, 3.5)
        ),
        *(
            (
                {"name": "ce", "label_smoothing": smoothing},
                partial(smoothed, weights=[1.0] * 3, smoothing=smoothing),
            )
            for smoothing in (0.0, 0.1, 1.0)
        ),
        (
            {"name": "weighted_ce", "class_weights": W, "label_smoothing": 0.2},
            partial(smoothed, weights=W, smoothing=0.2),
        ),
        *(
            (
                {"name": "logit_adjusted", "class_priors": PRIOR, "tau": tau},
                partial(adjusted, prior=PRIOR, tau=tau),
            )
            for tau in (0.0, 0.5, 1.0, 2.0)
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_value_and_gradient(
    settings_: dict[str, Any], formula: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    z, y = random_batch(50, 7)
    logits = torch.tensor(z, requires_grad=True)
    value = build_loss(**settings_)(logits, torch.tensor(y))
    value.backward()
    # Class weights and priors are held in float32.
    assert float(value.detach()) == pytest.approx(formula(z, y), rel=1e-7)
    step = 1e-6
    assert logits.grad is not None
    for where in np.ndindex(*z.shape):
        shift = np.zeros_like(z)
        shift[where] = step
        slope = (formula(z + shift, y) - formula(z - shift, y)) / (2 * step)
        assert float(logits.grad[where]) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_only_the_ratios_of_the_priors_matter() -> None:
    z, y = tensors(*random_batch(51, 6))
    shares, counts = (
        build_loss("logit_adjusted", class_priors=prior)(z, y)
        for prior in (PRIOR, [400.0, 100.0, 300.0])
    )
    torch.testing.assert_close(shares, counts, rtol=1e-6, atol=0)


def test_alpha_zero_leaves_the_margin_alone() -> None:
    z, y = random_batch(60, 5)
    gap = np.sort(softmax(z), axis=1)
    gap = gap[:, -1] - gap[:, -2]
    values = [
        float(build_loss("acb", alpha=0.0, beta=0.75, margin="batch")(*tensors(z, labels)))
        for labels in (y, (y + 1) % CLASSES)
    ]
    assert values[0] == values[1]  # the labels play no part
    assert values[0] == pytest.approx(0.75 * math.exp(-2.0 * gap.mean()), rel=1e-12)


def test_beta_zero_leaves_the_focal_part_alone() -> None:
    z, y = random_batch(61, 5)
    w, gamma = weights_and_gammas([(z, y)])
    p_t = true_class(z, y)
    expected = 0.25 * np.mean(w[y] * (1.0 - p_t) ** gamma[y] * -np.log(p_t))
    for margin in MARGINS:
        value = build_loss("acb", alpha=0.25, beta=0.0, margin=margin)(*tensors(z, y))
        assert float(value) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("statistics", STATISTICS)
def test_a_class_not_seen_yet_has_weight_one_and_gamma_three_halves(statistics: str) -> None:
    loss = build_loss("acb", alpha=1.0, beta=0.0, statistics=statistics)
    loss.train()
    loss(*tensors(*random_batch(62, 4, [0, 1, 0, 1])))
    loss.eval()
    z, y = random_batch(63, 1, [2])
    p_t = true_class(z, y)[0]
    expected = (1.0 - p_t) ** 1.5 * -math.log(p_t)
    assert float(loss(*tensors(z, y))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("margin", MARGINS)
def test_a_single_sample(margin: str) -> None:
    z, y = random_batch(64, 1)
    p_t = true_class(z, y)[0]
    w, gamma = 1.0 + 5.0 * math.log(2.0 - p_t), 1.5 + 3.0 * math.log(2.0 - p_t)
    p = sorted(softmax(z)[0])
    expected = 0.25 * w * (1.0 - p_t) ** gamma * -math.log(p_t)
    expected += 0.75 * math.exp(-2.0 * (p[2] - p[1]))
    assert float(build_loss("acb", margin=margin)(*tensors(z, y))) == pytest.approx(expected)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("statistics", STATISTICS)
def test_perfect_uniform_and_hopeless_predictions(statistics: str, margin: str) -> None:
    labels = torch.tensor([0, 1, 2, 1])
    sure = 60.0 * F.one_hot(labels, CLASSES).double()

    def value(logits: torch.Tensor) -> float:
        return float(build_loss("acb", statistics=statistics, margin=margin)(logits, labels))

    assert value(sure) == pytest.approx(0.75 * math.exp(-2.0), rel=1e-12)
    d = 2.0 / 3.0
    uniform = (1.0 + 5.0 * math.log1p(d)) * d ** (1.5 + 3.0 * math.log1p(d)) * math.log(3.0)
    assert value(torch.zeros(4, CLASSES).double()) == pytest.approx(
        0.25 * uniform + 0.75, rel=1e-12
    )
    hopeless = (1.0 + 5.0 * math.log(2.0)) * 60.0
    assert value(sure.roll(1, dims=1)) == pytest.approx(
        0.25 * hopeless + 0.75 * math.exp(-2.0), rel=1e-12
    )


@pytest.mark.parametrize("statistics", STATISTICS)
def test_difficulty_of_what_was_seen(statistics: str) -> None:
    batches = batches_of(70)
    loss = build_loss("acb", statistics=statistics)
    assert loss.difficulty().tolist() == [0.0] * CLASSES
    train_on(loss, batches)
    w, _ = weights_and_gammas(counted(batches, len(batches) - 1, statistics))
    np.testing.assert_allclose(loss.difficulty().numpy(), np.expm1((w - 1.0) / 5.0), atol=1e-12)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("statistics", STATISTICS)
def test_eval_uses_the_statistics_and_does_not_change_them(statistics: str, margin: str) -> None:
    batches = batches_of(80)
    loss = build_loss("acb", statistics=statistics, margin=margin)
    train_on(loss, batches)
    before = copy.deepcopy(loss.state_dict())
    loss.eval()
    z, y = random_batch(89, 6)
    expected = acb(
        z,
        y,
        *weights_and_gammas(counted(batches, len(batches) - 1, statistics)),
        0.25,
        0.75,
        margin,
    )
    for _ in range(2):
        assert float(loss(*tensors(z, y))) == pytest.approx(expected, rel=1e-12)
    after = loss.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("statistics", STATISTICS)
def test_a_resumed_loss_continues_identically(statistics: str) -> None:
    batches = batches_of(90)
    unbroken = build_loss("acb", statistics=statistics)
    train_on(unbroken, batches[:2])
    resumed = build_loss("acb", statistics=statistics)
    resumed.load_state_dict(copy.deepcopy(unbroken.state_dict()))
    z, y = tensors(*batches[2])
    probe = tensors(*batches[1])
    fresh = build_loss("acb", statistics=statistics).eval()
    assert float(resumed.eval()(*probe)) == float(unbroken.eval()(*probe)) != float(fresh(*probe))
    unbroken.train()
    resumed.train()
    assert float(unbroken(z, y)) == float(resumed(z, y))
    assert all(
        torch.equal(a, b)
        for a, b in zip(unbroken.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_of_acb_only_the_statistics_are_saved() -> None:
    assert set(build_loss("acb").state_dict()) == {"difficulty_sum", "sample_count"}


@pytest.mark.parametrize("margin", MARGINS)
def test_acb_of_two_classes(margin: str) -> None:
    z, y = random_batch(95, 5, [0, 1, 1, 0, 1])
    z, p_t = z[:, :2], true_class(z[:, :2], y)
    d = np.array([(1.0 - p_t[y == c]).mean() for c in range(2)])
    w, gamma = 1.0 + 5.0 * np.log1p(d), 1.5 + 3.0 * np.log1p(d)
    loss = build_loss("acb", classes=2, alpha=0.25, beta=0.75, margin=margin)
    value = float(loss(*tensors(z, y)))
    assert value == pytest.approx(acb(z, y, w, gamma, 0.25, 0.75, margin), rel=1e-12)


def test_statistics_do_not_hold_the_graph() -> None:
    loss = build_loss("acb")
    for seed in (1, 2):  # a second backward through the first batch's graph would raise
        z, y = tensors(*random_batch(seed, 4))
        z.requires_grad_()
        loss(z, y).backward()
    assert not any(value.requires_grad for value in loss.state_dict(keep_vars=True).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_pytorch_has_too_equals_pytorch(dtype: torch.dtype) -> None:
    class_weights = [0.4, 2.5, 1.1]
    z, y = tensors(*random_batch(100, 9))
    weighted = build_loss("weighted_ce", class_weights=class_weights, label_smoothing=0.3)
    cases = [
        (build_loss("ce"), None, 0.0),
        (build_loss("ce", label_smoothing=0.1), None, 0.1),
        (build_loss("focal", gamma=0.0), None, 0.0),
        (build_loss("logit_adjusted", class_priors=class_weights, tau=0.0), None, 0.0),
        (build_loss("weighted_ce", class_weights=class_weights), class_weights, 0.0),
        (build_loss("weighted_ce", class_weights=torch.tensor(class_weights)), class_weights, 0.0),
        (weighted, class_weights, 0.3),
    ]
    for loss, weights, smoothing in cases:
        mine, theirs = (z.to(dtype).requires_grad_() for _ in range(2))
        weight = None if weights is None else torch.tensor(weights).to(dtype)
        value = loss(mine, y)
        expected = F.cross_entropy(theirs, y, weight, label_smoothing=smoothing)
        torch.testing.assert_close(value, expected)
        value.backward()
        expected.backward()
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize(
    ("name", "flag"), [("weighted_ce", "class_weights"), ("logit_adjusted", "class_priors")]
)
def test_class_weights_and_priors_belong_to_the_state_dict(name: str, flag: str) -> None:
    saved, loaded = (build_loss(name, **{flag: [1.0, x, 3.0]}) for x in (2.0, 1.0))
    z, y = tensors(*random_batch(101, 6, [0, 1, 2, 0, 1, 2]))
    assert float(saved(z, y)) != float(loaded(z, y))
    loaded.load_state_dict(saved.state_dict())
    assert float(saved(z, y)) == float(loaded(z, y))


@pytest.mark.parametrize(
    ("name", "flag"), [("weighted_ce", "class_weights"), ("logit_adjusted", "class_priors")]
)
def test_float64_weights_and_priors_leave_a_float32_loss(name: str, flag: str) -> None:
    given = {flag: torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}
    z, y = tensors(*random_batch(102, 4))
    assert build_loss(name, **given)(z.float(), y).dtype is torch.float32


def all_losses() -> list[Loss]:
    return [
        *(
            build_loss("acb", statistics=statistics, margin=margin)
            for statistics in STATISTICS
            for margin in MARGINS
        ),
        build_loss("ce"),
        build_loss("weighted_ce", class_weights=[0.1, 1.0, 7.0]),
        build_loss("ce", label_smoothing=0.1),
        build_loss("weighted_ce", class_weights=[0.1, 1.0, 7.0], label_smoothing=1.0),
        *(build_loss("focal", gamma=gamma) for gamma in (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)),
        *(build_loss("logit_adjusted", class_priors=[0.6, 0.1, 0.3], tau=t) for t in (0.0, 2.0)),
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    z, y = tensors(*random_batch(102, 8))
    half = z.to(dtype)
    for loss, other in zip(all_losses(), all_losses(), strict=True):
        value = loss(half, y)
        assert value.dtype == torch.float32
        assert value.shape == ()
        assert float(value) == float(other(half.float(), y))


LARGEST = {torch.float16: 65504.0, torch.bfloat16: 3.38e38, torch.float32: 3.4e38}


def finite_logits(dtype: torch.dtype) -> st.SearchStrategy[list[tuple[list[float], int]]]:
    top = LARGEST[dtype]
    corners = [0.0, 1e-30, 17.0, -104.0, 6e4, -6e4, top, -top]
    corners += [] if dtype == torch.float16 else [1e15, -1e30, 3e38, -3e38]
    number = st.sampled_from(corners) | st.floats(-top, top) | st.floats(-30.0, 30.0)
    row = st.lists(number, min_size=CLASSES, max_size=CLASSES)
    return st.lists(st.tuples(row, st.integers(0, CLASSES - 1)), min_size=1, max_size=4)


def check_finite(rows: list[tuple[list[float], int]], dtype: torch.dtype) -> None:
    labels = torch.tensor([label for _, label in rows])
    for loss in all_losses():
        logits = torch.tensor([row for row, _ in rows], dtype=torch.float64).to(dtype)
        assert bool(logits.isfinite().all())
        logits.requires_grad_()
        for _ in range(2):  # the second time with statistics that hold the extremes
            value = loss(logits, labels)
            assert bool(value.isfinite()), (loss, rows)
            assert float(value.detach()) >= 0
        value.backward()
        assert logits.grad is not None
        assert bool(logits.grad.isfinite().all()), (loss, rows)
        assert all(bool(buffer.isfinite().all()) for buffer in loss.buffers())


@settings(max_examples=50, deadline=None)
@example([([6e4, -6e4, 0.0], 0), ([6e4, -6e4, 0.0], 1)])
@example([([65504.0, 65504.0, -65504.0], 2)])
@given(finite_logits(torch.float16))
def test_no_nan_or_infinity_in_float16(rows: list[tuple[list[float], int]]) -> None:
    check_finite(rows, torch.float16)


@settings(max_examples=50, deadline=None)
@example([([3e38, -3e38, 0.0], 0), ([3e38, -3e38, 0.0], 1)])
@given(finite_logits(torch.bfloat16))
def test_no_nan_or_infinity_in_bfloat16(rows: list[tuple[list[float], int]]) -> None:
    check_finite(rows, torch.bfloat16)


@settings(max_examples=50, deadline=None)
@example([([3e38, -3e38, 0.0], 0), ([3e38, -3e38, 0.0], 1)])
@example([([16.0, 0.0, 0.0], 0)])
@given(finite_logits(torch.float32))
def test_no_nan_or_infinity_in_float32(rows: list[tuple[list[float], int]]) -> None:
    check_finite(rows, torch.float32)


def test_defaults_are_those_of_the_papers() -> None:
    z, y = tensors(*random_batch(0, 5))
    priors = {"class_priors": [0.5, 0.3, 0.2]}
    for made, wanted in (
        ((build_loss("focal"), FocalLoss()), build_loss("focal", gamma=2.0)),
        ((build_loss("ce"), CrossEntropyLoss()), build_loss("ce", label_smoothing=0.0)),
        (
            (build_loss("logit_adjusted", **priors), LogitAdjustedLoss(**priors)),
            build_loss("logit_adjusted", **priors, tau=1.0),
        ),
    ):
        for loss in made:
            assert torch.equal(loss(z, y), wanted(z, y)), loss


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(-8.0, 8.0), min_size=CLASSES, max_size=CLASSES),
            st.integers(0, CLASSES - 1),
        ),
        min_size=1,
        max_size=6,
    ),
    st.permutations(range(CLASSES)),
)
def test_acb_does_not_depend_on_the_order_of_rows_or_the_names_of_classes(
    rows: list[tuple[list[float], int]], order: list[int]
) -> None:
    z = torch.tensor([row for row, _ in rows], dtype=torch.float64)
    y = torch.tensor([label for _, label in rows])
    value = build_loss("acb")(z, y)
    renamed = torch.tensor(order).argsort()[y]
    torch.testing.assert_close(build_loss("acb")(z[:, order], renamed), value)
    torch.testing.assert_close(build_loss("acb")(z.flip(0), y.flip(0)), value)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"name": "hinge"}, "unknown loss 'hinge'; valid: acb, ce, weighted_ce, focal, logit"),
        (
            {"name": "acb", "statistics": "all"},
            "unknown statistics 'all'; valid: running, epoch, batch",
        ),
        ({"name": "acb", "margin": "row"}, "unknown margin 'row'; valid: batch, sample"),
        ({"name": "acb", "classes": 1}, "classes: the margin needs at least 2, received 1"),
        ({"name": "acb", "alpha": -0.1}, "alpha: expected a number ≥ 0, received -0.1"),
        ({"name": "acb", "beta": math.inf}, "beta: expected a number ≥ 0, received inf"),
        ({"name": "acb", "alpha": math.nan}, "alpha: expected a number ≥ 0, received nan"),
        ({"name": "focal", "gamma": -1.0}, "gamma: expected a number ≥ 0, received -1.0"),
        ({"name": "logit_adjusted"}, "'logit_adjusted' needs class_priors: expected 3, received n"),
        (
            {"name": "logit_adjusted", "class_priors": [0.0, 1.0, 2.0]},
            r"class_priors: expected one positive finite .* received \[0.0, 1.0, 2.0\]",
        ),
        (
            {"name": "logit_adjusted", "class_priors": [1.0, 1.0, 2.0], "tau": -1.0},
            "tau: expected a number ≥ 0, received -1.0",
        ),
        (
            {"name": "ce", "label_smoothing": 1.5},
            r"label_smoothing: expected a number in \[0, 1\], received 1.5",
        ),
        ({"name": "weighted_ce"}, "'weighted_ce' needs class_weights: expected 3, received none"),
        (
            {"name": "weighted_ce", "class_weights": [1.0, 2.0]},
            "needs class_weights: expected 3, received 2",
        ),
        (
            {"name": "weighted_ce", "class_weights": [1.0, 0.0, 2.0]},
            r"class_weights: expected one positive finite .* received \[1.0, 0.0, 2.0\]",
        ),
        (
            {"name": "weighted_ce", "class_weights": [1.0, math.inf, 2.0]},
            "class_weights: expected one positive finite",
        ),
    ],
)
def test_wrong_settings(settings_: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_loss(**settings_)


@pytest.mark.parametrize(
    ("logits", "labels", "received"),
    [
        ((0, 3), (0,), r"received \(0, 3\) and \(0,\)"),
        ((4, 3), (5,), r"received \(4, 3\) and \(5,\)"),
        ((4, 3, 1), (4,), r"received \(4, 3, 1\) and \(4,\)"),
        ((3,), (3,), r"received \(3,\) and \(3,\)"),
    ],
)
def test_wrong_shapes(logits: tuple[int, ...], labels: tuple[int, ...], received: str) -> None:
    for name in LOSSES:
        loss = build_loss(name, class_weights=[1.0, 1.0, 1.0], class_priors=[1.0, 1.0, 1.0])
        with pytest.raises(ValueError, match=received):
            loss(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))


def test_acb_refuses_other_classes_than_it_was_built_for() -> None:
    with pytest.raises(ValueError, match="built for 3 classes, received 4"):
        build_loss("acb")(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
