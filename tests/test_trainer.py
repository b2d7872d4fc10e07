"""Training on a small bank whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from fuse.ensemble import Ensemble, fit_offsets, honest_offsets, shifted, train
from fuse.fusions import FUSIONS
from fuse.metrics import score
from fuse.trainer import Setting, fit, forward, gather, predict
from mmsa_cache.bank import Dims, FeatureBank, ModalityFeatures
from mmsa_cache.errors import SettingsError
from mmsa_cache.schema import Shard

NAMES = ("positive", "neutral", "negative")
DIM = 16


def modality(labels: np.ndarray, seed: int, pools: tuple[str, ...]) -> ModalityFeatures:
    """Each class has its own direction, so that every model can learn it."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((3, DIM)) * 2
    lengths = rng.integers(1, 4, len(labels))
    tokens = [
        centres[y] + 0.3 * rng.standard_normal((n, DIM))
        for y, n in zip(labels, lengths, strict=True)
    ]
    pooled = np.stack([np.stack([t[0], t.mean(0)]) for t in tokens])
    shard = Shard(
        [str(i) for i in range(len(labels))],
        np.zeros(len(labels), np.int32),
        [""] * len(labels),
        np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
        np.concatenate(tokens).astype(np.float16),
        pooled.astype(np.float16),
        pools,
    )
    return ModalityFeatures([shard], "made up")


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    labels = np.random.default_rng(0).integers(0, 3, 97)
    return FeatureBank(
        modality(labels, 1, ("cls", "mean")),
        modality(labels, 2, ("first", "mean")),
        [str(i) for i in range(97)],
        labels.tolist(),
    )


SMALL = Setting(
    text_dim=16, image_dim=16, layers=1, learning_rate=3e-3, epochs=15, patience=15, dropout=0.1
)
TRAIN, VALIDATION = np.arange(65), np.arange(65, 97)


@pytest.mark.parametrize("level", ["pooled", "tokens"])
@pytest.mark.parametrize("fusion", list(FUSIONS))
def test_every_fusion_learns(bank: FeatureBank, fusion: str, level: str) -> None:
    setting = replace(SMALL, fusion=fusion, level=level)
    result = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1)
    probabilities = predict(result.model, bank, VALIDATION, setting)
    np.testing.assert_allclose(probabilities.sum(1), 1.0)
    right = (probabilities.argmax(1) == bank.labels[VALIDATION].numpy()).mean()
    assert right > 0.9, f"{fusion} at {level} got {right:.2f} where classes hardly overlap"


def test_same_seed_same_model(bank: FeatureBank) -> None:
    a, b = (fit(SMALL, bank, TRAIN, VALIDATION, names=NAMES, seed=3) for _ in range(2))
    assert a.history == b.history
    for name, value in a.model.state_dict().items():
        assert torch.equal(value, b.model.state_dict()[name]), name


def test_best_epoch_is_kept_and_patience_ends(bank: FeatureBank) -> None:
    setting = replace(SMALL, patience=2, epochs=30)
    result = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1)
    values = [record["macro_f1"] for record in result.history]
    assert result.kept["epoch"] == int(np.argmax(values)) + 1
    assert len(values) == min(30, result.kept["epoch"] + 2)
    found = score(
        bank.labels[VALIDATION].numpy(),
        predict(result.model, bank, VALIDATION, setting).argmax(1),
        NAMES,
    )
    assert found["macro_f1"] == max(values)


def test_standardisation_is_fitted_on_the_training_rows(bank: FeatureBank) -> None:
    result = fit(replace(SMALL, epochs=1), bank, TRAIN, VALIDATION, names=NAMES, seed=1)
    want = bank.text.pooled[:65, 1].double()
    have = result.model.text_projection.standardise
    torch.testing.assert_close(have.mean.double(), want.mean(0), atol=1e-5, rtol=0)


def test_a_last_batch_of_one_row_trains(bank: FeatureBank) -> None:
    fit(replace(SMALL, batch_size=32, epochs=1), bank, TRAIN, VALIDATION, names=NAMES, seed=1)


