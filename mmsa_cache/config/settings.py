"""Settings of one command: flag > ``MMSA_*`` variable > ``mmsa.toml`` > default.

All mistakes in all places are collected and reported together.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from mmsa_cache.disk import read_plain
from mmsa_cache.errors import SettingsError
from mmsa_cache.store.schema import DEFAULT_ENCODER

CONFIG_NAME = "mmsa.toml"
ALL = "all"
"""Stands for every encoder, the default ones included."""
ENV_PREFIX = "MMSA_"
_MAX_BYTES = 1 << 20


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _classes(value: object) -> object:
    """Two or more distinct names that a ``guid,tag`` file can hold; ``a,b,c`` is a list too."""
    names = value.split(",") if isinstance(value, str) else value
    if names is None:
        return None
    if (
        isinstance(names, (list, tuple))
        and all(isinstance(name, str) for name in names)
        and all(name.strip() == name and name not in ("", "null") for name in names)
        and not any(set(name) & set(",\n\r\t") for name in names)
        and len(set(names)) == len(names) >= 2
    ):
        return tuple(names)
    raise ValueError("write a list of two or more distinct names without commas; null is none")


class DataSettings(_Section):
    """Where the pairs are and how their texts are read."""

    root: Path | None = None
    """Folder with the label files; pairs in it, in ``pairs/`` or in ``data/``."""
    encoding: str = "utf-8"
    """Codec of the text files."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """What happens to bytes that are not valid in ``encoding``."""
    max_chars: int | None = Field(default=None, ge=1)
    """Texts are cut to so many characters (the report: 128)."""
    allow_empty_text: bool = False
    """Whether a row may have a picture only."""
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_classes)] = None
    """Class names in the order of their codes. Default: the three sentiments; of a table that has
    none of them among its labels, its labels in alphabetical order."""
    note: str | None = None
    """Shown wherever figures from this data are ("synthetic data")."""


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
    if isinstance(number, int) and not isinstance(number, bool) and number >= 1:
        return number
    raise ValueError("write report, none, or a number of copies from 1")


def _share(value: object) -> object:
    """A share from 0 to 1; ``2%`` is one too."""
    if isinstance(value, str) and value.strip().endswith("%"):
        with contextlib.suppress(ValueError):
            return float(value.strip()[:-1]) / 100
    return value


def _layers(value: object) -> object:
    """Distinct numbers from 0."""
    if (
        isinstance(value, (list, tuple))
        and all(type(number) is int and number >= 0 for number in value)
        and len(set(value)) == len(value)
    ):
        return tuple(value)
    raise ValueError("write a list of distinct layer numbers from 0, as [1, 3, 4]")


Layer = Annotated[str | int, BeforeValidator(_layer)]
Layers = Annotated[tuple[int, ...], BeforeValidator(_layers)]


class TextSettings(_Section):
    """The frozen text encoder."""

    model: str = "bert-base-uncased"
    """Hub name, folder, or ``all-MiniLM-L6-v2`` (an installed package)."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """``random``: the folder's or hub's configuration with seeded random weights."""
    max_tokens: int = Field(default=128, ge=3)
    """Longer token sequences are truncated (a joint model: to its own limit at most)."""
    layer: Layer = "last"
    """``last``; a number, 0 being the embeddings; or ``average:K`` of the last K layers."""
    pool_layers: Layers = ()
    """Layers whose means over the real tokens are kept too, as the pools ``mean@N``."""


class ImageSettings(_Section):
    """The frozen image encoder."""

    model: str = "swinv2_base_window8_256.ms_in1k"
    """timm name."""
    weights: str = "pretrained"
    """``pretrained`` (from the hub), a safetensors FILE, or ``random`` (seeded)."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of ``timm.create_model``."""
    mean: tuple[float, float, float] | None = None
    """Channel means on a 0–1 scale; default: the model's own."""
    std: tuple[float, float, float] | None = None
    """Channel deviations on a 0–1 scale; default: the model's own."""
    size: int | None = Field(default=None, ge=8)
    """Side of the square input in pixels; default: the model's own."""
    fit: Literal["crop", "squash"] = "crop"
    """``crop``: the model's own resize and centre crop; ``squash``: the whole picture."""
    layer: Layer = "last"
    """``last``; a number, 0 being the first block or stage; or ``average:K`` of the last K."""
    pool_layers: Layers = ()
    """Layers whose means over the patches are kept too, as the pools ``mean@N``."""


