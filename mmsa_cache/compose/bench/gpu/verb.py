"""``mmsa bench gpu``: the command."""

from __future__ import annotations

from pathlib import Path

import torch

from mmsa_cache.console import say
from mmsa_cache.errors import DeviceError, SettingsError

from ...session.session import Session
from . import runner, stores
from .plan import STEPS
from .results import BenchRecord, StepResult


def bench_gpu(out: Path, *, rehearse: bool, features: Path | None, steps: str) -> BenchRecord:
    """Runs steps in the order of `STEPS`.

    Args:
        out: JSON file of the results.
        rehearse: Whether to use tiny sizes on the CPU.
        features: Folder written by `pack`, or None.
        steps: Names separated by commas; empty: all.

    Raises:
        SettingsError: A step does not exist.
        DeviceError: There is no GPU.
    """
    names = [name.strip() for name in steps.split(",")] if steps else list(STEPS)
    if unknown := [name for name in names if name not in STEPS]:
        raise SettingsError(
            f"There is no step {unknown[0]!r}.", f"The steps are: {', '.join(STEPS)}."
        )
    if not rehearse and not torch.cuda.is_available():
        raise DeviceError(
            "There is no CUDA device.", "Run it where one is, or try the steps with --rehearse."
        )

    def report(step: StepResult) -> None:
        missed = sum(measurement.holds is False for measurement in step.figures)
        say(f"{step.name}: {step.status}, {step.seconds:.0f} s, {missed} figure(s) missed.")

    selected = {name: step for name, step in STEPS.items() if name in names}
    return runner.run(out, rehearsal=rehearse, features=features, steps=selected, on_step=report)


def pack(session: Session, folder: Path) -> Path:
    """Writes the mean-pooled features of the training split, for another machine."""
    return stores.pack(session.bank("train"), session.groups(), folder)
