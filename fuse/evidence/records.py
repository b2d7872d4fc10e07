"""Records of an ablation."""

from __future__ import annotations

from fuse.figures.record import Count, Number, Record
from fuse.figures.study import Value
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.json_value import JsonObject


class Figure(Record):
    """A metric of a cell."""

    mean: Number
    """Over members."""
    deviation: Number | None
    """Standard deviation of members; None for one member."""
    low: Number
    """Lower end of the mean's 95 % interval over resamples of the judged rows."""
    high: Number
    """Its upper end."""


class Change(Record):
    """Difference of two cells' means, with its interval over the same resamples."""

    mean: Number
    low: Number
    high: Number


class CellFigures(Record):
    """Metrics of a cell."""

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
    """Accuracy and macro-F1 minus those of the first cell."""
    parameters: Count
    seconds: Number
    """Sum over its trainings."""
    setting: dict[str, Value]

    def figure(self, key: str) -> Figure:
        """A metric by name."""
        figure: Figure = getattr(self, key)
        return figure


class AblationRecord(Record):
    """The cells of an ablation, and how they were trained."""

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
    """Caveats for readers."""

    def as_json(self) -> JsonObject:
        """Plain values, with those of the protocol at the top level."""
        protocol = self.protocol.model_dump(include={"outer", "folds", "seeds", "stop"})
        return {**self.model_dump(mode="json", exclude={"protocol"}), **protocol}


class ParityRecord(Record):
    """The report's cells, trained here."""

    ablation: AblationRecord
    changes: dict[str, dict[str, Change]]
    """Change by ACB with both modalities: by fusion and metric."""
    pools: dict[str, str]
    """Cached vector that is read, by modality."""
    level: str
    assignments: list[str]
    """``key=value`` that override the report's settings."""
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
        """Plain values, with those of the ablation at the top level."""
        ablation = self.ablation.as_json()
        del ablation["axes"]
        own = self.model_dump(mode="json", exclude={"ablation"})
        return {**ablation, **own, "rarest_class": self.rarest_class}
