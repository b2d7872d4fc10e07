"""Records of a run's JSON files.

Settings of models are plain values here; `fuse.setting` makes a `Setting` of them.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fuse.figures.calibration import Calibration, Decide
from fuse.figures.record import Integer, Record
from fuse.figures.study import StudySource, Value
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.features.batch import Dims
from mmsa_cache.json_value import Json, JsonObject
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, EncoderPair, encoders_of, split_terms
from mmsa_cache.store.identity import EncoderIdentity, Origin, StoredIdentity
from mmsa_cache.version import __version__

VERSION: Literal[1] = 1
"""Version of ``config.json``; a run without one is of version 1."""
_PROTOCOL = ("outer", "folds", "seeds", "seed")
"""Fields of the protocol at the top level of ``config.json``."""
_PACKAGES = ("torch", "transformers", "timm", "h5py", "numpy", "optuna", "scikit-learn")


class TrainedModel(Record):
    """One setting of a run."""

    setting: dict[str, Value]
    """Values of the fields of `fuse.setting.Setting`."""
    dims: Dims
    """Sizes of its inputs."""
    weight: Annotated[float, Field(gt=0, le=1)] | None = None
    """Weight of its members in the whole model; None (older runs): equal weights."""
    parts: list[Integer] | None = None
    """Outer parts, from 1, whose members have this setting; None: all."""

    @property
    def encoders(self) -> EncoderPair:
        """Names of the text and the image encoders in the run's settings."""
        text, image = (
            encoders_of(
                str(self.setting.get(f"{modality}_encoder", DEFAULT_ENCODER)),
                str(self.setting.get(f"{modality}_pool", "")),
            )
            for modality in MODALITIES
        )
        return text, image


class RunIdentity(Record):
    """Everything that a training depends on: equal identities give equal models."""

    models: list[TrainedModel] = Field(min_length=1, max_length=1000)
    protocol: Protocol
    averaged: bool
    """Whether the model averages its members; else it is the best one of each setting."""
    refit: bool
    """Whether the members of the model learned from all development rows."""
    origin: Origin | None
    """Origin of the features; None in an export."""

    @property
    def weights(self) -> list[float]:
        """Weight of each model; they sum to 1."""
        weights = [model.weight or 1.0 for model in self.models]
        return [weight / sum(weights) for weight in weights]

    @property
    def pairs(self) -> list[EncoderPair]:
        """Names of the text and the image encoders that each model reads."""
        return [model.encoders for model in self.models]

    def as_json(self) -> JsonObject:
        """Plain values, with the fields of the protocol at the top level."""
        return {
            "models": [model.as_json() for model in self.models],
            **{key: getattr(self.protocol, key) for key in _PROTOCOL},
            "averaged": self.averaged,
            "refit": self.refit,
            **({"origin": self.origin.model_dump(mode="json")} if self.origin else {}),
        }


class RunRecord(RunIdentity):
    """How a model was made: ``config.json`` of a run or an export."""

    version: Literal[1] = VERSION
    origin: Origin | None = None
    settings: Settings
    """Settings of the features."""
    classes: list[str] = Field(min_length=1, max_length=10_000)
    """Class names in the order of their codes."""
    encoders: dict[str, dict[str, StoredIdentity]]
    """By modality and name in the settings."""
    notes: list[str] = Field(default_factory=list)
    """Caveats of the scores, such as synthetic data or random weights."""
    calibration: Calibration
    decide: Decide = "accuracy"
    """Default rule that turns its probabilities into classes."""
    studies: list[StudySource] = Field(default_factory=list)
    """Studies that the settings come from; empty if they were given."""

    @model_validator(mode="before")
    @classmethod
    def _from_json(cls, content: Any) -> Any:
        """Builds the protocol and the encoders from the fields of ``config.json``."""
        if not isinstance(content, dict) or "encoder_fields" not in content:
            return content
        return {
            **content,
            "protocol": {key: content[key] for key in _PROTOCOL if key in content},
            "encoders": _named(content["encoder_fields"], content.get("models")),
        }

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"expected 'classes' to be different names, received {self.classes}")
        if len(self.calibration.biases) != len(self.classes):
            raise ValueError(
                f"expected {len(self.classes)} entries in 'biases' of the calibration, received "
                f"{len(self.calibration.biases)}"
            )
        return self

    @property
    def searched(self) -> list[StudySource]:
        """The sources that are trials of studies."""
        return [source for source in self.studies if source.trial is not None]

    @property
    def labels(self) -> dict[str, str]:
        """Names of the encoders for people, by modality."""
        return {
            modality: ", ".join(identity.label for identity in named.values())
            for modality, named in self.encoders.items()
        }

    def as_json(self) -> JsonObject:
        """The content of ``config.json``."""
        origin = self.origin
        return {
            "version": self.version,
            **super().as_json(),
            "settings": self.settings.model_dump(mode="json"),
            "features": {name: getattr(origin, name) for name in MODALITIES if origin},
            "classes": self.classes,
            "encoders": self.labels,
            "encoder_fields": {m: _unnamed(named) for m, named in self.encoders.items()},
            "notes": self.notes,
            "calibration": asdict(self.calibration),
            "decide": self.decide,
            "setting": self.models[0].setting,
            "study": self.searched[0].as_json() if self.searched else None,
            "studies": [source.as_json() for source in self.studies],
        }


def _named(fields: object, models: object) -> object:
    """Encoders by name; a modality with one encoder keeps its fields without a name."""
    if not isinstance(fields, dict) or not isinstance(models, list):
        return fields
    pairs = [TrainedModel.model_validate(model).encoders for model in models]
    return {
        modality: dict.fromkeys((name for pair in pairs for name in split_terms(pair[index])), own)
        if isinstance(own := fields.get(modality), dict) and own.get("modality") == modality
        else own
        for index, modality in enumerate(MODALITIES)
    }


def _unnamed(named: Mapping[str, EncoderIdentity]) -> Json:
    fields: JsonObject = {name: identity.fields for name, identity in named.items()}
    return fields if len(fields) > 1 else next(iter(fields.values()))


class Environment(Record):
    """Environment of a training: ``env.json``."""

    python: str = ""
    machine: str = ""
    system: str = ""
    cpus: int | None = None
    device: str = ""
    packages: dict[str, str]
    """Versions by name."""

    @classmethod
    def here(cls, device: str) -> Environment:
        """This process's environment."""
        return cls(
            python=platform.python_version(),
            machine=platform.machine(),
            system=platform.system(),
            cpus=os.cpu_count(),
            device=device,
            packages={"mmsa": __version__, **{name: version(name) for name in _PACKAGES}},
        )
