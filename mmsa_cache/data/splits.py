"""Splits of rows into training, validation and outer (judging) rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmsa_cache.errors import SettingsError
from mmsa_cache.names import unknown_name

from .pairs import Sample
from .protocol import val_rows
from .table import IntArray as IntArray
from .table import SampleTable


def duplicate_groups(samples: Sequence[Sample]) -> IntArray:
    """Groups samples that show the same post, see `SampleTable.groups`."""
    table = samples if isinstance(samples, SampleTable) else SampleTable.from_samples(samples)
    return table.groups()


def report_split(rows: int) -> tuple[IntArray, IntArray]:
    """The report's split: ``torch.manual_seed(47)`` then ``random_split``, 80 % / 20 %.

    Returns:
        Training rows and validation rows, in drawn order.
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(47)).numpy()
    cut = int(0.8 * rows)
    return order[:cut].copy(), order[cut:].copy()


def most_folds(labels: IntArray, groups: IntArray) -> int:
    """Most folds that each contain every class: the number of groups of the rarest class."""
    group_labels = np.unique(np.stack([labels, groups], axis=1), axis=0)[:, 0]
    return int(np.unique(group_labels, return_counts=True)[1].min()) if len(group_labels) else 0


def grouped_folds(
    labels: IntArray, groups: IntArray, folds: int, seed: int
) -> list[tuple[IntArray, IntArray]]:
    """Stratified folds that keep every duplicate group on one side.

    Args:
        labels: Class codes, (rows,).
        groups: Group numbers, (rows,).
        folds: Number of folds.
        seed: Seed of the shuffle.

    Returns:
        ``folds`` pairs of training rows and validation rows.

    Raises:
        SettingsError: A class has fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    _check_folds(most_folds(labels, groups), folds, "--folds {}")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return _int64_folds(splitter.split(labels, labels, groups))


def _stratified_folds(labels: IntArray, folds: int, seed: int) -> list[tuple[IntArray, IntArray]]:
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return _int64_folds(splitter.split(labels, labels))


def _int64_folds(
    folds: Iterable[tuple[NDArray[Any], NDArray[Any]]],
) -> list[tuple[IntArray, IntArray]]:
    return [(np.asarray(train, np.int64), np.asarray(val, np.int64)) for train, val in folds]


def _check_folds(rarest: int, folds: int, flag: str) -> None:
    """Refuses more folds than the rarest class has independent samples.

    Raises:
        SettingsError: There are too many.
    """
    if rarest < folds:
        hint = f"Give {flag.format(rarest)}." if rarest > 1 else "Add posts of it."
        raise SettingsError(
            f"The rarest class has {rarest} independent samples, fewer than {folds} folds.", hint
        )


_OUTER = ("val", "report", "report-parity", "grouped", "grouped-5", "stratified-5", "grouped-5/2")
"""Outer splits, for messages."""
_CROSS_VALIDATION = re.compile(r"(stratified|grouped)-([2-9]|1\d)(?:/([1-9]\d?))?")


def is_cross_validation(kind: str) -> bool:
    """Whether an outer split judges every row by models that did not see it."""
    match = _CROSS_VALIDATION.fullmatch(kind)
    return match is not None and match[3] is None


def outer_split(
    kind: str, labels: IntArray, groups: IntArray, seed: int
) -> tuple[IntArray, IntArray]:
    """Splits off the outer rows, which judge at the end and take part in no selection.

    Args:
        kind: A kind of `outer_splits` with one part.
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        seed: Seed of the shuffle.

    Returns:
        Sorted development rows and sorted outer rows.
    """
    if is_cross_validation(kind):
        raise SettingsError(f"{kind} has several outer parts.", f"Name one of them: {kind}/1.")
    return outer_splits(kind, labels, groups, seed)[0]


def outer_splits(
    kind: str, labels: IntArray, groups: IntArray, seed: int
) -> list[tuple[IntArray, IntArray]]:
    """The outer parts that final models are judged on.

    Args:
        kind: One of

            - ``report``: the report's 20 %; training rows with a duplicate there are left out;
            - ``report-parity``: the same with those duplicates, as in the report;
            - ``val-ROWS``: the split val, the last ROWS rows; duplicates are left out likewise;
            - ``stratified-K``: cross-validation of all rows by scikit-learn's StratifiedKFold;
            - ``grouped-K``: the same with duplicate groups kept together;
            - ``stratified-K/PART``, ``grouped-K/PART``: one part of these, from 1;
            - ``grouped``: ``grouped-5/1``.
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        seed: Seed of the shuffle.

    Returns:
        Sorted development rows and sorted outer rows of each part.
    """
    judging = val_rows(kind)
    if kind in ("report", "report-parity") or judging is not None:
        rows = len(labels)
        development, outer = report_split(rows) if judging is None else _val_split(judging, rows)
        if kind != "report-parity":
            development = development[~np.isin(groups[development], groups[outer])]
        return [(np.sort(development), np.sort(outer))]
    match = _CROSS_VALIDATION.fullmatch("grouped-5/1" if kind == "grouped" else kind)
    if match is None or int(match[3] or 1) > int(match[2]):
        raise unknown_name("Unknown outer split", kind, _OUTER, "Or another number of parts.")
    grouped, folds, part = match[1] == "grouped", int(match[2]), match[3]
    rarest = most_folds(labels, groups if grouped else np.arange(len(labels)))
    _check_folds(rarest, folds, f"--outer {match[1]}-{{}}{'/1' * bool(part)}")
    if grouped:
        parts = grouped_folds(labels, groups, folds, seed)
    else:
        parts = _stratified_folds(labels, folds, seed)
    return parts if part is None else [parts[int(part) - 1]]


def _val_split(judging: int, rows: int) -> tuple[IntArray, IntArray]:
    if not 0 < judging < rows:
        raise SettingsError(f"{judging} of {rows} rows cannot be those of val, which judge.")
    return np.arange(rows - judging), np.arange(rows - judging, rows)


def learned_rows(kind: str, judged: NDArray[np.bool_], groups: IntArray) -> NDArray[np.bool_]:
    """Whether a final model was trained on each row, (rows,).

    Args:
        kind: Kind of its outer split, see `outer_splits`.
        judged: Whether a row is an outer one, (rows,).
        groups: Duplicate groups, (rows,).
    """
    if is_cross_validation(kind):  # the model's members cover all parts
        return np.ones(len(judged), np.bool_)
    if kind == "report" or val_rows(kind) is not None:  # duplicates were left out
        return ~np.isin(groups, groups[judged])
    return ~judged


def copies_per_class(variants: str | int, split: str, labels: IntArray) -> dict[int, int]:
    """Augmented copies per sample of each class; only labelled training rows have any.

    Args:
        variants: ``report``, ``none`` or a number for all rows.
        split: One of `SPLITS`.
        labels: Class codes, −1 if unlabelled, (rows,).

    Returns:
        Class code → number of copies.
    """
    codes = labels[labels >= 0].tolist()
    if split != "train" or variants == "none":
        return {}
    return dict.fromkeys(codes, variants) if isinstance(variants, int) else report_copies(codes)


def report_copies(labels: Iterable[int]) -> dict[int, int]:
    """Augmented copies per sample of each class, by the report's policy.

    target = int(1.5·N) // 3; a class below it gets max(1, int(target / count)) copies per sample.
    For the report's 4,000 rows: neutral 4, negative 1, positive none.

    Args:
        labels: Class codes of the training rows.

    Returns:
        Class code → number of copies.
    """
    codes, counts = np.unique(np.fromiter(labels, np.int64), return_counts=True)
    target = int(counts.sum() * 1.5) // 3
    return {
        int(code): max(1, int(target / count)) if count < target else 0
        for code, count in zip(codes, counts, strict=True)
    }
