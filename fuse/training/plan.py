"""Rows that each member of a final model learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.data.protocol import Protocol
from mmsa_cache.data.splits import grouped_folds, most_folds, outer_splits

from .task import Task

_STOPPING_FOLDS = 8
"""A single member stops on one of so many folds of the development rows."""


@dataclass(frozen=True, slots=True)
class OuterPart:
    """One outer part: the members that learn from its development rows, and the judging rows."""

    development: NDArray[np.int64]
    judged: NDArray[np.int64]
    tasks: list[Task]
    """Members that leave out a fold, fold by fold and seed by seed."""
    folds: int
    pair_tasks: list[Task]
    """Members that leave out a fold and the next one (after the last the first), fold by fold and
    seed by seed; none with fewer than three folds."""


def plan_parts(
    labels: NDArray[np.int64], groups: NDArray[np.int64], protocol: Protocol
) -> list[OuterPart]:
    """Plans which rows each member learns from.

    The development rows of an outer part are cut into folds that keep duplicate groups together.
    Each member trains without one fold, which decides when it stops. So each row is held out once
    a seed, and a calibration on held-out predictions is honest.

    Args:
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        protocol: Outer split, folds and seeds. With one fold a member stops on an eighth of the
            rows, or more if they are few.
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
    """Plans one outer part, given its development and judging rows; see `plan_parts`."""
    folds, seed = protocol.folds, protocol.seed
    rows = labels[development], groups[development]
    count = folds if folds > 1 else max(2, min(_STOPPING_FOLDS, most_folds(*rows)))
    splits = grouped_folds(*rows, count, seed)[:folds]
    tasks = [
        Task(development[inside], development[outside], seed + repeat * folds + fold)
        for repeat in range(protocol.seeds)
        for fold, (inside, outside) in enumerate(splits)
    ]
    return OuterPart(development, judged, tasks, folds, _pair_tasks(tasks, development, folds))


def _pair_tasks(tasks: list[Task], development: NDArray[np.int64], folds: int) -> list[Task]:
    if folds < 3:
        return []
    pairs = []
    for index, task in enumerate(tasks):
        following = tasks[(index + 1) % folds]  # the folds are the same for each seed
        outside = np.union1d(task.validation, following.validation)
        inside = np.setdiff1d(development, outside)
        pairs.append(Task(inside, outside, task.seed + len(tasks)))
    return pairs
