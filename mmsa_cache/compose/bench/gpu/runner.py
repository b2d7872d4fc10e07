"""Runs the steps, each in a process of its own with a time limit, and keeps what they found."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Literal

from mmsa_cache.errors import DeviceError
from mmsa_cache.files.disk import write_atomically
from mmsa_cache.files.paths import resolve_declared
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.files.untrusted import read_regular
from mmsa_cache.native.processes import hide_main

from . import plan
from .plan import PREPARATION, STEPS, Step
from .process import PREPARATIONS, Surroundings, main, measure
from .results import BenchRecord, MeasurementLog, StepResult
from .sizes import FULL, REHEARSAL

_REHEARSAL = 2
"""How many times the limits a rehearsal has: it may share few cores."""
_LAST_LINES = 15
"""Lines that are kept of what a failed step printed."""
_MOST_PRINTED = 1 << 30
"""Bytes."""


def run(
    out: Path,
    *,
    rehearsal: bool,
    features: Path | None = None,
    steps: Mapping[str, Step] = STEPS,
    on_step: Callable[[StepResult], None] = lambda result: None,
) -> BenchRecord:
    """Runs every step.

    Args:
        out: JSON file of the `BenchRecord`, written again after every step.
        rehearsal: Tiny sizes on the CPU.
        features: Folder with packed real features, on which the search then runs.
        steps: What is run, in order.
        on_step: Told of each step as it ends.

    Raises:
        DeviceError: What the steps need cannot be made.
    """
    out = resolve_declared(out)
    context = multiprocessing.get_context("forkserver")
    # Imported once: every step is forked from a process that has never touched the GPU.
    context.set_forkserver_preload([f"{__package__}.libraries", plan.__name__])
    with temporary_folder() as folder:
        surroundings = (
            Surroundings(REHEARSAL, "cpu", folder, features)
            if rehearsal
            else Surroundings(FULL, "cuda:0", folder, features)
        )
        begun = [
            _Running.start(context, surroundings, name, work, PREPARATION)
            for name, work in PREPARATIONS.items()
        ]
        ready = [step.end() for step in begun]
        for result in ready:
            if result.status != "done":
                raise DeviceError(
                    f"What is measured could not be generated ({result.name}: {result.status}).",
                    "The lines above are the end of what was printed.",
                    result.error.splitlines(),
                )
        machine = {figure.what: str(figure.measured) for of in ready for figure in of.figures}
        record = BenchRecord(rehearsal=rehearsal, machine=machine)
        for name, step in steps.items():
            work = partial(measure, step.run)
            limit = step.seconds * (_REHEARSAL if rehearsal else 1)
            result = _Running.start(context, surroundings, name, work, limit).end()
            record.steps.append(result)
            write_atomically(out, record.model_dump_json(indent=1).encode() + b"\n")
            on_step(result)
    return record


@dataclass(frozen=True, slots=True)
class _Running:
    """A process that runs a step; it is ended with all that it started after its limit."""

    name: str
    process: ForkServerProcess
    figures: Path
    log: Path
    started: float
    limit: float
    """Seconds."""

    @classmethod
    def start(
        cls,
        context: ForkServerContext,
        surroundings: Surroundings,
        name: str,
        work: Callable[[Surroundings, MeasurementLog], None],
        limit: float,
    ) -> _Running:
        figures = surroundings.folder / f"{name}.jsonl"
        log = surroundings.folder / f"{name}.log"
        started = time.monotonic()
        process = context.Process(target=main, args=(work, surroundings, figures, log))
        with hide_main():
            process.start()
        return cls(name, process, figures, log, started, limit)

    def end(self) -> StepResult:
        """Waits until it has ended."""
        process, log = self.process, self.log
        try:
            process.join(max(0.0, self.started + self.limit - time.monotonic()))
            status: Literal["done", "failed", "timed out"] = "timed out"
            if process.exitcode is not None:
                status = "done" if process.exitcode == 0 else "failed"
        finally:
            if process.pid is not None and process.exitcode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.join()
        printed = read_regular(log, _MOST_PRINTED).decode(errors="replace") if log.is_file() else ""
        return StepResult(
            name=self.name,
            status=status,
            seconds=round(time.monotonic() - self.started, 1),
            limit=self.limit,
            figures=MeasurementLog.read(self.figures),
            error="" if status == "done" else "\n".join(printed.splitlines()[-_LAST_LINES:]),
        )
