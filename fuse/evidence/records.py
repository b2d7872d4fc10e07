"""What an ablation found, as records."""

from __future__ import annotations

from fuse.figures.record import Count, Number, Record
from fuse.figures.study import Value
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.json_value import JsonObject


class Figure(Record):
    """A figure of a cell."""

    mean: Number
    """Over members."""
    deviation: Number | None
    """Of single members; None with one."""
    low: Number
    """95 % of the mean over resamples of the judged rows, `high` too."""
    high: Number


class Change(Record):
    """Difference of two cells' means, with the interval over the same resamples."""

    mean: Number
    low: Number
    high: Number


class CellFigures(Record):
    """What a cell of an ablation is worth."""

    labels: dict[str, str]
    """Axis → value."""
    members: Count
    """Trainings that judged all rows once."""
    accuracy: Figure
    macro_f1: Figure
    macro_precision: Figure
    macro_recall: Figure
    weighted_f1: Figure
    recall: dict[str, Figure]
    """By class name."""
    change: dict[str, Change]
    """Accuracy and macro-F1 less those of the first cell."""
    parameters: Count
    seconds: Number
    """Of all its trainings."""
    setting: dict[str, Value]

    def figure(self, key: str) -> Figure:
        """One of its figures by name."""
        figure: Figure = getattr(self, key)
        return figure


class AblationRecord(Record):
    """The cells of an ablation, and how they came about."""

    axes: list[str]
    cells: list[CellFigures]
    judged: dict[str, Count]
    """Judged rows by class name."""
    protocol: Protocol
    members: Count
    metric: str
    resamples: Count
    encoders: dict[str, str]
    """Names for people, by modality."""
    command: str
    workers: Count
    device: str
    trainings: Count
    done_before: Count
    """Trainings that an earlier call finished."""
    seconds: Number
    seconds_of_trainings: Number
    notes: list[str]
    """What readers of the figures must know."""

    def as_json(self) -> JsonObject:
        """Plain values, those of the protocol among them."""
        protocol = self.protocol.model_dump(include={"outer", "folds", "seeds", "stop"})
        return {**self.model_dump(mode="json", exclude={"protocol"}), **protocol}


class ParityRecord(Record):
    """The report's cells, trained here."""

    ablation: AblationRecord
    changes: dict[str, dict[str, Change]]
    """By fusion, of each figure: what ACB changes with both modalities."""
    pools: dict[str, str]
    """Cached vector that is read, by modality."""
    level: str
    assignments: list[str]
    """``key=value`` over the report's own settings."""
    page: str = ""
    """The tables as Markdown."""
    picture: str = ""
    """Figure 3 as SVG."""

    @property
    def rarest_class(self) -> str:
        """The class with the fewest judged rows."""
        judged = self.ablation.judged
        return min(judged, key=lambda name: judged[name])

    def cell(self, fusion: str, modality: str, loss: str) -> CellFigures:
        """One of the cells."""
        labels = {"fusion": fusion, "modality": modality, "loss": loss}
        return next(cell for cell in self.ablation.cells if cell.labels == labels)

    def as_json(self) -> JsonObject:
        """Plain values, those of the ablation among them."""
        ablation = self.ablation.as_json()
        del ablation["axes"]
        own = self.model_dump(mode="json", exclude={"ablation"})
        return {**ablation, **own, "rarest_class": self.rarest_class}
