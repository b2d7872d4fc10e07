"""One training loop for every model: a group of members, trained one by one or as one stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from .programs import Alone
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
        DeviceError: There is not enough memory.
    """
    device = bank.labels.device
    stacked = device.type == "cuda" if stacked is None else stacked
    stacked = stacked and setting.optimiser != "lbfgs"
    whole_length = stacked if whole_length is None else whole_length

    def begun(places: Sequence[int]) -> dict[int, Runner]:
        some = [tasks[place - first] for place in places]
        drawn = draw_initial(setting, bank, some, names)
        return {
            place: Runner(setting, bank, task, names, whole_length, place, checkpoint, begins)
            for place, task, begins in zip(places, some, drawn, strict=True)
        }

    with checkpoint.going_on():
        every = range(first, first + len(tasks))
        if not stacked:
            return [_alone(begun([place])[place], on_epoch) for place in every]
        runners = begun(every)
        # Members of a stack are equally large, take about as many steps an epoch, begin together.
        equal: dict[tuple[int, int], list[int]] = {}
        for place, runner in runners.items():
            if not runner.progress.stopped:
                size = sum(value.nbytes for value in runner.member.state_dict().values())
                equal.setdefault((size, runner.epochs_done), []).append(place)
        waiting = [
            part
            for (size, _), of in equal.items()
            for group in group_by_steps([runners[place].steps for place in of])
            for part in split_to_fit([of[place] for place in group], size, device)
        ]
        fits = {
            place: runners.pop(place).result()
            for place in [*runners]
            if runners[place].progress.stopped
        }
        while waiting:
            places = waiting.pop(0)
            together = [runners.pop(place) for place in places]
            if _train(together, True, on_epoch):
                fits |= {place: r.result() for place, r in zip(places, together, strict=True)}
                continue
            del together
            free_memory(device)
            runners |= begun(places)
            half = len(places) // 2
            waiting[:0] = [places[:half], places[half:]]
        return [fits[place] for place in every]


def _alone(runner: Runner, on_epoch: Callable[[EpochRecord], None]) -> Fit:
    if not runner.progress.stopped:
        _train([runner], False, on_epoch)
    return runner.result()


def _train(
    runners: Sequence[Runner], stacked: bool, on_epoch: Callable[[EpochRecord], None]
) -> bool:
    """Trains members side by side until each of them has stopped.

    Returns:
        Whether there was memory for them all; if not, nothing has been reported of them.

    Raises:
        DeviceError: There is no memory for one of them, or not for an epoch after the first.
    """
    begun = runners[0].epochs_done
    try:
        alone = Solver if runners[0].setting.optimiser == "lbfgs" else _Single
        program = Stack(runners) if stacked else alone(runners[0])
        with matmul_precision(runners[0].setting):
            _train_epochs(runners, program, on_epoch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(runners) == 1 or runners[0].epochs_done > begun:
            raise out_of_memory(runners[0].setting, len(runners), error) from error
        return False
    return True


def _train_epochs(
    runners: Sequence[Runner],
    program: Stack | _Single | Solver,
    on_epoch: Callable[[EpochRecord], None],
) -> None:
    """A stack runs a member that has stopped along with the others; nothing of it is kept."""
    for number in range(runners[0].epochs_done, runners[0].setting.epochs):
        at_work = [not runner.progress.stopped for runner in runners]
        if not any(at_work):
            break
        for runner in runners:
            runner.member.loss.start_epoch()
        found = program.scores(program.epoch(number))
        for runner, works, (total, scores) in zip(runners, at_work, found, strict=True):
            if works:
                on_epoch(runner.finish_epoch(total / runner.steps, scores))


class _Single:
    """One member, whose steps are torch's own."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._alone = runner, Alone(runner.member)

    def epoch(self, number: int) -> Tensor:
        """See `Stack.epoch`."""
        runner = self._runner
        runner.member.train()
        total = torch.zeros(1, device=runner.bank.labels.device)
        noise = runner.noise(number)
        batches = runner.batches(runner.rows(number))
        for parts, rates in zip(batches, runner.rates(number), strict=True):
            total += self._alone.backward(noise, parts)
            runner.step(*rates)
        return total

    def scores(self, losses: Tensor) -> list[tuple[float, Scores]]:
        """See `StackScores`."""
        return [(losses.item(), self._runner.scores)]
