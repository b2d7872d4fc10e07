"""Training on a small bank whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss

from fuse.assignments import parse_assignments
from fuse.figures.metrics import probability_score, score
from fuse.figures.records import EpochRecord
from fuse.losses.losses import build_loss
from fuse.models.fusions import FUSIONS
from fuse.setting import Setting, restore
from fuse.training import fused_rows
from fuse.training.checkpoints import FolderCheckpoint
from fuse.training.classifier import build, compute_logits, gather_batch, make_model, predict
from fuse.training.ensemble import Blend, Ensemble
from fuse.training.final import train
from fuse.training.member import Member
from fuse.training.plan import plan_parts
from fuse.training.recipe import Recipe
from fuse.training.task import Fit, Task, TrainingError
from fuse.training.trainer import fit, fit_group
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import DamagedCacheError, ModelError, SettingsError
from mmsa_cache.features import batch as batches
from mmsa_cache.features.absent import missing_features as absent_features
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store.schema import Shard
from tests.support.shards import make_keys
from tests.support.trained import DIM, NAMES, SMALL, modality


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    labels = np.random.default_rng(0).integers(0, 3, 97)
    return FeatureBank(
        modality(labels, 1, ("cls", "mean")),
        modality(labels, 2, ("first", "mean")),
        [str(i) for i in range(97)],
        labels.tolist(),
    )


KERNEL_SETTING = replace(
    SMALL,
    fusion="kernel",
    text_pool="cls+mean",
    image_pool="first+mean",
    loss="ce",
    optimiser="adamw",
    weight_decay=1.0,
    landmarks=40,
)
TRAIN, VALIDATION = np.arange(65), np.arange(65, 97)
LOSS_OF = {"late": "ce"}


@pytest.mark.parametrize("level", ["pooled", "tokens"])
@pytest.mark.parametrize("fusion", list(FUSIONS))
def test_every_fusion_learns(bank: FeatureBank, fusion: str, level: str) -> None:
    setting = replace(SMALL, fusion=fusion, level=level, loss=LOSS_OF.get(fusion, "acb"))
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
    values = [record.macro_f1 for record in result.history]
    assert result.kept.epoch == int(np.argmax(values)) + 1
    assert len(values) == min(30, result.kept.epoch + 2)
    found = score(
        bank.labels[VALIDATION].numpy(),
        predict(result.model, bank, VALIDATION, setting).argmax(1),
        NAMES,
    )
    assert found.macro_f1 == max(values)


def test_standardisation_is_fitted_on_the_training_rows(bank: FeatureBank) -> None:
    result = fit(replace(SMALL, epochs=1), bank, TRAIN, VALIDATION, names=NAMES, seed=1)
    want = bank.text.pooled[:65, 1].double()
    have = result.model.text_projection.standardise
    torch.testing.assert_close(have.mean.double(), want.mean(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_moments_are_those_of_the_real_positions(bank: FeatureBank, level: str) -> None:
    read = {"level": level, "text_pool": "cls+mean", "image_pool": "first", "grid": 0}
    for rows in (np.arange(5, 60), np.arange(3)):
        items = bank.items(rows, variants=False)
        expected = {
            "text_cls": bank.text.pooled[rows, 0].numpy(),
            "text_mean": bank.text.pooled[rows, 1].numpy(),
            "image_first": bank.image.pooled[rows, 0].numpy(),
        }
        if level == "pooled":
            expected["text"] = np.concatenate([expected["text_cls"], expected["text_mean"]], 1)
            expected["image"] = expected["image_first"]
        else:
            for name, features in (("text", bank.text), ("image", bank.image)):
                each = [features.sequences(torch.tensor([row]))[0][0].numpy() for row in rows]
                expected[name] = np.concatenate(each)
        for _ in range(2):  # the second time from what was kept
            found = bank.moments(items, **read)
            assert found.keys() == expected.keys()
            for name, (mean, std) in found.items():
                values = expected[name].astype(np.float64)
                np.testing.assert_allclose(mean.numpy(), values.mean(0), atol=1e-6)
                np.testing.assert_allclose(std.numpy(), values.std(0), atol=1e-6)


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_a_prediction_does_not_depend_on_its_company(bank: FeatureBank, level: str) -> None:
    setting = replace(SMALL, level=level, epochs=1, fusion="attention_concat")
    model = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1).model
    every = predict(model, bank, VALIDATION, setting)
    mixed = np.random.default_rng(4).permutation(len(VALIDATION))
    for rows in (mixed, mixed[:1]):
        found = predict(model, bank, VALIDATION[rows], setting, batch_size=7)
        np.testing.assert_allclose(found, every[rows], atol=1e-5)


def test_a_last_batch_of_one_row_trains(bank: FeatureBank) -> None:
    fit(replace(SMALL, batch_size=32, epochs=1), bank, TRAIN, VALIDATION, names=NAMES, seed=1)


@pytest.mark.parametrize("variants", [False, True])
def test_rows_that_are_fused_once_train_the_same_kernel_model(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch, variants: bool
) -> None:
    setting = replace(KERNEL_SETTING, epochs=3, dropout=0.2, ema=0.9, variants=variants)
    found = []
    for most in (1 << 20, 0):
        monkeypatch.setattr(fused_rows, "_MOST_BYTES", most)
        fit_ = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1)
        found.append((predict(fit_.model, bank, VALIDATION, setting), fit_.kept.neg_log_loss))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_wrong_settings_are_named(bank: FeatureBank) -> None:
    for key, value in (
        ("fusion", "glue"),
        ("optimiser", "sgd9"),
        ("schedule", "never"),
        ("metric", "luck"),
        ("loss", "none"),
        ("level", "words"),
        ("text_pool", "median"),
        ("keep", "worst"),
    ):
        with pytest.raises(SettingsError, match=value):
            fit(replace(SMALL, **{key: value}), bank, TRAIN, VALIDATION, names=NAMES, seed=1)


def test_score_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 2, 50)
    found = score(labels, predicted, NAMES)
    assert found.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found.accuracy == np.mean(labels == predicted)
    assert np.sum(found.confusion) == 50


def test_last_epoch_is_kept_if_wanted(bank: FeatureBank) -> None:
    setting = replace(SMALL, keep="last", epochs=6, patience=1)
    result = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1)
    assert result.kept.epoch == len(result.history) == 6
    probabilities = predict(result.model, bank, VALIDATION, setting)
    found = score(bank.labels[VALIDATION].numpy(), probabilities.argmax(1), NAMES)
    assert found.macro_f1 == result.kept.macro_f1


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_pooled_vectors_beside_the_fusion_reach_the_head(bank: FeatureBank, level: str) -> None:
    setting = replace(SMALL, beside=True, level=level, fusion="attention", epochs=3)
    model = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1).model
    batch = gather_batch(bank, bank.items(VALIDATION, variants=False), setting)
    changed = replace(batch, vectors={**batch.vectors, "text_mean": batch.vectors["text_mean"] + 1})
    assert not torch.equal(compute_logits(model, batch), compute_logits(model, changed))
    want = bank.text.pooled[:65, 1].double()
    torch.testing.assert_close(
        model.beside["text_mean"].standardise.mean.double(), want.mean(0), atol=1e-5, rtol=0
    )


def test_ensemble_averages_members_and_comes_back(bank: FeatureBank) -> None:
    setting = replace(SMALL, epochs=2)
    groups = np.arange(len(bank))
    made = train([Recipe.single(setting)], bank, groups, of("grouped", folds=3), names=NAMES)
    assert len(made.ensemble.members) == 3
    each = [predict(m, bank, made.outer, setting) for m in made.ensemble.members]
    plain = made.ensemble.predict(bank, made.outer, calibrated=False)
    np.testing.assert_allclose(plain, np.mean(each, axis=0))
    np.testing.assert_allclose(made.probabilities, made.ensemble.calibration(plain))
    rows = [member.stopping_rows for member in made.figures.members]
    assert sum(rows) == made.figures.inner.rows == len(bank) - len(made.outer)
    again = Ensemble.restore(
        [setting],
        made.ensemble.tensors(),
        made.ensemble.calibration,
        [Dims(DIM, DIM, {"text_mean": DIM, "image_mean": DIM})],
        [1.0],
    )
    np.testing.assert_array_equal(again.predict(bank, made.outer), made.probabilities)


def of(outer: str, folds: int = 2, seeds: int = 1) -> Protocol:
    return Protocol(outer=outer, folds=folds, seeds=seeds, seed=1)


def test_folds_and_seeds_make_members_with_a_spread(bank: FeatureBank) -> None:
    setting = replace(SMALL, epochs=2)
    groups = np.arange(len(bank))
    made = train([Recipe.single(setting)], bank, groups, of("grouped", seeds=3), names=NAMES)
    members = made.figures.members
    assert len({m.seed for m in members}) == 6
    labels = bank.labels[torch.as_tensor(made.outer)].numpy()
    alone = [
        score(labels, predict(f.model, bank, made.outer, setting).argmax(1), NAMES).accuracy
        for f in made.fits
    ]
    spread = made.figures.spread["accuracy"]
    assert spread.mean == pytest.approx(np.mean(alone))
    assert spread.deviation == pytest.approx(np.std(alone, ddof=1))
    # A development row is held out once a seed; its inner prediction is the mean over seeds.
    parts = plan_parts(bank.labels.numpy(), groups, of("grouped", seeds=3))
    inner = np.concatenate(
        [
            np.mean(
                [
                    predict(made.fits[turn * 2 + fold].model, bank, task.validation, setting)
                    for turn in range(3)
                ],
                axis=0,
            )
            for fold, task in enumerate(parts[0].tasks[:2])
        ]
    )
    truth = np.concatenate([bank.labels.numpy()[t.validation] for t in parts[0].tasks[:2]])
    expected = probability_score(truth, inner, NAMES).neg_log_loss
    assert made.figures.inner_uncalibrated.neg_log_loss == pytest.approx(expected)
    one = train([Recipe.single(setting)], bank, groups, of("grouped"), names=NAMES, averaged=False)
    assert len(one.ensemble.members) == 1
    kept = [f.kept.macro_f1 for f in one.fits]
    best = one.fits[kept.index(max(kept))].model
    np.testing.assert_array_equal(
        one.ensemble.predict(bank, one.outer, calibrated=False),
        predict(best, bank, one.outer, setting),
    )


@pytest.mark.parametrize("outer", ["stratified-3", "grouped-3"])
def test_a_cross_validation_judges_every_row_by_members_that_did_not_see_it(
    bank: FeatureBank, outer: str
) -> None:
    setting = replace(SMALL, epochs=1)
    groups = np.arange(len(bank)) // 2
    made = train([Recipe.single(setting)], bank, groups, of(outer), names=NAMES)
    assert made.outer.tolist() == list(range(len(bank)))
    parts = plan_parts(bank.labels.numpy(), groups, of(outer, seeds=1))
    assert len(parts) == 3
    for number, part in enumerate(parts):
        for task in part.tasks:
            seen = {*task.train.tolist(), *task.validation.tolist()}
            assert not seen & set(part.judged.tolist())
            assert not set(groups[task.train]) & set(groups[task.validation])
        members = [f.model for f in made.fits[number * 2 : number * 2 + 2]]
        mean = np.mean([predict(m, bank, part.judged, setting) for m in members], axis=0)
        truth, scores = bank.labels.numpy()[part.judged], made.figures.parts[number]
        found = probability_score(truth, mean, NAMES)
        assert scores.rows == found.rows
        assert scores.uncalibrated is not None
        assert -scores.uncalibrated.neg_log_loss == pytest.approx(log_loss(truth, mean), rel=1e-5)
        assert scores.uncalibrated.calibration_error == pytest.approx(found.calibration_error)
        calibrated = probability_score(truth, made.probabilities[part.judged], NAMES)
        assert scores.calibration_error == pytest.approx(calibrated.calibration_error)
        assert scores.neg_log_loss == pytest.approx(calibrated.neg_log_loss)
    assert len(made.ensemble.members) == 6
    accuracies = [part.accuracy for part in made.figures.parts]
    assert made.figures.spread_parts["accuracy"].mean == pytest.approx(np.mean(accuracies))


def test_settings_are_averaged_and_refitted_on_all_development_rows(bank: FeatureBank) -> None:
    settings = [replace(SMALL, epochs=3), replace(KERNEL_SETTING, epochs=2)]
    groups = np.arange(len(bank))
    made = train(
        [Recipe.even(settings)], bank, groups, of("grouped", seeds=2), names=NAMES, refit=True
    )
    assert [len(blend.members) for blend in made.ensemble.blends] == [2, 2]
    assert len(made.figures.members) == 8, "those of the folds; the refitted ones stop nowhere"
    blends = [
        Blend(setting, made.ensemble.members[2 * i : 2 * i + 2], 0.5)
        for i, setting in enumerate(settings)
    ]
    plain = np.mean([blend.predict(bank, made.outer) for blend in blends], axis=0)
    np.testing.assert_allclose(made.probabilities, made.ensemble.calibration(plain))
    parts = plan_parts(bank.labels.numpy(), groups, of("grouped", seeds=2))
    epochs = [m.best_epoch for m in made.figures.members if m.setting == 1]
    whole = replace(settings[0], keep="last", epochs=round(float(np.median(epochs))))
    task = Task(parts[0].development, np.empty(0, np.int64), parts[0].tasks[0].seed)
    again = fit_group(whole, bank, [task], names=NAMES)[0].model
    np.testing.assert_array_equal(
        predict(again, bank, made.outer, whole),
        predict(blends[0].members[0], bank, made.outer, settings[0]),
    )
    back = Ensemble.restore(
        settings,
        made.ensemble.tensors(),
        made.ensemble.calibration,
        [
            bank.dims(level="pooled", text_pool=s.text_pool, image_pool=s.image_pool)
            for s in settings
        ],
        [0.5, 0.5],
    )
    np.testing.assert_allclose(back.predict(bank, made.outer), made.probabilities)


def test_a_refit_learns_at_the_rates_of_the_folds_where_held_out_rows_lowered_them(
    bank: FeatureBank,
) -> None:
    falling = replace(SMALL, schedule="plateau", epochs=8, keep="last", learning_rate=0.1)
    groups = np.arange(len(bank))
    made = train(
        [Recipe.single(falling)], bank, groups, of("grouped", folds=3), names=NAMES, refit=True
    )
    *folds, whole = made.fits
    epochs = round(float(np.median([fit.kept.epoch for fit in folds])))
    want = [np.median([fit.history[n].learning_rate for fit in folds]) for n in range(epochs)]
    assert [record.learning_rate for record in whole.history] == pytest.approx(want)
    assert want[-1] < want[0]


# --- stacks -------------------------------------------------------------------------------------

TASKS = [
    Task(np.arange(65), np.arange(65, 97), 1),
    Task(np.arange(20, 85), np.arange(0, 20), 2),
    Task(np.arange(0, 64), np.arange(64, 97), 3),  # one step fewer an epoch: a stack of its own
]


def same(a: Fit, b: Fit, tolerance: float) -> None:
    for x, y in zip(a.history, b.history, strict=True):
        number = {"member": x.member}  # that of its group
        assert x.as_json() == pytest.approx(y.as_json() | number, abs=tolerance)
    for name, value in a.model.state_dict().items():
        torch.testing.assert_close(
            value, b.model.state_dict()[name], atol=tolerance, rtol=0, msg=name
        )


@pytest.mark.parametrize("level", ["pooled", "tokens"])
@pytest.mark.parametrize("fusion", list(FUSIONS))
def test_a_stack_trains_every_member_as_if_it_were_alone(
    bank: FeatureBank, fusion: str, level: str
) -> None:
    setting = replace(
        SMALL,
        fusion=fusion,
        level=level,
        loss=LOSS_OF.get(fusion, "acb"),
        epochs=2,
        dropout=0.3,
        input_dropout=0.2,
        modality_dropout=0.2,
        beside=True,
        clip=0.5,
        ema=0.9,
        heads=4,
        head="12",
    )
    together, apart = (
        fit_group(setting, bank, TASKS, names=NAMES, stacked=stacked, whole_length=True)
        for stacked in (True, False)
    )
    for a, b in zip(together, apart, strict=True):
        same(a, b, 2e-3)
    alone = fit_group(setting, bank, TASKS[1:2], names=NAMES, whole_length=True)[0]
    same(alone, apart[1], 0)


@pytest.mark.parametrize("fusion", list(FUSIONS))
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    bank: FeatureBank, fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = replace(
        SMALL, fusion=fusion, level="tokens", dropout=0.0, heads=4, beside=True, norm="layer"
    )
    items = bank.items(TRAIN, variants=False)
    batch = gather_batch(bank, items[bank.text_order(items)], setting)
    lengths = {}
    for multiple in (8, 2, 1):
        monkeypatch.setattr(batches, "_LENGTHS", multiple)
        parts = list(batch.split(20, trim=True))
        lengths[multiple] = [part.text.shape[1] for part in parts]
    assert lengths == {8: [3, 3, 3, 3], 2: [2, 2, 3, 3], 1: [1, 2, 3, 3]}
    assert [len(part.text) for part in parts] == [20, 20, 20, 5]
    found = []
    for given in ([batch], parts):
        torch.manual_seed(0)
        member = Member(build(setting, bank, NAMES).double(), build_loss("acb")).train()
        loss = member.backward(lambda count: torch.empty(count), given)
        gradients = {name: p.grad for name, p in member.named_parameters()}
        found.append({"loss": loss, **gradients, **dict(member.named_buffers())})
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_members_of_a_stack_stop_and_slow_down_on_their_own(bank: FeatureBank) -> None:
    setting = replace(
        SMALL, epochs=24, patience=4, learning_rate=2e-2, loss="ce", metric="neg_log_loss"
    )
    together, apart = (
        fit_group(setting, bank, TASKS, names=NAMES, stacked=stacked, whole_length=True)
        for stacked in (True, False)
    )
    assert len({len(f.history) for f in apart[:2]}) > 1, "both members stop in the same epoch"
    slowed = [[r.learning_rate for r in f.history].index(4e-3) for f in apart[:2]]
    assert slowed[0] != slowed[1], "both members slow down in the same epoch"
    for a, b in zip(together, apart, strict=True):
        same(a, b, 1e-2)


# --- interruptions ------------------------------------------------------------------------------


SCHEDULES = ("plateau", "onecycle", "cosine", "constant")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    ("schedule", "breaks"),
    [
        *((name, (2, 4)) for name in SCHEDULES),
        *(pytest.param(name, (1, 3, 5), marks=pytest.mark.faults) for name in SCHEDULES),
    ],
)
def test_an_interrupted_training_ends_as_an_unbroken_one(
    bank: FeatureBank, tmp_path: Path, schedule: str, breaks: Sequence[int], stacked: bool
) -> None:
    setting = replace(
        SMALL, epochs=3, schedule=schedule, ema=0.8, statistics="running", optimiser="adamw"
    )
    tasks = TASKS[:2]
    unbroken = fit_group(setting, bank, tasks, names=NAMES, stacked=stacked)
    for breaks_at in breaks:
        seen = 0

        def kill(record: EpochRecord, at: int = breaks_at) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise KilledError

        folder = tmp_path / str(breaks_at)
        with pytest.raises(KilledError):
            fit_group(
                setting,
                bank,
                tasks,
                names=NAMES,
                stacked=stacked,
                on_epoch=kill,
                checkpoint=FolderCheckpoint(folder, seconds=0),
            )
        epochs: list[object] = []
        resumed = fit_group(
            setting,
            bank,
            tasks,
            names=NAMES,
            stacked=stacked,
            on_epoch=lambda record, epochs=epochs: epochs.append(record),
            checkpoint=FolderCheckpoint(folder, seconds=0),
        )
        assert len(epochs) == 6 - breaks_at, "epochs that were kept were trained again"
        for a, b in zip(resumed, unbroken, strict=True):
            same(a, b, 1e-3 if stacked else 0)


def test_a_damaged_checkpoint_is_named(bank: FeatureBank, tmp_path: Path) -> None:
    keep = FolderCheckpoint(tmp_path, seconds=0)
    fit_group(replace(SMALL, epochs=1), bank, TASKS[:1], names=NAMES, checkpoint=keep)
    (path,) = tmp_path.glob("member-*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"member-0000\.safetensors cannot be read"):
        fit_group(replace(SMALL, epochs=1), bank, TASKS[:1], names=NAMES, checkpoint=keep)


# --- schedules, averages, clipping --------------------------------------------------------------


def test_cosine_rises_and_falls(bank: FeatureBank) -> None:
    setting = replace(SMALL, schedule="cosine", warmup=0.5, epochs=4, keep="last")
    rates = [
        record.learning_rate / setting.learning_rate
        for record in fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1).history
    ]
    steps = 3 * 4  # 65 rows in batches of 32, the last one filled up
    rise = steps // 2
    expected = [
        (step + 1) / rise if step < rise else 0.5 * (1 + np.cos(np.pi * (step - rise) / rise))
        for step in (3, 6, 9, 12)
    ]
    assert rates == pytest.approx(expected)


def test_the_average_follows_the_weights(bank: FeatureBank) -> None:
    """After one step the average is the weights, so a one-step epoch shows no difference."""
    setting = replace(SMALL, batch_size=65, epochs=1, keep="last")
    plain, averaged = (
        fit(replace(setting, ema=ema), bank, TRAIN, VALIDATION, names=NAMES, seed=1)
        for ema in (0.0, 0.9)
    )
    same(plain, averaged, 0)
    two = [
        fit(replace(setting, ema=ema, epochs=2), bank, TRAIN, VALIDATION, names=NAMES, seed=1)
        for ema in (0.0, 0.9)
    ]
    name = "head.layers.0.weight"
    first, second, mean = (f.model.state_dict()[name] for f in (plain, two[0], two[1]))
    torch.testing.assert_close(mean, 0.9 * first + 0.1 * second)


def test_clipping_bounds_the_first_step(bank: FeatureBank) -> None:
    """Adam moves by the learning rate whatever the gradient's norm, unless it vanishes."""
    setting = replace(SMALL, batch_size=65, epochs=1, keep="last", weight_decay=0.0)
    free, clipped = (
        fit(replace(setting, clip=clip), bank, TRAIN, VALIDATION, names=NAMES, seed=1)
        for clip in (0.0, 1e-9)
    )
    name = "head.layers.0.weight"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        start = make_model(setting, Dims(DIM, DIM, {}), 3).state_dict()[name]
    moved = [(f.model.state_dict()[name] - start).abs().max() for f in (free, clipped)]
    assert moved[0] > 0.9 * setting.learning_rate
    assert moved[1] < 0.2 * setting.learning_rate


