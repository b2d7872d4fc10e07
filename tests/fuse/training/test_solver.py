"""Full-batch training to the optimum, and posts that count once whatever their copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fuse.models.kernel import SCALE, KernelClassifier
from fuse.setting import complete
from fuse.training.checkpoints import FolderCheckpoint
from fuse.training.classifier import gather_batch, predict
from fuse.training.copies import draw_one_copy
from fuse.training.member import model_inputs
from fuse.training.runner import Runner
from fuse.training.solver import Solver
from fuse.training.task import Checkpoint, Task
from fuse.training.trainer import fit_group
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store.schema import Shard
from tests.support.shards import make_keys

NAMES = ("positive", "neutral", "negative")
POSTS, COPIES = 60, 2
TRAIN, VALIDATION = np.arange(45), np.arange(45, 60)
VALUES = {
    "fusion": "kernel",
    "optimiser": "lbfgs",
    "loss": "ce",
    "ridge": 0.5,
    "image_weight": 2.0,
    "text_pool": "cls+mean",
}


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    """Every third post has copies; classes overlap."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, POSTS)
    table = np.full((POSTS, 1 + COPIES), -1)
    table[:, 0] = np.arange(POSTS)
    table[::3, 1:] = POSTS + np.arange(len(table[::3]) * COPIES).reshape(-1, COPIES)
    owner = np.concatenate([np.arange(POSTS), np.repeat(np.arange(0, POSTS, 3), COPIES)])

    def features(dim: int) -> ModalityFeatures:
        pooled = rng.standard_normal((len(owner), 2, dim)) + 0.7 * labels[owner][:, None, None]
        pooled = pooled.astype(np.float16)
        shard = Shard(
            make_keys(0, len(owner)),
            [""] * len(owner),
            np.arange(len(owner) + 1),
            pooled[:, 0],
            pooled,
            ("cls", "mean"),
        )
        return ModalityFeatures([shard], "made up", table=table)

    return FeatureBank(features(6), features(4), [str(i) for i in range(POSTS)], labels.tolist())


def solved(bank: FeatureBank, seed: int = 1, checkpoint: Checkpoint | None = None, **changes):  # type: ignore[no-untyped-def]
    setting = complete(VALUES | changes)
    task = Task(TRAIN, VALIDATION, seed)
    given = {} if checkpoint is None else {"checkpoint": checkpoint}
    (fit,) = fit_group(setting, bank, [task], names=NAMES, **given)
    return setting, fit


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("loss", ["ce", "weighted_ce"])
@pytest.mark.parametrize("copies", ["none", "all", "one"])
def test_the_solution_is_that_of_scikit_learn(
    bank: FeatureBank, kernel: str, loss: str, copies: str
) -> None:
    changes = {"variants": False} if copies == "none" else {"copies": copies}
    setting = complete(VALUES | changes | {"kernel": kernel, "loss": loss, "balance": 0.5})
    runner = Runner(setting, bank, Task(TRAIN, VALIDATION, 1), NAMES, False, 0, Checkpoint())
    model = runner.member.model
    assert isinstance(model, KernelClassifier)
    runner.fit_landmarks()
    with torch.no_grad():
        features = model.fuse(model_inputs(gather_batch(bank, runner.items, setting)))[0]
        features = features / (SCALE if kernel == "rbf" else 1.0)  # what the ridge is of
    labels = bank.labels.numpy()[runner.items[:, 0].numpy()]
    has = 1 + COPIES * (runner.items[:, 0].numpy() % 3 == 0)
    weights = 1 / has if copies == "one" else np.ones(len(labels))
    posts = weights.sum()
    if loss == "weighted_ce":
        share = np.array([weights[labels == code].sum() for code in range(3)])
        weights = weights * ((posts / (3 * share)) ** 0.5)[labels]
        weights *= posts / weights.sum()
    # Their objective is ours times n: Σ w·CE + |W|² / (2·C).
    reference = LogisticRegression(C=1 / setting.ridge, tol=1e-10, max_iter=5000)
    reference.fit(features.numpy().astype(np.float64), labels, sample_weight=weights)
    loss_value = float(Solver(runner).epoch(0))
    found = predict(model, bank, VALIDATION, setting)
    _, again = solved(bank, **changes, kernel=kernel, loss=loss, balance=0.5)
    np.testing.assert_array_equal(predict(again.model, bank, VALIDATION, setting), found)
    logits = model.weight(model.fuse(model_inputs(gather_batch(bank, runner.items, setting)))[0])
    np.testing.assert_allclose(
        logits.detach().double().softmax(1).numpy(),
        reference.predict_proba(features.numpy()),
        atol=1e-4,
    )
    theirs = reference.predict_log_proba(features.numpy())[np.arange(len(labels)), labels]
    penalty = np.square(reference.coef_ - reference.coef_.mean(0)).sum()
    optimum = -(weights * theirs).sum() / posts + setting.ridge / (2 * posts) * penalty
    assert loss_value == pytest.approx(optimum, abs=1e-6)


def test_it_is_one_epoch_without_a_seed_and_goes_on_from_a_checkpoint(
    bank: FeatureBank, tmp_path: Path
) -> None:
    _, first = solved(bank, 1, FolderCheckpoint(tmp_path / "members"), epochs=9, ema=0.9)
    assert [record.epoch for record in first.history] == [1]
    assert first.kept.macro_f1 is not None
    state = first.model.state_dict()
    assert not len(state["whitening"])  # folded: the file holds no square matrix
    _, other = solved(bank, 2)
    _, loaded = solved(bank, 1, FolderCheckpoint(tmp_path / "members"), epochs=9, ema=0.9)
    for name, value in state.items():
        assert torch.equal(value, other.model.state_dict()[name]), name
        assert torch.equal(value, loaded.model.state_dict()[name]), name


def test_few_landmarks_are_drawn(bank: FeatureBank) -> None:
    _, fit = solved(bank, landmarks=20)
    assert fit.model.state_dict()["landmarks_text_mean"].shape == (20, 6)
    assert fit.kept.accuracy > 0.5


@pytest.mark.parametrize("change", [{"loss": "acb"}, {"fusion": "concat"}])
def test_what_is_not_convex_is_refused_by_name(change: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        complete(VALUES | change)
    ((key, value),) = change.items()
    assert any(p.startswith(f"{key}: lbfgs takes") and value in p for p in caught.value.problems)


def test_one_view_a_post_in_every_epoch(bank: FeatureBank) -> None:
    setting = complete({"copies": "one", "batch_size": 9, "loss": "weighted_ce", "keep": "last"})
    task = Task(TRAIN, VALIDATION, 3)
    runner = Runner(setting, bank, task, NAMES, False, 0, Checkpoint())
    none = replace(setting, variants=False)
    plain = Runner(none, bank, task, NAMES, False, 0, Checkpoint())
    assert runner.steps == plain.steps == 5
    assert torch.equal(runner.member.loss.class_weights, plain.member.loss.class_weights)
    epochs = [runner.rows(number).flatten(0, 1) for number in range(2)]
    assert torch.equal(epochs[0], runner.rows(0).flatten(0, 1))
    for rows in epochs:
        assert sorted(rows[:, 0].tolist()) == TRAIN.tolist()
    assert set(epochs[0][:, 1].tolist()) != set(epochs[1][:, 1].tolist())
    drawn = torch.cat([draw_one_copy(runner.items, order) for order in _orders(600)])
    seen = torch.bincount(drawn[drawn[:, 0] == 0][:, 1])
    assert seen[seen > 0].tolist() == pytest.approx([200] * 3, abs=50)


def _orders(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]
