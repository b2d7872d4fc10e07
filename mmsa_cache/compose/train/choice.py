"""The recipes of settings that a command trains, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fuse.figures.study import PickedEnsemble, StudySource
from fuse.search.study import StudyConfig
from fuse.setting import Setting
from fuse.training.final import HeldOutProbabilities
from fuse.training.recipe import Recipe
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.data.splits import outer_splits

from ..session.session import Session


@dataclass(frozen=True, slots=True)
class ChosenRecipes:
    """Recipes to train, chosen by a request."""

    recipes: list[Recipe]
    """One for all outer parts, or one a part."""
    protocol: Protocol = field(default_factory=Protocol)
    """Of the first searched study; the default protocol without one."""
    sources: list[StudySource] = field(default_factory=list)
    """One a study; empty where the setting was given."""
    ensembles: list[PickedEnsemble] = field(default_factory=list)
    """The ensembles that the recipes train; empty where each study gives one setting."""
    searched: list[StudyConfig] = field(default_factory=list)
    """Studies whose trials were chosen from; empty for a nested choice."""
    held_out: HeldOutProbabilities = field(default_factory=dict)
    """Held-out predictions of the searches that the training can reuse."""
    nested: list[str] = field(default_factory=list)
    """For a nested choice, one study a part: its search fitted the baselines."""

    @property
    def settings(self) -> list[Setting]:
        """All settings, each once."""
        return list(dict.fromkeys(s for recipe in self.recipes for s in recipe.settings))

    def leakage_notes(self, protocol: Protocol, session: Session) -> list[str]:
        """A note for each study whose choice used rows that judge this training."""
        judged, notes = _rows_of_side(protocol, 1, session), []
        for study in self.searched:
            searched = study.protocol
            count = int(np.isin(judged, _rows_of_side(searched, 0, session)).sum())
            if count:
                notes.append(
                    f"{count} of {len(judged)} outer rows took part in the choice of study "
                    f"{study.name} (its outer rows: {searched.outer}, seed {searched.seed}), so "
                    "the figures of the outer rows are optimistic; --nested chooses in each part "
                    "anew"
                )
        return notes


def _rows_of_side(protocol: Protocol, side: int, session: Session) -> NDArray[np.int64]:
    """Development (0) or outer (1) rows of all parts of a protocol."""
    labels, groups = session.samples(protocol.split).labels, session.groups(protocol.split)
    parts = outer_splits(protocol.outer, labels, groups, protocol.seed)
    return np.unique(np.concatenate([part[side] for part in parts]))
