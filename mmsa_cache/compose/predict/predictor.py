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
from mmsa_cache.config.settings import Settings
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
from mmsa_cache.files.paths import check_paths, resolve_declared
from mmsa_cache.files.untrusted import open_tensors
from mmsa_cache.names import EncoderPair, check_choice
from mmsa_cache.native.device import is_device_error
from mmsa_cache.runs.folder import MODEL_FILE, RunFolder
from mmsa_cache.runs.record import RunRecord
from mmsa_cache.validation import validate

from ..session.path_policy import DATA_HINT, STORE_HINT, PathPolicy, RunOverrides, encoder_paths
from ..session.session import Session
from .live import live_bank


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
        run: A `Run`, the name of one below ``runs``, the folder of a run or an export, or
            ``hf://USER/REPO``, to which one was pushed.
        device: ``auto``, ``cpu`` or ``cuda``; default: as the model was trained with.
        data: Folder of the pairs that `Predictor.predict_split` reads; default: the run's.
        cache: Root folder of their features; default: the run's.
        allow_outside: Whether folders that the run names are used wherever they are; else they must
            lie in the working folder or in the run's own, or be those of ``mmsa.toml``.
        online: Whether the model of ``hf://``, and encoders that are not on this machine, are
            fetched by their names at the hub; else no socket is opened.
        decide: Decision rule of `Predictor.decide`; default: the run's.

    Raises:
        SettingsError: An argument cannot be used.
        ModelError: There is no such model, or its files are not those of one.
        DeviceError: The device is not there.
    """
    check_paths(run=run if not isinstance(run, str) else None, data=data, cache=cache)
    check_choice("decide", decide, DECIDE)
    folder = find_run(run, online=online)
    record = folder.record
    places = [None if place is None else Path(place) for place in (data, cache)]
    overrides = RunOverrides(places[0], places[1], device, allow_outside, online)
    policy = PathPolicy.for_run(folder.path, overrides)
    settings = settings_of(folder, policy, overrides)
    try:
        with open_tensors(folder.place(MODEL_FILE)) as file:
            ensemble = Ensemble.restore(
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
    session = Session(settings, trained_on=record.encoders, path_policy=policy, online=online)
    return Predictor(ensemble, record, session, decide)


def find_run(run: str | os.PathLike[str], *, online: bool = False) -> RunFolder:
    """A run or an export, see `load_model`."""
    name = os.fspath(run)
    if name.startswith("hf://"):
        from ..hub.model import fetched_model

        return RunFolder(fetched_model(name, online=online))
    return RunFolder.find(name)


def settings_of(folder: RunFolder, policy: PathPolicy, overrides: RunOverrides) -> Settings:
    """The settings of a run; what lies in or beside its folder is named by its path.

    Args:
        folder: The run.
        policy: Where the folders may be that it names: others are none.
        overrides: What the command says in the place of the run.

    Raises:
        ModelError: A value is not one of a setting.
    """
    values = folder.record.settings.model_dump()
    if overrides.device is not None:
        values["device"] = overrides.device
    kept = values["cache"]["dir"]
    own = policy.own.cache.dir
    values["cache"]["dir"] = own if overrides.cache else _cache_of(folder, kept, policy)
    root = values["data"]["root"] if overrides.data is None else overrides.data
    if root is not None and overrides.data is None:
        root = _beside(folder, root)
        root = root if policy.allows_with_note(root, "the run's data folder", DATA_HINT) else None
    values["data"]["root"] = root
    for section, key in encoder_paths(values):
        if os.path.exists(folder.path / section[key]):  # noqa: PTH110
            section[key] = str((folder.path / section[key]).resolve())
    message = f"The run in {folder.path} cannot be loaded with these options:"
    return validate(Settings, values, message, "", ModelError)


def _cache_of(folder: RunFolder, kept: Path, policy: PathPolicy) -> Path:
    """The store of a run: where it was, or that of the working folder if it is gone."""
    found = _beside(folder, kept)
    if policy.allows_with_note(found, "the run's store", STORE_HINT) and found.is_dir():
        return resolve_declared(found)
    return policy.own.cache.dir


def _beside(folder: RunFolder, kept: Path) -> Path:
    """A path of a run's settings: relative ones begin in its folder, so that both can be moved."""
    return Path(os.path.normpath(folder.path.resolve() / kept))


def portable_path(path: Path, run: Path) -> Path:
    """A path as the settings of a run keep it: relative to its folder inside the working folder.

    Args:
        path: Of the store or the data.
        run: The run's folder.
    """
    found, home = path.resolve(), Path.cwd().resolve()
    inside = found.is_relative_to(home) and run.resolve().is_relative_to(home)
    return Path(os.path.relpath(found, run.resolve())) if inside else found


class Predictor:
    """A trained model that takes raw posts. Made by `load_model`.

    Encoders are loaded when a post first needs them, and kept.

    Args:
        ensemble: The trained members and their calibration.
        record: How the model was made.
        session: Of the settings that the features were made under, with paths and device of now.
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
        """Class names, in the order of probabilities."""
        return self.record.classes

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know: synthetic data, random weights."""
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
        """A post as those that it learned from; see `single_sample`."""
        if not isinstance(text, str | None):  # NaN stands for nothing in tables of others
            raise DataError(f"The text is no string: {str(text)[:40]}.", "Give a string, or None.")
        if text is not None:
            text = strip_text(text)[: self.session.settings.data.max_chars]
        return single_sample(text, image)

    def predict_posts(self, posts: Sequence[Sample], *, reuse: bool = False) -> list[list[float]]:
        """Class probabilities of posts, encoded now; halves may be missing.

        Args:
            posts: What to predict.
            reuse: Read the features that the store has.
        """
        bank = self.encoded(posts, reuse=reuse)
        return [probabilities for _, probabilities in self.predict_bank(bank)]

    def encoded(self, posts: Sequence[Sample], *, reuse: bool = False) -> FeatureBank:
        """What the models read of posts, encoded now; see `predict_posts`."""
        dims = [model.dims for model in self.record.models]
        cells = max(1, *(setting.grid**2 for setting in self._model_settings))
        return live_bank(self.session, posts, self.pairs, dims, cells, reuse)

    def predict_split(self, split: str) -> list[tuple[str, list[float]]]:
        """(guid, class probabilities) of a split of the data, in the order of its label file.

        Features of the store are read where it has them all; else the pairs are encoded now.

        Raises:
            DataError: The pairs cannot be read.
            SettingsError: The model knows no data folder.
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
        """The classes that are decided for.

        Args:
            probabilities: Of each post, in the order of `classes`.
        """
        codes = self.ensemble.calibration.decide(np.array(probabilities), self.rule)
        return [self.classes[code] for code in codes.tolist()]

    @property
    def knows_halves(self) -> bool:
        """Whether all its members learned from posts that lack a half, or read only one."""
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
