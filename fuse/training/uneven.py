"""Members of a stack that take fewer steps an epoch than others.

One program is far quicker than several, so a stack runs all members to the end of the epoch, and
then undoes the steps after a member's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

_MOST_STEPS = 1.25
"""Steps of a member in a stack, at most, over those of the member with fewest."""


def group_by_steps(steps: Sequence[int]) -> list[list[int]]:
    """Groups members that take about as many steps.

    Args:
        steps: Steps of each member in an epoch.

    Returns:
        Indices of the members of each group.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(steps)), key=lambda index: steps[index]):
        if not groups or steps[index] > _MOST_STEPS * steps[groups[-1][0]]:
            groups.append([])
        groups[-1].append(index)
    return [sorted(group) for group in groups]


class FinishedMembers:
    """Undoes the steps that members take after their own.

    Args:
        steps: Steps of each member in an epoch.

    Attributes:
        steps: Steps of the member that takes most.
        counts: How many members have finished before each step.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self._own_steps = steps
        self.steps = max(steps)
        self.counts = [sum(own <= step for own in steps) for step in range(self.steps)]
        self._saved: dict[int, list[Tensor]] = {}

    def store(self, count: int, tensors: Sequence[Tensor]) -> None:
        """Copies the rows of the members that have finished, unless that was done before.

        Args:
            count: How many have finished, see `counts`.
            tensors: All tensors that a step changes, (members, …) each.
        """
        if count == len(self._saved):
            return
        limit = sorted(self._own_steps)[count - 1]
        for member, own in enumerate(self._own_steps):
            if own <= limit and member not in self._saved:
                self._saved[member] = [tensor[member].clone() for tensor in tensors]

    def restore(self, tensors: Sequence[Tensor]) -> None:
        """Copies the saved rows back, at the end of an epoch."""
        for member, values in self._saved.items():
            for tensor, value in zip(tensors, values, strict=True):
                tensor[member].copy_(value)
        self._saved.clear()
