"""One trainer for every model: Adam, a schedule, early stopping, the best epoch kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsa_cache.bank import Batch, Dims, FeatureBank
from mmsa_cache.errors import MmsaError, SettingsError

from .losses import build_loss
from .metrics import score
from .model import MultimodalClassifier, build_model

METRICS = ("macro_f1", "accuracy")
KEEP = ("best", "last")
PAIRINGS = ("same", "free")


class TrainingError(MmsaError):
    """Training diverged."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of the search space, flat: everything that makes a model but the data.

    The defaults are the report's, except that the inputs are standardised.
    """

    fusion: str = "concat"
    modality: str = "both"
    level: str = "pooled"
    text_pool: str = "mean"
    image_pool: str = "mean"
    pooling: str = "mean"
    text_dim: int = 256
    image_dim: int = 256
    dropout: float = 0.25
    input_dropout: float = 0.0
    layers: int = 6
    ffn: int = 2048
    beside: bool = False
    grid: int = 0
    standardise: bool = True
    loss: str = "acb"
    alpha: float = 0.25
    beta: float = 0.75
    statistics: str = "running"
    margin: str = "batch"
    variants: bool = True
    pairing: str = "same"
    """``same``: text variant i with image variant i; ``free``: drawn apart in every epoch."""
    optimiser: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    batch_size: int = 32
    epochs: int = 30
    patience: int = 3
    schedule: str = "plateau"
    metric: str = "macro_f1"
    keep: str = "best"


@dataclass(frozen=True, slots=True)
class Fit:
    """A trained model and how it got there."""

    model: MultimodalClassifier
    kept: dict[str, Any]
    """Record of the epoch whose weights the model has."""
    history: list[dict[str, Any]]


def make_model(setting: Setting, dims: Dims, classes: int) -> MultimodalClassifier:
    """Builds the model of a setting for features of these lengths."""
    try:
        return build_model(
            fusion=setting.fusion,
            modality=setting.modality,
            text_in=dims.text,
            image_in=dims.image,
            beside={"text_vector": dims.text_vector, "image_vector": dims.image_vector}
            if setting.beside
            else None,
            text_dim=setting.text_dim,
            image_dim=setting.image_dim,
            classes=classes,
            dropout=setting.dropout,
            input_dropout=setting.input_dropout,
            layers=setting.layers,
            ffn=setting.ffn,
            pooling=setting.pooling,
            norm="standardise" if setting.standardise else "none",
        )
    except ValueError as error:
        raise SettingsError(f"This setting makes no model: {error}") from error


def fit(
    setting: Setting,
    bank: FeatureBank,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    *,
    names: Sequence[str],
    seed: int,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Fit:
    """Trains one model; the epoch with the best validation metric is kept, or the last one.

    Augmented copies of training samples take part where the setting says so; validation sees
    originals only.

    Args:
        setting: What to train and how.
        bank: The features.
        train: Sample indices to learn from.
        validation: Sample indices that decide when to stop.
        names: Class names.
        seed: Seed of initial weights, order and dropout.
        on_epoch: Called with each epoch's record.

    Raises:
        SettingsError: Unknown optimiser, schedule, metric or loss.
        TrainingError: The loss is not finite.
    """
    if setting.metric not in METRICS:
        raise SettingsError(f"Unknown metric {setting.metric!r}.", f"Valid: {', '.join(METRICS)}.")
    if setting.keep not in KEEP:
        raise SettingsError(f"Unknown keep {setting.keep!r}.", f"Valid: {', '.join(KEEP)}.")
    if setting.pairing not in PAIRINGS:
        raise SettingsError(
            f"Unknown pairing {setting.pairing!r}.", f"Valid: {', '.join(PAIRINGS)}."
        )
    device = bank.labels.device
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    items = bank.items(train, variants=setting.variants)
    model = make_model(setting, input_dims(bank, setting), len(names)).to(device)
    if setting.standardise:
        _fit_standardisation(model, bank, items, setting)
    try:
        loss_function = build_loss(
            setting.loss,
            classes=len(names),
            alpha=setting.alpha,
            beta=setting.beta,
            statistics=setting.statistics,
            margin=setting.margin,
            class_weights=_class_weights(bank, items, len(names)),
        ).to(device)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    optimiser, scheduler = _optimiser(setting, model, math.ceil(len(items) / setting.batch_size))

    best, best_epoch, best_state = -1.0, -1, model.state_dict()
    history: list[dict[str, Any]] = []
    for epoch in range(setting.epochs):
        loss_function.start_epoch()
        model.train()
        total = 0.0
        seen = bank.paired_freely(items, order) if setting.pairing == "free" else items
        for chosen in _batches(len(items), setting.batch_size, order):
            batch = gather(bank, seen[chosen], setting)
            logits = forward(model, batch)
            loss = loss_function(logits, batch.labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if setting.schedule == "onecycle":
                scheduler.step()
            total += float(loss.detach()) * len(chosen)
        if not math.isfinite(total):
            raise TrainingError(
                f"The loss is {total} in epoch {epoch + 1}.", "Lower the learning rate."
            )
        found = score(
            bank.labels[torch.as_tensor(validation)].cpu().numpy(),
            predict(model, bank, validation, setting).argmax(1),
            names,
        )
        record = {
            "epoch": epoch + 1,
            "loss": total / len(items),
            "learning_rate": optimiser.param_groups[0]["lr"],
            "accuracy": found["accuracy"],
            "macro_f1": found["macro_f1"],
        }
        history.append(record)
        on_epoch(record)
        value = found[setting.metric]
        if setting.schedule == "plateau":
            scheduler.step(value)
        if setting.keep == "last":
            continue
        if value > best:
            best, best_epoch, best_state = value, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= setting.patience:
            break
    if setting.keep == "best":
        model.load_state_dict(best_state)
    return Fit(model.eval(), history[best_epoch], history)


def predict(
    model: MultimodalClassifier,
    bank: FeatureBank,
    samples: NDArray[np.int64],
    setting: Setting,
    batch_size: int = 256,
) -> NDArray[np.float64]:
    """Class probabilities of original samples, (samples, classes)."""
    model.eval()
    items = bank.items(samples, variants=False)
    parts = []
    with torch.inference_mode():
        for chosen in torch.arange(len(items)).split(batch_size):
            batch = gather(bank, items[chosen], setting)
            logits = forward(model, batch)
            parts.append(logits.double().softmax(1).cpu())
    return torch.cat(parts).numpy()


def input_dims(bank: FeatureBank, setting: Setting) -> Dims:
    """Features of the inputs that a setting's model reads."""
    return bank.dims(
        level=setting.level, text_pool=setting.text_pool, image_pool=setting.image_pool
    )


