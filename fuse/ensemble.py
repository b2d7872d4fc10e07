"""The final model: one member a fold, their probabilities averaged, offsets for the classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import Tensor

from mmsa_cache.bank import Dims, FeatureBank
from mmsa_cache.errors import ModelError
from mmsa_cache.splits import grouped_folds, outer_split

from .metrics import score
from .model import MultimodalClassifier
from .trainer import Fit, Setting, fit, make_model, predict

# A single member stops on one of so many folds of the development rows.
_STOPPING_FOLDS = 8
_OFFSETS = np.linspace(-1.0, 1.0, 41)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trained members of one setting."""

    setting: Setting
    members: list[MultimodalClassifier]
    offsets: NDArray[np.float64]
    """Added to the log-probabilities, (classes,); zeros where none were fitted."""

    def predict(
        self, bank: FeatureBank, samples: NDArray[np.int64], *, offsets: bool = True
    ) -> NDArray[np.float64]:
        """Class probabilities of original samples, (samples, classes)."""
        mean = np.mean([predict(m, bank, samples, self.setting) for m in self.members], axis=0)
        return shifted(mean, self.offsets) if offsets else mean

    def tensors(self) -> dict[str, Tensor]:
        """Everything trained, by ``member.NUMBER.NAME``, on the CPU."""
        return {
            f"member.{number}.{name}": value.contiguous().cpu()
            for number, member in enumerate(self.members)
            for name, value in member.state_dict().items()
        }

    @classmethod
    def restore(
        cls,
        setting: Setting,
        tensors: Mapping[str, Tensor],
        offsets: Sequence[float],
        dims: Dims,
    ) -> Ensemble:
        """Makes the members of `tensors`' result again.

        Raises:
            ModelError: The tensors are not those of this setting.
        """
        states: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            _, number, key = name.split(".", 2)
            states.setdefault(number, {})[key] = value
        members = []
        for number in sorted(states, key=int):
            member = make_model(setting, dims, len(offsets))
            try:
                member.load_state_dict(states[number])
            except RuntimeError as error:
                raise ModelError(f"Member {number} is not of this setting: {error}") from error
            members.append(member.eval())
        if not members:
            raise ModelError("The model file holds no member.")
        return cls(setting, members, np.asarray(offsets, np.float64))


