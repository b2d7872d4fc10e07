"""Posts that lack their text or their picture, from the features to the figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fuse.figures.halves import rows_by_presence
from fuse.models.classifier import Classifier
from fuse.models.fusions import FUSIONS
from fuse.search.baselines import read_vectors, standardise
from fuse.setting import Setting, complete
from fuse.training.classifier import predict
from fuse.training.final import train
from fuse.training.recipe import Recipe
from fuse.training.task import Task
from fuse.training.trainer import fit_group
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.rows import sample_rows
from mmsa_cache.store.keys import content_keys
from mmsa_cache.store.schema import Shard
from tests.support.shards import make_keys

NAMES = ("positive", "neutral", "negative")
POSTS, COPIES, DIM = 48, 1, 4
LABELS = np.arange(POSTS) % 3
PRESENT = np.ones((POSTS, 2), np.bool_)
PRESENT[0::4, 1] = False
PRESENT[1::8, 0] = False
TRAIN, HELD_OUT = np.arange(36), np.arange(36, POSTS)
SMALL = Setting(
    text_dim=8,
    image_dim=8,
    heads=2,
    layers=1,
    ffn=8,
    head="8",
    epochs=2,
    batch_size=8,
    keep="last",
    norm="standardise",
    beside=True,
    variants=True,
    directions="both",
)


def features(seed: int, has: np.ndarray, offset: float = 0.0) -> ModalityFeatures:
    """Tokens and vectors of the samples that have the modality, each with a copy.

    ``offset`` moves a first row, which no sample has: it stands in for what is absent.
    """
    rng = np.random.default_rng(seed)
    count = int(has.sum())
    rows = 1 + count * (1 + COPIES)
    label = np.r_[0, np.repeat(LABELS[has], 1 + COPIES)]
    lengths = rng.integers(1, 4, rows)
    tokens = rng.standard_normal((lengths.sum(), DIM)) + np.repeat(label, lengths)[:, None]
    pooled = rng.standard_normal((rows, 1, DIM)) + label[:, None, None]
    tokens[: lengths[0]] += offset
    pooled[0] += offset
    table = np.full((POSTS, 1 + COPIES), -1)
    table[has] = 1 + np.arange(count * (1 + COPIES)).reshape(count, -1)
    shard = Shard(
        make_keys(0, rows),
        [""] * rows,
        np.r_[0, lengths.cumsum()],
        tokens.astype(np.float16),
        pooled.astype(np.float16),
        ("mean",),
    )
    return ModalityFeatures([shard], "made up", table=table)


def bank_of(offset: float = 0.0) -> FeatureBank:
    sides = [features(i, PRESENT[:, i], offset) for i in range(2)]
    guids = [str(i) for i in range(POSTS)]
    return FeatureBank(*sides, guids, LABELS.tolist(), partial=True)


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    return bank_of()


def fitted(setting: Setting, bank: FeatureBank, **how: bool) -> Classifier:
    task = Task(TRAIN, np.empty(0, np.int64), 1)
    return fit_group(setting, bank, [task], names=NAMES, **how)[0].model


def test_what_is_absent_needs_no_row() -> None:
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 255, (5, 32), np.uint8)
    digests[[1, 3]] = 0
    digests[4] = digests[0]
    wanted = sample_rows(digests, [1, 1, 0, 2, 1], "policy:1")
    assert wanted.table.tolist() == [[0, 2], [-1, -1], [1, -1], [-1, -1], [0, 2]]
    np.testing.assert_array_equal(wanted.keys[:2], content_keys(digests[[0, 2]]))
    nothing = sample_rows(np.zeros((3, 32), np.uint8), [0, 1, 2], "policy:1")
    assert nothing.table.tolist() == [[-1], [-1], [-1]]
    assert len(nothing.keys) == 0


def test_copies_are_of_the_half_that_is_there(bank: FeatureBank) -> None:
    items = bank.items(np.arange(POSTS), variants=True)
    assert len(items) == 2 * POSTS
    assert ((items[:, 1:] >= 0).numpy() == PRESENT[items[:, 0]]).all()
    drawn = bank.paired_freely(items, torch.Generator().manual_seed(0))
    assert ((drawn[:, 1:] >= 0).numpy() == PRESENT[drawn[:, 0]]).all()
    np.testing.assert_array_equal(drawn[:POSTS], items[:POSTS])
    assert (drawn[POSTS:] != items[POSTS:]).any()


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_moments_are_of_the_rows_that_are_there(bank: FeatureBank, level: str) -> None:
    items = bank.items(np.arange(POSTS), variants=False)
    found = bank.moments(items, level=level, text_pool="mean", image_pool="mean", grid=0)
    for side, features_of, has in zip(
        ("text", "image"), (bank.text, bank.image), PRESENT.T, strict=True
    ):
        rows = features_of.table[torch.from_numpy(has), 0]
        vectors = features_of.vectors(rows, "mean").double()
        mean, std = found[f"{side}_mean"]
        torch.testing.assert_close(mean, vectors.mean(0).float())
        torch.testing.assert_close(std, vectors.std(0, correction=0).float())


def test_nothing_present_has_moments_of_zero(bank: FeatureBank) -> None:
    items = bank.items(np.flatnonzero(~PRESENT[:, 0]), variants=False)
    found = bank.moments(items, level="pooled", text_pool="mean", image_pool="mean", grid=0)
    assert not found["text_mean"][0].any()
    assert not found["text"][1].any()


@pytest.mark.parametrize(
    ("fusion", "level"),
    [
        *((fusion, "tokens") for fusion in (*FUSIONS, "kernel", "linear kernel")),
        *((fusion, "pooled") for fusion in ("concat", "late")),
    ],
)
def test_what_stands_in_for_an_absent_half_makes_no_difference(
    bank: FeatureBank, fusion: str, level: str
) -> None:
    """Trained and predicted on two banks that differ only there: the same finite numbers."""
    setting = replace(SMALL, level=level)
    if "kernel" in fusion:
        kernel = "linear" if fusion.startswith("linear") else "rbf"
        values = {"fusion": "kernel", "optimiser": "lbfgs", "loss": "ce", "level": level}
        setting = complete(values | {"kernel": kernel, "text_pool": "mean", "image_pool": "mean"})
    else:
        setting = replace(setting, fusion=fusion)
    found = [
        predict(fitted(setting, of), of, np.arange(POSTS), setting) for of in (bank, bank_of(50.0))
    ]
    assert np.isfinite(found[0]).all()
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_members_of_a_stack_learn_as_alone(bank: FeatureBank, level: str) -> None:
    setting = replace(SMALL, level=level, fusion="attention_concat", dropout=0.0)
    alone, stacked = (
        [
            predict(fit.model, bank, HELD_OUT, setting)
            for fit in fit_group(
                setting,
                bank,
                [Task(TRAIN, np.empty(0, np.int64), seed) for seed in (1, 2)],
                names=NAMES,
                stacked=how,
                whole_length=True,
            )
        ]
        for how in (False, True)
    )
    np.testing.assert_allclose(alone, stacked, atol=2e-4)


def filled(bank: FeatureBank, rows: np.ndarray) -> np.ndarray:
    """Vectors standardised over the training rows that have them; zeros where they are absent."""
    parts = []
    for side, has in zip((bank.text, bank.image), PRESENT.T, strict=True):
        values = np.zeros((POSTS, DIM))
        place = side.table[torch.from_numpy(has), 0]
        values[has] = side.vectors(place, "mean").double().numpy()
        known = values[[row for row in TRAIN if has[row]]]
        parts.append(np.where(has[:, None], (values - known.mean(0)) / known.std(0), 0.0))
    return np.concatenate(parts, 1)[rows]


def test_the_linear_kernel_is_a_regression_on_zeros_in_place_of_absent_blocks(
    bank: FeatureBank,
) -> None:
    values = {"fusion": "kernel", "optimiser": "lbfgs", "loss": "ce", "kernel": "linear"}
    setting = complete(
        values | {"ridge": 0.5, "variants": False, "text_pool": "mean", "image_pool": "mean"}
    )
    found = predict(fitted(setting, bank), bank, HELD_OUT, setting)
    reference = LogisticRegression(C=2.0, tol=1e-10, max_iter=5000)
    scale = DIM**-0.5
    reference.fit(filled(bank, TRAIN) * scale, LABELS[TRAIN])
    expected = reference.predict_proba(filled(bank, HELD_OUT) * scale)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_baselines_read_zeros_in_place_of_absent_blocks(bank: FeatureBank) -> None:
    rows = np.concatenate([TRAIN, HELD_OUT])
    setting = Setting(text_pool="mean", image_pool="mean")
    found = standardise(read_vectors(bank, rows, setting), len(TRAIN))
    np.testing.assert_allclose(found, filled(bank, rows), atol=1e-4)
    absent = np.full((3, 2), np.nan, np.float32)
    assert not standardise(absent, 2).any()


def test_figures_stand_apart(bank: FeatureBank) -> None:
    setting = replace(SMALL, variants=False, epochs=8, learning_rate=0.01)
    protocol = Protocol(outer="stratified-2", folds=2, seeds=1, seed=1)
    trained = train([Recipe.single(setting)], bank, np.arange(POSTS), protocol, names=NAMES)
    found = trained.figures.halves
    kinds = {"whole posts": (True, True), "text only": (True, False), "picture only": (False, True)}
    assert {kind: score.rows for kind, score in found.items()} == {
        kind: int((of == PRESENT).all(1).sum()) for kind, of in kinds.items()
    }
    codes = trained.predicted["accuracy"]
    for kind, of in kinds.items():
        rows = (PRESENT[trained.outer] == of).all(1)
        right = (codes == LABELS[trained.outer])[rows].mean()
        assert found[kind].accuracy == pytest.approx(right)
    assert rows_by_presence(np.ones((3, 2), np.bool_)) == {}
