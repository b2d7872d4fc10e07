"""Held-out probabilities: averaged over seeds, kept with trials, bounded when read."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuse.search import held_out
from fuse.search.database import read_studies
from fuse.search.held_out import HeldOut, HeldOutRecord, stack_held_out
from fuse.search.trial_record import Trial
from mmsa_cache.data.splits import outer_split
from mmsa_cache.errors import ModelError
from tests.support.fake_search import GROUPS, LABELS, fake_predict, make_study, run, start_thread


def some(rows: list[int], seed: int = 0) -> HeldOut:
    values = np.random.default_rng(seed).dirichlet([1.0, 1.0, 1.0], len(rows))
    return HeldOut(np.array(rows), values.astype(np.float32))


def test_every_row_has_the_mean_over_seeds() -> None:
    folds = [np.array([4, 0]), np.array([2, 9])]
    first, second = np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 2, 2, 1]]
    found = HeldOut.average(folds * 2, [first[:2], first[2:], second[:2], second[2:]])
    assert found.rows.tolist() == [0, 2, 4, 9]
    assert found.probabilities.tolist() == [[0, 0.5, 0.5], [0, 0, 1], [1, 0, 0], [0.5, 0.5, 0]]


def test_a_record_keeps_three_digits_and_no_zero() -> None:
    whole = some([1, 5, 6, 4000, 2**31])
    back = HeldOut.decode(whole.encode(), "it")
    np.testing.assert_array_equal(back.rows, whole.rows)
    np.testing.assert_allclose(back.probabilities, whole.probabilities, rtol=1e-3, atol=1e-6)
    certain = HeldOut(np.array([3]), np.array([[1, 0, 0]], np.float32))
    assert HeldOut.decode(certain.encode(), "it").probabilities.min() > 0


def test_of_many_rows_evenly_spread_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "MOST_VALUES", 30)
    rows = np.arange(100)
    found = HeldOut.average([rows], [np.eye(3)[rows % 3]])
    assert found.rows.tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    np.testing.assert_array_equal(found.probabilities.argmax(1), found.rows % 3)


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"rows": 2, "classes": 3, "data": "%%%"}, "cannot be unpacked"),
        ({"rows": 2, "classes": 3, "data": "AAAA"}, "cannot be unpacked"),
        ({"rows": 2, "classes": 3, "data": _packed(bytes(1 << 26))}, "2 rows of 3 classes"),
        ({"rows": 1 << 15, "classes": 3, "data": ""}, "too many"),
        ({"rows": 2, "classes": 3, "data": _packed(bytes(20))}, "no probabilities"),
        ({"rows": 1, "classes": 2, "data": _packed(bytes(4) + b"\0\x7e\0\x7e")}, "no probab"),
    ],
)
def test_what_is_no_record_is_refused_in_bounded_memory(
    record: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=f"of trial 7 are damaged: .*{reason}"):
        HeldOut.decode(HeldOutRecord.model_validate(record), "trial 7")


def test_trials_of_other_rows_are_not_stacked() -> None:
    rows, values = stack_held_out([some([1, 4], 1), some([1, 4], 2)], 5)
    assert (rows.tolist(), values.shape) == ([1, 4], (2, 2, 3))
    for held, samples in (([some([1, 4]), some([1, 3])], 5), ([some([1, 4])], 4)):
        with pytest.raises(ModelError, match="not of the same rows"):
            stack_held_out(held, samples)


def trials(database: Path) -> list[Trial]:
    return read_studies(database)[0].trials


def test_a_complete_trial_keeps_them_and_a_pruned_one_does_not(tmp_path: Path) -> None:
    rule = {"kind": "percentile", "keep": 0.5, "startup": 3, "warmup": 1}
    run(tmp_path / "s.db", tmp_path, 8, study=make_study(pruner=rule), start=start_thread)
    development, _ = outer_split("grouped", LABELS, GROUPS, 1)
    assert {t.is_complete for t in trials(tmp_path / "s.db")} == {True, False}
    for trial in trials(tmp_path / "s.db"):
        found = trial.held_out
        assert (found is not None) == trial.is_complete
        if found is not None:
            np.testing.assert_array_equal(found.rows, development)
            expected = fake_predict(None, None, development, trial.setting())
            np.testing.assert_array_equal(found.probabilities.argmax(1), expected.argmax(1))
