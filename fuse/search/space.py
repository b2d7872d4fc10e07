"""A study: fixed values, the space that is searched, and the protocol that scores a trial."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from graphlib import TopologicalSorter
from typing import Any

import optuna

from fuse.figures.records import Metric
from fuse.losses.acb import MARGINS, STATISTICS
from fuse.losses.losses import LOSSES
from fuse.models.attention_fusions import DIRECTIONS
from fuse.models.fusions import FUSIONS, NEEDS_EQUAL_DIMS, NEEDS_HEADS
from fuse.models.kernel import KERNEL
from fuse.models.modality import MODALITIES
from fuse.models.projection import NORMS, POOLINGS
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError

# Names that a value must be among, where a setting itself does not say so.
CHOICES: dict[str, tuple[Any, ...]] = {
    "fusion": (*FUSIONS, KERNEL),
    "loss": LOSSES,
    "statistics": STATISTICS,
    "margin": MARGINS,
    "modality": MODALITIES,
    "pooling": POOLINGS,
    "text_pooling": ("", *POOLINGS),
    "image_pooling": ("", *POOLINGS),
    "directions": DIRECTIONS,
    "norm": NORMS,
}

Conditions = Mapping[str, tuple[Any, ...]]

# A parameter that matters only for some values of others is asked for only then. A study's own
# `when` takes the place of the line here.
BUILT_IN: dict[str, Conditions] = {
    "text_encoder": {"modality": ("both", "text")},
    "image_encoder": {"modality": ("both", "image")},
    "image_dim": {"fusion": tuple(name for name in FUSIONS if name not in NEEDS_EQUAL_DIMS)},
    "heads": {"fusion": tuple(sorted(NEEDS_HEADS))},
    "layers": {"fusion": ("encoder",)},
    "ffn": {"fusion": ("encoder",)},
    "rank": {"fusion": ("lowrank",)},
    "landmarks": {"fusion": (KERNEL,)},
    "alpha": {"loss": ("acb",)},
    "beta": {"loss": ("acb",)},
    "statistics": {"loss": ("acb",)},
    "margin": {"loss": ("acb",)},
    "gamma": {"loss": ("focal",)},
    "tau": {"loss": ("logit_adjusted",)},
    "balance": {"loss": ("weighted_ce",)},
    "pairing": {"variants": (True,)},
    "warmup": {"schedule": ("cosine",)},
    "patience": {"keep": ("best",)},
    "prior": {"offsets": ("prior",)},
    "grid": {"level": ("tokens",)},
    "pooling": {"level": ("tokens",)},
    "text_pooling": {"level": ("tokens",)},
    "image_pooling": {"level": ("tokens",)},
}
TYPES: dict[str, Any] = typing.get_type_hints(Setting)
DEFAULTS: dict[str, Any] = asdict(Setting())


@dataclass(frozen=True, slots=True)
class Study:
    """A search as its file describes it."""

    name: str
    outer: str = "report"
    """Which rows are held back from the whole search, see `mmsa_cache.data.splits.outer_split`."""
    folds: int = 3
    """Inner folds that score a trial; duplicates stay together."""
    seeds: int = 1
    """Trainings a fold, each with a seed of its own."""
    metric: Metric = "macro_f1"
    sampler: dict[str, Any] = field(default_factory=dict)
    """``kind`` (tpe, random) and ``startup``: trials drawn at random first."""
    pruner: dict[str, Any] = field(default_factory=dict)
    """See `fuse.search.pruning.Rule`."""
    fixed: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    """By parameter: a list, ``low``/``high``/``log``/``step``, or ``values`` and ``when``."""

    def conditions(self, key: str) -> Conditions:
        """What other parameters must be for this one to be drawn."""
        choice = self.space[key]
        if isinstance(choice, dict) and "when" in choice:
            return {other: tuple(_listed(values)) for other, values in choice["when"].items()}
        return BUILT_IN.get(key, {})

    def order(self) -> list[str]:
        """Parameters with those that others depend on first, else by name.

        Raises:
            graphlib.CycleError: Conditions depend on each other.
        """
        graph = {
            key: sorted(set(self.conditions(key)) & self.space.keys()) for key in sorted(self.space)
        }
        return list(TopologicalSorter(graph).static_order())

    def suggest(self, trial: optuna.Trial) -> Setting:
        """Draws one setting."""
        values: dict[str, Any] = dict(self.fixed)
        for key in self.order():
            if self.matters(key, values):
                values[key] = _draw(trial, key, self.space[key])
        return self.complete(values)

    def matters(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether a parameter's conditions hold for these values of others."""
        return all(
            values.get(other, DEFAULTS.get(other)) in wanted
            for other, wanted in self.conditions(key).items()
        )

    def complete(self, values: Mapping[str, Any]) -> Setting:
        """The setting of some values; beta is 1 − alpha unless it is among them."""
        values = dict(values)
        if values.get("fusion", DEFAULTS["fusion"]) in NEEDS_EQUAL_DIMS:
            values["image_dim"] = values.get("text_dim", DEFAULTS["text_dim"])
        if "alpha" in values and "beta" not in values:
            values["beta"] = 1.0 - values["alpha"]
        return Setting(**{**values, "metric": self.metric})

    def encoder_pairs(self) -> list[tuple[str, str]]:
        """Every text encoder with every image encoder that a setting may name."""
        texts, images = (
            candidates(self.space.get(key, [self.fixed.get(key, DEFAULTS[key])]))
            for key in ("text_encoder", "image_encoder")
        )
        return [(text, image) for text in texts for image in images]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the database keeps them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> Study:
        """Takes a study out of a record that may hold more."""
        return cls(**{f.name: known[f.name] for f in fields(cls) if f.name in known})


