"""Building blocks of the records of figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, Strict

from mmsa_cache.json_value import JsonObject

LEVEL = 0.95
"""Share of the resamples that an interval spans."""

Metric = Literal["macro_f1", "accuracy", "neg_log_loss"]
METRICS: tuple[Metric, ...] = get_args(Metric)
"""Metrics that stop training and choose models; higher is better."""
Integer = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=0)]
Ordinal = Annotated[int, Strict(), Field(ge=1, le=1 << 31)]
"""A number counted from 1."""
Number = Annotated[float, Strict(), AllowInfNan(False)]


class Record(BaseModel):
    """Figures that never change once computed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def as_json(self) -> JsonObject:
        """JSON values, without fields that were never set."""
        return self.model_dump(mode="json", exclude_unset=True)


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap percentile interval of a figure (0–1) or of a difference (−1 … 1)."""

    low: Number
    high: Number

    @classmethod
    def of(cls, samples: NDArray[np.float64]) -> Interval:
        """The central `LEVEL` of resampled figures, (resamples,), ignoring NaN."""
        low, high = np.nanquantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(low), float(high))

    def __str__(self) -> str:
        return f"{self.low:.3f} … {self.high:.3f}"
