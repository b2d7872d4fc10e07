"""The trainings that every cell of an ablation has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fuse.figures.confusion import Codes
from fuse.search.messages import FoldSplit
from fuse.training.plan import plan_parts
from mmsa_cache.data.protocol import Protocol


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The splits on which every setting is trained."""

    splits: list[FoldSplit]
    """Members of the first outer part, then those of the next."""
    members: int
    """Splits of each outer part. One training of each part judges all rows once."""

    @classmethod
    def of(cls, protocol: Protocol, labels: Codes, groups: Codes) -> TrainingPlan:
        """Plans which rows every training learns from, and which judge it.

        Args:
            protocol: See `fuse.training.plan.plan_parts`.
            labels: Class codes, (rows,).
            groups: Duplicate groups, (rows,).
        """
        splits = [
            FoldSplit(part.development, part.judged, part.judged, task.seed)
            if protocol.stop == "judged"
            else FoldSplit(task.train, task.validation, part.judged, task.seed)
            for part in plan_parts(labels, groups, protocol)
            for task in part.tasks
        ]
        return cls(splits, protocol.folds * protocol.seeds)

    @property
    def rows(self) -> Codes:
        """The judged rows of all parts, sorted."""
        return np.sort(self._judged())

    def _judged(self) -> Codes:
        return np.concatenate([split.judged for split in self.splits[:: self.members]])

    def by_member(self, predicted: Sequence[Sequence[int]]) -> Codes:
        """Joins the class codes of all splits to (members, rows), in the order of `rows`."""
        order = np.argsort(self._judged())
        members = [
            np.concatenate([np.asarray(part, np.int64) for part in predicted[m :: self.members]])
            for m in range(self.members)
        ]
        return np.stack(members)[:, order]
