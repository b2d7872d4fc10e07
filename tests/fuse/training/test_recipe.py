"""Recipes: weights, outer parts with recipes of their own, and what calibrates them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import log_loss

from fuse.setting import Setting
from fuse.training.classifier import predict
from fuse.training.final import count_members, train
from fuse.training.plan import plan_parts
from fuse.training.recipe import Recipe, WeightedSetting, weighted_settings
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank
from tests.support.trained import NAMES, SMALL, modality

ONE = replace(SMALL, epochs=1, head="")
OTHER = replace(ONE, loss="ce", learning_rate=1e-3)
THIRD = replace(ONE, fusion="combine")


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    """Classes of unequal shares that overlap."""
    labels = np.random.default_rng(0).choice(3, 240, p=[0.6, 0.3, 0.1])
    sides = [modality(labels, seed, ("cls", "mean")) for seed in (1, 2)]
    return FeatureBank(*sides, [str(row) for row in range(240)], labels.tolist())


def of(outer: str, folds: int, seeds: int = 1) -> Protocol:
    return Protocol(outer=outer, folds=folds, seeds=seeds, seed=1)


def test_settings_that_are_given_twice_count_twice() -> None:
    assert Recipe.even([ONE, OTHER, ONE, ONE]) == Recipe((ONE, OTHER), (0.75, 0.25))
    assert Recipe.single(ONE) == Recipe((ONE,), (1.0,))
    for settings, weights in (
        ((), ()),
        ((ONE,), (0.9,)),
        ((ONE, ONE), (0.5, 0.5)),
        ((ONE, OTHER), (1.5, -0.5)),
        ((ONE, OTHER), (1.0,)),
    ):
        with pytest.raises(SettingsError, match="different settings and a positive weight each"):
            Recipe(settings, weights)


def test_a_setting_with_one_weight_in_several_parts_is_one_share() -> None:
    first, second = Recipe((ONE, OTHER), (0.25, 0.75)), Recipe((ONE, THIRD), (0.25, 0.75))
    assert weighted_settings([first], 2) == [
        WeightedSetting(ONE, 0.25, (0, 1)),
        WeightedSetting(OTHER, 0.75, (0, 1)),
    ]
    found = weighted_settings([first, second, Recipe.single(ONE)], 3)
    assert [(of.setting, of.parts) for of in found] == [
        (ONE, (0, 1)),
        (OTHER, (0,)),
        (THIRD, (1,)),
        (ONE, (2,)),
    ]
    np.testing.assert_allclose([of.weight for of in found], [1 / 6, 1 / 4, 1 / 4, 1 / 3])
    with pytest.raises(SettingsError, match="2 recipes for 3 outer parts"):
        weighted_settings([first, second], 3)


def test_weights_count_and_every_part_may_have_a_recipe(bank: FeatureBank) -> None:
    groups = np.arange(len(bank))
    recipes = [Recipe((ONE, OTHER), (0.2, 0.8)), Recipe.single(THIRD)]
    protocol = of("stratified-2", 2)
    made = train(recipes, bank, groups, protocol, names=NAMES)
    parts = plan_parts(bank.labels.numpy(), groups, protocol)
    counts = count_members(recipes, parts, protocol, averaged=True, refit=False)
    assert counts == [(ONE, 2), (OTHER, 2), (THIRD, 2)]
    assert len(made.fits) == 6

    def mean(fits: slice, setting: Setting, rows: np.ndarray) -> np.ndarray:
        return np.mean([predict(f.model, bank, rows, setting) for f in made.fits[fits]], axis=0)

    def of_part(number: int, rows: np.ndarray) -> np.ndarray:
        if number:
            return mean(slice(4, 6), THIRD, rows)
        return 0.2 * mean(slice(0, 2), ONE, rows) + 0.8 * mean(slice(2, 4), OTHER, rows)

    outer = np.empty((len(bank), 3))
    for number, part in enumerate(parts):
        outer[part.judged] = of_part(number, part.judged)
    uncalibrated = made.figures.outer_uncalibrated
    assert -uncalibrated.neg_log_loss == pytest.approx(log_loss(bank.labels.numpy(), outer))
    every = np.arange(len(bank))
    together = np.mean([of_part(number, every) for number in (0, 1)], axis=0)
    shipped = made.ensemble.predict(bank, every, calibrated=False)
    np.testing.assert_allclose(shipped, together)
    assert [(m.setting, m.part) for m in made.figures.members] == [
        (1, 1),
        (1, 1),
        (2, 1),
        (2, 1),
        (3, 2),
        (3, 2),
    ]


def test_a_setting_alone_is_calibrated_on_averages(bank: FeatureBank) -> None:
    groups = np.arange(len(bank)) // 2
    protocol = of("grouped", 4, seeds=2)
    made = train([Recipe.single(ONE)], bank, groups, protocol, names=NAMES)
    (part,) = plan_parts(bank.labels.numpy(), groups, protocol)
    assert len(part.pair_tasks) == 8
    assert len({task.seed for task in [*part.tasks, *part.pair_tasks]}) == 16
    folds = [task.validation for task in part.tasks[:4]]
    for number, task in enumerate(part.pair_tasks):
        outside = {*folds[number % 4].tolist(), *folds[(number + 1) % 4].tolist()}
        assert {*task.validation.tolist()} == outside
        assert {*task.train.tolist()} == {*part.development.tolist()} - outside
    assert len(made.ensemble.members) == len(made.figures.members) == 8
    assert len(made.fits) == 16
    counts = count_members([Recipe.single(ONE)], [part], protocol, averaged=True, refit=False)
    assert counts == [(ONE, 16)]
    # Each fold's rows: two seeds of the member without it, and of both neighbours'.
    found, labels = [], []
    for fold, rows in enumerate(folds):
        places = [fold, fold + 4]
        places += [8 + n + turn for turn in (0, 4) for n in (fold, (fold - 1) % 4)]
        for place in places:
            task = [*part.tasks, *part.pair_tasks][place]
            assert not {*rows.tolist()} & {*task.train.tolist()}
        found.append(
            np.mean([predict(made.fits[p].model, bank, rows, ONE) for p in places], axis=0)
        )
        labels.append(bank.labels.numpy()[rows])
    inner = made.figures.inner_uncalibrated
    want = log_loss(np.concatenate(labels), np.concatenate(found))
    assert -inner.neg_log_loss == pytest.approx(want)
    several = [Recipe.even([ONE, OTHER])]
    for recipes, flags in ((several, (True, False)), ([Recipe.single(ONE)], (True, True))):
        counts = count_members(recipes, [part], protocol, averaged=flags[0], refit=flags[1])
        assert sum(n for _, n in counts) == (16 if recipes is several else 10), "no pairs"


def test_both_rules_are_scored_and_a_balanced_training_is_calibrated(bank: FeatureBank) -> None:
    labels = bank.labels.numpy()
    noisy = replace(ONE, loss="weighted_ce", input_dropout=0.8, epochs=4, offsets="fitted")
    made = train(
        [Recipe.single(noisy)], bank, np.arange(240), of("stratified-2", 3), names=NAMES,
        decide="macro_f1",
    )  # fmt: skip
    figures = made.figures
    for rule, decision in figures.decisions.items():
        right = (made.predicted[rule] == labels[made.outer]).mean()
        assert decision.accuracy == pytest.approx(right)
        assert decision.intervals["accuracy"].low <= right <= decision.intervals["accuracy"].high
    assert figures.outer.macro_f1 == figures.decisions["macro_f1"].macro_f1
    assert made.predicted["accuracy"].tolist() == made.probabilities.argmax(1).tolist()
    before, after = figures.outer_uncalibrated, figures.outer
    assert after.neg_log_loss >= before.neg_log_loss
    share = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(made.probabilities.mean(0), share, atol=0.06)
