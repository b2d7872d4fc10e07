"""A trained model with its encoders, from a run or from an exported folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from fuse.figures.calibration import DECIDE, Decide, Probabilities
from fuse.setting import Setting, restore
from fuse.training.ensemble import Ensemble
from mmsa_cache.console import say
from mmsa_cache.data.files import strip_text
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.scan import single_sample
from mmsa_cache.errors import (
    CacheNotFoundError,
    DataError,
    ModelError,
    SettingsError,
    StaleCacheError,
    error_reason,
    is_exhausted,
    limit_error,
)
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.files.paths import check_paths
from mmsa_cache.files.untrusted import open_tensors
from mmsa_cache.names import EncoderPair, check_choice
from mmsa_cache.native.device import is_device_error
from mmsa_cache.runs.folder import MODEL_FILE, RunFolder
from mmsa_cache.runs.record import RunRecord

from ..session.path_policy import NO_OVERRIDES, PathPolicy, RunOverrides
from ..session.session import Session
from .live import live_bank
from .run_settings import settings_of_run


def load_model(
    run: str | os.PathLike[str],
    *,
    device: str | None = None,
    data: str | Path | None = None,
    cache: str | Path | None = None,
    allow_outside: bool = False,
    online: bool = False,
    decide: Decide | None = None,
) -> Predictor:
    """Loads a trained model: ``load_model("runs/NAME").predict("what a day", "picture.jpg")``.

    Args:
        run: A `Run`, the name of one below ``runs``, the folder of a run or an export, or the
            address ``hf://USER/REPO`` of a pushed export.
        device: ``auto``, ``cpu`` or ``cuda``; default: the device of training.
        data: Folder of the posts that `Predictor.predict_split` reads; default: the run's.
        cache: Folder of the store with their features; default: the run's.
        allow_outside: Whether folders that the run names are used wherever they are; else they must
            lie in the working folder or in the run's own, or be those of ``mmsa.toml``.
        online: Whether the model of ``hf://`` and missing encoders are downloaded; else
            no socket is opened.
        decide: Decision rule of `Predictor.decide`; default: the run's.

    Raises:
        SettingsError: An argument cannot be used.
        ModelError: There is no such model, or its files are invalid.
        DeviceError: There is no such device.
    """
    check_paths(run=run if not isinstance(run, str) else None, data=data, cache=cache)
    data, cache = (None if path is None else Path(path) for path in (data, cache))
    return load_predictor(run, RunOverrides(data, cache, device, allow_outside, online), decide)


def load_predictor(
    run: str | os.PathLike[str],
    overrides: RunOverrides = NO_OVERRIDES,
    decide: Decide | None = None,
) -> Predictor:
    """Loads a trained model, see `load_model`.

    Args:
        run: As of `load_model`.
        overrides: Replace settings of the run.
        decide: Decision rule; default: the run's.
    """
    check_choice("decide", decide, DECIDE)
    folder = find_run(run, online=overrides.online)
    policy = PathPolicy.for_run(folder.path, overrides)
    settings = settings_of_run(folder, policy, overrides)
    ensemble = _read_ensemble(folder)
    session = Session(
        settings,
        trained_on=folder.record.encoders,
        path_policy=policy,
        online=overrides.online,
    )
    return Predictor(ensemble, folder.record, session, decide)


def _read_ensemble(folder: RunFolder) -> Ensemble:
    record = folder.record
    try:
        with open_tensors(folder.file_path(MODEL_FILE)) as file:
            return Ensemble.restore(
                [restore(model.setting) for model in record.models],
                {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118  (no mapping)
                record.calibration,
                [model.dims for model in record.models],
                record.weights,
            )
    except ModelError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        if is_device_error(error):
            raise
        raise ModelError(f"The run in {folder.path} cannot be loaded: {error}") from error
    except (OSError, SafetensorError) as error:
        if is_exhausted(error):
            raise limit_error(folder.path, error_reason(error)) from error
        raise ModelError(f"The run in {folder.path} cannot be loaded: {error}") from error


def find_run(run: str | os.PathLike[str], *, online: bool = False) -> RunFolder:
    """Finds a run or an export, see `load_model`."""
    name = os.fspath(run)
    if name.startswith("hf://"):
        from ..hub.model import fetch_model

        return RunFolder(fetch_model(name, online=online))
    return RunFolder.find(name)


class Predictor:
    """A trained model that predicts raw posts; see `load_model`.

    Encoders are loaded on first use and kept.

    Args:
        ensemble: The trained members and their calibration.
        record: The record of the run.
        session: Of the settings of the run, with the paths and the device of this machine.
        decide: Decision rule; default: the run's.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        record: RunRecord,
        session: Session,
        decide: Decide | None = None,
    ) -> None:
        self.ensemble = ensemble
        self.record = record
        self.session = session
        self.rule = decide or record.decide
        for member in ensemble.members:
            member.to(self.session.device)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return self.record.classes

    @property
    def notes(self) -> list[str]:
        """Notes for readers of its scores: synthetic data, random weights."""
        return self.session.notes(self.pairs)

    def predict(self, text: str | None = None, image: str | Path | None = None) -> dict[str, float]:
        """Class probabilities of one post, by class name; one of text and image may be missing.

        Args:
            text: Its text.
            image: File of its picture.

        Raises:
            DataError: The text is empty or the picture cannot be read.
            ModelError: An encoder cannot be found, or is not the one that the model was trained on.
            SettingsError: Neither is given.
        """
        check_paths(image=image)
        probabilities = self.predict_pair(text, None if image is None else Path(image))
        return dict(zip(self.classes, probabilities, strict=True))

    def predict_pair(self, text: str | None, image: Path | None) -> list[float]:
        """`predict`, in the order of `classes`."""
        if text is None and image is None:
            raise SettingsError("There is neither a text nor a picture to predict from.")
        return self.predict_posts([self.post(text, image)])[0]

    def post(self, text: str | None, image: Path | None) -> Sample:
        """Makes a sample of a post as in training; see `single_sample`."""
        if not isinstance(text, str | None):  # tables may hold NaN for a missing text
            raise DataError(f"The text is no string: {str(text)[:40]}.", "Give a string, or None.")
        if text is not None:
            text = strip_text(text)[: self.session.settings.data.max_chars]
        return single_sample(text, image)

    def predict_posts(self, posts: Sequence[Sample], *, reuse: bool = False) -> list[list[float]]:
        """Class probabilities of posts, encoded now; a text or a picture may be missing.

        Args:
            posts: What to predict.
            reuse: Read stored features where there are some.
        """
        bank = self.encode_posts(posts, reuse=reuse)
        return [probabilities for _, probabilities in self.predict_bank(bank)]

    def encode_posts(self, posts: Sequence[Sample], *, reuse: bool = False) -> FeatureBank:
        """The features of posts, encoded now; see `predict_posts`."""
        dims = [model.dims for model in self.record.models]
        cells = max(1, *(setting.grid**2 for setting in self._model_settings))
        return live_bank(self.session, posts, self.pairs, dims, cells, reuse)

    def predict_split(self, split: str) -> list[tuple[str, list[float]]]:
        """(guid, class probabilities) of a split of the data, in the order of its label file.

        Stored features are read where the store has all of them; else the posts are encoded now.

        Raises:
            DataError: The posts cannot be read.
            SettingsError: The model has no data folder.
        """
        samples = self.session.samples(split)
        try:
            bank = self.session.bank(split, self.pairs)
        except (CacheNotFoundError, StaleCacheError) as error:
            say(f"{error.message} Encoding the {len(samples)} pairs now.")
            return list(zip(samples.guids, self.predict_posts(samples), strict=True))
        return self.predict_bank(bank)

    def predict_bank(self, bank: FeatureBank) -> list[tuple[str, list[float]]]:
        """(guid, class probabilities) of every post of a feature bank."""
        probabilities = self.ensemble.predict(bank.to(self.session.device), np.arange(len(bank)))
        return list(zip(bank.guids, probabilities.tolist(), strict=True))

    def decide(self, probabilities: Sequence[Sequence[float]] | Probabilities) -> list[str]:
        """The predicted classes by the decision rule.

        Args:
            probabilities: (posts, classes)
        """
        codes = self.ensemble.calibration.decide(np.array(probabilities), self.rule)
        return [self.classes[code] for code in codes.tolist()]

    @property
    def accepts_missing_modality(self) -> bool:
        """Whether all members learned from posts with one modality, or read only one."""
        if self.record.settings.data.missing == "allow":
            return True
        return all(s.modality != "both" or s.modality_dropout for s in self._model_settings)

    @property
    def pairs(self) -> list[EncoderPair]:
        """Names of the text and the image encoder that each model reads."""
        return self.record.pairs

    @property
    def _model_settings(self) -> list[Setting]:
        return [blend.setting for blend in self.ensemble.blends]