def _draw(trial: optuna.Trial, key: str, choice: Any) -> Any:
    if isinstance(choice, list):
        return trial.suggest_categorical(key, choice)
    if "values" in choice:
        return trial.suggest_categorical(key, choice["values"])
    low, high, log = choice["low"], choice["high"], choice.get("log", False)
    if TYPES[key] is int:
        return trial.suggest_int(key, low, high, log=log, step=choice.get("step", 1))
    return trial.suggest_float(key, low, high, log=log, step=choice.get("step"))


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def candidates(choice: Any) -> list[Any]:
    """The values that a parameter's entry names: its list, or the ends of its range."""
    if isinstance(choice, list):
        return choice
    return choice["values"] if "values" in choice else [choice["low"], choice["high"]]


def value_problem(key: str, value: Any) -> str | None:
    """What is wrong with a value of a setting's field, if anything."""
    if not _fits(value, TYPES[key]):
        return f"{value!r} is {type(value).__name__}, {_type_name(TYPES[key])} is expected"
    if key in CHOICES and value not in CHOICES[key]:
        return f"{value!r}, valid: {', '.join(map(str, CHOICES[key]))}"
    try:
        Setting(**{key: value})
    except SettingsError as error:
        own = [p.removeprefix(f"{key}: ") for p in error.problems if p.startswith(f"{key}: ")]
        return own[0] if own else error.message
    return None


def restored(values: Mapping[str, Any]) -> Setting:
    """A setting from stored values, each checked as in a study file.

    Raises:
        ValueError: Names what does not fit this version's settings.
    """
    problems = [f"{key}: unknown" for key in values if key not in TYPES]
    for key in values.keys() & TYPES.keys():
        problem = value_problem(key, values[key])
        problems += [f"{key}: {problem}"] if problem else []
    if problems:
        raise ValueError("; ".join(sorted(problems)))
    return Setting(**values)


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind in (int, float):  # True is an int to Python, not to a study
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def _type_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(kind)))}"
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        parts: Iterable[Any] = typing.get_args(kind)
        return " or ".join(_type_name(part) for part in parts if part is not type(None))
    return names.get(kind, str(kind))
