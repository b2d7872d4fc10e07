"""A run, as Python users read it."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fuse.figures.predictions import Predictions
from fuse.figures.records import EpochRecord, RunFigures
from mmsa_cache.compose.report.report import PAGE
from mmsa_cache.compose.report.sections import prediction_intervals
from mmsa_cache.files.paths import check_paths
from mmsa_cache.notebook import as_html
from mmsa_cache.runs.folder import LATEST, RunFolder
from mmsa_cache.runs.record import RunRecord

from . import plots
from .calls import resolve_argument, translate_errors, work_in_project
from .report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mmsa_cache.compose.predict.predictor import Predictor


class Run:
    """A trained run or an exported model; its files are read at first use.

    A run is a path too: `load_model` and `Path` accept it.

    Args:
        run: Name of a run below ``runs``, ``latest`` or ``best``, or the folder of a run or an
            export.

    Raises:
        ModelError: There is none; of all properties: their file is missing or malformed.
    """

    def __init__(self, run: str | os.PathLike[str] = LATEST) -> None:
        with work_in_project() as here:
            check_paths(run=run if not isinstance(run, str) else None)
            folder = RunFolder.find(str(resolve_argument(here, run)))
            self.folder = RunFolder(folder.path.resolve())

    @classmethod
    def all(cls) -> list[Run]:
        """The runs of this project, the last trained first."""
        with work_in_project():
            folders = sorted(RunFolder.all(), key=RunFolder.trained_at, reverse=True)
            return [cls(folder.path) for folder in folders]

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    @property
    def record(self) -> RunRecord:
        """How it was made."""
        return self.folder.record

    @property
    def figures(self) -> RunFigures:
        """Its scores: ``run.figures.outer.macro_f1``."""
        return self.folder.figures

    @property
    def predictions(self) -> Predictions:
        """Its predictions of the outer rows."""
        return self.folder.predictions

    @property
    def history(self) -> list[EpochRecord]:
        """The epochs of its members."""
        return self.folder.history

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of their codes."""
        return self.record.classes

    @property
    def notes(self) -> list[str]:
        """Caveats of its scores, such as synthetic data or random weights."""
        return self.record.notes

    @functools.cached_property
    def model(self) -> Predictor:
        """The model with its encoders, loaded once; see `load_model` for other devices."""
        from mmsa_cache.compose.predict.predictor import load_model

        with work_in_project():
            return load_model(self.path)

    def predict(self, text: str | None = None, image: str | Path | None = None) -> str:
        """The predicted class of one post; see `predict_proba`."""
        probabilities = self.predict_proba(text, image)
        return self.model.decide([[*probabilities.values()]])[0]

    def predict_proba(
        self, text: str | None = None, image: str | Path | None = None
    ) -> dict[str, float]:
        """Class probabilities of one post by class name; the text or the picture may be missing.

        Args:
            text: Its text.
            image: File of its picture.

        Raises:
            MmsaError: See `Predictor.predict`.
        """
        with translate_errors():
            return self.model.predict(text, image)

    def report(self) -> Report:
        """Its report page."""
        return Report(self.path / PAGE)

    def plot_confusion(self, ax: Axes | None = None) -> Axes:
        """Its confusion matrix, see `plots.plot_confusion`."""
        return plots.plot_confusion(self.figures.outer, ax)

    def plot_classes(self, ax: Axes | None = None) -> Axes:
        """F1 of every class with its interval, see `plots.plot_classes`."""
        intervals = self.figures.intervals or prediction_intervals(self.predictions, self.classes)
        return plots.plot_classes(self.figures.outer, intervals, ax)

    def plot_reliability(self, ax: Axes | None = None) -> Axes:
        """Accuracy by confidence, see `plots.plot_reliability`."""
        return plots.plot_reliability(self.predictions, ax)

    def plot_curves(self, ax: Axes | None = None, *, curve: plots.Curve = "macro_f1") -> Axes:
        """A learning curve of its members, see `plots.plot_curves`."""
        return plots.plot_curves(self.history, self.figures.members, ax, curve=curve)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({self.name!r})"

    def _repr_html_(self) -> str:
        record = self.record
        searched = [f"{source.name}, trial {source.trial}" for source in record.searched]
        facts = record.labels | {"study": "; ".join(searched), "folder": self.path}
        has_figures = (self.path / "metrics.json").is_file()  # an export may have none
        header, rows = self.figures.table() if has_figures else ([], [])
        return as_html(f"Run {self.name}", facts, header, rows, self.notes)
