"""A final model: members of one setting or of several, averaged and calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuse.figures.calibration import Calibration, Probabilities
from fuse.models.classifier import Classifier
from fuse.setting import Setting
from mmsa_cache.errors import ModelError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims

from .classifier import make_model, predict

_MAX_PARTS = 1000
"""Layers of a stored model."""


@dataclass(frozen=True, slots=True)
class Blend:
    """Trained members of one setting."""

    setting: Setting
    members: list[Classifier]
    weight: float = 1.0
    """Of their mean in a whole model."""

    def predict(self, bank: FeatureBank, samples: NDArray[np.int64]) -> Probabilities:
        """Mean class probabilities of original samples, (samples, classes)."""
        found = [predict(member, bank, samples, self.setting) for member in self.members]
        mean: Probabilities = np.mean(found, axis=0)
        return mean


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A final model: the weighted average of the members of one setting or of several."""

    blends: list[Blend]
    """Their weights sum to 1."""
    calibration: Calibration

    def predict(
        self, bank: FeatureBank, samples: NDArray[np.int64], *, calibrated: bool = True
    ) -> Probabilities:
        """Class probabilities of original samples, (samples, classes)."""
        mean = weighted_mean(
            [(blend.weight, blend.predict(bank, samples)) for blend in self.blends]
        )
        return self.calibration(mean) if calibrated else mean

    @property
    def members(self) -> list[Classifier]:
        """All members, setting by setting."""
        return [member for blend in self.blends for member in blend.members]

    def tensors(self) -> dict[str, Tensor]:
        """Everything trained, by ``SETTING.MEMBER.NAME``, on the CPU."""
        return {
            f"{number}.{place}.{name}": value.contiguous().cpu()
            for number, blend in enumerate(self.blends)
            for place, member in enumerate(blend.members)
            for name, value in member.state_dict().items()
        }

    @classmethod
    def restore(
        cls,
        settings: Sequence[Setting],
        tensors: Mapping[str, Tensor],
        calibration: Calibration,
        dims: Sequence[Dims],
        weights: Sequence[float],
    ) -> Ensemble:
        """Rebuilds the members from the result of `tensors`.

        Args:
            settings: One a blend.
            tensors: Of `tensors`.
            calibration: Of the whole.
            dims: Features of the inputs, a setting each.
            weights: Of the blends.

        Raises:
            ModelError: The tensors are not those of these settings.
        """
        states: dict[tuple[int, int], dict[str, Tensor]] = {}
        for name, value in tensors.items():
            first, second, key = name.split(".", 2)
            states.setdefault((int(first), int(second)), {})[key] = value
        blends = [Blend(s, [], weight) for s, weight in zip(settings, weights, strict=True)]
        for (number, place), state in sorted(states.items()):
            setting = settings[number]
            # Made without memory first: what the tensors do not bear out is never allocated.
            parts = setting.layers + len(setting.head_dims())
            with torch.device("meta"):
                member = (
                    _member(setting, dims[number], calibration, state)
                    if (parts <= _MAX_PARTS)
                    else None
                )
            if member is None or _shapes(member.state_dict()) != _shapes(state):
                raise ModelError(f"Member {place} of setting {number} is not of this setting.")
            member = _member(setting, dims[number], calibration, state)
            member.load_state_dict(state)
            blends[number].members.append(member.eval())
        if not all(blend.members for blend in blends):
            raise ModelError("The model file lacks members.")
        return cls(blends, calibration)


def weighted_mean(found: Sequence[tuple[float, Probabilities]]) -> Probabilities:
    """Σ w·p of pairs whose weights sum to 1, (rows, classes)."""
    return sum((weight * p for weight, p in found), start=np.zeros_like(found[0][1]))


def stored_bytes(setting: Setting, dims: Dims, classes: int, rows: int) -> int:
    """Bytes of one trained member in a model file, nearly.

    Args:
        setting: Of the member.
        dims: Features of the inputs.
        classes: Number of classes.
        rows: Rows that it learns from.
    """
    with torch.device("meta"):
        member = make_model(setting, dims, classes, rows)
        member.fold()
    return sum(value.numel() * value.itemsize for value in member.state_dict().values())


def _member(
    setting: Setting, dims: Dims, calibration: Calibration, state: Mapping[str, Tensor]
) -> Classifier:
    landmarks = [len(value) for name, value in state.items() if name.startswith("landmarks_")]
    rows = landmarks[0] if landmarks else None
    member = make_model(setting, dims, len(calibration.offsets), rows)
    member.fold()
    return member


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}
