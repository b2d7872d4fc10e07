"""Steps whose texts are padded to a few lengths learn what they learn padded to the longest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fuse.models.cropped import CroppedTape
from fuse.models.fusions import FUSIONS
from fuse.models.noise import noise_from
from fuse.setting import Setting
from fuse.training import buckets
from fuse.training.buckets import Buckets, part_sizes
from fuse.training.stack import Stack
from fuse.training.task import Fit, Task
from fuse.training.trainer import fit_group
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store.schema import Shard
from tests.support.shards import make_keys
from tests.support.stacks import NAMES

ROWS, LONGEST, DIM = 90, 70, 6
TASKS = [Task(np.arange(k, k + 70), np.arange(20), k) for k in range(3)]
SETTING = Setting(
    level="tokens", text_dim=8, image_dim=8, head="", heads=2, layers=2, ffn=8, epochs=2,
    batch_size=32, learning_rate=3e-3, dropout=0.2, input_dropout=0.1, modality_dropout=0.1,
    beside=True,
)  # fmt: skip


@pytest.fixture(autouse=True)
def four_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 32 rows come in four parts."""
    monkeypatch.setattr(buckets, "PART_ROWS", 4)


@pytest.fixture(scope="module")
def long_bank() -> FeatureBank:
    """Most texts are short; every sample has four patches."""
    rng = np.random.default_rng(0)
    texts = np.minimum(rng.geometric(0.05, ROWS), LONGEST)
    texts[0] = LONGEST
    return FeatureBank(
        features(texts, 1), features(np.full(ROWS, 4), 2), [*map(str, range(ROWS))],
        [row % 3 for row in range(ROWS)],
    )  # fmt: skip


def features(lengths: np.ndarray, seed: int) -> ModalityFeatures:
    rng = np.random.default_rng(seed)
    shard = Shard(
        make_keys(0, len(lengths)),
        [""] * len(lengths),
        np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
        rng.standard_normal((lengths.sum(), DIM)).astype(np.float16),
        rng.standard_normal((len(lengths), 1, DIM)).astype(np.float16),
        ("mean",),
    )
    return ModalityFeatures([shard], "made up")


def trained(bank: FeatureBank, setting: Setting, tasks: list[Task], **options: Any) -> list[Fit]:
    return fit_group(setting, bank, tasks, names=NAMES, whole_length=True, **options)


