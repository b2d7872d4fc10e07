"""Results of a run: steps with their measurements, as JSON and as a table."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Literal

from pydantic import BaseModel, Field

from mmsa_cache.console import format_table
from mmsa_cache.files.disk import append_line
from mmsa_cache.files.untrusted import read_regular

_WIDTH = 100
_VALUE_WIDTH = 24
"""Characters; longer values go under their line."""
_MOST_BYTES = 64 << 20
"""Limit of the file of a step's measurements."""

Value = float | int | str | list[float] | list[str] | None


class Measurement(BaseModel):
    """A measured value, or an attempt that failed."""

    what: str
    measured: Value = None
    unit: str = ""
    wanted: str = ""
    """The target, as ``≥ 0.9``; empty if there is none."""
    holds: bool | None = None
    """Whether the target is met; None without a target."""
    error: str = ""
    """Why there is no value."""


class StepResult(BaseModel):
    """One step of a run."""

    name: str
    status: Literal["done", "failed", "timed out"]
    """``done`` even if single measurements failed."""
    seconds: float
    limit: float
    figures: list[Measurement] = Field(default_factory=list)
    error: str = ""
    """End of the process's output, unless it is ``done``."""


class BenchRecord(BaseModel):
    """A whole run."""

    rehearsal: bool
    """Whether it ran with tiny sizes on the CPU, which says nothing about speed."""
    machine: dict[str, str]
    steps: list[StepResult] = Field(default_factory=list)

    @property
    def unfinished(self) -> list[str]:
        """Names of the steps that failed or timed out."""
        return [step.name for step in self.steps if step.status != "done"]


class MeasurementLog:
    """Appends a step's measurements to a file at once, so that they survive a kill.

    Args:
        path: File of JSON lines.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(
        self,
        what: str,
        measured: Value,
        unit: str = "",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Adds a measurement.

        Args:
            what: Its name.
            measured: Its value.
            unit: Unit of the value.
            at_least: Smallest value that meets the target.
            at_most: Largest value that meets the target.
        """
        measurement = Measurement(what=what, measured=measured, unit=unit)
        if isinstance(measured, int | float):
            if at_least is not None:
                measurement.wanted, measurement.holds = (
                    f"≥ {at_least:g}",
                    bool(measured >= at_least),
                )
            if at_most is not None:
                measurement.wanted, measurement.holds = f"≤ {at_most:g}", bool(measured <= at_most)
        self._append(measurement)

    def check(self, what: str, holds: bool, wanted: str, measured: Value = None) -> None:
        """Adds whether a condition holds."""
        value = ("yes" if holds else "no") if measured is None else measured
        self._append(Measurement(what=what, measured=value, wanted=wanted, holds=holds))

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Adds an exception of the block as a failed measurement; the step continues."""
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            text = f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:300]}"
            self._append(Measurement(what=what, error=text, holds=False))

    def _append(self, measurement: Measurement) -> None:
        append_line(self._path, measurement.model_dump_json())

    @staticmethod
    def read(path: Path) -> list[Measurement]:
        """Reads the measurements; a line that a kill cut off is skipped."""
        if not path.is_file():
            return []
        measurements = []
        for line in read_regular(path, _MOST_BYTES).splitlines():
            with contextlib.suppress(json.JSONDecodeError, ValueError):
                measurements.append(Measurement.model_validate_json(line))
        return measurements


def format_record(record: BenchRecord) -> str:
    """The table of a run."""
    rows: list[list[str]] = []
    for step in record.steps:
        rows.append(
            [f"{step.name}: {step.status}", "", f"{step.seconds:.0f} of {step.limit:.0f} s"]
        )
        for measurement in step.figures:
            missed = measurement.holds is False and not measurement.error
            what = f"  {measurement.what}{' (MISSED)' if missed else ''}"
            value, long_lines = _format_value(measurement)
            rows.append([what, measurement.wanted, value])
            rows += [[f"    {line}", "", ""] for text in long_lines for line in wrap(text, _WIDTH)]
        rows += [[f"    {line[:_WIDTH]}", "", ""] for line in step.error.splitlines()[-3:]]
    machine = [f"{key}: {value}" for key, value in record.machine.items()]
    title = ["Rehearsal on the CPU with tiny sizes: no figure says anything about speed."]
    head = [*(title if record.rehearsal else []), *machine, ""]
    return "\n".join([*head, format_table(["what", "wanted", "measured"], rows)])


def _format_value(measurement: Measurement) -> tuple[str, list[str]]:
    """The value for its column, and lines of text for a long value."""
    value = measurement.measured
    if measurement.error:
        return "error", [measurement.error]
    if isinstance(value, list):
        numbers = [f"{v:.2g}" for v in value if isinstance(v, float)]
        return "", [", ".join(numbers)] if numbers else [str(v) for v in value]
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = f"{text} {measurement.unit}".strip()
    return (text, []) if len(text) <= _VALUE_WIDTH else ("", [text])
