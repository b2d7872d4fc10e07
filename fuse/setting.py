"""Settings: flat points of the search space, which say all of a model but the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fuse.fields import (
    BelowOne,
    Few,
    Fraction,
    Fusion,
    Level,
    LossName,
    NotNegative,
    Pools,
    Positive,
    Size,
    Sizes,
)
from fuse.figures.records import Metric
from fuse.figures.study import Value
from fuse.losses.acb import Margin, Statistics
from fuse.models.attention_fusions import Directions
from fuse.models.fusions import NEEDS_EQUAL_DIMS
from fuse.models.kernel import KERNEL, Kernel
from fuse.models.modality import Modality
from fuse.models.projection import Norm, Pooling
from fuse.pools import POOLS, StorePools, resolve_value
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, EncoderPair, encoders_of
from mmsa_cache.validation import describe_error


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that determines a model but the data.

    The defaults of losses, sizes, dropout, optimiser and schedule are those of the report's
    `concat`. Unlike the report, inputs are standardised, the mean of the tokens is used instead of
    the first one, and training stops on macro-F1; for its way see `fuse.evidence.report_figures`.
    `complete` derives values that follow from others.

    Raises:
        SettingsError: Names each value that has another type than its field or is out of range.
    """

    fusion: Fusion = "concat"
    """A name of `fusions.FUSIONS`, not used with one modality; or ``kernel``, see `kernel`."""
    modality: Modality = "both"
    """``both``, ``text`` or ``image``."""
    level: Level = "pooled"
    """``pooled``: one vector a modality, as in the report; ``tokens``: sequences."""
    text_encoder: str = DEFAULT_ENCODER
    """Encoder of the text features: a name of ``[encoders]``, or ``default``."""
    image_encoder: str = DEFAULT_ENCODER
    """The same of the image."""
    text_pool: Pools = "mean"
    """Cached vectors of the text, joined by ``+``. At the pooled level they are concatenated; those
    beside the fused vector have a projection each. ``ENCODER.POOL`` is of another encoder."""
    image_pool: Pools = "mean"
    """The same of the image."""
    pooling: Pooling = "mean"
    """How sequences become one vector: ``mean``, ``first`` or ``attention``."""
    text_pooling: Literal["", Pooling] = ""
    """The same for text only; empty: as ``pooling``."""
    image_pooling: Literal["", Pooling] = ""
    """The same for images only; empty: as ``pooling``."""
    directions: Directions = "text"
    """``text``: text tokens query patches; ``both``: patches query text tokens as well."""
    text_dim: Size = 256
    """Features of a projected text token."""
    image_dim: Size = 256
    """Features of a projected patch; see `complete`."""
    dropout: BelowOne = 0.25
    """Probability in fusion and head."""
    input_dropout: BelowOne = 0.0
    """Probability with which an input feature is zeroed."""
    shared_input_dropout: bool = False
    """One mask a row for all its positions: cheaper on sequences."""
    modality_dropout: Fraction = 0.0
    """Probability with which a training row loses one of its two modalities."""
    norm: Norm = "standardise"
    """``standardise`` (figures of the training rows), ``layer`` or ``none``."""
    heads: Few = 8
    """Attention heads."""
    layers: Few = 6
    """Layers of the ``encoder`` fusion."""
    modality_embeddings: bool | None = None
    """A learned vector a modality in the ``encoder`` fusion; None: as `complete` says."""
    ffn: Size = 2048
    """Feed-forward units of the ``encoder`` fusion."""
    rank: Few = 4
    """Rank of the ``lowrank`` fusion."""
    kernel: Kernel = "rbf"
    """Kernel of the ``kernel`` model: ``rbf``, or ``linear``, which is logistic regression."""
    bandwidth: Annotated[float, Field(gt=0)] = 0.5
    """``rbf``: factor of the mean squared distance in the exponent."""
    image_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of each of the image's vectors in the ``kernel`` model; the text's have 1."""
    other_weight: Annotated[float, Field(gt=0)] = 1.0
    """Additional factor of the weight of vectors ``ENCODER.POOL``."""
    landmarks: Positive = 4000
    """``rbf``: number of training rows that a row is compared with, drawn if there are more."""
    head: Sizes = "1024-256"
    """Hidden sizes of the classifier; empty: a linear one."""
    beside: bool = False
    """Whether the cached pooled vectors also go to the classifier, beside the fused vector."""
    grid: Annotated[int, Field(ge=0, le=64)] = 0
    """Patches are averaged to a grid with so many cells a side; 0: all patches are used."""
    loss: LossName = "acb"
    """A name of `losses.LOSSES`."""
    alpha: NotNegative = 0.25
    """ACB: weight of the focal part."""
    beta: NotNegative = 0.75
    """ACB: weight of the margin part; see `complete`."""
    statistics: Statistics = "running"
    """ACB: samples that the difficulty of a class is averaged over."""
    margin: Margin = "batch"
    """ACB: ``batch`` or ``sample``."""
    gamma: NotNegative = 2.0
    """Focal loss: exponent."""
    label_smoothing: Fraction = 0.0
    """Cross-entropies: share of the target spread over all classes."""
    tau: NotNegative = 1.0
    """Logit adjustment: weight of the log priors."""
    balance: float = 1.0
    """Weighted cross-entropy: exponent of the balanced class weights (0: none)."""
    variants: bool = True
    """Whether augmented copies of training rows take part."""
    copies: Literal["all", "one"] = "all"
    """``all``: each copy is a row, as in the report; ``one``: a post counts once. Each epoch then
    draws one of its rows; ``lbfgs`` uses all with the weight 1 / (1 + copies)."""
    pairing: Literal["same", "free"] = "same"
    """``same``: text variant i with image variant i; ``free``: drawn anew in each epoch."""
    optimiser: Literal["adam", "adamw", "lbfgs"] = "adam"
    """``adam``, ``adamw`` or ``lbfgs``: all rows at once, to the optimum, without dropout or seed,
    for the ``kernel`` model with ``ce`` or ``weighted_ce``."""
    ridge: Annotated[float, Field(gt=0)] = 1.0
    """``lbfgs``: ridge / (2·posts) · |W|² is added to the loss, see `fuse.training.solver`."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """The highest of the schedule."""
    weight_decay: NotNegative = 1e-4
    """L2 in ``adam``, decoupled in ``adamw``."""
    schedule: Literal["plateau", "onecycle", "cosine", "constant"] = "plateau"
    """``plateau``, ``onecycle``, ``cosine`` (after a linear warm-up) or ``constant``."""
    warmup: BelowOne = 0.1
    """Fraction of all steps in which ``cosine`` rises."""
    clip: NotNegative = 0.0
    """Largest Euclidean norm of a step's gradient; 0: not clipped."""
    ema: BelowOne = 0.0
    """Decay of the average of weights that is scored and kept; 0: no average."""
    precision: Literal["fast", "float32"] = "fast"
    """``fast``: matrix products may round their factors: on a GPU to TF32 (in training at the level
    ``tokens`` to bf16, before the classifier), on a CPU with bf16 units and at the pooled level to
    bf16. Sums, and all of ``kernel``, stay in float32."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 32
    """Rows of a step; batch normalisation needs two."""
    epochs: Positive = 30
    patience: Positive = 3
    """Epochs without improvement after which training ends (``keep = "best"``)."""
    offsets: Literal["fitted", "prior", "none"] = "fitted"
    """Offsets of the classes' log-probabilities in decisions for macro-F1: ``fitted`` on held-out
    rows, ``prior`` (minus ``prior`` times the log shares of the training rows) or ``none``."""
    prior: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Weight of the log shares in ``offsets = "prior"``."""
    metric: Metric = "macro_f1"
    """Metric of the validation rows that says which epoch is best, and that ``plateau`` follows."""
    keep: Literal["best", "last"] = "best"
    """Weights of the ``best`` or of the ``last`` epoch."""

    def __post_init__(self) -> None:
        problems = _problems({key: getattr(self, key) for key in FIELDS})
        if self.optimiser == "lbfgs":
            problems += [
                f"{key}: lbfgs takes {' or '.join(valid)}, not {getattr(self, key)}"
                for key, valid in _SOLVABLE.items()
                if getattr(self, key) not in valid
            ]
        if problems:
            raise SettingsError("This setting cannot be trained.", "Correct it.", problems)

    @property
    def encoders(self) -> EncoderPair:
        """Names of its text encoders and image encoders."""
        return (
            encoders_of(self.text_encoder, self.text_pool),
            encoders_of(self.image_encoder, self.image_pool),
        )

    def resolved(self, store_pools: StorePools) -> Setting:
        """The setting for a store: pools ``ENCODER.POOL?`` that it lacks are left out.

        Args:
            store_pools: The store's pools.

        Raises:
            SettingsError: No pool is left.
        """
        text, image = (
            str(resolve_value(key, getattr(self, key), store_pools, encoder))
            for key, encoder in zip(POOLS, (self.text_encoder, self.image_encoder), strict=True)
        )
        return replace(self, text_pool=text, image_pool=image)

    @property
    def has_modality_embeddings(self) -> bool:
        """Whether an ``encoder`` fusion has modality embeddings; by default at ``tokens``."""
        own = self.modality_embeddings
        return self.level == "tokens" if own is None else own

    def head_dims(self) -> tuple[int, ...]:
        """Hidden sizes of the classifier."""
        return tuple(int(size) for size in self.head.split("-")) if self.head else ()