class JointSettings(_Section):
    """A joint image-text model (CLIP, SigLIP, Chinese-CLIP, …) in place of both encoders."""

    model: str | None = None
    """Hub name or folder."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """``random``: the folder's or hub's configuration with seeded random weights."""


class EncoderSettings(_Section):
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
        if self.text is None and self.image is None and self.joint is None:
            raise ValueError("write a text, an image or a joint section in it")
        return self

    def has(self, modality: str) -> bool:
        """Whether there is an encoder of a modality."""
        return self.joint is not None or getattr(self, modality) is not None


def _encoder_name(name: str) -> str:
    if name in (DEFAULT_ENCODER, ALL) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"write a plain name other than {DEFAULT_ENCODER} and {ALL}")
    return name


class CacheSettings(_Section):
    """Where features are kept."""

    dir: Path = Path("cache")
    """Root folder of the caches."""
    shard_rows: int = Field(default=256, ge=1)
    """Rows a shard; also the unit of resuming."""


class ExtractSettings(_Section):
    """How stage one runs."""

    variants: Annotated[str | int, BeforeValidator(_variants)] = "report"
    """Augmented copies of the training rows: ``report`` (its policy: classes below half of the
    rows), a number for every row, or ``none``."""
    batch_size: int = Field(default=32, ge=1)
    """Rows a forward pass."""
    tokens: str = Field(default="keep", pattern=r"^(keep|none|pool:[1-9]\d*x[1-9]\d*)$")
    """Positions kept: all, ``pool:GxG`` (patches averaged to a grid), or none but the pools."""
    compute: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the forward pass (autocast). ``auto``: that of a cache which is there, else
    float32 on the CPU and float16 on a GPU."""
    on_bad: Literal["fail", "skip"] = "fail"
    """What is done with rows whose text or picture cannot be used: ``skip`` sets them aside."""
    max_bad: Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)] = 0.01
    """Largest share of a split's rows that may be set aside."""


class Settings(_Section):
    """Everything a command may be told."""

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
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where models run: ``auto`` takes CUDA when there is one."""
    seed: int = Field(default=47, ge=0)
    """Seed of augmentation, random weights, splits, search and training."""

    def encoder_names(self, modality: str) -> tuple[str, ...]:
        """Names of a modality's encoders, the default one first."""
        return DEFAULT_ENCODER, *(n for n, found in self.encoders.items() if found.has(modality))

    def with_encoder(self, modality: str, name: str) -> Settings:
        """These settings with a named encoder in the place of a modality's default one.

        What they then say of the other modality counts for nothing.

        Raises:
            SettingsError: There is no such encoder.
        """
        if name == DEFAULT_ENCODER:
            return self
        if name not in self.encoder_names(modality):
            raise SettingsError(
                f"{CONFIG_NAME} has no {modality} encoder {name!r}.",
                f"Known: {', '.join(self.encoder_names(modality))}; others are described under "
                f"[encoders.{name}.{modality}].",
            )
        found = self.encoders[name]
        own = getattr(found, modality) or type(getattr(self, modality))()
        return self.model_copy(update={modality: own, "joint": found.joint or JointSettings()})

    def with_pair(self, text: str, image: str) -> Settings:
        """These settings with two named encoders as the default ones, and no others.

        Raises:
            SettingsError: There is no such encoder, or one side only is of a joint model.
        """
        one, two = self.with_encoder("text", text), self.with_encoder("image", image)
        if one.joint != two.joint:
            raise SettingsError(
                f"The encoders {text!r} and {image!r} cannot be the default ones together: "
                "a joint model gives both sides."
            )
        parts = {"text": one.text, "image": two.image, "joint": one.joint, "encoders": {}}
        return self.model_copy(update=parts)


