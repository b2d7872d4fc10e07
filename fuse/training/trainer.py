"""One training loop for every model: a group of members, trained one by one or as one stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fuse.figures.records import EpochRecord
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank

from .classifier import products
from .programs import Alone, Program, Stacked
from .runner import Runner
from .task import Checkpoint, Fit, Task


def fit(
    setting: Setting,
    bank: FeatureBank,
    train: NDArray[np.int64],
    validation: NDArray[np.int64] | None = None,
    *,
    names: Sequence[str],
    seed: int,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> Fit:
    """Trains one model; see `fit_group`.

    Args:
        setting: What to train and how.
        bank: The features.
        train: Sample indices to learn from.
        validation: Sample indices that decide when to stop; None: ``keep`` must be ``last``.
        names: Class names.
        seed: Seed of initial weights, order and dropout.
        on_epoch: Called with each epoch's record; what it raises ends the training.

    Raises:
        SettingsError: The setting makes no model or no loss, or there is nothing to stop on.
        TrainingError: The loss is not finite.
    """
    if validation is None:
        if setting.keep != "last":
            raise SettingsError(
                "There are no validation rows that say which epoch is the best.",
                'Give some, or set keep = "last".',
            )
        validation = np.empty(0, np.int64)
    task = Task(train, validation, seed)
    return fit_group(setting, bank, [task], names=names, on_epoch=on_epoch)[0]


def fit_group(
    setting: Setting,
    bank: FeatureBank,
    tasks: Sequence[Task],
    *,
    names: Sequence[str],
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    first: int = 0,
    stacked: bool | None = None,
    whole_length: bool | None = None,
    checkpoint: Checkpoint = Checkpoint(),  # noqa: B008  (it holds nothing)
) -> list[Fit]:
    """Trains a group of models of one setting, each on rows of its own.

    Augmented copies of training samples take part where the setting says so; validation sees
    originals only. Order and dropout of an epoch are drawn from (seed, epoch) alone, so neither an
    interruption nor the company of other members changes a member.

    Args:
        setting: What to train and how.
        bank: The features.
        tasks: What each member learns from.
        names: Class names.
        on_epoch: Called with each epoch's record.
        first: Number of members before these in the run; they are numbered and kept after those.
        stacked: Train members together as one program; default: on a GPU. The numbers are the
            same but for the order of additions.
        whole_length: Pad texts to the longest of the bank, not of the batch, which makes all
            batches of one shape; default: where members are stacked.
        checkpoint: Keeps members at the end of each epoch; what it has is not trained again.

    Returns:
        A trained model a task.

    Raises:
        SettingsError: The setting makes no model or no loss.
        TrainingError: The loss is not finite.
    """
    stacked = bank.labels.device.type == "cuda" if stacked is None else stacked
    whole_length = stacked if whole_length is None else whole_length
    with checkpoint.going_on():
        runners = [
            Runner(setting, bank, task, names, whole_length, place, checkpoint)
            for place, task in enumerate(tasks, start=first)
        ]
        # Members of a stack are equally large, take equally many steps an epoch, begin together.
        stacks: dict[tuple[int, ...], list[Runner]] = {}
        for runner in runners:
            if not runner.progress.stopped:
                size = sum(value.numel() for value in runner.member.state_dict().values())
                key = (runner.steps, runner.epochs_done, size) if stacked else (runner.place,)
                stacks.setdefault(key, []).append(runner)
        with products(setting):
            for part in stacks.values():
                members = [runner.member for runner in part]
                _train(part, Stacked(members) if stacked else Alone(members[0]), on_epoch)
        return [runner.result() for runner in runners]


def _train(
    runners: Sequence[Runner], program: Program, on_epoch: Callable[[EpochRecord], None]
) -> None:
    """Trains members side by side until each of them has stopped.

    A stack runs a member that has stopped along with the others and leaves its weights alone.
    """
    for number in range(runners[0].epochs_done, runners[0].setting.epochs):
        at_work = [not runner.progress.stopped for runner in runners]
        if not any(at_work):
            break
        epochs = [runner.epoch(number) for runner in runners]
        for runner in runners:
            runner.member.train()
            runner.member.loss.start_epoch()
        totals = torch.zeros(len(runners), device=runners[0].bank.labels.device)
        noise = [epoch[1] for epoch in epochs]
        for batches in zip(*(epoch[0] for epoch in epochs), strict=True):
            totals += program.backward(noise, batches)
            for runner, works in zip(runners, at_work, strict=True):
                if works:
                    runner.step()
        for runner, works, total in zip(runners, at_work, totals.tolist(), strict=True):
            if works:
                on_epoch(runner.finish_epoch(total / runner.steps))