_SOLVABLE = {"fusion": (KERNEL,), "loss": ("ce", "weighted_ce")}
"""Values with which ``lbfgs`` can train: fixed features and convex losses."""
FIELDS: dict[str, TypeAdapter[Value]] = {
    key: TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
    for key, hint in get_type_hints(Setting, include_extras=True).items()
}
"""Validator of each field."""


def value_problem(key: str, value: object) -> str | None:
    """What is wrong with a value of a setting's field, if anything."""
    try:
        FIELDS[key].validate_python(value)
    except ValidationError as error:
        return describe_error(error.errors()[0])
    return None


def _problems(values: Mapping[str, object]) -> list[str]:
    problems = {k: value_problem(k, v) if k in FIELDS else "unknown" for k, v in values.items()}
    return [f"{key}: {problem}" for key, problem in problems.items() if problem]


DEFAULTS: dict[str, Value] = asdict(Setting())
_LBFGS_VALUES: dict[str, Value] = {"epochs": 1, "keep": "last", "schedule": "constant", "ema": 0.0}
"""Values that follow from the optimiser ``lbfgs``."""


def complete(values: Mapping[str, Value]) -> Setting:
    """Completes values from any source to a setting.

    Fields without a value have their default, except that `beta` is 1 − `alpha`, and that the
    ``encoder`` fusion has `modality_embeddings` at the level ``tokens``. Whatever their values,
    `image_dim` is `text_dim` where the fusion needs equal ones, and ``lbfgs`` has one epoch, which
    is kept.

    Raises:
        SettingsError: Names each value that does not fit.
    """
    if problems := _problems(values):
        raise SettingsError("These settings cannot be used.", "Correct them all.", problems)
    fields: dict[str, Any] = {**DEFAULTS, **values}
    if fields["fusion"] in NEEDS_EQUAL_DIMS:
        fields["image_dim"] = fields["text_dim"]
    if "beta" not in values:
        fields["beta"] = 1.0 - fields["alpha"]
    if fields["optimiser"] == "lbfgs":
        fields |= _LBFGS_VALUES
    setting = Setting(**fields)
    if setting.fusion == "encoder":
        return replace(setting, modality_embeddings=setting.has_modality_embeddings)
    return setting


def change(setting: Setting, changes: Mapping[str, Value]) -> Setting:
    """Changes values of a setting and completes it again.

    `beta` and `modality_embeddings` are derived again if they have the value that `complete`
    derives.

    Raises:
        SettingsError: Names each value that does not fit.
    """
    fields = asdict(setting)
    for key in ("beta", "modality_embeddings"):
        others = {name: value for name, value in fields.items() if name != key}
        if getattr(complete(others), key) == fields[key]:
            fields = others
    return complete({**fields, **changes})


def restore(values: Mapping[str, Value]) -> Setting:
    """Restores a stored setting; raises SettingsError for unknown fields or unfit values."""
    try:
        return complete(values)
    except SettingsError as error:
        raise SettingsError(
            "The stored setting is not of this version of mmsa.",
            "Search or train it again.",
            error.problems,
        ) from None
