"""A study: fixed values, the space that is searched, and the protocol that scores a trial."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from itertools import product
from typing import Annotated, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BeforeValidator, Field

from fuse.figures.records import Metric
from fuse.figures.study import Value
from fuse.models.fusions import FUSIONS, NEEDS_EQUAL_DIMS, NEEDS_HEADS
from fuse.models.kernel import KERNEL
from fuse.pools import StorePools, derived_names, resolve_value
from fuse.setting import DEFAULTS, Setting, complete
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.features.source import DerivedName
from mmsa_cache.names import MODALITIES, NGRAMS, EncoderPair, encoders_of, split_terms
from mmsa_cache.validation import Table

from .pruning import PruningRule

Values = Mapping[str, Value]
"""Of a setting's fields, by name."""
Conditions = dict[
    str,
    Annotated[list[Value], BeforeValidator(lambda v: v if isinstance(v, list | tuple) else [v])],
]
"""Values that other parameters must have."""

# Conditions under which a parameter has an effect; it is drawn only then. A study's own `when`
# replaces the line here.
BUILT_IN: dict[str, Conditions] = {
    "text_encoder": {"modality": ["both", "text"]},
    "image_encoder": {"modality": ["both", "image"]},
    "image_dim": {"fusion": [name for name in FUSIONS if name not in NEEDS_EQUAL_DIMS]},
    "heads": {"fusion": [*sorted(NEEDS_HEADS)]},
    "layers": {"fusion": ["encoder"]},
    "ffn": {"fusion": ["encoder"]},
    "modality_embeddings": {"fusion": ["encoder"]},
    "rank": {"fusion": ["lowrank"]},
    "kernel": {"fusion": [KERNEL]},
    "image_weight": {"fusion": [KERNEL]},
    "other_weight": {"fusion": [KERNEL]},
    "bandwidth": {"fusion": [KERNEL], "kernel": ["rbf"]},
    "landmarks": {"fusion": [KERNEL], "kernel": ["rbf"]},
    "ridge": {"optimiser": ["lbfgs"]},
    "alpha": {"loss": ["acb"]},
    "beta": {"loss": ["acb"]},
    "statistics": {"loss": ["acb"]},
    "margin": {"loss": ["acb"]},
    "gamma": {"loss": ["focal"]},
    "tau": {"loss": ["logit_adjusted"]},
    "balance": {"loss": ["weighted_ce"]},
    "copies": {"variants": [True]},
    "pairing": {"variants": [True]},
    "warmup": {"schedule": ["cosine"]},
    "patience": {"keep": ["best"]},
    "prior": {"offsets": ["prior"]},
    "grid": {"level": ["tokens"]},
    "pooling": {"level": ["tokens"]},
    "text_pooling": {"level": ["tokens"]},
    "image_pooling": {"level": ["tokens"]},
}
_Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]


class ListChoice(Table):
    """A parameter that takes one of some values."""

    values: list[Value] = Field(min_length=1)
    when: Conditions = Field(default_factory=dict)

    def candidates(self) -> list[Value]:
        """Its values."""
        return self.values

    def distribution(self, key: str) -> BaseDistribution:
        """What Optuna draws from."""
        return CategoricalDistribution(self.values)

    def resolved(self, key: str, store_pools: StorePools) -> ListChoice:
        """Resolves the choice for a store, see `StudyConfig.resolved`."""
        values = dict.fromkeys(resolve_value(key, value, store_pools) for value in self.values)
        return self.model_copy(update={"values": [*values]})


class RangeChoice(Table):
    """A parameter that takes a number between two."""

    low: _Number
    high: _Number
    log: bool = Field(default=False, strict=True)
    step: _Number | None = None
    when: Conditions = Field(default_factory=dict)

    def candidates(self) -> list[Value]:
        """The ends of the range."""
        return [self.low, self.high]

    def distribution(self, key: str) -> BaseDistribution:
        """What Optuna draws from: integers for an integer field."""
        if isinstance(DEFAULTS[key], int):
            step = 1 if self.step is None else int(self.step)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def resolved(self, key: str, store_pools: StorePools) -> RangeChoice:
        """Returns itself: pools have no ranges."""
        return self


Choice = Annotated[
    ListChoice | RangeChoice,
    BeforeValidator(lambda choice: {"values": choice} if isinstance(choice, list) else choice),
]
"""A parameter's entry in a space: a list, ``{values, when}`` or ``{low, high, log, step, when}``"""


def _suggest(trial: optuna.Trial, key: str, distribution: BaseDistribution) -> Value:
    if isinstance(distribution, CategoricalDistribution):
        value: Value = trial.suggest_categorical(key, distribution.choices)
        return value
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, log = distribution.low, distribution.high, distribution.log
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, int(low), int(high), step=distribution.step, log=log)
    return trial.suggest_float(key, low, high, step=distribution.step, log=log)


class Sampler(Table):
    """What draws the next trial."""

    kind: Literal["tpe", "random"] = "tpe"
    startup: int = Field(default=20, ge=1, strict=True)
    """Trials drawn at random first."""


