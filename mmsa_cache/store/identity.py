"""What identifies an encoder, and the features that a study or a run is made on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from .fingerprint import Fields, differences

# As JSON reads it back: tuples are lists, so that equality does not depend on the way here.
_JsonFields = Annotated[Fields, BeforeValidator(lambda fields: json.loads(json.dumps(fields)))]


MAY_DIFFER = ("compute", "device", "decoder_versions")
"""Fields whose effect on features is small and documented (extract/README.md)."""


class EncoderIdentity(BaseModel):
    """A frozen encoder: its name, and every field that changes its features."""

    model_config = ConfigDict(frozen=True)

    modality: Literal["text", "image"]
    name: str
    random_weights: bool
    """Whether its weights are random, not trained."""
    fields: _JsonFields
    """The encoder's part of a cache's fingerprint."""

    @classmethod
    def of_fields(cls, fields: Fields) -> EncoderIdentity:
        """The identity that an encoder's part of a fingerprint gives.

        Raises:
            ValueError: The fields are not those of an encoder.
        """
        weights = str(fields.get("weights", ""))
        return cls.model_validate(
            {
                "modality": fields.get("modality"),
                "name": fields.get("encoder"),
                "random_weights": weights.startswith("random:"),
                "fields": fields,
            }
        )

    @property
    def imported(self) -> bool:
        """Whether somebody else computed its features: of originals alone, and no others can be."""
        return self.fields.get("imported") is True

    @property
    def label(self) -> str:
        """Name for people; says so where the weights are random."""
        return f"{self.name} (random weights)" if self.random_weights else self.name

    def changes_since(self, trained_on: EncoderIdentity) -> list[str]:
        """Names each field that differs from the encoder that a model was trained on.

        Precision, device and the versions of the decoder may differ; fields that the model's record
        does not have are newer than it.
        """
        theirs = {k: value for k, value in trained_on.fields.items() if k not in MAY_DIFFER}
        here = {k: value for k, value in self.fields.items() if k in theirs}
        return differences(
            here, theirs, found_has="the model was trained with", expected_is="here is"
        )


def _of_fields(value: object) -> object:
    return EncoderIdentity.of_fields(value) if isinstance(value, dict) else value


StoredIdentity = Annotated[EncoderIdentity, BeforeValidator(_of_fields)]
"""Stored as its fields alone."""
Identities = Mapping[str, Mapping[str, EncoderIdentity]]
"""By modality and name of the encoder in the settings."""


class Origin(BaseModel):
    """What identifies the features and labels that a study or a run is made on."""

    model_config = ConfigDict(frozen=True)

    text: str | dict[str, str]
    """Folder of the text encoder's features; by encoder where others than the default are used."""
    image: str | dict[str, str]
    """The same of the image encoder."""
    classes: tuple[str, ...]
    """Class names in the order of their codes."""
    data: str = ""
    """Digest of the training rows: contents, labels and copies, in order; empty where it was not
    recorded."""
    val: str | None = None
    """The same of the split val, where it judges."""

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``val`` where other rows judge, as it was before there was that split."""
        values: dict[str, Any] = plain(self)
        return {key: value for key, value in values.items() if (key, value) != ("val", None)}