def test_wrong_settings_are_named(bank: FeatureBank) -> None:
    for key, value in (
        ("fusion", "glue"),
        ("optimiser", "sgd9"),
        ("schedule", "never"),
        ("metric", "luck"),
        ("loss", "none"),
        ("level", "words"),
        ("text_pool", "max"),
        ("keep", "worst"),
    ):
        with pytest.raises(SettingsError, match=value):
            fit(replace(SMALL, **{key: value}), bank, TRAIN, VALIDATION, names=NAMES, seed=1)


def test_score_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 2, 50)
    found = score(labels, predicted, NAMES)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["accuracy"] == np.mean(labels == predicted)
    assert np.sum(found["confusion"]) == 50


def test_last_epoch_is_kept_if_wanted(bank: FeatureBank) -> None:
    setting = replace(SMALL, keep="last", epochs=6, patience=1)
    result = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1)
    assert result.kept["epoch"] == len(result.history) == 6
    probabilities = predict(result.model, bank, VALIDATION, setting)
    found = score(bank.labels[VALIDATION].numpy(), probabilities.argmax(1), NAMES)
    assert found["macro_f1"] == result.kept["macro_f1"]


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_pooled_vectors_beside_the_fusion_reach_the_head(bank: FeatureBank, level: str) -> None:
    setting = replace(SMALL, beside=True, level=level, fusion="attention", epochs=3)
    model = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1).model
    batch = gather(bank, bank.items(VALIDATION, variants=False), setting)
    changed = replace(batch, text_vector=batch.text_vector + 1)
    assert not torch.equal(forward(model, batch), forward(model, changed))
    want = bank.text.pooled[:65, 1].double()
    torch.testing.assert_close(
        model.beside["text_vector"].standardise.mean.double(), want.mean(0), atol=1e-5, rtol=0
    )


def test_offsets_of_a_closed_form() -> None:
    """Every row of class 1 gets 0.4 against 0.6: an offset over log 1.5 mends them all."""
    labels = np.array([0] * 20 + [1] * 10)
    probabilities = np.array([[0.9, 0.1]] * 20 + [[0.6, 0.4]] * 10)
    offsets = fit_offsets(probabilities, labels)
    assert offsets[0] == 0
    assert np.log(1.5) < offsets[1] < np.log(9)
    assert (shifted(probabilities, offsets).argmax(1) == labels).all()
    assert (fit_offsets(np.eye(2)[labels] * 0.8 + 0.1, labels) == 0).all()
    np.testing.assert_allclose(shifted(probabilities, offsets).sum(1), 1)


def test_offsets_that_do_not_carry_over_are_left_out() -> None:
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, 30) for _ in range(3)]
    noise = [rng.dirichlet(np.ones(3), 30) for _ in range(3)]
    assert fit_offsets(np.concatenate(noise), np.concatenate(labels)).any()
    kept = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = [rng.integers(0, 3, 30) for _ in range(3)]
        kept += honest_offsets([rng.dirichlet(np.ones(3), 30) for _ in range(3)], labels).any()
    assert kept < 20, "offsets fitted to noise were always taken"
    skewed = [np.where(np.arange(30) < 20, 0, 1) for _ in range(3)]
    timid = [np.array([[0.9, 0.1]] * 20 + [[0.6, 0.4]] * 10)] * 3
    assert honest_offsets(timid, skewed)[1] > np.log(1.5)


def test_ensemble_averages_members_and_comes_back(bank: FeatureBank) -> None:
    setting = replace(SMALL, epochs=2)
    groups = np.arange(len(bank))
    made = train(setting, bank, groups, outer="grouped", names=NAMES, seed=1, folds=3)
    assert len(made.ensemble.members) == 3
    each = [predict(m, bank, made.outer, setting) for m in made.ensemble.members]
    plain = made.ensemble.predict(bank, made.outer, offsets=False)
    np.testing.assert_allclose(plain, np.mean(each, axis=0))
    np.testing.assert_allclose(made.probabilities, shifted(plain, made.ensemble.offsets))
    rows = [member["stopping_rows"] for member in made.figures["members"]]
    assert sum(rows) == made.figures["inner"]["rows"] == len(bank) - len(made.outer)
    again = Ensemble.restore(
        setting, made.ensemble.tensors(), made.figures["offsets"], Dims(DIM, DIM, DIM, DIM)
    )
    np.testing.assert_array_equal(again.predict(bank, made.outer), made.probabilities)