# Every path a file may set, so that it can be taken relative to that file; the second kind may be
# a name as well.
_PATHS = (("data", "root"), ("cache", "dir"))
_PATHS_IF_THERE = (("text", "model"), ("image", "weights"), ("joint", "model"))


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Collects the settings from all places.

    Args:
        flags: ``"section.key"`` (or ``"key"``) → value; ``None`` values count as not given.
        folder: Where ``mmsa.toml`` is looked for; default: the working folder.
        environ: Environment variables; default: the process's.

    Raises:
        SettingsError: With every unknown key and bad value at once.
    """
    folder = folder or Path.cwd()
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    merged: dict[str, Any] = {}
    origin: dict[tuple[str, ...], str] = {}

    def put(path: tuple[str, ...], value: Any, source: str) -> None:
        target = merged
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = value
        origin[path] = source

    for path, value in _from_file(folder / CONFIG_NAME, problems):
        put(path, value, CONFIG_NAME)
    for path, value, name in _from_environment(environ, problems):
        put(path, value, name)
    for key, value in (flags or {}).items():
        if value is not None:
            put(tuple(key.split(".")), value, "flag")

    settings = Settings()
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        for item in error.errors():
            where = tuple(str(part) for part in item["loc"])
            source = next(
                (origin[where[:n]] for n in range(len(where), 0, -1) if where[:n] in origin),
                CONFIG_NAME,
            )
            problems.append(f"{source}: {'.'.join(where)}: {_explain(item, where)}")
    if problems:
        raise SettingsError(
            f"{len(problems)} setting(s) cannot be used.",
            "Correct all of them; the README's section 'The config file' lists every key.",
            problems,
        )
    return settings


def _explain(item: Any, where: tuple[str, ...]) -> str:
    if item["type"] != "extra_forbidden":
        return f"{item['msg']} (received {item['input']!r})"
    if where[0] == "encoders":  # encoders.NAME, then a section as those without a name
        section = {"text": TextSettings, "image": ImageSettings, "joint": JointSettings}
        model: Any = section[where[2]] if len(where) > 3 else EncoderSettings
    else:
        model = Settings
        for part in where[:-1]:
            model = model.model_fields[part].annotation
    return f"unknown key; known: {', '.join(sorted(model.model_fields))}"


def _from_file(path: Path, problems: list[str]) -> list[tuple[tuple[str, ...], Any]]:
    if not path.is_file():
        return []
    try:
        table = read_toml(path)
    except (OSError, ValueError) as error:
        problems.append(f"{CONFIG_NAME}: not valid TOML: {error}")
        return []
    found: list[tuple[tuple[str, ...], Any]] = []
    for section, content in table.items():
        if not isinstance(content, dict):
            found.append(((section,), content))
            continue
        for key, value in content.items():
            if (section, key) in _PATHS and isinstance(value, str):
                value = path.parent / _from_home(value)
            elif (section, key) in _PATHS_IF_THERE:
                value = _path_if_there(path.parent, value)
            elif section == "encoders" and isinstance(value, dict):
                value = {part: _own_paths(path.parent, part, own) for part, own in value.items()}
            found.append(((section, key), value))
    return found


def _own_paths(folder: Path, section: str, content: Any) -> Any:
    """The same for a section of a named encoder."""
    if not isinstance(content, dict):
        return content
    return {
        key: _path_if_there(folder, value) if (section, key) in _PATHS_IF_THERE else value
        for key, value in content.items()
    }


def _path_if_there(folder: Path, value: Any) -> Any:
    """A name stays a name; what exists relative to the file becomes that path."""
    if isinstance(value, str) and os.path.exists(folder / _from_home(value)):  # noqa: PTH110
        return str(folder / _from_home(value))  # (Path.exists raises for names that are too long)
    return value


def _from_home(path: str) -> Path:
    with contextlib.suppress(RuntimeError):  # ~NAME of a user there is not
        return Path(path).expanduser()
    return Path(path)


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no TOML, or too large or too deep for anything that a person wrote.
    """
    try:
        return tomllib.loads(read_plain(path, _MAX_BYTES).decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _from_environment(
    environ: Mapping[str, str], problems: list[str]
) -> list[tuple[tuple[str, ...], Any, str]]:
    known: dict[str, tuple[str, ...]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            for key in field.annotation.model_fields:
                known[f"{ENV_PREFIX}{name}_{key}".upper()] = (name, key)
        elif name != "encoders":
            known[f"{ENV_PREFIX}{name}".upper()] = (name,)
    found: list[tuple[tuple[str, ...], Any, str]] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX):
            continue
        if name not in known:
            problems.append(f"{name}: unknown variable; known: {', '.join(sorted(known))}")
            continue
        value: Any = text
        if name.endswith(("_KWARGS", "_MEAN", "_STD", "_POOL_LAYERS")):
            try:
                value = tomllib.loads(f"value = {text}")["value"]
            except (ValueError, RecursionError):
                problems.append(f"{name}: write the value as in TOML, received {text!r}")
                continue
        found.append((known[name], value, name))
    return found
