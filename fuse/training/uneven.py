"""Members of a stack that take fewer steps an epoch than others.

A stack runs them along to the end of the epoch, as one program is far quicker than several; what
the steps after their own have changed is then put back.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

_ALIKE = 1.25
"""How many times as many steps as another member one may take beside it."""


def group_by_steps(steps: Sequence[int]) -> list[list[int]]:
    """Places of members in groups that take about as many steps.

    Args:
        steps: Of each member in an epoch.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(steps)), key=lambda place: steps[place]):
        if not groups or steps[place] > _ALIKE * steps[groups[-1][0]]:
            groups.append([])
        groups[-1].append(place)
    return [sorted(group) for group in groups]


class FinishedMembers:
    """Puts back what steps after their own have changed of members.

    Args:
        steps: Of each member in an epoch.

    Attributes:
        steps: Of those that take most.
        ended: Of each step, how many members have ended before it.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self._own = steps
        self.steps = max(steps)
        self.ended = [sum(own <= step for own in steps) for step in range(self.steps)]
        self._kept: dict[int, list[Tensor]] = {}

    def keep(self, ended: int, tensors: Sequence[Tensor]) -> None:
        """Copies what belongs to the members that have ended, unless that was done before.

        Args:
            ended: How many, see the attribute.
            tensors: All that a step changes, (members, …) each.
        """
        if ended == len(self._kept):
            return
        limit = sorted(self._own)[ended - 1]
        for member, own in enumerate(self._own):
            if own <= limit and member not in self._kept:
                self._kept[member] = [tensor[member].clone() for tensor in tensors]

    def put_back(self, tensors: Sequence[Tensor]) -> None:
        """Undoes what has become of them since, at the end of an epoch."""
        for member, values in self._kept.items():
            for tensor, value in zip(tensors, values, strict=True):
                tensor[member].copy_(value)
        self._kept.clear()
