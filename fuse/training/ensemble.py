"""Final models: members of one setting or of several, averaged and calibrated."""

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

_MAX_LAYERS = 1000
"""Most layers of a stored model."""


@dataclass(frozen=True, slots=True)
class Blend:
    """Trained members of one setting."""

    setting: Setting
    members: list[Classifier]
    weight: float = 1.0
    """Weight of their mean in a whole model."""

    def predict(self, bank: FeatureBank, samples: NDArray[np.int64]) -> Probabilities:
        """Mean class probabilities of original samples, (samples, classes)."""
        members = [predict(member, bank, samples, self.setting) for member in self.members]
        mean: Probabilities = np.mean(members, axis=0)
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
        """All trained tensors by ``SETTING.MEMBER.NAME``, on the CPU."""
        return {
            f"{number}.{index}.{name}": value.contiguous().cpu()
            for number, blend in enumerate(self.blends)
            for index, member in enumerate(blend.members)
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
            settings: Setting of each blend.
            tensors: The result of `tensors`.
            calibration: Calibration of the whole model.
            dims: Features of the inputs of each setting.
            weights: Weight of each blend.

        Raises:
            ModelError: The tensors do not fit the settings.
        """
        states: dict[tuple[int, int], dict[str, Tensor]] = {}
        for name, value in tensors.items():
            first, second, key = name.split(".", 2)
            states.setdefault((int(first), int(second)), {})[key] = value
        blends = [Blend(s, [], weight) for s, weight in zip(settings, weights, strict=True)]
        for (number, index), state in sorted(states.items()):
            setting = settings[number]
            size = dims[number], len(calibration.offsets), _landmarks(state)
            # Built without memory first, so that nothing is allocated that the tensors do not fill.
            with torch.device("meta"):
                fits = setting.layers + len(setting.head_dims()) <= _MAX_LAYERS and _shapes(
                    _folded_model(setting, *size).state_dict()
                ) == _shapes(state)
            if not fits:
                raise ModelError(f"Member {index} of setting {number} is not of this setting.")
            member = _folded_model(setting, *size)
            member.load_state_dict(state)
            blends[number].members.append(member.eval())
        if not all(blend.members for blend in blends):
            raise ModelError("The model file lacks members.")
        return cls(blends, calibration)


def weighted_mean(terms: Sequence[tuple[float, Probabilities]]) -> Probabilities:
    """Σ w·p of pairs whose weights sum to 1, (rows, classes)."""
    return sum((weight * p for weight, p in terms), start=np.zeros_like(terms[0][1]))


def stored_bytes(setting: Setting, dims: Dims, classes: int, rows: int) -> int:
    """Approximate bytes of one trained member in a model file.

    Args:
        setting: Setting of the member.
        dims: Features of the inputs.
        classes: Number of classes.
        rows: Number of its training rows.
    """
    with torch.device("meta"):
        state = _folded_model(setting, dims, classes, rows).state_dict()
    return sum(value.numel() * value.itemsize for value in state.values())


def _folded_model(setting: Setting, dims: Dims, classes: int, rows: int | None) -> Classifier:
    model = make_model(setting, dims, classes, rows)
    model.fold()
    return model


def _landmarks(state: Mapping[str, Tensor]) -> int | None:
    """Number of landmarks of a stored model; None if it is no kernel model."""
    return next((len(v) for name, v in state.items() if name.startswith("landmarks_")), None)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}
