"""The parameters of `FusionClassifier`: fields of a setting, and those of the training."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from sklearn.utils import check_random_state

from fuse.figures.calibration import Decide
from fuse.setting import DEFAULTS, Setting, complete
from mmsa_cache.config.settings import Device
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.data.splits import most_folds
from mmsa_cache.names import MODALITIES
from mmsa_cache.validation import Table, validate

_OF_A_STORE = {"text_encoder", "image_encoder", "variants", "copies", "pairing"}
"""Fields of a setting that need a store."""
_MISTAKES = "These parameters cannot be used."


class Training(Table):
    """Parameters that are no fields of a setting; described in `FusionClassifier`."""

    model_config = ConfigDict(strict=True)

    folds: int = Field(default=5, ge=1)
    seeds: int = 1
    refit: bool = False
    decide: Decide = "accuracy"
    random_state: Any = 47
    device: Device = "auto"
    text_features: int | None = Field(default=None, ge=0)
    text_model: Any = None
    image_model: Any = None
    online: bool = False

    def protocol(self, codes: NDArray[np.int64], groups: NDArray[np.int64]) -> Protocol:
        """Splits of the posts; with fewer folds where a class has fewer groups.

        Raises:
            SettingsError: A number is out of range.
        """
        seed = self.random_state
        if not isinstance(seed, numbers.Integral):  # a generator, or None
            seed = check_random_state(seed).randint(2**31)
        folds = min(self.folds, max(2, most_folds(codes, groups)))
        values = {"folds": folds, "seeds": self.seeds, "seed": int(seed)}
        return validate(Protocol, values, _MISTAKES)


_SETTING = {key: value for key, value in DEFAULTS.items() if key not in _OF_A_STORE}
PARAMETERS: dict[str, object] = {
    **_SETTING,
    "beta": None,
    **{name: field.default for name, field in Training.model_fields.items()},
}
"""Defaults by name."""
SIGNATURE = inspect.Signature(
    [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in PARAMETERS.items()
    ]
)


def training_parameters(parameters: Mapping[str, object]) -> Training:
    """The parameters that are no fields of a setting.

    Raises:
        SettingsError: With every invalid one.
    """
    values = {name: _plain(parameters[name]) for name in Training.model_fields}
    return validate(Training, values, _MISTAKES)


def build_setting(
    parameters: Mapping[str, object], pools: Mapping[str, Sequence[str]] | None = None
) -> Setting:
    """The setting of the parameters.

    Args:
        parameters: By name.
        pools: Pools of each modality that the posts have; default: not known yet.

    Raises:
        SettingsError: With every invalid one.
    """
    values = {name: _plain(parameters[name]) for name in _SETTING}
    if values["beta"] is None:
        del values["beta"]
    if pools is None:
        return complete(values)
    if len(pools) == 1:
        values["modality"] = next(iter(pools))
    values |= {f"{name}_pool": "mean" for name in MODALITIES if name not in pools}
    return complete(values).resolved(lambda name, encoder: pools.get(name, ("mean",)))


def _plain(value: Any) -> Any:
    """A NumPy scalar, as scikit-learn's searches pass it, as a Python number."""
    return value.item() if isinstance(value, np.generic) else value