def shifted(
    probabilities: NDArray[np.float64], offsets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """p_c · exp(o_c), normalised to sum 1, (rows, classes)."""
    raised = probabilities * np.exp(offsets)
    total: NDArray[np.float64] = raised.sum(1, keepdims=True)
    return raised / total


def fit_offsets(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log-probability offsets that raise macro-F1, by coordinate ascent on a grid.

    A class that is rare is predicted too seldom for macro-F1 by a model trained on likelihood; one
    number a class moves the borders. The first class keeps 0, since only differences count.

    Args:
        probabilities: Of rows that did not train the model, (rows, classes).
        labels: Class codes, (rows,).

    Returns:
        (classes,), within ±1 (factors of e); zeros where nothing is better.
    """
    classes = probabilities.shape[1]
    offsets = np.zeros(classes)

    def value(trial: NDArray[np.float64]) -> tuple[float, float]:
        predicted = shifted(probabilities, trial).argmax(1)
        f1 = f1_score(
            labels, predicted, average="macro", labels=list(range(classes)), zero_division=0
        )
        return round(float(f1), 9), -float(np.abs(trial).sum())  # of equal ones the smallest

    best = value(offsets)
    for _ in range(2):
        for place in range(1, classes):
            for offset in _OFFSETS:
                trial = offsets.copy()
                trial[place] = offset
                found = value(trial)
                if found > best:
                    best, offsets = found, trial
    return offsets


def honest_offsets(
    probabilities: Sequence[NDArray[np.float64]], labels: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """`fit_offsets` of all folds together, or zeros where offsets do not carry over.

    Offsets fitted on all folds but one are tried on that one. Only if this gives a better macro-F1
    over all rows than no offsets are the offsets of all rows taken: on few rows they follow noise.

    Args:
        probabilities: A fold each, (rows, classes).
        labels: A fold each, (rows,).
    """
    every, truth = np.concatenate(probabilities), np.concatenate(labels)
    none = np.zeros(every.shape[1])
    if len(labels) < 2:
        return none
    carried = []
    for number, part in enumerate(probabilities):
        others = [i for i in range(len(labels)) if i != number]
        offsets = fit_offsets(
            np.concatenate([probabilities[i] for i in others]),
            np.concatenate([labels[i] for i in others]),
        )
        carried.append(shifted(part, offsets).argmax(1))
    with_offsets = f1_score(truth, np.concatenate(carried), average="macro")
    without = f1_score(truth, every.argmax(1), average="macro")
    return fit_offsets(every, truth) if with_offsets > without else none


@dataclass(frozen=True, slots=True)
class Trained:
    """A final model and its figures on rows that took part in no choice."""

    ensemble: Ensemble
    fits: list[Fit]
    outer: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    """(outer rows, classes), offsets applied"""
    figures: dict[str, Any]
    """``outer`` and ``inner`` scores, with and without offsets, and one record a member."""


def train(
    setting: Setting,
    bank: FeatureBank,
    groups: NDArray[np.int64],
    *,
    outer: str,
    names: tuple[str, ...],
    seed: int,
    folds: int,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Trained:
    """Trains a setting on the development rows and scores it once on the outer rows.

    The development rows are cut into folds that keep duplicate groups together. Each member trains
    without one fold, which decides when it stops; so every row trains all members but one, and its
    prediction by that one is honest: the offsets are fitted on these
    (with one member there are none).

    Args:
        setting: What to train.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        outer: Kind of outer split, see `mmsa_cache.splits.outer_split`.
        names: Class names.
        seed: Seed of splits and training.
        folds: Members; with 1 a single model stops on an eighth of the rows.
        on_epoch: Called with each epoch's record, which also names its member.
    """
    labels = bank.labels.cpu().numpy()
    development, judged = outer_split(outer, labels, groups, seed)
    cuts = grouped_folds(
        labels[development], groups[development], folds if folds > 1 else _STOPPING_FOLDS, seed
    )[:folds]
    fits: list[Fit] = []
    records: list[dict[str, Any]] = []
    rows, held_out = [], []
    for number, (inside, outside) in enumerate(cuts, start=1):
        result = fit(
            setting,
            bank,
            development[inside],
            development[outside],
            names=names,
            seed=seed + number - 1,
            on_epoch=lambda record, number=number: on_epoch({"member": number, **record}),  # type: ignore[misc]
        )
        fits.append(result)
        rows.append(development[outside])
        held_out.append(predict(result.model, bank, development[outside], setting))
        records.append(
            {
                "member": number,
                "best_epoch": result.kept["epoch"],
                "training_rows": len(inside),
                "stopping_rows": len(outside),
                "accuracy": result.kept["accuracy"],
                "macro_f1": result.kept["macro_f1"],
            }
        )
    inner_labels, inner = labels[np.concatenate(rows)], np.concatenate(held_out)
    offsets = np.zeros(len(names))
    if setting.metric == "macro_f1":
        offsets = honest_offsets(held_out, [labels[part] for part in rows])
    ensemble = Ensemble(setting, [result.model for result in fits], offsets)
    plain = ensemble.predict(bank, judged, offsets=False)
    final = shifted(plain, offsets)
    return Trained(
        ensemble,
        fits,
        judged,
        final,
        {
            "outer": score(labels[judged], final.argmax(1), names),
            "outer_without_offsets": score(labels[judged], plain.argmax(1), names),
            "inner": score(inner_labels, shifted(inner, offsets).argmax(1), names),
            "inner_without_offsets": score(inner_labels, inner.argmax(1), names),
            "offsets": offsets.tolist(),
            "members": records,
            "training_rows": len(development),
        },
    )
