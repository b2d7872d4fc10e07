"""The training loop of all models: a group of members, trained one by one or as one stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuse.figures.records import EpochRecord
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.native.device import is_out_of_memory
from mmsa_cache.native.graph_memory import free_memory

from .classifier import matmul_precision
from .initial import draw_initial
from .memory import out_of_memory, split_to_fit
from .runner import Runner
from .scoring import Scores
from .solver import Solver
from .stack import Stack
from .task import Checkpoint, Fit, Task
from .uneven import group_by_steps


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
        train: Indices of the samples to learn from.
        validation: Indices of the samples that decide when to stop; None: ``keep`` must be
            ``last``.
        names: Class names.
        seed: Seed of initial weights, order and dropout.
        on_epoch: Called with each epoch's record; an exception from it ends the training.

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

    Augmented copies of training samples take part where the setting says so; validation uses
    originals only. Order and dropout of an epoch are drawn from (seed, epoch) alone, so neither an
    interruption nor the other members change a member.

    Args:
        setting: What to train and how.
        bank: The features.
        tasks: One a member.
        names: Class names.
        on_epoch: Called with each epoch's record.
        first: Number of members before these in the run. Members are numbered, and kept in the
            checkpoint, from there.
        stacked: Train members together as one program; default: on a GPU. The numbers are the
            same but for the order of additions.
        whole_length: Pad texts to the longest of the bank, not of the batch, so that all batches
            have one shape; default: where members are stacked.
        checkpoint: Stores members at the end of each epoch. What it holds is not trained again.

    Returns:
        A trained model a task.

    Raises:
        SettingsError: The setting makes no model or no loss.
        TrainingError: The loss is not finite.
        DeviceError: There is not enough memory.
    """
    if stacked is None:
        stacked = bank.labels.device.type == "cuda"
    stacked = stacked and setting.optimiser != "lbfgs"
    whole_length = stacked if whole_length is None else whole_length

    def start(indices: Sequence[int]) -> dict[int, Runner]:
        own_tasks = [tasks[index - first] for index in indices]
        states = draw_initial(setting, bank, own_tasks, names)
        return {
            index: Runner(setting, bank, task, names, whole_length, index, checkpoint, state)
            for index, task, state in zip(indices, own_tasks, states, strict=True)
        }

    indices = range(first, first + len(tasks))
    with checkpoint.resuming():
        if stacked:
            return _fit_stacked(start, indices, on_epoch)
        return [_fit_single(start([index])[index], on_epoch) for index in indices]


def _fit_single(runner: Runner, on_epoch: Callable[[EpochRecord], None]) -> Fit:
    if not runner.progress.stopped:
        _train([runner], False, on_epoch)
    return runner.result()


def _fit_stacked(
    start: Callable[[Sequence[int]], dict[int, Runner]],
    indices: Sequence[int],
    on_epoch: Callable[[EpochRecord], None],
) -> list[Fit]:
    """Trains members in as few stacks as possible, in smaller ones where memory runs out.

    Args:
        start: Makes the runners of members, by their indices.
        indices: The members.
        on_epoch: See `fit_group`.
    """
    runners = start(indices)
    stacks = _plan_stacks(runners)
    stopped = [index for index in indices if runners[index].progress.stopped]
    fits = {index: runners.pop(index).result() for index in stopped}
    while stacks:
        members = stacks.pop(0)
        stack = [runners.pop(index) for index in members]
        if _train(stack, True, on_epoch):
            fits |= {index: r.result() for index, r in zip(members, stack, strict=True)}
            continue
        device = stack[0].bank.labels.device
        del stack
        free_memory(device)
        runners |= start(members)
        half = len(members) // 2
        stacks[:0] = [members[:half], members[half:]]
    return [fits[index] for index in indices]


def _plan_stacks(runners: Mapping[int, Runner]) -> list[list[int]]:
    """Groups the members that have not stopped.

    Members of a stack have equally many parameters, take about as many steps an epoch, and begin
    with the same epoch.
    """
    equal: dict[tuple[int, int], list[int]] = {}
    for index, runner in runners.items():
        if not runner.progress.stopped:
            size = sum(value.nbytes for value in runner.member.state_dict().values())
            equal.setdefault((size, runner.epochs_done), []).append(index)
    return [
        stack
        for (size, _), indices in equal.items()
        for group in group_by_steps([runners[index].steps for index in indices])
        for stack in split_to_fit(
            [indices[row] for row in group], size, runners[indices[0]].bank.labels.device
        )
    ]


def _train(
    runners: Sequence[Runner], stacked: bool, on_epoch: Callable[[EpochRecord], None]
) -> bool:
    """Trains members side by side until each of them has stopped.

    Returns:
        Whether there was memory for all of them. If not, no epoch has been reported.

    Raises:
        DeviceError: There is no memory for a single member, or not for a later epoch.
    """
    epochs_before = runners[0].epochs_done
    try:
        single = Solver if runners[0].setting.optimiser == "lbfgs" else _SingleProgram
        program = Stack(runners) if stacked else single(runners[0])
        with matmul_precision(runners[0].setting):
            _train_epochs(runners, program, on_epoch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(runners) == 1 or runners[0].epochs_done > epochs_before:
            raise out_of_memory(runners[0].setting, len(runners), error) from error
        return False
    return True


def _train_epochs(
    runners: Sequence[Runner],
    program: Stack | _SingleProgram | Solver,
    on_epoch: Callable[[EpochRecord], None],
) -> None:
    """A stack also trains members that have stopped; their results are not used."""
    for number in range(runners[0].epochs_done, runners[0].setting.epochs):
        active = [not runner.progress.stopped for runner in runners]
        if not any(active):
            break
        for runner in runners:
            runner.member.loss.start_epoch()
        results = program.scores(program.epoch(number))
        for runner, is_active, (loss, scores) in zip(runners, active, results, strict=True):
            if is_active:
                on_epoch(runner.finish_epoch(loss / runner.steps, scores))


class _SingleProgram:
    """Trains one member by PyTorch's optimiser."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def epoch(self, number: int) -> Tensor:
        """See `Stack.epoch`."""
        runner = self._runner
        member = runner.member.train()
        total = torch.zeros(1, device=runner.bank.labels.device)
        noise = runner.noise(number)
        batches = runner.batches(runner.rows(number))
        for parts, rates in zip(batches, runner.rates(number), strict=True):
            total += member.backward(noise, parts)
            runner.step(*rates)
        return total

    def scores(self, losses: Tensor) -> list[tuple[float, Scores]]:
        """See `StackScores`."""
        return [(losses.item(), self._runner.scores)]