def assert_same(ones: list[Fit], others: list[Fit]) -> None:
    """Weights but the biases of attention: the gradient of the keys' is 0 but for rounding."""
    for one, other in zip(ones, others, strict=True):
        losses, expected = ([epoch.loss for epoch in fit.history] for fit in (one, other))
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        weights = other.model.state_dict()
        for name, value in one.model.state_dict().items():
            if not name.endswith("in_proj_bias"):
                torch.testing.assert_close(value, weights[name], atol=2e-5, rtol=0, msg=name)


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the steps that stacks took."""
    taken: list[tuple[int, ...]] = []
    step = Stack._step

    def noted(stack: Stack, shape: tuple[int, ...]) -> None:
        taken.append(shape)
        step(stack, shape)

    monkeypatch.setattr(Stack, "_step", noted)
    return taken


@pytest.mark.parametrize("fusion", FUSIONS)
def test_less_padding_changes_nothing_that_is_learned(
    long_bank: FeatureBank, shapes: list[tuple[int, ...]], fusion: str
) -> None:
    setting = replace(SETTING, fusion=fusion, directions="both")
    stacked = trained(long_bank, setting, TASKS, stacked=True)
    assert_same(stacked, trained(long_bank, setting, TASKS, stacked=False))
    assert len(set(shapes)) > 1
    assert np.mean(shapes) < 0.7 * LONGEST


def test_less_padding_changes_nothing_without_dropout_and_with_a_mask_a_row(
    long_bank: FeatureBank,
) -> None:
    whole = replace(SETTING, fusion="attention_concat", grid=2)
    without = replace(whole, dropout=0.0, input_dropout=0.0)
    for setting in (without, replace(whole, shared_input_dropout=True)):
        stacked = trained(long_bank, setting, TASKS, stacked=True)
        assert_same(stacked, trained(long_bank, setting, TASKS, stacked=False))


def test_the_company_of_others_changes_no_padded_member(
    long_bank: FeatureBank, shapes: list[tuple[int, ...]]
) -> None:
    setting = replace(SETTING, fusion="encoder")
    alone = [trained(long_bank, setting, [task], stacked=True)[0] for task in TASKS]
    assert_same(trained(long_bank, setting, TASKS, stacked=True), alone)
    *apart, together = np.array(shapes).reshape(4, -1, 4)
    assert any((of != together).any() for of in apart), "the steps had other shapes"


def test_a_step_that_is_longer_than_all_others_has_a_shape(long_bank: FeatureBank) -> None:
    lengths = long_bank.text.lengths(torch.arange(ROWS))
    short = torch.arange(ROWS)[lengths < 20][:40]
    items = short[:, None].expand(-1, 3)
    epoch = items[:32].expand(2, 1, 32, 3)
    found = Buckets(lengths, epoch)
    assert [max(shape) for shape in found.shapes] == [24, LONGEST]
    longest = torch.cat([torch.zeros(1, 3, dtype=torch.int64), items[:31]]).expand(1, 2, 32, 3)
    rows, (shape,) = found.sort(longest)
    assert shape == (LONGEST,) * 4
    assert torch.equal(rows[0, 0, -1], torch.zeros(3, dtype=torch.int64))
    assert (lengths[rows[0, 1, :, 1]].diff() >= 0).all()


def test_small_batches_and_odd_ones_come_in_fewer_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PART_ROWS", 64)
    found = [part_sizes(*given) for given in ((128, 5), (128, 2), (32, 5), (32, 3), (33, 90))]
    assert found == [[64, 32, 16, 16], [64, 32, 32], [16, 16], [32], [33]]


def test_a_cropped_tape_gives_each_position_the_noise_of_the_whole() -> None:
    whole = [(4, 5), (4, 1, 7), (4, 2, 7, 7), (4,), (4, 3)]
    noise = torch.randint(-(2**15), 2**15, (20 + 28 + 392 + 4 + 12,), dtype=torch.int16)
    expected = [
        part.view(shape)
        for part, shape in zip(noise.split([20, 28, 392, 4, 12]), whole, strict=True)
    ]
    # Texts have 5 of 7 positions, and 3 where they are cropped.
    kept = torch.tensor([0, 1, 2, 5, 6])
    asked: list[tuple[int, ...]] = [(3,), (1, 5), (2, 5, 5), ()]
    with noise_from(CroppedTape(noise, whole, 5)) as tape:
        for rows in (slice(0, 3), slice(3, 4)):
            tape.begin_part()
            found = [tape.take((rows.stop - rows.start, *shape)) for shape in asked]
            wanted = [
                expected[0][rows, :3],
                expected[1][rows][..., kept],
                expected[2][rows][..., kept, :][..., kept],
                expected[3][rows],
            ]
            assert all(map(torch.equal, found, wanted))
        tape.end_parts()
        factors = tape.factors((4, 3), 2**14, torch.float32)
        assert torch.equal(factors, (expected[4] >= -(2**14)) / 0.75)
        with pytest.raises(RuntimeError, match="call 5 asks for"):
            tape.take((4, 3))


@pytest.mark.parametrize("members", [1, 2])
def test_what_comes_before_the_classifier_may_be_half_precision(
    long_bank: FeatureBank, monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    setting = replace(SETTING, fusion="attention_concat", epochs=1, keep="last", head="8")
    exact = [
        fit.history[-1].loss for fit in trained(long_bank, setting, TASKS[:members], stacked=True)
    ]
    monkeypatch.setattr(
        "fuse.training.stack.autocast_dtype", lambda setting, device: torch.bfloat16
    )
    read: set[torch.dtype] = set()
    softmax = Tensor.softmax

    def noted(x: Tensor, dim: int) -> Tensor:
        found = softmax(x, dim)
        read.add(x.dtype)
        return found

    monkeypatch.setattr(Tensor, "softmax", noted)
    fits = trained(long_bank, setting, TASKS[:members], stacked=True)
    np.testing.assert_allclose([fit.history[-1].loss for fit in fits], exact, rtol=0.02)
    assert torch.bfloat16 in read
    for fit in fits:
        assert {p.dtype for p in fit.model.parameters()} == {torch.float32}
