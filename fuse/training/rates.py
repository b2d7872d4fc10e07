"""Optimisers, and the learning rate and first momentum of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import nn
from torch.optim import LBFGS, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from fuse.setting import Setting

BETAS = 0.9, 0.999
"""Momenta of Adam, unless the schedule changes them."""
EPSILON = 1e-8
"""ε of Adam."""


def make_optimiser(setting: Setting, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser of a setting."""
    if setting.optimiser == "lbfgs":
        return LBFGS(
            parameters,
            max_iter=500,
            history_size=50,
            tolerance_grad=3e-6,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )
    kind = {"adam": Adam, "adamw": AdamW}[setting.optimiser]
    return kind(
        parameters,
        lr=setting.learning_rate,
        betas=BETAS,
        eps=EPSILON,
        weight_decay=setting.weight_decay,
        fused=True,
    )


class StepRates:
    """Learning rate and first momentum of each step, as PyTorch's scheduler gives them.

    Args:
        setting: Its schedule is ``onecycle`` or ``cosine``.
        steps: Steps of the whole training.
    """

    def __init__(self, setting: Setting, steps: int) -> None:
        self._optimiser = make_optimiser(setting, [nn.Parameter(torch.zeros(()))])
        self._schedule = _schedule(setting, self._optimiser, steps)
        self._optimiser.step()  # does nothing, but PyTorch warns of a schedule without a step
        self._computed: list[tuple[float, float]] = []

    def __call__(self, step: int) -> tuple[float, float]:
        """Rate and momentum of a step, counted from 0; there is one more than steps."""
        while len(self._computed) <= step:
            if self._computed:
                self._schedule.step()
            (group,) = self._optimiser.param_groups
            self._computed.append((group["lr"], group["betas"][0]))
        return self._computed[step]


@lru_cache(maxsize=8)
def cached_rates(setting: Setting, steps: int) -> StepRates | None:
    """The rates of a training of so many steps, shared by members; None if no step changes them."""
    return StepRates(setting, steps) if setting.schedule in ("onecycle", "cosine") else None


def _schedule(setting: Setting, optimiser: Optimizer, steps: int) -> LRScheduler:
    if setting.schedule == "onecycle":
        return OneCycleLR(optimiser, max_lr=setting.learning_rate, total_steps=steps + 1)
    rise = max(1, round(setting.warmup * steps))
    return LambdaLR(
        optimiser,
        lambda step: (
            (step + 1) / rise
            if step < rise
            else 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
        ),
    )
