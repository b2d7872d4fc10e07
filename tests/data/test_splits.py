"""Which rows train, choose and judge, and how many copies rows have."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from mmsa_cache.data.protocol import JOINED, Protocol, val_rows
from mmsa_cache.data.splits import (
    copies_per_class,
    grouped_folds,
    learned_rows,
    most_folds,
    outer_split,
    outer_splits,
    report_copies,
    report_split,
)
from mmsa_cache.errors import SettingsError

GROUPS = np.random.default_rng(1).integers(0, 100, 200)
LABELS = GROUPS % 3


def test_labelled_training_rows_alone_have_copies() -> None:
    labels = np.array([0] * 6 + [1] * 2 + [-1] * 90)
    assert (
        copies_per_class("report", "train", labels)
        == report_copies([0] * 6 + [1] * 2)
        == {0: 0, 1: 2}
    )
    assert copies_per_class(3, "train", labels) == {0: 3, 1: 3}
    for variants, split in (("none", "train"), ("report", "test"), (3, "val"), (3, "predict")):
        assert copies_per_class(variants, split, labels) == {}


def test_folds_are_those_of_scikit_learn_by_their_seed() -> None:
    kinds = (("grouped", StratifiedGroupKFold, GROUPS), ("stratified", StratifiedKFold, None))
    for kind, splitter, groups in kinds:
        for seed in (0, 47):
            drawn = splitter(4, shuffle=True, random_state=seed).split(LABELS, LABELS, groups)
            found = outer_splits(f"{kind}-4", LABELS, GROUPS, seed)
            for (train, judged), (wanted, rest) in zip(found, drawn, strict=True):
                assert (train.tolist(), judged.tolist()) == (wanted.tolist(), rest.tolist())


def test_there_are_no_more_folds_than_posts_of_the_rarest_class() -> None:
    """Posts that repeat each other count once where they stay together."""
    labels, groups = np.array([0] * 8 + [1] * 4), np.array([*range(8), 8, 8, 9, 9])
    assert most_folds(labels, groups) == 2
    assert most_folds(labels, np.arange(12)) == 4
    assert most_folds(labels[:0], groups[:0]) == 0
    assert len(grouped_folds(labels, groups, 2, 0)) == 2
    assert len(outer_splits("grouped-2/2", labels, groups, 47)) == 1
    assert len(outer_splits("stratified-19", np.arange(57) % 3, np.arange(57), 47)) == 19
    assert len(outer_splits("stratified-4", labels, groups, 0)) == 4
    for call, said, hint in (
        (lambda: grouped_folds(labels, groups, 3, 0), "has 2 independent samples, fewer than 3",
         "Give --folds 2."),
        (lambda: outer_splits("grouped-3", labels, groups, 0), "has 2 ", "Give --outer grouped-2."),
        (lambda: outer_splits("grouped-3/2", labels, groups, 0), "has 2 ",
         "Give --outer grouped-2/1."),
        (lambda: outer_splits("stratified-5", labels, groups, 0), "has 4 .* than 5",
         "Give --outer stratified-4."),
        (lambda: grouped_folds(labels[:9], groups[:9], 2, 0), "has 1 ", "Add posts of it."),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=said) as raised:
            call()
        assert raised.value.hint == hint


def test_rows_at_the_end_judge_where_val_does() -> None:
    development, outer = outer_split("val-60", LABELS, GROUPS, 47)
    assert outer.tolist() == list(range(140, 200))
    twins = set(GROUPS[140:])
    assert development.tolist() == [row for row in range(140) if GROUPS[row] not in twins]
    assert outer_split("val-199", LABELS, np.arange(200), 47)[0].tolist() == [0]
    assert outer_split("val-1", LABELS, np.arange(200), 47)[1].tolist() == [199]
    for rows in (200, 500):
        with pytest.raises(SettingsError, match=f"{rows} of 200 rows cannot be those of val"):
            outer_split(f"val-{rows}", LABELS, GROUPS, 47)
    with pytest.raises(SettingsError, match="0 of 200 rows"):
        outer_split("val", LABELS, GROUPS, 47)


def test_the_reports_rows_judge_with_twins_or_without() -> None:
    drawn, judged = (sorted(part.tolist()) for part in report_split(200))
    development, outer = outer_split("report-parity", LABELS, GROUPS, 1)
    assert (development.tolist(), outer.tolist()) == (drawn, judged)
    development, outer = outer_split("report", LABELS, GROUPS, 2)
    twins = set(GROUPS[judged])
    assert outer.tolist() == judged
    assert development.tolist() == [row for row in drawn if GROUPS[row] not in twins]


@pytest.mark.parametrize(
    "kind", ["", "vals", "val-0", "grouped-1", "grouped-20", "grouped-5/0", "grouped-5/6", "/1"]
)
def test_other_outer_splits_are_refused(kind: str) -> None:
    with pytest.raises(SettingsError, match="Unknown outer split") as raised:
        outer_splits(kind, LABELS, GROUPS, 47)
    assert "report-parity" in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "learned"),
    [
        ("report", [0, 0, 0, 1]),
        ("val-1", [0, 0, 0, 1]),
        ("report-parity", [0, 1, 0, 1]),
        ("grouped-2/1", [0, 1, 0, 1]),
        ("grouped", [0, 1, 0, 1]),
        ("grouped-2", [1, 1, 1, 1]),
        ("stratified-2", [1, 1, 1, 1]),
    ],
)
def test_a_final_model_has_learned_what_did_not_judge_it(kind: str, learned: list[int]) -> None:
    """Rows 0 and 2 judged; row 1 is a twin of row 0, which only some splits leave out."""
    found = learned_rows(kind, np.array([True, False, True, False]), np.array([7, 7, 8, 9]))
    assert found.dtype == np.bool_
    assert found.tolist() == [bool(value) for value in learned]


def test_val_judges_by_name_alone_or_with_its_rows() -> None:
    kinds = ("val", "val-1", "val-500", "val-0", "val-05", "val-", "xval", "report", "val-1/1")
    assert [val_rows(kind) for kind in kinds] == [0, 1, 500, *[None] * 6]
    for kind, split, judging in (("val-5", JOINED, "val"), ("grouped", "train", "train")):
        protocol = Protocol(outer=kind)
        assert (protocol.split, protocol.judging) == (split, judging)
    with pytest.raises(ValueError, match="give --folds 1"):
        Protocol(stop="judged", folds=2)
    assert Protocol(stop="judged", folds=1).folds == 1
