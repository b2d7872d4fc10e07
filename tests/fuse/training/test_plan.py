"""Which rows every member learns from, and which copy of a post."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fuse.training.copies import draw_one_copy, row_weights
from fuse.training.plan import OuterPart, plan_parts
from mmsa_cache.data.protocol import Protocol

LABELS = np.tile([0, 0, 0, 1, 1, 2], 40)
TWINS = np.arange(240) // 12 * 6 + np.arange(240) % 6
"""Rows six apart, of one class, show one post."""


def parts(outer: str = "grouped", folds: int = 1, seeds: int = 1) -> list[OuterPart]:
    return plan_parts(LABELS, TWINS, Protocol(outer=outer, folds=folds, seeds=seeds, seed=11))


def test_every_row_is_held_out_once_a_seed() -> None:
    for part in parts("grouped-2", folds=3, seeds=2):
        assert part.folds == 3
        assert sorted([*part.development, *part.judged]) == list(range(240))
        assert [task.seed for task in part.tasks] == [11, 12, 13, 14, 15, 16]
        for turn in (part.tasks[:3], part.tasks[3:]):
            held_out = np.concatenate([task.validation for task in turn])
            assert sorted(held_out) == sorted(part.development)
        for task in part.tasks:
            assert sorted([*task.train, *task.validation]) == sorted(part.development)
            assert not set(TWINS[task.train]) & set(TWINS[task.validation])


def test_two_folds_are_halves_and_a_seed_gives_the_same_rows_again() -> None:
    (part,), (again,) = parts(folds=2), parts(folds=2)
    one, other = part.tasks
    assert sorted([*one.validation, *other.validation]) == sorted(part.development)
    assert part.judged.tolist() == again.judged.tolist()
    for task, same in zip(part.tasks, again.tasks, strict=True):
        assert task.validation.tolist() == same.validation.tolist()


def test_neighbours_leave_out_a_fold_and_the_next_one() -> None:
    (part,) = parts(folds=3, seeds=2)
    assert [task.seed for task in part.pair_tasks] == [17, 18, 19, 20, 21, 22]
    for number, task in enumerate(part.pair_tasks):
        two = [part.tasks[place].validation for place in (number % 3, (number + 1) % 3)]
        assert task.validation.tolist() == sorted(np.concatenate(two))
        assert sorted([*task.train, *task.validation]) == sorted(part.development)
    assert parts(folds=2)[0].pair_tasks == [], "nobody would learn"


@pytest.mark.parametrize(("posts", "share"), [(20, 1 / 8), (8, 1 / 8), (5, 1 / 5), (2, 1 / 2)])
def test_a_single_member_stops_on_an_eighth_of_the_rows_or_more_of_few(
    posts: int, share: float
) -> None:
    labels, groups = np.repeat([0, 1], posts * 2), np.arange(posts * 4) // 2
    protocol = Protocol(outer="val-4", folds=1, seeds=2, seed=3)
    last = np.array([0, 1, 0, 1]), posts * 2 + np.arange(4)
    both = [np.concatenate(pair) for pair in zip((labels, groups), last, strict=True)]
    (part,) = plan_parts(*both, protocol)
    assert len(part.tasks) == 2
    assert part.pair_tasks == []
    first, again = part.tasks
    assert first.validation.tolist() == again.validation.tolist()
    assert len(first.validation) == pytest.approx(share * posts * 4, abs=2.1)


ITEMS = torch.tensor([[4, 0, 0], [4, 1, 0], [7, 5, 1], [4, 2, 0], [9, 6, 2], [9, 3, 2]])
"""Of three posts: three, one and two rows."""


def test_a_post_counts_once_however_many_copies_it_has() -> None:
    assert row_weights(ITEMS).tolist() == pytest.approx([1 / 3, 1 / 3, 1, 1 / 3, 1 / 2, 1 / 2])
    drawn = [draw_one_copy(ITEMS, torch.Generator().manual_seed(seed)) for seed in range(300)]
    assert torch.equal(draw_one_copy(ITEMS, torch.Generator().manual_seed(7)), drawn[7])
    for rows in drawn:
        assert rows[:, 0].tolist() == [4, 7, 9]
        assert all(row in ITEMS.tolist() for row in rows.tolist())
    seen = torch.cat(drawn)[:, 1].bincount(minlength=7).tolist()
    assert [seen[place] for place in (0, 1, 2)] == pytest.approx([100] * 3, abs=35)
    assert [seen[place] for place in (3, 6)] == pytest.approx([150] * 2, abs=40)
    assert seen[5] == 300
