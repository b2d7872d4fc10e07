"""Initial states of the members of a group, drawn from their seeds side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from fuse.losses.loss import Loss
from fuse.losses.losses import build_loss
from fuse.models.classifier import Classifier
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.native.cores import usable_cores

from .classifier import input_dims, make_model
from .task import Task


@dataclass(frozen=True, slots=True)
class InitialState:
    """The initial state of a member."""

    model: Classifier
    """On the device of the features."""
    landmarks: Tensor
    """Indices of training rows, as many as `Setting.landmarks` says."""


def draw_initial(
    setting: Setting, bank: FeatureBank, tasks: Sequence[Task], names: Sequence[str]
) -> list[InitialState]:
    """Draws the initial states of members.

    Drawing a million numbers and copying them to a device takes milliseconds in which the
    interpreter lock is free, so members do it in threads. Each has a generator of its own; the
    caller's stay unchanged.

    Args:
        setting: What to build.
        bank: The features.
        tasks: One a member.
        names: Class names.

    Raises:
        SettingsError: The setting makes no model.
    """
    dims = input_dims(bank, setting)

    def draw(task: Task) -> InitialState:
        generator = torch.Generator().manual_seed(task.seed)
        with _InitGenerator(generator):
            model = make_model(setting, dims, len(names), len(task.train))
        model.to(bank.labels.device)
        order = torch.randperm(len(task.train), generator=generator)
        return InitialState(model, order[: setting.landmarks].sort().values)

    if len(tasks) <= 1:
        return [draw(task) for task in tasks]
    # All cores, even where PyTorch is limited to one for the sake of other processes.
    with ThreadPoolExecutor(min(len(tasks), usable_cores())) as threads:
        return list(threads.map(draw, tasks))


def make_loss(setting: Setting, bank: FeatureBank, items: Tensor, classes: int) -> Loss:
    """The loss of a setting.

    Args:
        setting: What is trained and how.
        bank: The features.
        items: Items whose classes are counted, (items, 3).
        classes: Number of classes.

    Raises:
        SettingsError: The setting makes no loss.
    """
    labels = bank.labels.cpu()[items[:, 0]]
    counts = torch.bincount(labels, minlength=classes).clamp_min(1).double()
    balanced = len(labels) / (classes * counts)
    try:
        return build_loss(
            setting.loss,
            classes=classes,
            alpha=setting.alpha,
            beta=setting.beta,
            statistics=setting.statistics,
            margin=setting.margin,
            gamma=setting.gamma,
            class_weights=balanced.pow(setting.balance).tolist(),
            label_smoothing=setting.label_smoothing,
            tau=setting.tau,
            class_priors=(counts / counts.sum()).tolist(),
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


class _InitGenerator(TorchFunctionMode):
    """Draws initial weights from a generator, which the constructors of `torch.nn` do not take."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if _takes_generator(func):
            options["generator"] = self._generator
        return func(*args, **options)


@cache
def _takes_generator(func: Callable[..., Any]) -> bool:
    """Whether a function of `torch.nn.init`, or one that those call, takes a generator."""
    if getattr(func, "__module__", None) == init.__name__:
        return "generator" in signature(func).parameters
    return func in (Tensor.uniform_, Tensor.normal_)
