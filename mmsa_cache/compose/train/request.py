"""The request of a training."""

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
    """The options of ``mmsa train``."""

    studies: Sequence[str] = ()
    """Each a study (``NAME`` or ``NAME:TRIAL``), or ``best`` of all comparable ones; empty: the
    default setting. A study file without a space is one setting and needs no search."""
    changes: Mapping[str, Value] = field(default_factory=dict)
    """Fields of the setting that replace those of the studies."""
    name: str | None = None
    """Name of the run; default: the date and time."""
    outer: str | None = None
    """Rows that judge; default: those of the first searched study."""
    folds: int | None = None
    """Folds of the development rows, each with a member; default: as searched, else 5."""
    seeds: int | None = None
    """Members a fold; default: as searched, else 1."""
    averaged: bool = True
    """Whether the model is the average of the members; else it is the best member."""
    refit: bool | None = None
    """Whether the model's members learn from all development rows, see
    `fuse.training.final.train`; None: only those of an ensemble."""
    ensemble: int | None = None
    """Trains an ensemble of this many settings at most; None: of `fuse.search.greedy.MEMBERS` at
    most, if it beats the best single trial."""
    single: bool = False
    """Whether one setting a study is trained instead of an ensemble of its trials."""
    max_mb: int = MEGABYTES
    """Most megabytes of the model file of an ensemble."""
    nested: bool = False
    """Whether the settings of each outer part come from a search on its development rows."""
    trials: int = 200
    """Finished trials of each search of a nested choice."""
    engine: EngineRequest = EngineRequest()  # noqa: RUF009  (frozen)
    """Workers of these searches, see `worker_devices`."""
    decide: Decide = "accuracy"
    """Decision rule of the run."""
    track: Sequence[str] = ()
    """Trackers besides JSON lines, see `trackers.TRACKERS`."""
    command: str = field(default_factory=command_line)
    """The command line, as typed."""

    def protocol(self, default: Protocol, session: Session) -> Protocol:
        """The rows that train and judge.

        Args:
            default: For options that are not given: the protocol of the searched study.
            session: The command's; the seed of its settings counts where it was set.
        """
        settings = session.settings
        values = {
            "outer": self.outer or default.outer,
            "folds": self.folds or default.folds,
            "seeds": self.seeds or default.seeds,
            "seed": settings.seed if "seed" in settings.model_fields_set else default.seed,
        }
        protocol = validate(Protocol, values, "The rows cannot be divided so:", "")
        return resolve_protocol(session, protocol, folds_given=self.folds is not None)
