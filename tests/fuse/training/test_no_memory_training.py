"""No memory, or a lost device, at the n-th operation of a training, of calibration, of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from fuse.setting import Setting
from fuse.training.classifier import input_dims
from fuse.training.ensemble import Ensemble
from fuse.training.final import train
from fuse.training.recipe import Recipe
from fuse.training.task import Fit, Task
from fuse.training.trainer import fit_group
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import DeviceError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.native.device import is_device_error
from tests.support.scarce import NO_MEMORY, Scarce
from tests.support.stacks import NAMES, ROWS, SMALL, TASKS
from tests.support.tally import Tally

LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
Work = Callable[[FeatureBank], list[np.ndarray]]
ONCE = replace(SMALL, epochs=1, batch_size=64, dropout=0.0)
KERNEL = replace(ONCE, fusion="kernel", loss="ce")
SOLVED = replace(KERNEL, optimiser="lbfgs", dropout=0.0, ridge=30.0, landmarks=4)


def fitted(setting: Setting, members: int = 1, stacked: bool = False) -> Work:
    """Weights after training, at once or one after the other."""

    def work(bank: FeatureBank) -> list[np.ndarray]:
        tasks = TASKS[:members]
        found = fit_group(setting, bank, tasks, names=NAMES, stacked=stacked, whole_length=True)
        return [v.numpy() for fit in found for v in fit.model.state_dict().values()]

    return work


def ensemble(bank: FeatureBank) -> list[np.ndarray]:
    """A model of two settings whose members are trained, calibrated, stored; what it predicts."""
    settings = [replace(ONCE, offsets="fitted"), replace(ONCE, fusion="gated")]
    protocol = Protocol(outer="grouped", folds=2)
    with mock.patch("fuse.training.final.fit_group", _members):
        found = train([Recipe.even(settings)], bank, np.arange(ROWS), protocol, names=NAMES)
    model = found.ensemble
    dims, weights = (
        [input_dims(bank, s) for s in settings],
        [blend.weight for blend in model.blends],
    )
    again = Ensemble.restore(settings, model.tensors(), model.calibration, dims, weights)
    return [found.probabilities, again.predict(bank, np.arange(ROWS))]


_TRAINED: dict[Setting, list[Fit]] = {}


def _members(setting: Setting, bank: FeatureBank, tasks: list[Task], **options: Any) -> list[Fit]:
    if tasks and setting not in _TRAINED:
        _TRAINED[setting] = fit_group(setting, bank, tasks, **options)
    return _TRAINED[setting] if tasks else []


WORK: dict[str, Work] = {
    "feature level": fitted(ONCE),
    "token level": fitted(replace(ONCE, level="tokens", fusion="encoder")),
    "kernel": fitted(KERNEL),
    "L-BFGS": fitted(SOLVED),
    # No hidden layer, as in `test_a_stack_moves_its_weights_as_torch_does`.
    "a stack of three": fitted(replace(ONCE, head=""), 3, stacked=True),
    "calibrated ensemble": ensemble,
}


EVERY = [
    pytest.param(name, error, 1, marks=pytest.mark.faults, id=f"{name}, {type(error).__name__}")
    for name in WORK
    for error in (NO_MEMORY, LOST)
]


@pytest.mark.parametrize(
    ("name", "error", "every"),
    [("a stack of three", NO_MEMORY, 101), ("token level", LOST, 101), *EVERY],
)
def test_the_nth_operation_of_training_has_no_memory(
    bank: FeatureBank,
    name: str,
    error: Exception,
    every: int,
    tally: Tally,
) -> None:
    """It is said, or a smaller stack does the work; what is trained afterwards is the same."""
    work = WORK[name]
    work(bank)  # what is kept from then on
    with Scarce() as counting:
        wanted = work(bank)
    places = range(1, counting.done + 1, every)
    ends: list[Exception] = []
    halved = 0
    for at in places:
        with Scarce(at, error) as scarce:
            try:
                found = work(bank)
            except (DeviceError, RuntimeError) as caught:
                ends.append(caught)
                continue
        assert scarce.done >= at
        assert error is NO_MEMORY, "a lost device is not gone on with"
        assert name == "a stack of three", f"operation {at} of {counting.done} was passed over"
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)
        halved += 1
    assert ends
    assert [e for e in ends if not isinstance(e, DeviceError) and not is_device_error(e)] == []
    for one, other in zip(work(bank), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    kind = "no memory" if error is NO_MEMORY else "device lost"
    half = f", {halved} times in halves" if halved else ""
    what = f"{kind} at the n-th of {counting.done} operations, training: {name}"
    tally(what, len(places), f"{len(ends)} times said{half}; the next training is the same")
