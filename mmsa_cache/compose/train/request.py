"""What ``mmsa train`` is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fuse.figures.calibration import Decide
from fuse.figures.study import Value
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.runs.folder import command_line
from mmsa_cache.validation import validate

from ..extraction.crew import EngineRequest
from ..session.protocols import resolve_protocol
from ..session.session import Session

MEGABYTES = 200


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What to train, and how."""

    studies: Sequence[str] = ()
    """Each a study (``NAME`` or ``NAME:TRIAL``) or ``best`` of all that can be compared; none: the
    default setting. A study file without a space is one setting and needs no search."""
    changes: Mapping[str, Value] = field(default_factory=dict)
    """Fields of the setting, over what the studies say."""
    name: str | None = None
    """Of the run; default: the date and time."""
    outer: str | None = None
    """Rows that judge; default, as of the next two: those of the first searched study."""
    folds: int | None = None
    """Folds of the development rows; a member each. Without a searched study 5."""
    seeds: int | None = None
    """Members a fold. Without a searched study 1."""
    averaged: bool = True
    """Whether the model is the average of the members; else the best of them."""
    refit: bool | None = None
    """Whether the model's members learn from all development rows, see
    `fuse.training.final.train`; None: those of an ensemble do."""
    ensemble: int | None = None
    """Trains an ensemble of so many settings at most; None: of
    `fuse.search.greedy.MEMBERS`, if it wins."""
    single: bool = False
    """Whether one setting a study is trained, no ensemble of its trials."""
    max_mb: int = MEGABYTES
    """Megabytes that the model file of an ensemble may have."""
    nested: bool = False
    """Whether each outer part has a choice of its own, from a search on its development rows."""
    trials: int = 200
    """Finished trials of each search of a nested choice."""
    engine: EngineRequest = EngineRequest()  # noqa: RUF009  (frozen)
    """Workers of these searches; None: see `worker_devices`."""
    decide: Decide = "accuracy"
    """Decision rule of the run."""
    track: Sequence[str] = ()
    """Trackers besides JSON lines, see `trackers.TRACKERS`."""
    command: str = field(default_factory=command_line)
    """What the run is made by, as a person typed it."""

    def protocol(self, known: Protocol, session: Session) -> Protocol:
        """Which rows train and judge: what is asked for, else as known.

        Args:
            known: Of the study that was searched; of a run where none was.
            session: The command's; the seed of its settings counts where it was set.
        """
        settings = session.settings
        values = {
            "outer": self.outer or known.outer,
            "folds": self.folds or known.folds,
            "seeds": self.seeds or known.seeds,
            "seed": settings.seed if "seed" in settings.model_fields_set else known.seed,
        }
        protocol = validate(Protocol, values, "The rows cannot be divided so:", "")
        return resolve_protocol(session, protocol, folds_given=self.folds is not None)
