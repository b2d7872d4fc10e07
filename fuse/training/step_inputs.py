"""Inputs of a stack's steps: those of an epoch, and those of the next steps on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fuse.models.noise import NoiseStream

from .buckets import Shape


@dataclass(frozen=True, slots=True)
class EpochInputs:
    """Inputs of all steps of an epoch."""

    number: int
    """Number of the epoch, from 0."""
    rows: Tensor
    """Items, (steps, members, batch, 3) on the CPU."""
    shapes: list[Shape]
    """Shape of each step, see `buckets`."""
    noise: list[NoiseStream]
    """One stream a member."""


class StepInputs:
    """Rows, rates and noise of the next steps, and a counter on the device that says which is next.

    Args:
        steps: Number of steps that there is room for.
        members: Number of members.
        batch_size: Rows of a step and member.
        noise: Noise values of a step and member.
        device: Where they lie.
    """

    def __init__(
        self, steps: int, members: int, batch_size: int, noise: int, device: torch.device
    ) -> None:
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self._rows = torch.zeros(steps, members, batch_size, 3, dtype=torch.int64, device=device)
        self._rates = torch.zeros(steps, members, 5, 1, device=device)
        self._noise = torch.zeros(steps, members, noise, dtype=torch.int16, device=device)

    def __len__(self) -> int:
        """Number of steps that there is room for."""
        return len(self._rows)

    def load(self, epoch: EpochInputs, first: int) -> None:
        """Uploads rows and noise of the steps from `first`, as many as there is room for."""
        rows = epoch.rows[first : first + len(self)]
        self._rows[: len(rows)].copy_(rows, non_blocking=True)
        values = self._noise.shape[2]
        for member, stream in enumerate(epoch.noise):
            self._noise[: len(rows), member] = stream(len(rows) * values).view(len(rows), values)

    def start(self, rates: Tensor) -> None:
        """Uploads the rates of the loaded steps, and sets the counter to the first of them.

        Args:
            rates: What Adam multiplies with, (steps, members, 5, 1) on the CPU.
        """
        self._rates[: len(rates)].copy_(rates, non_blocking=True)
        self._index.zero_()

    def current(self) -> list[Tensor]:
        """Rows (members, batch, 3), rates (members, 5, 1) and noise (members, values) of a step."""
        return [
            values.index_select(0, self._index).squeeze(0)
            for values in (self._rows, self._rates, self._noise)
        ]

    def advance(self) -> None:
        """Moves the counter to the next step."""
        self._index += 1
