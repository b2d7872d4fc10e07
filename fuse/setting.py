"""One point of the search space, flat: everything that makes a model but the data."""

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
from fuse.pools import POOLS, Known, resolve_value
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, EncoderPair, encoders_of
from mmsa_cache.validation import describe_error


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that makes a model but the data.

    Losses, sizes, dropout, optimiser and schedule default to what the report has for `concat`.
    Unlike the report, inputs are standardised, the mean of the tokens is read in place of the first
    one, and training stops on macro-F1; `fuse.evidence.report_figures` has its way. `complete`
    derives values that follow from others.

    Raises:
        SettingsError: Names every value that is not of its field's type or out of its range.
    """

    fusion: Fusion = "concat"
    """A name of `fusions.FUSIONS`, not used with one modality; or ``kernel``, see `kernel`."""
    modality: Modality = "both"
    """``both``, ``text`` or ``image``."""
    level: Level = "pooled"
    """``pooled``: one vector a modality, as in the report; ``tokens``: sequences."""
    text_encoder: str = DEFAULT_ENCODER
    """Whose cached text features are read: a name of ``[encoders]``, or ``default``."""
    image_encoder: str = DEFAULT_ENCODER
    """The same of the image."""
    text_pool: Pools = "mean"
    """Cached vectors of the text that are read at the pooled level or beside, joined by ``+``:
    there concatenated, here with a projection each. ``ENCODER.POOL``: one of another encoder."""
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
    """Of the ``kernel`` model: ``rbf``, or ``linear``, which is logistic regression."""
    bandwidth: Annotated[float, Field(gt=0)] = 0.5
    """Of ``rbf``: factor of the mean squared distance in the exponent."""
    image_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of each of the image's vectors in the ``kernel`` model; the text's have 1."""
    other_weight: Annotated[float, Field(gt=0)] = 1.0
    """The same of vectors ``ENCODER.POOL``, in addition."""
    landmarks: Positive = 4000
    """Training rows that an ``rbf`` compares a row with, drawn where there are more."""
    head: Sizes = "1024-256"
    """Hidden sizes of the classifier; empty: a linear one."""
    beside: bool = False
    """Whether the cached pooled vectors go to the classifier too, beside the fused one."""
    grid: Annotated[int, Field(ge=0, le=64)] = 0
    """Cells along each side that patches are averaged to; 0: all patches."""
    loss: LossName = "acb"
    """A name of `losses.LOSSES`."""
    alpha: NotNegative = 0.25
    """ACB: weight of the focal part."""
    beta: NotNegative = 0.75
    """ACB: weight of the margin part; see `complete`."""
    statistics: Statistics = "running"
    """ACB: over which samples the difficulty of a class is taken."""
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
    """``all``: every copy is a row, as in the report; ``one``: a post counts once, by one of its
    rows, drawn anew in every epoch, or by all with the weight 1 / (1 + copies) in ``lbfgs``."""
    pairing: Literal["same", "free"] = "same"
    """``same``: text variant i with image variant i; ``free``: drawn apart in every epoch."""
    optimiser: Literal["adam", "adamw", "lbfgs"] = "adam"
    """``adam``, ``adamw``, or ``lbfgs``: all rows at once to the optimum, without dropout or seed,
    of the ``kernel`` model with ``ce`` or ``weighted_ce``."""
    ridge: Annotated[float, Field(gt=0)] = 1.0
    """``lbfgs``: the mean loss has ridge / (2·posts) · |W|² added, see `fuse.training.solver`."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Highest one of the schedule."""
    weight_decay: NotNegative = 1e-4
    """L2 in ``adam``, decoupled in ``adamw``."""
    schedule: Literal["plateau", "onecycle", "cosine", "constant"] = "plateau"
    """``plateau``, ``onecycle``, ``cosine`` (after a linear warm-up) or ``constant``."""
    warmup: BelowOne = 0.1
    """Fraction of all steps in which ``cosine`` rises."""
    clip: NotNegative = 0.0
    """Largest Euclidean norm of a step's gradient; 0: not clipped."""
    ema: BelowOne = 0.0
    """Decay a step of the averaged weights that are scored and kept; 0: the weights themselves."""
    precision: Literal["fast", "float32"] = "fast"
    """``fast``: matrix products may round their factors, to TF32 on a GPU (in training at the level
    ``tokens`` to bf16, before the classifier) and, at the pooled level, to bf16 on a CPU with units
    for it; sums stay in float32, as all of ``kernel`` does."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 32
    """Rows of a step; batch normalisation needs two."""
    epochs: Positive = 30
    patience: Positive = 3
    """Epochs without a better value after which training ends (``keep = "best"``)."""
    offsets: Literal["fitted", "prior", "none"] = "fitted"
    """Of the classes' log-probabilities in decisions for macro-F1: ``fitted`` on held-out rows,
    ``prior`` (minus ``prior`` times the log shares of the training rows) or ``none``."""
    prior: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Weight of the log shares in ``offsets = "prior"``."""
    metric: Metric = "macro_f1"
    """Of the validation rows; decides which epoch is the best, and steps ``plateau``."""
    keep: Literal["best", "last"] = "best"
    """``best`` or ``last`` epoch's weights."""

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
        """Names of the text and of the image encoders that it reads."""
        return (
            encoders_of(self.text_encoder, self.text_pool),
            encoders_of(self.image_encoder, self.image_pool),
        )

    def resolved(self, known: Known) -> Setting:
        """The setting for a store: pools ``ENCODER.POOL?`` that it lacks are left out.

        Args:
            known: The store's pools.

        Raises:
            SettingsError: No pool is left.
        """
        text, image = (
            str(resolve_value(key, getattr(self, key), known, getattr(self, f"{side}_encoder")))
            for key, side in POOLS.items()
        )
        return replace(self, text_pool=text, image_pool=image)

    @property
    def has_modality_embeddings(self) -> bool:
        """Whether an ``encoder`` fusion has them; at the level ``tokens`` by default."""
        chosen = self.modality_embeddings
        return self.level == "tokens" if chosen is None else chosen

    def head_dims(self) -> tuple[int, ...]:
        """Hidden sizes of the classifier."""
        return tuple(int(size) for size in self.head.split("-")) if self.head else ()


