"""Identities of encoders, and of the features that a study or run is based on."""

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
    """A frozen encoder: its name and every field that changes its features."""

    model_config = ConfigDict(frozen=True)

    modality: Literal["text", "image"]
    name: str
    random_weights: bool
    """Whether its weights are random instead of trained."""
    fields: _JsonFields
    """The fields of its fingerprint."""

    @classmethod
    def of_fields(cls, fields: Fields) -> EncoderIdentity:
        """Makes the identity of an encoder's fields.

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
        """Whether its features were imported: those of originals only, and no more can be made."""
        return self.fields.get("imported") is True

    @property
    def label(self) -> str:
        """Name for users, with a remark if the weights are random."""
        return f"{self.name} (random weights)" if self.random_weights else self.name

    def changes_since(self, trained_on: EncoderIdentity) -> list[str]:
        """Describes each field that differs from the encoder that a model was trained on.

        Precision, device and decoder versions may differ. Fields that the model's record lacks are
        newer than the record and ignored.
        """
        theirs = {k: value for k, value in trained_on.fields.items() if k not in MAY_DIFFER}
        ours = {k: value for k, value in self.fields.items() if k in theirs}
        return differences(
            ours, theirs, found_has="the model was trained with", expected_is="here is"
        )


def _parse_fields(value: object) -> object:
    return EncoderIdentity.of_fields(value) if isinstance(value, dict) else value


StoredIdentity = Annotated[EncoderIdentity, BeforeValidator(_parse_fields)]
"""Stored as its fields only."""
Identities = Mapping[str, Mapping[str, EncoderIdentity]]
"""Modality → name of the encoder in the settings → identity."""


class Origin(BaseModel):
    """Identifies the features and labels that a study or run is based on."""

    model_config = ConfigDict(frozen=True)

    text: str | dict[str, str]
    """Folder of the text encoder's features; by encoder if others than the default are used."""
    image: str | dict[str, str]
    """The same for images."""
    classes: tuple[str, ...]
    """Class names in the order of their codes."""
    data: str = ""
    """`SampleTable.digest` of the training rows; empty if it was not recorded."""
    val: str | None = None
    """The same of the split val, if it judges."""

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves ``val`` out if other rows judge, as in records older than that split."""
        values: dict[str, Any] = plain(self)
        return {key: value for key, value in values.items() if (key, value) != ("val", None)}
