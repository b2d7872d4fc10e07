"""One point of the search space, flat: everything that makes a model but the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fuse.figures.records import METRICS, Metric
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER

_CHOICES: dict[str, tuple[str, ...]] = {
    "level": ("pooled", "tokens"),
    "optimiser": ("adam", "adamw"),
    "schedule": ("plateau", "onecycle", "cosine", "constant"),
    "metric": METRICS,
    "keep": ("best", "last"),
    "pairing": ("same", "free"),
    "precision": ("fast", "float32"),
    "offsets": ("fitted", "prior", "none"),
}
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "learning_rate": (lambda v: v > 0, "a number above 0"),
    "weight_decay": (lambda v: v >= 0, "a number from 0"),
    "warmup": (lambda v: 0 <= v < 1, "a share of the steps, from 0 and below 1"),
    "clip": (lambda v: v >= 0, "a norm from 0 (0 = off)"),
    "ema": (lambda v: 0 <= v < 1, "a decay from 0 (0 = off) and below 1"),
    "batch_size": (lambda v: v >= 2, "at least 2 rows (batch normalisation needs two)"),
    "epochs": (lambda v: v >= 1, "at least 1"),
    "patience": (lambda v: v >= 1, "at least 1"),
    "landmarks": (lambda v: v >= 1, "at least 1"),
    "prior": (lambda v: v >= 0, "a number from 0"),
    "grid": (lambda v: v >= 0, "a number of cells from 0 (0 = all patches)"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that makes a model but the data.

    The defaults are the report's, except that the inputs are standardised.
    """

    fusion: str = "concat"
    """A name of `fusions.FUSIONS`, not used with one modality; or ``kernel``, see `kernel`."""
    modality: str = "both"
    """``both``, ``text`` or ``image``."""
    level: str = "pooled"
    """``pooled``: one vector a modality, as in the report; ``tokens``: sequences."""
    text_encoder: str = DEFAULT_ENCODER
    """Whose cached text features are read: a name of ``[encoders]``, or ``default``."""
    image_encoder: str = DEFAULT_ENCODER
    """The same of the image."""
    text_pool: str = "mean"
    """Which cached vector of the text is read at the pooled level, or beside; several joined by
    ``+`` are concatenated at the pooled level, and have a projection each beside."""
    image_pool: str = "mean"
    """The same of the image."""
    pooling: str = "mean"
    """How sequences become one vector: ``mean``, ``first`` or ``attention``."""
    text_pooling: str = ""
    """The same for text only; empty: as ``pooling``."""
    image_pooling: str = ""
    """The same for images only; empty: as ``pooling``."""
    directions: str = "text"
    """``text``: text tokens query patches; ``both``: patches query text tokens as well."""
    text_dim: int = 256
    """Features of a projected text token."""
    image_dim: int = 256
    """Features of a projected patch."""
    dropout: float = 0.25
    """Probability in fusion and head."""
    input_dropout: float = 0.0
    """Probability with which an input feature is zeroed."""
    shared_input_dropout: bool = False
    """One mask a row for all its positions: cheaper on sequences."""
    modality_dropout: float = 0.0
    """Probability with which a training row loses one of its two modalities."""
    norm: str = "standardise"
    """``standardise`` (figures of the training rows), ``layer`` or ``none``."""
    heads: int = 8
    """Attention heads."""
    layers: int = 6
    """Layers of the ``encoder`` fusion."""
    ffn: int = 2048
    """Feed-forward units of the ``encoder`` fusion."""
    rank: int = 4
    """Rank of the ``lowrank`` fusion."""
    landmarks: int = 1500
    """Training rows that the ``kernel`` model compares a row with."""
    head: str = "1024-256"
    """Hidden sizes of the classifier; empty: a linear one."""
    beside: bool = False
    """Whether the cached pooled vectors go to the classifier too, beside the fused one."""
    grid: int = 0
    """Cells along each side that patches are averaged to; 0: all patches."""
    loss: str = "acb"
    """A name of `losses.LOSSES`."""
    alpha: float = 0.25
    """ACB: weight of the focal part."""
    beta: float = 0.75
    """ACB: weight of the margin part."""
    statistics: str = "running"
    """ACB: over which samples the difficulty of a class is taken."""
    margin: str = "batch"
    """ACB: ``batch`` or ``sample``."""
    gamma: float = 2.0
    """Focal loss: exponent."""
    label_smoothing: float = 0.0
    """Cross-entropies: share of the target spread over all classes."""
    tau: float = 1.0
    """Logit adjustment: weight of the log priors."""
    balance: float = 1.0
    """Weighted cross-entropy: exponent of the balanced class weights (0: none)."""
    variants: bool = True
    """Whether augmented copies of training rows take part."""
    pairing: str = "same"
    """``same``: text variant i with image variant i; ``free``: drawn apart in every epoch."""
    optimiser: str = "adam"
    """``adam`` or ``adamw``."""
    learning_rate: float = 1e-4
    """Highest one of the schedule."""
    weight_decay: float = 1e-4
    """L2 in ``adam``, decoupled in ``adamw``."""
    schedule: str = "plateau"
    """``plateau``, ``onecycle``, ``cosine`` (after a linear warm-up) or ``constant``."""
    warmup: float = 0.1
    """Share of all steps in which ``cosine`` rises."""
    clip: float = 0.0
    """Largest Euclidean norm of a step's gradient; 0: not clipped."""
    ema: float = 0.0
    """Decay a step of the averaged weights that are scored and kept; 0: the weights themselves."""
    precision: str = "fast"
    """``fast``: matrix products may round their factors, to TF32 on a GPU and, at the pooled level,
    to bf16 on a CPU with units for it; sums stay in float32."""
    batch_size: int = 32
    epochs: int = 30
    patience: int = 3
    """Epochs without a better value after which training ends (``keep = "best"``)."""
    offsets: str = "fitted"
    """Of the classes' log-probabilities: ``fitted`` on held-out rows where the metric is macro-F1,
    ``prior`` (minus ``prior`` times the log shares of the training rows) or ``none``."""
    prior: float = 0.1
    """Weight of the log shares in ``offsets = "prior"``."""
    metric: Metric = "macro_f1"
    """Of the validation rows; decides which epoch is the best, and steps ``plateau``."""
    keep: str = "best"
    """``best`` or ``last`` epoch's weights."""

    def __post_init__(self) -> None:
        problems = [
            f"{key}: unknown value {getattr(self, key)!r}, valid: {', '.join(valid)}"
            for key, valid in _CHOICES.items()
            if getattr(self, key) not in valid
        ]
        for key, (holds, expected) in _RANGES.items():
            value = getattr(self, key)
            if not (math.isfinite(value) and holds(value)):
                problems.append(f"{key}: {value!r}, expected {expected}")
        try:
            self.head_dims()
        except ValueError:
            problems.append(f"head: {self.head!r}, expected sizes as in '1024-256', or nothing")
        if problems:
            raise SettingsError("This setting cannot be trained.", "Correct it.", problems)

    @property
    def encoders(self) -> tuple[str, str]:
        """Names of the text and of the image encoder."""
        return self.text_encoder, self.image_encoder

    def head_dims(self) -> tuple[int, ...]:
        """Hidden sizes of the classifier."""
        sizes = tuple(int(part) for part in self.head.split("-")) if self.head else ()
        if min(sizes, default=1) < 1:
            raise ValueError(self.head)
        return sizes


def parse(assignments: list[str]) -> dict[str, Any]:
    """``["fusion=concat", "text_dim=128"]`` → values of the fields' types.

    Raises:
        SettingsError: Names every assignment that is not of a field, or not of its type.
    """
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(Setting)}
    values: dict[str, Any] = {}
    problems = []
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        kind = kinds.get(key)
        try:
            if kind is None:
                problems.append(f"{key}: unknown; known: {', '.join(sorted(kinds))}")
            elif kind is bool:
                values[key] = {"true": True, "false": False}[text.lower()]
            else:
                values[key] = kind(text)
        except (ValueError, KeyError):
            assert kind is not None
            problems.append(f"{key}: {text!r} is no {kind.__name__}")
    if problems:
        raise SettingsError("These settings cannot be used.", "Write --set key=value.", problems)
    return values


def restore(values: Mapping[str, Any]) -> Setting:
    """A stored setting; fields that came later keep their defaults.

    Raises:
        SettingsError: It has fields that this version lacks.
    """
    odd = sorted(values.keys() - {field.name for field in fields(Setting)})
    if odd:
        raise SettingsError(
            f"The stored setting has fields that this version of mmsa lacks: {', '.join(odd)}.",
            "Search or train it again.",
        )
    return Setting(**values)
