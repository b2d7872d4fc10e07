"""The sections of the settings, one class each, and what their keys take."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    model_validator,
)

from mmsa_cache.errors import SettingsError
from mmsa_cache.names import class_problem
from mmsa_cache.validation import AnyPath, match_pattern

from .hub_name import check_root, hub_name

QUARTERS: Literal["quarters"] = "quarters"
"""Stands for the inner layers at a quarter, half and three quarters of a model's depth."""

MAX_SEED = 2**32 - 1
MOST_COPIES = 1000
"""Augmented copies of a row."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _classes(value: object) -> object:
    """Two or more distinct names; ``a,b,c`` is a list too."""
    names = value.split(",") if isinstance(value, str) else value
    if names is None:
        return None
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        wrong = [f"; {name!r}: {why}" for name in names if (why := class_problem(name)) is not None]
        if not wrong and len(set(names)) == len(names) >= 2:
            return tuple(names)
        raise ValueError(f"write a list of two or more distinct names{''.join(wrong)}")
    raise ValueError("write a list of two or more distinct names")


class ColumnSettings(Section):
    """Which column of a table holds what; default: the one of a usual name."""

    text: str | None = None
    """The posts' texts."""
    image: str | None = None
    """Paths of the pictures, or the pictures themselves."""
    label: str | None = None
    """Class names, numbers or truth values."""
    guid: str | None = None
    """Names of the rows; default: made of the pictures' names."""


def _columns(value: object) -> object:
    """``ROLE=COLUMN``, one or several: a list of flags, or a variable with commas."""
    pairs = value.split(",") if isinstance(value, str) else value
    if isinstance(pairs, (list, tuple)):
        if not all(isinstance(pair, str) and "=" in pair for pair in pairs):
            raise ValueError("write ROLE=COLUMN, as text=tweet; roles: text, image, label, guid")
        return dict(pair.split("=", 1) for pair in pairs)
    return value


class DataSettings(Section):
    """Where the pairs are and how their texts are read."""

    root: Annotated[AnyPath | None, BeforeValidator(check_root)] = None
    """Folder of the data, one table, or ``hf://datasets/NAME[@REVISION]``."""
    columns: Annotated[ColumnSettings, BeforeValidator(_columns)] = ColumnSettings()
    """Columns of tables that have no usual name."""
    rows: Literal["all", "agreeing"] = "all"
    """``agreeing``: of raw MVSA only rows whose text and picture have the same label."""
    missing: Literal["refuse", "allow"] = "refuse"
    """Whether a post may have only a text or only a picture: what it lacks is masked out."""
    encoding: str = "utf-8"
    """Codec of the text files."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """What happens to bytes that are not valid in ``encoding``."""
    max_chars: int | None = Field(default=None, ge=1)
    """Texts are cut to so many characters (the report: 128)."""
    allow_empty_text: bool = False
    """Whether an empty text is encoded as one."""
    follow_links: bool = False
    """Whether links may lead out of the folder. A store does not keep it: whoever made one could
    have set it."""
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_classes)] = None
    """Class names in the order of their codes. Default: the three sentiments; of a table that has
    none of them among its labels, its labels in alphabetical order."""
    rehash: bool = Field(default=False, exclude=True)
    """Whether files that did not change are read again; of one command, not kept."""
    note: str | None = None
    """Shown wherever figures from this data are ("synthetic data")."""

    @property
    def folder(self) -> Path:
        """The data folder, where it is needed; of a single table the folder that it is in.

        Raises:
            SettingsError: It is not set.
        """
        if self.root is None:
            raise SettingsError(
                "No data folder is set.",
                "mmsa init DIR sets it in an mmsa.toml; or give --data DIR.",
            )
        if self.hub_name is not None:
            raise SettingsError(
                f"The data set hf://datasets/{self.hub_name} is not on this machine.",
                f"Fetch it: mmsa extract --data hf://datasets/{self.hub_name}, or mmsa check with "
                "--online.",
            )
        return self.root.parent if self.root.is_file() else self.root

    @property
    def hub_name(self) -> str | None:
        """``NAME[@REVISION]`` of a data set of the hub; None where `root` is a path."""
        return hub_name(self.root)


def _layer(value: object) -> object:
    """``last``, ``average:K`` or a number from 0; flags and variables arrive as text."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if value == "last" or (isinstance(value, str) and re.fullmatch(r"average:[1-9]\d*", value)):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("write last, a layer's number from 0, or average:K")


def _variants(value: object) -> object:
    """``report``, ``none`` or a number from 1; flags and variables arrive as text."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number in ("report", "none"):
        return number
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MOST_COPIES:
        return number
    raise ValueError(f"write report, none, or a number of copies from 1 to {MOST_COPIES}")


def _share(value: object) -> object:
    """A share from 0 to 1; ``2%`` is one too."""
    if isinstance(value, str) and value.strip().endswith("%"):
        with contextlib.suppress(ValueError):
            return float(value.strip()[:-1]) / 100
    return value


def _layers(value: object) -> object:
    """Distinct numbers from 0; variables arrive as text."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if (
        isinstance(value, (list, tuple))
        and all(type(number) is int and number >= 0 for number in value)
        and len(set(value)) == len(value)
    ):
        return tuple(value)
    raise ValueError("write a list of distinct layer numbers from 0, as [1, 3, 4]")


def _layers_or_quarters(value: object) -> object:
    return value if value == QUARTERS else _layers(value)


