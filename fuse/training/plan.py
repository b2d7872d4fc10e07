"""Which rows every member of a final model learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.data.protocol import Protocol
from mmsa_cache.data.splits import grouped_folds, most_folds, outer_splits

from .task import Task

# A single member stops on one of so many folds of the development rows.
_STOPPING_FOLDS = 8


@dataclass(frozen=True, slots=True)
class OuterPart:
    """One outer part: who learns from its development rows, and the rows that judge them."""

    development: NDArray[np.int64]
    judged: NDArray[np.int64]
    tasks: list[Task]
    """Members, fold after fold, then those of the next seed."""
    folds: int
    neighbours: list[Task]
    """Members that leave out a fold and the next one, the last and the first too; then those of the
    next seed. None of fewer than three folds."""


def plan_parts(
    labels: NDArray[np.int64], groups: NDArray[np.int64], protocol: Protocol
) -> list[OuterPart]:
    """Plans which rows every member learns from.

    The development rows of an outer part are cut into folds that keep duplicate groups together.
    Each member trains without one fold, which decides when it stops; every row is so held out once
    a seed, and what is fitted on held-out predictions is honest.

    Args:
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        protocol: With one fold a member stops on an eighth of the rows, or more of few rows.
    """
    return [
        plan_part(development, judged, labels, groups, protocol)
        for development, judged in outer_splits(protocol.outer, labels, groups, protocol.seed)
    ]


def plan_part(
    development: NDArray[np.int64],
    judged: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    protocol: Protocol,
) -> OuterPart:
    """One part of `plan_parts`, of rows that are set apart already."""
    folds, seed = protocol.folds, protocol.seed
    known = labels[development], groups[development]
    cut = folds if folds > 1 else max(2, min(_STOPPING_FOLDS, most_folds(*known)))
    cuts = grouped_folds(*known, cut, seed)[:folds]
    tasks = [
        Task(development[inside], development[outside], seed + turn * folds + number)
        for turn in range(protocol.seeds)
        for number, (inside, outside) in enumerate(cuts)
    ]
    return OuterPart(development, judged, tasks, folds, _neighbours(tasks, development, folds))


def _neighbours(tasks: list[Task], development: NDArray[np.int64], folds: int) -> list[Task]:
    if folds < 3:
        return []
    found = []
    for number, task in enumerate(tasks):
        following = tasks[(number + 1) % folds]  # of any seed: the folds are the same
        outside = np.union1d(task.validation, following.validation)
        inside = np.setdiff1d(development, outside)
        found.append(Task(inside, outside, task.seed + len(tasks)))
    return found