_SOLVABLE = {"fusion": (KERNEL,), "loss": ("ce", "weighted_ce")}
"""What ``lbfgs`` can train: features that are fixed, losses that are convex."""
FIELDS: dict[str, TypeAdapter[Value]] = {
    key: TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
    for key, hint in get_type_hints(Setting, include_extras=True).items()
}
"""What checks the values of each field."""


def value_problem(key: str, value: object) -> str | None:
    """What is wrong with a value of a setting's field, if anything."""
    try:
        FIELDS[key].validate_python(value)
    except ValidationError as error:
        return describe_error(error.errors()[0])
    return None


def _problems(values: Mapping[str, object]) -> list[str]:
    found = {k: value_problem(k, v) if k in FIELDS else "unknown" for k, v in values.items()}
    return [f"{key}: {problem}" for key, problem in found.items() if problem]


DEFAULTS: dict[str, Value] = asdict(Setting())
_SOLVED: dict[str, Value] = {"epochs": 1, "keep": "last", "schedule": "constant", "ema": 0.0}
"""Values of a setting with the optimiser ``lbfgs``."""


def complete(values: Mapping[str, Value]) -> Setting:
    """The setting of some values, whatever route they came by; the only way to one.

    Fields without a value have their default, but for those that follow from others: `beta` is
    1 − `alpha`; the ``encoder`` fusion has `modality_embeddings` at the level ``tokens``; and even
    with one, `image_dim` is `text_dim` where the fusion needs equal ones, and ``lbfgs`` has one
    epoch, which is kept.

    Raises:
        SettingsError: Names every value that does not fit.
    """
    if problems := _problems(values):
        raise SettingsError("These settings cannot be used.", "Correct them all.", problems)
    given: dict[str, Any] = {**DEFAULTS, **values}
    if given["fusion"] in NEEDS_EQUAL_DIMS:
        given["image_dim"] = given["text_dim"]
    if "beta" not in values:
        given["beta"] = 1.0 - given["alpha"]
    if given["optimiser"] == "lbfgs":
        given |= _SOLVED
    setting = Setting(**given)
    if setting.fusion == "encoder":
        return replace(setting, modality_embeddings=setting.has_modality_embeddings)
    return setting


def change(setting: Setting, changes: Mapping[str, Value]) -> Setting:
    """A setting with other values, completed again.

    A `beta` or `modality_embeddings` that has the value that `complete` would derive counts as
    derived, and follows the changes.

    Raises:
        SettingsError: Names every value that does not fit.
    """
    given = asdict(setting)
    for key in ("beta", "modality_embeddings"):
        others = {name: value for name, value in given.items() if name != key}
        if getattr(complete(others), key) == given[key]:
            given = others
    return complete({**given, **changes})


def restore(values: Mapping[str, Value]) -> Setting:
    """A stored setting; SettingsError where it has unknown fields or values that do not fit."""
    try:
        return complete(values)
    except SettingsError as error:
        raise SettingsError(
            "The stored setting is not of this version of mmsa.",
            "Search or train it again.",
            error.problems,
        ) from None