Layer = Annotated[str | int, BeforeValidator(_layer)]
LayersOrQuarters = Annotated[
    tuple[int, ...] | Literal["quarters"], BeforeValidator(_layers_or_quarters)
]


class TextSettings(Section):
    """The frozen text encoder."""

    model: str = "bert-base-uncased"
    """Hub name, folder, ``all-MiniLM-L6-v2`` (an installed package), or a rule: ``vader``, a
    sentiment lexicon, or ``ngrams``; see `extract.encoders.lexicon` and `ngrams`."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """``random``: the folder's or hub's configuration with seeded random weights."""
    max_tokens: int = Field(default=128, ge=3, le=100_000)
    """Longer token sequences are truncated (a joint model: to its own limit at most)."""
    layer: Layer = "last"
    """``last``; a number, 0 being the embeddings; or ``average:K`` of the last K layers."""
    pool_layers: LayersOrQuarters = QUARTERS
    """Layers whose means over the real tokens are kept too, as the pools ``mean@N``;
    ``quarters``: those at a quarter, half and three quarters of the model's depth."""
    lexicon: Literal["auto", "vader", "none"] = Field(default="auto", exclude=True)
    """Whether ``mmsa extract`` makes the features of ``vader`` beside the default encoders';
    ``auto``: where most texts are English; ``none``: nor ``ngrams``. Not kept."""


Deviation = Annotated[FiniteFloat, Field(ge=1e-6)]


class ImageSettings(Section):
    """The frozen image encoder."""

    model: str = "swinv2_base_window8_256.ms_in1k"
    """timm name."""
    weights: str = "pretrained"
    """``pretrained`` (from the hub), a safetensors FILE, or ``random`` (seeded)."""
    kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    """Further arguments of ``timm.create_model``."""
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    """Channel means on a 0–1 scale; default: the model's own."""
    std: tuple[Deviation, Deviation, Deviation] | None = None
    """Channel deviations on a 0–1 scale; default: the model's own."""
    size: int | None = Field(default=None, ge=8, le=4096)
    """Side of the square input in pixels; default: the model's own."""
    fit: Literal["crop", "squash"] = "crop"
    """``crop``: the model's own resize and centre crop; ``squash``: the whole picture."""
    layer: Layer = "last"
    """``last``; a number, 0 being the first block or stage; or ``average:K`` of the last K."""
    pool_layers: LayersOrQuarters = QUARTERS
    """Layers whose means over the patches, and class tokens, are kept too, as the pools ``mean@N``
    and ``cls@N``; ``quarters``: those at a quarter, half and three quarters of the model's depth,
    none of a hierarchical model, whose stages differ."""


class JointSettings(Section):
    """A joint image-text model (CLIP, SigLIP, Chinese-CLIP, …) in place of both encoders."""

    model: str | None = None
    """Hub name or folder."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """``random``: the folder's or hub's configuration with seeded random weights."""


class EncoderSettings(Section):
    """Encoders of one name, beside those of ``[text]``, ``[image]`` and ``[joint]``.

    A study or a setting chooses among them by name.
    """

    text: TextSettings | None = None
    """As ``[text]``."""
    image: ImageSettings | None = None
    """As ``[image]``."""
    joint: JointSettings | None = None
    """As ``[joint]``: it gives both sides."""

    @model_validator(mode="after")
    def _gives_something(self) -> EncoderSettings:
        if self.joint is not None and self.joint.model is None:
            raise ValueError("joint: name its model")
        if self.text is not None and "lexicon" in self.text.model_fields_set:
            raise ValueError("text.lexicon: it stands in the section [text] without a name")
        if self.text is None and self.image is None and self.joint is None:
            raise ValueError("write a text, an image or a joint section in it")
        return self

    def has(self, modality: str) -> bool:
        """Whether there is an encoder of a modality."""
        return self.joint is not None or getattr(self, modality) is not None


class CacheSettings(Section):
    """Where features are kept."""

    dir: AnyPath = Path("cache")
    """Root folder of the caches."""
    shard_rows: int = Field(default=256, ge=1, le=1_000_000)
    """Rows a shard; also the unit of resuming."""


class ExtractSettings(Section):
    """How stage one runs."""

    variants: Annotated[str | int, BeforeValidator(_variants)] = "report"
    """Augmented copies of the training rows: ``report`` (its policy: classes below half of the
    rows), a number for every row, or ``none``."""
    batch_size: int | None = Field(default=None, ge=1, le=1_000_000)
    """Rows a forward pass; default: 32 on the CPU, 256 on a GPU."""
    tokens: Annotated[
        str, match_pattern("keep, none or pool:GxG", r"keep|none|pool:[1-9]\d{0,2}x[1-9]\d{0,2}")
    ] = "keep"
    """Positions kept: all, ``pool:GxG`` (patches averaged to a grid), or none but the pools."""
    compute: Literal["auto", "float32", "bfloat16", "float16", "half"] = "auto"
    """Precision of the forward pass: by autocast, or ``half``, all in float16. ``auto``: that of a
    cache which is there, else float32 on the CPU and float16 on a GPU."""
    compile: bool = Field(default=False, exclude=True)
    """Whether a GPU runs compiled blocks of the models: it takes minutes before the first batch.
    Of one machine, not kept."""
    on_bad: Literal["fail", "skip"] = "fail"
    """What is done with rows whose text or picture cannot be used: ``skip`` sets them aside."""
    max_bad: Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)] = 0.01
    """Largest share of a split's rows that may be set aside."""
