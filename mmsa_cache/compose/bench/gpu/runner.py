"""Runs the steps, each in a process with a time limit, and collects their measurements."""

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
from .process import PREPARATIONS, StepEnvironment, main, measure
from .results import BenchRecord, MeasurementLog, StepResult
from .sizes import FULL, REHEARSAL

_REHEARSAL_LIMIT = 2
"""Factor of a rehearsal's time limits, as it may share few cores."""
_LAST_LINES = 15
"""Lines kept of a failed step's output."""
_MOST_OUTPUT = 1 << 30
"""Bytes."""


def run(
    out: Path,
    *,
    rehearsal: bool,
    features: Path | None = None,
    steps: Mapping[str, Step] = STEPS,
    on_step: Callable[[StepResult], None] = lambda result: None,
) -> BenchRecord:
    """Runs the steps.

    Args:
        out: JSON file of the `BenchRecord`, written after every step.
        rehearsal: Whether to use tiny sizes on the CPU.
        features: Folder with packed real features for the search.
        steps: The steps, in order.
        on_step: Called with the result of each step.

    Raises:
        DeviceError: A preparation failed.
    """
    out = resolve_declared(out)
    context = multiprocessing.get_context("forkserver")
    # Steps are forked from a process that has imported the libraries but not used the GPU.
    context.set_forkserver_preload([f"{__package__}.libraries", plan.__name__])
    with temporary_folder() as folder:
        sizes, device = (REHEARSAL, "cpu") if rehearsal else (FULL, "cuda:0")
        environment = StepEnvironment(sizes, device, folder, features)
        preparations = [
            _StepProcess.start(context, environment, name, work, PREPARATION)
            for name, work in PREPARATIONS.items()
        ]
        results = [process.wait() for process in preparations]
        for result in results:
            if result.status != "done":
                raise DeviceError(
                    f"What is measured could not be generated ({result.name}: {result.status}).",
                    "The lines above are the end of its output.",
                    result.error.splitlines(),
                )
        machine = {m.what: str(m.measured) for result in results for m in result.figures}
        record = BenchRecord(rehearsal=rehearsal, machine=machine)
        for name, step in steps.items():
            work = partial(measure, step.run)
            limit = step.seconds * (_REHEARSAL_LIMIT if rehearsal else 1)
            result = _StepProcess.start(context, environment, name, work, limit).wait()
            record.steps.append(result)
            write_atomically(out, record.model_dump_json(indent=1).encode() + b"\n")
            on_step(result)
    return record


@dataclass(frozen=True, slots=True)
class _StepProcess:
    """A process that runs a step; after its limit it is killed with its child processes."""

    name: str
    process: ForkServerProcess
    log: Path
    """File of the measurements."""
    output: Path
    """File of everything printed."""
    started: float
    limit: float
    """Seconds."""

    @classmethod
    def start(
        cls,
        context: ForkServerContext,
        environment: StepEnvironment,
        name: str,
        work: Callable[[StepEnvironment, MeasurementLog], None],
        limit: float,
    ) -> _StepProcess:
        log = environment.folder / f"{name}.jsonl"
        output = environment.folder / f"{name}.log"
        started = time.monotonic()
        process = context.Process(target=main, args=(work, environment, log, output))
        with hide_main():
            process.start()
        return cls(name, process, log, output, started, limit)

    def wait(self) -> StepResult:
        """Waits for the end of the step, or its limit."""
        process, output = self.process, self.output
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
        lines = []
        if output.is_file():
            lines = read_regular(output, _MOST_OUTPUT).decode(errors="replace").splitlines()
        return StepResult(
            name=self.name,
            status=status,
            seconds=round(time.monotonic() - self.started, 1),
            limit=self.limit,
            figures=MeasurementLog.read(self.log),
            error="" if status == "done" else "\n".join(lines[-_LAST_LINES:]),
        )
