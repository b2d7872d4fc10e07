"""What the model card of an export says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuse.figures.predictions import Predictions
from fuse.figures.resampling import bootstrap

RANDOM = "(random weights)"


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that the card says."""

    name: str
    exported: Mapping[str, Any]
    """``config.json`` of the export."""
    metrics: Mapping[str, Any]
    """``metrics.json`` of the run."""
    data: str
    """Name of the data folder."""
    intervals: Mapping[str, tuple[float, float]]
    """95 % of resampled judging rows, by figure and by class as ``f1 of CLASS``."""
    packages: Mapping[str, str]
    onnx_inputs: Mapping[str, Sequence[str | int]]
    """Shapes by name; none without an ONNX graph."""
    onnx_difference: float | None

    @classmethod
    def of(
        cls,
        name: str,
        config: Mapping[str, Any],
        exported: Mapping[str, Any],
        metrics: Mapping[str, Any],
        predictions: Predictions,
        packages: Mapping[str, str],
        onnx_inputs: Mapping[str, Sequence[str | int]],
        onnx_difference: float | None,
    ) -> Card:
        """The card of a run; the intervals come from its predictions."""
        classes = exported["classes"]
        found, of_classes = bootstrap(predictions.labels, predictions.predicted, len(classes))
        named = found | {f"f1 of {n}": i for n, i in zip(classes, of_classes, strict=True)}
        root = config["settings"]["data"].get("root")
        return cls(
            name,
            exported,
            metrics,
            Path(root).name if root else "unnamed data",
            {name: (interval.low, interval.high) for name, interval in named.items()},
            packages,
            onnx_inputs,
            onnx_difference,
        )

    @property
    def caveats(self) -> list[str]:
        """Synthetic data and random weights: what makes the figures mean little."""
        labels = [label for label in self.exported["encoders"].values() if label.endswith(RANDOM)]
        return list(dict.fromkeys([*self.exported["notes"], *labels]))
