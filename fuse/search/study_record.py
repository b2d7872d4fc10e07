"""What mmsa stores with a study in addition to its trials. Only this module reads and writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from fuse.figures.record import Count, Record
from fuse.figures.study import BestOfValue, Look, LossWeights, ParameterImportance
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.store.fingerprint import Fields, differences
from mmsa_cache.store.identity import Origin
from mmsa_cache.validation import validate

from .baseline_record import Baseline
from .study import StudyConfig


class StudyIdentity(BaseModel):
    """What a study searches, and on which features. Stored as one flat table."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    study: StudyConfig
    origin: Origin

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "study" in values:
            return values
        protocol = {key: values[key] for key in Protocol.model_fields.keys() & values.keys()}
        return {
            "version": values.get("version", 1),
            "study": {key: values[key] for key in StudyConfig.model_fields.keys() & values.keys()}
            | {"protocol": protocol},
            "origin": {key: values[key] for key in Origin.model_fields.keys() & values.keys()},
        }

    @model_serializer
    def _to_flat(self) -> dict[str, Any]:
        study = self.study.model_dump(mode="json", exclude={"protocol"})
        protocol = self.study.protocol.model_dump(exclude={"version"})
        return {"version": 1, **study, **protocol, **self.origin.model_dump(mode="json")}

    def check(self, stored: StudyIdentity) -> None:
        """Refuses to continue a study whose stored identity differs.

        Raises:
            SettingsError: Names every difference.
        """
        own, theirs = (_by_file_key(identity.model_dump()) for identity in (self, stored))
        changed = differences(own, theirs, found_has="the study has")
        if changed:
            raise SettingsError(
                f"The study {self.study.name!r} was begun with something else.",
                "Begin another one (--name NAME), or go back to what it was begun with.",
                changed,
            )


def _by_file_key(identity: Fields) -> Fields:
    """Values by the keys of a study file: ``space.dropout`` in place of ``space``."""
    values: Fields = {}
    for table, value in identity.items():
        if isinstance(value, dict):
            values |= {f"{table}.{key}": inner for key, inner in value.items()}
        else:
            values[table] = value
    return values


class Selection(Record):
    """The trial that a study's last search selected."""

    how: str
    """The rule, see `fuse.search.selection.select`."""
    trial: Count


class Insight(Record):
    """What the trials of a study show about its space."""

    cannot_be_told_apart: list[int]
    """Trials, see `fuse.search.selection.ties`."""
    complete_trials: Count
    parameters: Count
    """Trained parameters of the selected model."""
    importance: list[ParameterImportance]
    by_fusion: list[BestOfValue]
    alpha_beta: list[LossWeights]


class StudyRecord(Record):
    """The user attributes of a study that mmsa reads."""

    identity: StudyIdentity | None = None
    selection: Selection | None = None
    looks: list[Look] = Field(default_factory=list)
    """Judgements on the outer rows, one a trial."""
    baselines: list[Baseline] = Field(default_factory=list)

    @classmethod
    def of(cls, name: str, attributes: Mapping[str, object]) -> Self:
        """Checks and reads a study's attributes.

        Raises:
            ModelError: Another version of mmsa, or another program, wrote them.
        """
        identity = attributes.get("identity")
        version = identity.get("version", 1) if isinstance(identity, dict) else 1
        if version != 1:
            raise ModelError(
                f"The study {name!r} has version {version}; this mmsa reads version 1.",
                "Upgrade mmsa, or search in another file: mmsa search --storage sqlite:///FILE.",
            )
        return validate(
            cls,
            attributes,
            f"The database holds what mmsa did not write in the study {name!r}.",
            "Restore it, or begin anew in another file (--storage sqlite:///FILE).",
            ModelError,
        )

    def look_at(self, trial: int) -> Look | None:
        """The judgement of a trial; None if it was not judged."""
        return next((look for look in self.looks if look.trial == trial), None)
