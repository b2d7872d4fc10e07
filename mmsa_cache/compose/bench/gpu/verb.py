"""``mmsa bench gpu``."""

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
    """Runs steps, in the order of `STEPS`.

    Args:
        out: Where the JSON goes.
        rehearse: Tiny sizes on the CPU.
        features: Folder that `pack` wrote, or None.
        steps: Names with commas between them; empty: all.

    Raises:
        SettingsError: There is no such step.
        DeviceError: There is no GPU.
    """
    asked = [name.strip() for name in steps.split(",")] if steps else list(STEPS)
    if unknown := [name for name in asked if name not in STEPS]:
        raise SettingsError(
            f"There is no step {unknown[0]!r}.", f"The steps are: {', '.join(STEPS)}."
        )
    if not rehearse and not torch.cuda.is_available():
        raise DeviceError(
            "There is no CUDA device.", "Run it where one is, or try the steps with --rehearse."
        )

    def told(step: StepResult) -> None:
        missed = sum(figure.holds is False for figure in step.figures)
        say(f"{step.name}: {step.status}, {step.seconds:.0f} s, {missed} figure(s) missed.")

    chosen = {name: step for name, step in STEPS.items() if name in asked}
    return runner.run(out, rehearsal=rehearse, features=features, steps=chosen, on_step=told)


def pack(session: Session, folder: Path) -> Path:
    """Writes the mean-pooled features of the training split, to be carried to a GPU."""
    return stores.pack(session.bank("train"), session.groups(), folder)
