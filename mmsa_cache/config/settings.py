"""All settings of a command."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, RULE_ENCODERS, unknown_name
from mmsa_cache.validation import match_pattern

from .sections import (
    MAX_SEED,
    CacheSettings,
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    ImageSettings,
    JointSettings,
    Section,
    TextSettings,
)

CONFIG_NAME = "mmsa.toml"
ALL = "all"
"""Stands for all encoders, including the default ones."""


Device = Annotated[str, match_pattern("auto, cpu, cuda or cuda:N", r"auto|cpu|cuda(:[0-9]+)?")]


def _encoder_name(name: str) -> str:
    if name in (DEFAULT_ENCODER, ALL) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"write a plain name other than {DEFAULT_ENCODER} and {ALL}")
    return name


class Settings(Section):
    """All settings of a command."""

    data: DataSettings = DataSettings()
    text: TextSettings = TextSettings()
    image: ImageSettings = ImageSettings()
    joint: JointSettings = JointSettings()
    encoders: dict[Annotated[str, AfterValidator(_encoder_name)], EncoderSettings] = Field(
        default_factory=dict
    )
    """Further encoders by name; ``default`` are those of the sections above."""
    cache: CacheSettings = CacheSettings()
    extract: ExtractSettings = ExtractSettings()
    device: Device = "auto"
    """Device of the models: ``auto`` is CUDA if there is one."""
    seed: int = Field(default=47, ge=0, le=MAX_SEED)
    """Seed of augmentation, random weights, splits, search and training."""
    allow_outside: bool = Field(default=False, exclude=True)
    """Whether paths that a run or a store names may lead out of the working folder; of one command,
    not kept."""
    storage: SecretStr | None = Field(default=None, exclude=True)
    """Address of the database of studies, which may hold a password; None: the working folder's
    own. Not kept either."""

    def encoder_names(self, modality: str) -> tuple[str, ...]:
        """Names of a modality's encoders, the default one first."""
        named = self.named_encoders
        return DEFAULT_ENCODER, *(name for name, found in named.items() if found.has(modality))

    @property
    def named_encoders(self) -> dict[str, EncoderSettings]:
        """Encoders by name, with the built-in rules unless their names are used."""
        rules = {name: EncoderSettings(text=TextSettings(model=name)) for name in RULE_ENCODERS}
        return self.encoders | rules | self.encoders

    def with_encoder(self, modality: str, name: str) -> Settings:
        """These settings with a named encoder as a modality's default one.

        Their sections of the other modality have no meaning then.

        Raises:
            SettingsError: There is no such encoder.
        """
        if name == DEFAULT_ENCODER:
            return self
        if name not in self.encoder_names(modality):
            raise unknown_name(
                f"{CONFIG_NAME} has no {modality} encoder",
                name,
                self.encoder_names(modality),
                f"Others are described under [encoders.NAME.{modality}].",
            )
        encoder = self.named_encoders[name]
        own = getattr(encoder, modality) or type(getattr(self, modality))()
        return self.model_copy(update={modality: own, "joint": encoder.joint or JointSettings()})

    def with_pair(self, text: str, image: str) -> Settings:
        """These settings with two named encoders as the default ones, and no others.

        Raises:
            SettingsError: There is no such encoder, or only one is part of a joint model.
        """
        of_text, of_image = self.with_encoder("text", text), self.with_encoder("image", image)
        if of_text.joint != of_image.joint:
            raise SettingsError(
                f"The encoders {text!r} and {image!r} cannot be the default ones together: "
                "a joint model gives both sides."
            )
        sections = {"text": of_text.text, "image": of_image.image, "joint": of_text.joint}
        return self.model_copy(update={**sections, "encoders": {}})
