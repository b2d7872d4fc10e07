"""Baselines: scikit-learn on a search's rows and folds, beside its choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from fuse.search import baselines
from fuse.search.baseline_record import TITLES, Baseline
from fuse.search.baselines import fit
from fuse.search.database import read_studies
from fuse.search.held_out import HeldOut
from fuse.search.ledger import Ledger
from fuse.search.messages import FoldSplit
from fuse.search.study import StudyConfig
from fuse.setting import Setting
from mmsa_cache.data.splits import grouped_folds, outer_split
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store.schema import Shard
from tests.support.fake_search import GROUPS, LABELS, run, start_thread
from tests.support.shards import make_keys

ROWS = 150
TRUTH = np.random.default_rng(0).integers(0, 3, ROWS)
TWINS = np.arange(ROWS) // 2
READ = Setting(text_pool="first+mean", image_pool="mean")


def features(seed: int, pools: tuple[str, ...]) -> ModalityFeatures:
    """Vectors that say a little of the class, one feature in each constant."""
    rng = np.random.default_rng(seed)
    pooled = rng.standard_normal((ROWS, len(pools), 6)) + 0.8 * np.eye(3, 6)[TRUTH][:, None]
    pooled[..., 5] = 1.0
    offsets, tokens = np.zeros(ROWS + 1, np.int64), np.zeros((0, 6), np.float16)
    keys = make_keys(0, ROWS)
    shard = Shard(keys, [""] * ROWS, offsets, tokens, pooled.astype(np.float16), pools)
    return ModalityFeatures([shard], "made up")


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    guids = [str(i) for i in range(ROWS)]
    return FeatureBank(
        features(1, ("first", "mean")), features(2, ("mean",)), guids, TRUTH.tolist()
    )


@pytest.fixture(scope="module")
def units() -> list[FoldSplit]:
    development, outer = outer_split("grouped", TRUTH, TWINS, 1)
    folds = grouped_folds(TRUTH[development], TWINS[development], 2, 1)
    return [FoldSplit(development[a], development[b], outer, 1) for a, b in folds]


def matrix(bank: FeatureBank) -> np.ndarray:
    return np.concatenate(
        [bank.text.pooled[:, 0], bank.text.pooled[:, 1], bank.image.pooled[:, 0]], 1
    ).astype(np.float32)


def assert_is(found: Baseline, units: list[FoldSplit], expected: list[Any], metric: Any) -> None:
    """Compares a baseline with models' probabilities of (held-out, outer) rows."""
    held_out, outer = HeldOut.decode(found.held_out, ""), HeldOut.decode(found.outer, "")
    close = {"rtol": 0.02, "atol": 2e-3}  # float32, another way to the optimum, and float16
    np.testing.assert_allclose(outer.probabilities, np.mean([o for _, o in expected], 0), **close)
    for unit, (inside, _), score in zip(units, expected, found.units, strict=True):
        own = held_out.probabilities[np.isin(held_out.rows, unit.validation)]
        np.testing.assert_allclose(own, inside, **close)
        assert score == pytest.approx(metric(TRUTH[unit.validation], inside), abs=5e-3)


def test_the_regression_is_scikit_learns_tuned_on_inner_folds(
    bank: FeatureBank, units: list[FoldSplit]
) -> None:
    found = fit("logistic", READ, bank, units, TWINS, 3, "neg_log_loss")
    x, expected = matrix(bank), []
    for unit, tuned in zip(units, found.tuned, strict=True):
        rows = unit.train
        scores = {}
        for penalty in baselines.PENALTIES:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
            scores[penalty] = np.mean(
                [
                    -log_loss(
                        TRUTH[rows[out]],
                        model.fit(x[rows[a]], TRUTH[rows[a]]).predict_proba(x[rows[out]]),
                    )
                    for a, out in grouped_folds(TRUTH[rows], TWINS[rows], 3, unit.seed)
                ]
            )
        # Scaled inside each inner fold here: nearly the same scores.
        assert scores[tuned["C"]] == pytest.approx(max(scores.values()), abs=5e-3)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=tuned["C"], max_iter=1000))
        model.fit(x[rows], TRUTH[rows])
        expected.append([model.predict_proba(x[of]) for of in (unit.validation, unit.judged)])
    assert_is(found, units, expected, lambda y, p: -log_loss(y, p))


