"""``mmsa bench gpu``."""

from __future__ import annotations

from pathlib import Path

import torch

from mmsa_cache.console import say
from mmsa_cache.errors import DeviceError

from ...session.session import Session
from . import runner, stores
from .results import Record, StepResult


def bench_gpu(out: Path, *, rehearse: bool, features: Path | None) -> Record:
    """Runs all steps; see `gpu_bench`.

    Args:
        out: Where the JSON goes.
        rehearse: Tiny sizes on the CPU.
        features: Folder that `pack` wrote, or None.

    Raises:
        DeviceError: There is no GPU.
    """
    if not rehearse and not torch.cuda.is_available():
        raise DeviceError(
            "There is no CUDA device.", "Run it where one is, or try the steps with --rehearse."
        )

    def told(step: StepResult) -> None:
        missed = sum(figure.holds is False for figure in step.figures)
        say(f"{step.name}: {step.status}, {step.seconds:.0f} s, {missed} figure(s) missed.")

    return runner.run(out, rehearsal=rehearse, features=features, on_step=told)


def pack(session: Session, folder: Path) -> Path:
    """Writes the mean-pooled features of the training split, to be carried to a GPU."""
    return stores.pack(session.bank("train"), session.groups(), folder)
