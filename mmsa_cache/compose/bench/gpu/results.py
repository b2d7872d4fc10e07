"""What a run leaves: steps with their figures, in a JSON file and as one table."""

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
_SHORT = 24
"""Characters of a value that stand in its column."""
_MOST_BYTES = 64 << 20
"""Of the figures of a step."""

Value = float | int | str | list[float] | list[str] | None


class Measurement(BaseModel):
    """One thing that was measured or tried."""

    what: str
    measured: Value = None
    unit: str = ""
    wanted: str = ""
    """The target in words, as ``≥ 0.9``; empty where there is none."""
    holds: bool | None = None
    """Whether the target is met; None where there is none."""
    error: str = ""
    """Why there is no measurement, or what is wrong with it."""


class StepResult(BaseModel):
    """One step of a run."""

    name: str
    status: Literal["done", "failed", "timed out"]
    """``done`` also where single figures have an error."""
    seconds: float
    limit: float
    figures: list[Measurement] = Field(default_factory=list)
    error: str = ""
    """End of what the step's process printed, where it was not ``done``."""


class BenchRecord(BaseModel):
    """A whole run."""

    rehearsal: bool
    """Tiny sizes on the CPU: says that the steps run, nothing about speed."""
    machine: dict[str, str]
    steps: list[StepResult] = Field(default_factory=list)

    @property
    def unfinished(self) -> list[str]:
        """Names of the steps that did not end by themselves."""
        return [step.name for step in self.steps if step.status != "done"]


class MeasurementLog:
    """Appends a step's figures to a file, each as soon as it is there.

    Args:
        path: JSON lines; whoever ends the step reads them, also after a kill.
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
        """Keeps a figure.

        Args:
            what: Name of what was measured.
            measured: Its value.
            unit: Of the value.
            at_least: Smallest value that meets the target.
            at_most: Largest value that meets the target.
        """
        figure = Measurement(what=what, measured=measured, unit=unit)
        if isinstance(measured, int | float):
            if at_least is not None:
                figure.wanted, figure.holds = f"≥ {at_least:g}", bool(measured >= at_least)
            if at_most is not None:
                figure.wanted, figure.holds = f"≤ {at_most:g}", bool(measured <= at_most)
        self._append(figure)

    def check(self, what: str, holds: bool, wanted: str, measured: Value = None) -> None:
        """Keeps whether something holds."""
        shown = ("yes" if holds else "no") if measured is None else measured
        self._append(Measurement(what=what, measured=shown, wanted=wanted, holds=holds))

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Turns what the block raises into a figure with an error; the step goes on."""
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            text = f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:300]}"
            self._append(Measurement(what=what, error=text, holds=False))

    def _append(self, figure: Measurement) -> None:
        append_line(self._path, figure.model_dump_json())

    @staticmethod
    def read(path: Path) -> list[Measurement]:
        """What was kept; a line that a kill cut off is left out."""
        if not path.is_file():
            return []
        found = []
        for line in read_regular(path, _MOST_BYTES).splitlines():
            with contextlib.suppress(json.JSONDecodeError, ValueError):
                found.append(Measurement.model_validate_json(line))
        return found


def format_record(record: BenchRecord) -> str:
    """The table of a run: what, wanted, measured; long values under their line."""
    rows: list[list[str]] = []
    for step in record.steps:
        rows.append(
            [f"{step.name}: {step.status}", "", f"{step.seconds:.0f} of {step.limit:.0f} s"]
        )
        for figure in step.figures:
            missed = figure.holds is False and not figure.error
            what = f"  {figure.what}{' (MISSED)' if missed else ''}"
            short, long = _shown(figure)
            rows.append([what, figure.wanted, short])
            rows += [[f"    {line}", "", ""] for text in long for line in wrap(text, _WIDTH)]
        rows += [[f"    {line[:_WIDTH]}", "", ""] for line in step.error.splitlines()[-3:]]
    machine = [f"{key}: {value}" for key, value in record.machine.items()]
    title = ["Rehearsal on the CPU with tiny sizes: no figure says anything about speed."]
    head = [*(title if record.rehearsal else []), *machine, ""]
    return "\n".join([*head, format_table(["what", "wanted", "measured"], rows)])


def _shown(figure: Measurement) -> tuple[str, list[str]]:
    """A figure's value where it is short, and lines for what is long."""
    value = figure.measured
    if figure.error:
        return "error", [figure.error]
    if isinstance(value, list):
        numbers = [f"{v:.2g}" for v in value if isinstance(v, float)]
        return "", [", ".join(numbers)] if numbers else [str(v) for v in value]
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = f"{text} {figure.unit}".strip()
    return (text, []) if len(text) <= _SHORT else ("", [text])