def gather(bank: FeatureBank, items: Tensor, setting: Setting) -> Batch:
    """The batch that a setting's model takes."""
    return bank.batch(
        items,
        level=setting.level,
        text_pool=setting.text_pool,
        image_pool=setting.image_pool,
        grid=setting.grid,
    )


def forward(model: MultimodalClassifier, batch: Batch) -> Tensor:
    """Logits of a batch, (batch, classes)."""
    logits, _ = model(
        batch.text,
        batch.text_mask,
        batch.image,
        batch.image_mask,
        {"text_vector": batch.text_vector, "image_vector": batch.image_vector},
    )
    return logits


def _batches(count: int, size: int, order: torch.Generator) -> list[Tensor]:
    """Shuffled batches; a last batch of one row joins the one before it (BatchNorm needs two)."""
    parts = list(torch.randperm(count, generator=order).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _fit_standardisation(
    model: MultimodalClassifier, bank: FeatureBank, items: Tensor, setting: Setting
) -> None:
    """Means and deviations over the real positions of the training rows."""
    sums: dict[str, list[Any]] = {name: [0, 0.0, 0.0] for name in model.projections}
    for chosen in torch.arange(len(items)).split(512):
        batch = gather(bank, items[chosen], setting)
        real = {
            "text": batch.text[batch.text_mask],
            "image": batch.image[batch.image_mask],
            "text_vector": batch.text_vector,
            "image_vector": batch.image_vector,
        }
        for name, figures in sums.items():
            values = real[name].double()
            figures[0] += len(values)
            figures[1] += values.sum(0)
            figures[2] += values.square().sum(0)
    model.fit_standardisation(
        {
            name: (
                (total / count).float(),
                (squares / count - (total / count).square()).clamp_min(0).sqrt().float(),
            )
            for name, (count, total, squares) in sums.items()
        }
    )


def _class_weights(bank: FeatureBank, items: Tensor, classes: int) -> list[float]:
    """Balanced weights: rows / (classes · rows of the class)."""
    labels = bank.labels.cpu()[items[:, 0]]
    counts = torch.bincount(labels, minlength=classes).clamp_min(1)
    return (len(labels) / (classes * counts)).tolist()


def _optimiser(
    setting: Setting, model: MultimodalClassifier, steps: int
) -> tuple[torch.optim.Optimizer, Any]:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if setting.optimiser not in kinds:
        raise SettingsError(
            f"Unknown optimiser {setting.optimiser!r}.", f"Valid: {', '.join(kinds)}."
        )
    optimiser = kinds[setting.optimiser](
        model.parameters(), lr=setting.learning_rate, weight_decay=setting.weight_decay
    )
    if setting.schedule == "plateau":
        return optimiser, torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, mode="max", factor=0.2, patience=1
        )
    if setting.schedule == "onecycle":
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=setting.learning_rate, total_steps=steps * setting.epochs + 1
        )
    if setting.schedule == "constant":
        return optimiser, None
    raise SettingsError(
        f"Unknown schedule {setting.schedule!r}.", "Valid: plateau, onecycle, constant."
    )