def test_the_support_vectors_are_scikit_learns(bank: FeatureBank, units: list[FoldSplit]) -> None:
    found = fit("svc", READ, bank, units, TWINS, 3, "accuracy")
    x, expected = matrix(bank), []
    for unit, tuned in zip(units, found.tuned, strict=True):
        assert tuned["C"] in baselines.COSTS
        assert round(tuned["gamma"] * x.shape[1], 9) in baselines.WIDTHS
        rows = unit.train
        how = {"C": tuned["C"], "gamma": tuned["gamma"], "decision_function_shape": "ovo"}
        scaled = StandardScaler().fit(x[rows]).transform(x)
        decisions, order = [], []
        for a, out in grouped_folds(TRUTH[rows], TWINS[rows], 3, unit.seed):
            inner = SVC(**how).fit(scaled[rows[a]], TRUTH[rows[a]])
            decisions.append(inner.decision_function(scaled[rows[out]]))
            order.append(rows[out])
        calibrated = LogisticRegression().fit(
            np.concatenate(decisions), TRUTH[np.concatenate(order)]
        )
        model = SVC(**how).fit(scaled[rows], TRUTH[rows])
        expected.append(
            [
                calibrated.predict_proba(model.decision_function(scaled[of]))
                for of in (unit.validation, unit.judged)
            ]
        )
    assert_is(found, units, expected, lambda y, p: accuracy_score(y, p.argmax(1)))


def run_here(database: Path, trials: int, **options: Any) -> dict[str, Any]:
    return run(database, database.parent, trials, start=start_thread, **options)


def test_a_search_shows_its_choice_beside_them_and_fits_them_once(tmp_path: Path) -> None:
    record = run_here(tmp_path / "s.db", 3)
    assert [of["name"] for of in record["baselines"]] == list(TITLES.values())
    development, outer = outer_split("grouped", LABELS, GROUPS, 1)
    for name, rows in (("held_out", development), ("outer", outer)):
        beside = record["baselines"][0][name]["macro_f1"]
        wrong = rows % 4 == 0
        right = np.where(wrong, (LABELS[rows] + 1) % 3, LABELS[rows])
        scored = f1_score(LABELS[rows], right, average="macro")
        assert beside["choice"] == pytest.approx(scored)
        lost = np.where(rows % 10 == 0, 0, right)
        scored = f1_score(LABELS[rows], lost, average="macro")
        assert beside["baseline"] == pytest.approx(scored)
        interval = beside["interval"]
        assert interval["low"] <= beside["choice"] - beside["baseline"] <= interval["high"]
    again = run_here(tmp_path / "s.db", 4, baseline=_fails)
    assert again["baselines"] == record["baselines"] or again["trial"] != record["trial"]
    assert not again["notes"]


def _fails(*arguments: Any) -> Baseline:
    raise ValueError("no such luck")


def test_a_baseline_that_fails_is_a_note_and_tried_again(tmp_path: Path) -> None:
    record = run_here(tmp_path / "s.db", 2, baseline=_fails)
    assert record["trials"]["complete"] == 2
    assert record["baselines"] == []
    assert record["notes"][0] == (
        "the baseline logistic regression is missing: ValueError: no such luck"
    )
    again = run_here(tmp_path / "s.db", 2)
    assert len(again["baselines"]) == 2
    assert again["looks_at_outer_rows"] == 1


def test_too_many_rows_have_no_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(baselines.MOST_ROWS, "svc", 50)
    record = run_here(tmp_path / "s.db", 1)
    assert [of["name"] for of in record["baselines"]] == ["logistic regression"]
    assert record["notes"] == [
        "the baseline RBF support vectors is missing: there are more than 50 rows"
    ]


def test_damaged_probabilities_are_refused(tmp_path: Path) -> None:
    run_here(tmp_path / "s.db", 1)
    ledger = Ledger(tmp_path / "s.db", "fake")
    kept = ledger.record().baselines
    broken = kept[0].held_out.model_copy(update={"data": "AAAA"})
    ledger.store(baselines=[kept[0].model_copy(update={"held_out": broken}), *kept[1:]], looks=[])
    ledger.close()
    with pytest.raises(Exception, match="probabilities of logistic are damaged"):
        run_here(tmp_path / "s.db", 1)
    assert read_studies(tmp_path / "s.db")[0].record.baselines


def test_every_pool_of_the_space_is_read() -> None:
    study = StudyConfig.model_validate(
        {
            "name": "s",
            "fixed": {"image_pool": "cls"},
            "space": {"text_pool": ["mean", "mean@1+mean"], "text_encoder": ["default", "other"]},
        }
    )
    found = study.baseline_setting()
    assert found.text_pool == "mean+mean@1+other.mean+other.mean@1"
    assert (found.text_encoder, found.image_pool, found.level) == ("default", "cls", "pooled")
