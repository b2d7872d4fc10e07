"""A trained model with its encoders, from a run or from an exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from fuse.figures.calibration import Calibration
from fuse.setting import Setting, restore
from fuse.training.ensemble import Ensemble
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.dataset import single_sample
from mmsa_cache.data.files import strip_text
from mmsa_cache.errors import CacheNotFoundError, ModelError, SettingsError, StaleCacheError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims
from mmsa_cache.names import EncoderPair
from mmsa_cache.native.device import pick_device
from mmsa_cache.runs.directory import find_run, read_config

from .banks import open_bank
from .encoders import fields_by_name, notes_of
from .live import LiveEncoders, live_bank, live_pair
from .samples import load_samples

MODEL_FILE = "model.safetensors"
PATHS = (("text", "model"), ("image", "weights"), ("joint", "model"))
"""Settings that may name files beside the model."""


def load_model(
    run: str | Path, *, device: str | None = None, data: str | Path | None = None
) -> Predictor:
    """Loads a trained model: ``load_model("runs/NAME").predict("what a day", "picture.jpg")``.

    Args:
        run: Name of a run below ``runs``, or the folder of a run or an export.
        device: ``auto``, ``cpu`` or ``cuda``; default: as the model was trained with.
        data: Folder of the pairs that `Predictor.predict_split` reads; default: the run's.

    Raises:
        ModelError: There is no such model, or its files are not those of one.
        DeviceError: The device is not there.
    """
    folder = find_run(str(run))
    config = read_config(folder)
    try:
        raw = config["settings"]
        if device is not None:
            raw["device"] = device
        if data is not None:
            raw["data"]["root"] = str(data)
        for section, key in PATHS:
            raw[section][key] = _beside(folder, raw[section][key])
        settings = Settings.model_validate(raw)
        ensemble = Ensemble.restore(
            [restore(model["setting"]) for model in config["models"]],
            load_file(folder / MODEL_FILE),
            Calibration(**config["calibration"]),
            [Dims(**model["dims"]) for model in config["models"]],
        )
    except ModelError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ModelError(f"The run in {folder} cannot be loaded: {error}") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The run in {folder} cannot be loaded: {error}") from error
    return Predictor(ensemble, settings, config)


def _beside(folder: Path, value: Any) -> Any:
    """A name stays a name; what lies in the folder becomes its path."""
    if isinstance(value, str) and (folder / value).exists():
        return str((folder / value).resolve())
    return value


class Predictor:
    """A trained model that takes raw posts. Made by `load_model`.

    Encoders are loaded when a post first needs them, and kept.

    Args:
        ensemble: The trained members and their calibration.
        settings: Those that the features were made under.
        config: ``config.json`` of the run.
    """

    def __init__(self, ensemble: Ensemble, settings: Settings, config: Mapping[str, Any]) -> None:
        self.ensemble = ensemble
        self.settings = settings
        self.classes: list[str] = list(config["classes"])
        """Class names, in the order of probabilities."""
        self.outer: str = config["outer"]
        """Kind of the outer split that judged it."""
        self.dims = [Dims(**model["dims"]) for model in config["models"]]
        fields = fields_by_name(config.get("encoder_fields", {}), self.pairs)
        self._encoders = LiveEncoders(settings, fields)
        device = pick_device(settings.device)
        for member in ensemble.members:
            member.to(device)

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know: synthetic data, random weights."""
        return notes_of(self.settings, self.pairs)

    def predict(self, text: str | None = None, image: str | Path | None = None) -> dict[str, float]:
        """Class probabilities of one post, by class name; one of text and image may be missing.

        Args:
            text: Its text.
            image: File of its picture.

        Raises:
            DataError: The text is empty or the picture cannot be read.
            ModelError: An encoder is not to be had, or not the one that the model was trained on.
            SettingsError: Neither is given.
        """
        probabilities = self.predict_pair(text, None if image is None else Path(image))
        return dict(zip(self.classes, probabilities, strict=True))

    def predict_pair(self, text: str | None, image: Path | None) -> list[float]:
        """`predict`, in the order of `classes`."""
        if text is None and image is None:
            raise SettingsError("There is neither a text nor a picture to predict from.")
        if text is not None:  # as the texts it learned from
            text = strip_text(text)[: self.settings.data.max_chars]
        if text is not None and image is not None:
            post = [single_sample(text, image)]
            bank = live_bank(self.settings, post, self._encoders, self.pairs)
        else:
            cells = max(1, *(setting.grid**2 for setting in self._model_settings))
            readers = list(zip(self.pairs, self.dims, strict=True))
            bank = live_pair(self.settings, text, image, readers, cells, self._encoders)
        return self.predict_bank(bank)[0][1]

    def predict_split(self, split: str) -> list[tuple[str, list[float]]]:
        """(guid, class probabilities) of a split of the data, in the order of its label file.

        Its cache is read where there is one; else the pairs are encoded now.

        Raises:
            DataError: The pairs cannot be read.
            SettingsError: The model knows no data folder.
        """
        samples = load_samples(self.settings, split)
        try:
            bank = open_bank(self.settings, split, samples, self.pairs)
        except (CacheNotFoundError, StaleCacheError) as error:
            say(f"{error.message} Encoding the {len(samples)} pairs now.")
            bank = live_bank(self.settings, samples, self._encoders, self.pairs)
        return self.predict_bank(bank)

    def predict_bank(self, bank: FeatureBank) -> list[tuple[str, list[float]]]:
        """(guid, class probabilities) of every post of a feature bank."""
        bank = bank.to(pick_device(self.settings.device))
        probabilities = self.ensemble.predict(bank, np.arange(len(bank)))
        return list(zip(bank.guids, probabilities.tolist(), strict=True))

    @property
    def knows_halves(self) -> bool:
        """Whether all its members learned from posts that lack a half, or read only one."""
        return all(s.modality != "both" or s.modality_dropout for s in self._model_settings)

    @property
    def pairs(self) -> list[EncoderPair]:
        """Names of the text and the image encoder that each model reads."""
        return [setting.encoders for setting in self._model_settings]

    @property
    def _model_settings(self) -> list[Setting]:
        return [blend.setting for blend in self.ensemble.blends]
