"""Which rows train, which choose, which judge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
    """Numbers the groups of samples that show the same post, see `SampleTable.groups`."""
    table = samples if isinstance(samples, SampleTable) else SampleTable.from_samples(samples)
    return table.groups()


def report_split(rows: int) -> tuple[IntArray, IntArray]:
    """The report's split: ``torch.manual_seed(47)`` then ``random_split``, 80 % / 20 %.

    Returns:
        Training rows and validation rows, indices in file order, in drawn order.
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(47)).numpy()
    cut = int(0.8 * rows)
    return order[:cut].copy(), order[cut:].copy()


def most_folds(labels: IntArray, groups: IntArray) -> int:
    """Folds that every class can be in: duplicate groups of the rarest class that there is."""
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
        ``folds`` pairs (training, validation) of positions in ``labels``.

    Raises:
        SettingsError: A class has fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    _check_folds(most_folds(labels, groups), folds, "--folds {}")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [
        (np.asarray(train, np.int64), np.asarray(val, np.int64))
        for train, val in splitter.split(labels, labels, groups)
    ]


def _check_folds(rarest: int, folds: int, flag: str) -> None:
    """Refuses more folds than the rarest class has independent samples."""
    if rarest < folds:
        hint = f"Give {flag.format(rarest)}." if rarest > 1 else "Add posts of it."
        raise SettingsError(
            f"The rarest class has {rarest} independent samples, fewer than {folds} folds.", hint
        )


_OUTER = ("val", "report", "report-parity", "grouped", "grouped-5", "stratified-5", "grouped-5/2")
"""Outer splits, for messages."""
_CROSS_VALIDATION = re.compile(r"(stratified|grouped)-([2-9]|1\d)(?:/([1-9]\d?))?")


def is_cross_validation(kind: str) -> bool:
    """Whether an outer split judges every row, each by members that did not see it."""
    match = _CROSS_VALIDATION.fullmatch(kind)
    return match is not None and match[3] is None


def outer_split(
    kind: str, labels: IntArray, groups: IntArray, seed: int
) -> tuple[IntArray, IntArray]:
    """Sets the rows apart that judge at the end and take part in no choice.

    Args:
        kind: One of `outer_splits` with one part.
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
    """The outer parts that a final model is judged on.

    Args:
        kind: ``report`` (the report's 20 %; training rows with a twin there are left out, so
            nothing leaks), ``report-parity`` (the same with the twins kept, as the report had it);
            ``val-ROWS`` (the split val, which is so many rows at the end, twins left out likewise);
            a cross-validation over all rows, in which each part judges once: ``stratified-K``
            (scikit-learn's StratifiedKFold) or ``grouped-K`` (the same with duplicate groups kept
            together); one part of it, from 1: ``stratified-K/PART``; or ``grouped``, which is
            ``grouped-5/1``.
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        seed: Seed of the shuffle.

    Returns:
        Sorted development rows and sorted outer rows of each part.
    """
    judging = val_rows(kind)
    if kind in ("report", "report-parity") or judging is not None:
        development, outer = report_split(len(labels))
        if judging is not None:
            development, outer = _val_split(judging, len(labels))
        if kind != "report-parity":
            development = development[~np.isin(groups[development], groups[outer])]
        return [(np.sort(development), np.sort(outer))]
    match = _CROSS_VALIDATION.fullmatch("grouped-5/1" if kind == "grouped" else kind)
    if match is None or int(match[3] or 1) > int(match[2]):
        raise unknown_name("Unknown outer split", kind, _OUTER, "Or another number of parts.")
    folds = int(match[2])
    rarest = most_folds(labels, groups if match[1] == "grouped" else np.arange(len(labels)))
    _check_folds(rarest, folds, f"--outer {match[1]}-{{}}{'/1' * bool(match[3])}")
    parts = (
        grouped_folds(labels, groups, folds, seed)
        if match[1] == "grouped"
        else _stratified_folds(labels, folds, seed)
    )
    return parts if match[3] is None else [parts[int(match[3]) - 1]]


def _val_split(judging: int, rows: int) -> tuple[IntArray, IntArray]:
    if not 0 < judging < rows:
        raise SettingsError(f"{judging} of {rows} rows cannot be those of val, which judge.")
    return np.arange(rows - judging), np.arange(rows - judging, rows)


def _stratified_folds(labels: IntArray, folds: int, seed: int) -> list[tuple[IntArray, IntArray]]:
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [
        (np.asarray(train, np.int64), np.asarray(judged, np.int64))
        for train, judged in splitter.split(labels, labels)
    ]


def learned_rows(kind: str, judged: NDArray[np.bool_], groups: IntArray) -> NDArray[np.bool_]:
    """The rows that a final model has learned from.

    Args:
        kind: Kind of its outer split, see `outer_splits`.
        judged: Whether a row was an outer one, (rows,).
        groups: Duplicate groups, (rows,).
    """
    if is_cross_validation(kind):  # its model has the members of all parts
        return np.ones(len(judged), np.bool_)
    return ~(
        np.isin(groups, groups[judged])
        if kind == "report" or val_rows(kind) is not None
        else judged
    )


def copies_per_class(variants: str | int, split: str, labels: IntArray) -> dict[int, int]:
    """Augmented copies a sample of each class; only labelled training rows get any.

    Args:
        variants: ``report``, ``none`` or a number for every row.
        split: One of `SPLITS`.
        labels: Class codes, −1 where unknown, (rows,).

    Returns:
        Class code → number of copies.
    """
    codes = labels[labels >= 0].tolist()
    if split != "train" or variants == "none":
        return {}
    return dict.fromkeys(codes, variants) if isinstance(variants, int) else report_copies(codes)


def report_copies(labels: Iterable[int]) -> dict[int, int]:
    """Augmented copies a sample of each class, by the report's policy.

    target = int(1.5·N) // 3; a class below it gets max(1, int(target / count)) copies a sample.
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