def test_a_loss_that_is_not_finite_ends_the_training(bank: FeatureBank) -> None:
    broken = ModalityFeatures(
        [modality_shard(np.full((97, DIM), np.inf, np.float16))], "overflowing"
    )
    other = FeatureBank(broken, bank.image, bank.guids, bank.labels.tolist())
    setting = replace(SMALL, norm="none")
    with pytest.raises(TrainingError, match=r"The loss is nan in epoch 1"):
        fit(setting, other, TRAIN, VALIDATION, names=NAMES, seed=1)


def modality_shard(values: np.ndarray) -> Shard:
    rows = len(values)
    return Shard(
        make_keys(0, rows),
        [""] * rows,
        np.arange(rows + 1),
        values,
        values[:, None],
        ("mean",),
    )


# --- a missing modality -------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["pooled", "tokens"])
@pytest.mark.parametrize("missing", ["text", "image"])
def test_posts_that_lack_a_modality_are_predicted_from_the_other(
    bank: FeatureBank, missing: str, level: str
) -> None:
    setting = replace(SMALL, level=level, modality_dropout=0.4, epochs=25, beside=True)
    model = fit(setting, bank, TRAIN, VALIDATION, names=NAMES, seed=1).model
    dims = bank.dims(level=level, text_pool="mean", image_pool="mean")
    absent = absent_features(getattr(dims, missing), {"mean": DIM}, 1, 97)
    parts = {"text": bank.text, "image": bank.image, missing: absent}
    half = FeatureBank(
        parts["text"], parts["image"], bank.guids, bank.labels.tolist(), partial=True
    )
    found = predict(model, half, VALIDATION, setting)
    assert np.isfinite(found).all()
    right = (found.argmax(1) == bank.labels[VALIDATION].numpy()).mean()
    assert right > 0.8, f"{right:.2f} without {missing}"
    with pytest.raises(DamagedCacheError, match="lacks 97 samples"):
        FeatureBank(parts["text"], parts["image"], bank.guids, bank.labels.tolist())


# --- settings -----------------------------------------------------------------------------------


def test_assignments_have_the_types_of_the_fields() -> None:
    found = parse_assignments(["fusion=gated", "text_dim=64", "alpha=0.5", "beside=true"])
    assert found == {"fusion": "gated", "text_dim": 64, "alpha": 0.5, "beside": True}
    with pytest.raises(SettingsError) as raised:
        parse_assignments(["fusio=concat", "text_dim=wide", "beside=perhaps"])
    assert len(raised.value.problems) == 3
    assert "text_dim: 'wide', a whole number is expected" in str(raised.value)


def test_all_mistakes_of_a_setting_come_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        Setting(level="words", ema=1.0, batch_size=1, head="many")
    assert len(raised.value.problems) == 4


def test_a_stored_setting_comes_back() -> None:
    setting = Setting(fusion="late", head="")
    assert restore(asdict(setting)) == setting
    assert setting.head_dims() == ()
    with pytest.raises(SettingsError, match="colour: unknown"):
        restore({"colour": 1})