class StudyConfig(Table):
    """A study as its file describes it."""

    name: str
    protocol: Protocol = Protocol(folds=3)
    """Its folds score trials, its outer rows judge the selected one."""
    metric: Metric = "macro_f1"
    sampler: Sampler = Sampler()
    pruner: PruningRule = PruningRule()
    fixed: dict[str, Value] = Field(default_factory=dict)
    """Values by parameter. One that is in the space too is used if its conditions do not hold."""
    space: dict[str, Choice] = Field(default_factory=dict)
    queue: list[dict[str, Value]] = Field(default_factory=list)
    """Values of settings that are tried first, in this order, and never pruned. Other values are
    fixed ones or defaults."""

    def conditions(self, key: str) -> Conditions:
        """Values that other parameters must have for this one to be drawn."""
        return self.space[key].when or BUILT_IN.get(key, {})

    def order(self) -> list[str]:
        """Parameters of the space by name, but after those on which they depend.

        Raises:
            graphlib.CycleError: Conditions depend on each other.
        """
        graph = {
            key: sorted(set(self.conditions(key)) & self.space.keys()) for key in sorted(self.space)
        }
        return list(TopologicalSorter(graph).static_order())

    def suggest(self, trial: optuna.Trial) -> Setting:
        """Draws one setting."""
        values = dict(self.fixed)
        for key in self.order():
            if self.is_active(key, values):
                values[key] = _suggest(trial, key, self.space[key].distribution(key))
        return self.complete(values)

    def is_active(self, key: str, values: Values) -> bool:
        """Whether a parameter's conditions hold for these values of others."""
        return all(
            values.get(other, DEFAULTS.get(other)) in allowed
            for other, allowed in self.conditions(key).items()
        )

    def complete(self, values: Values) -> Setting:
        """Completes values to a setting, see `fuse.setting.complete`."""
        return complete({**values, "metric": self.metric})

    def with_outer(self, outer: str) -> StudyConfig:
        """The same study with other outer rows, under a name of its own.

        Args:
            outer: E.g. ``val``, or a part of a cross-validation, ``stratified-5/2``.
        """
        kind, _, part = outer.partition("/")
        protocol = self.protocol.model_copy(update={"outer": outer})
        name = f"{self.name}@{part}-of-{kind}" if part else f"{self.name}@{kind}"
        return self.model_copy(update={"name": name, "protocol": protocol})

    def queued_settings(self) -> list[Setting]:
        """The settings of the queue."""
        return [self.complete({**self.fixed, **values}) for values in self.queue]

    def candidates(self, key: str) -> list[Value]:
        """Values that a field can have; the ends of a range."""
        values = self.space[key].candidates() if key in self.space else []
        if key in self.fixed or not values:
            values = [*values, self.fixed.get(key, DEFAULTS[key])]
        return [*values, *(entry[key] for entry in self.queue if key in entry)]

    def baseline_setting(self) -> Setting:
        """A setting that reads every pooled vector that a setting of the study may read.

        N-grams are left out: in a model that weighs all columns equally their thousands of columns
        would outweigh the others.
        """
        values: dict[str, Value] = {"level": "pooled"}
        for modality in MODALITIES:
            encoders = [str(name) for name in self.candidates(f"{modality}_encoder")]
            terms = [t for v in self.candidates(f"{modality}_pool") for t in split_terms(str(v))]
            terms = [term for term in terms if not term.startswith(f"{NGRAMS}.")]
            others = [
                f"{name}.{term}" for name in encoders[1:] for term in terms if "." not in term
            ]
            values[f"{modality}_encoder"] = encoders[0]
            values[f"{modality}_pool"] = "+".join(dict.fromkeys([*terms, *others]))
        modalities = self.candidates("modality")
        return self.complete(values | ({"modality": modalities[0]} if len(modalities) == 1 else {}))

    def encoder_pairs(self) -> list[EncoderPair]:
        """All pairs of a text and an image encoder that a setting may read."""
        texts, images = (
            {
                encoders_of(str(encoder), str(pools)): None
                for encoder in self.candidates(f"{modality}_encoder")
                for pools in self.candidates(f"{modality}_pool")
            }
            for modality in MODALITIES
        )
        return [*product(texts, images)]

    def resolved(self, store_pools: StorePools) -> StudyConfig:
        """Resolves the study's pools for a store, see `fuse.setting.Setting.resolved`.

        Raises:
            SettingsError: No pool of a value is left.
        """
        fixed, *queue = (
            {key: resolve_value(key, value, store_pools) for key, value in values.items()}
            for values in (self.fixed, *self.queue)
        )
        space = {key: choice.resolved(key, store_pools) for key, choice in self.space.items()}
        return self.model_copy(update={"fixed": fixed, "space": space, "queue": queue})

    def derived_names(self) -> list[DerivedName]:
        """Derived features that a setting may read, see `fuse.pools.derived_names`."""
        return [
            name
            for modality in MODALITIES
            for name in derived_names(
                modality,
                map(str, self.candidates(f"{modality}_encoder")),
                map(str, self.candidates(f"{modality}_pool")),
                [int(side or 0) for side in self.candidates("grid")],
            )
        ]
