"""A classifier of posts with the interface of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, validate_data

from fuse.training.classifier import input_dims
from fuse.training.final import train_on_all_rows
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.features.absent import missing_features
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims, required_pools
from mmsa_cache.features.computed_pools import COMPUTED
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import (
    DEFAULT_ENCODER,
    DEFAULT_PAIR,
    MODALITIES,
    join_names,
    split_terms,
    suggest,
)
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.identity import EncoderIdentity

from .calls import translate_errors
from .frozen_encoder import frozen_encoder
from .labels import encode_labels
from .modality_input import VECTOR_DTYPES, as_entries, features_from_input, holds_posts
from .parameters import PARAMETERS, SIGNATURE, build_setting, training_parameters

_NOT_ROUTED = {"X_text": UNUSED, "X_image": UNUSED}
"""Halves are X, not metadata of scikit-learn."""


class FusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # it has no types
    """Classifies posts by their text and picture, as scikit-learn's classifiers do.

    ``fit(X_text, X_image, y)``, then ``predict(X_text, X_image)``. Each half is

    - an array of vectors, (posts, features);
    - arrays (positions, features), one a post: of the tokens of a text or the patches of a picture,
      which ``level = "tokens"`` reads one by one;
    - texts; paths of pictures, or pictures of Pillow. `text_model` and `image_model` encode them,
      each distinct one once in a process;
    - None where it is not used. An entry that is None or a blank text is masked out.

    Where scikit-learn knows a single X, as in ``cross_val_score(classifier, X, y)``, it holds both
    halves: an array whose first `text_features` columns are the text's, or a table of two columns,
    text and picture, whose cells are any of the above.

    The parameters are the fields of `fuse.Setting` and these:

    Args:
        beta: Of the ACB loss; None: 1 − `alpha`.
        folds: Folds of the posts, a member each; fewer where a class has fewer groups. 1: a single
            member, which stops on an eighth of the posts.
        seeds: Members a fold.
        refit: Whether the model has members that learned from all posts, one a seed, in place of
            those of the folds, which only calibrate it then.
        decide: What `predict` decides by: ``accuracy`` or ``macro_f1``.
        random_state: Seed of folds and trainings: a number, a RandomState, or None for another one
            in each `fit`.
        device: ``auto``, ``cpu`` or ``cuda``.
        text_features: Columns of a single X that are the text's, from the first; None: all.
        text_model: Frozen encoder of texts, a name as in ``[text] model`` of ``mmsa.toml``; or a
            dictionary with keys of that section.
        image_model: The same of pictures.
        online: Whether encoders that are not on this machine may be fetched.

    Attributes:
        classes_: The labels, sorted.
        setting_: The setting that was trained.
        model_: The trained `fuse.Ensemble`.
        folds_: Number of folds.
        n_features_in_: Columns of a single X of numbers.
    """

    __metadata_request__fit = __metadata_request__score = _NOT_ROUTED
    __metadata_request__predict = __metadata_request__predict_proba = _NOT_ROUTED

    def __init__(self, **parameters: Any) -> None:
        for name in parameters.keys() - PARAMETERS.keys():
            near = suggest(name, PARAMETERS)
            raise TypeError(f"FusionClassifier has no parameter {name!r}{near}")
        self.__dict__.update(PARAMETERS | parameters)

    __init__.__signature__ = SIGNATURE  # type: ignore[attr-defined]

    @translate_errors()
    def fit(self, X_text: Any, X_image: Any = None, y: Any = None, *, groups: Any = None) -> Self:
        """Learns from posts; ``fit(X, y)`` too.

        Args:
            X_text: The texts' half, see above.
            X_image: The pictures' half.
            y: Labels, (posts,).
            groups: Posts of the same value stay in one fold, as duplicates must, (posts,).

        Raises:
            SettingsError: The parameters make no model.
            DataError: A half or the labels cannot be used.
            TrainingError: The loss is not finite.
        """
        given = vars(self)
        training, read = training_parameters(given), build_setting(given).modality
        X_text, X_image, y = _as_called(X_text, X_image, y)
        self._encoders: dict[str, EncoderIdentity] = {}
        halves = self._halves(X_text, X_image, read, reset=True)
        self.classes_, codes = encode_labels(y)
        groups = np.arange(len(codes)) if groups is None else column_or_1d(groups)
        check_consistent_length(*_tables(halves), codes, groups)
        groups = np.unique(groups, return_inverse=True)[1]
        pools = {name: found.pools for name, found in halves.items()}
        self.setting_ = setting = build_setting(given, pools)
        protocol = training.protocol(codes, groups)
        self.folds_ = protocol.folds
        bank = self._bank(halves, Dims(1, 1, {"text_mean": 1, "image_mean": 1}), codes)
        self._dims = input_dims(bank, setting)
        self._widths = {name: found.dim for name, found in halves.items()}
        names = [str(name) for name in self.classes_]
        self.model_ = train_on_all_rows(
            setting, bank, groups, protocol, names=names, refit=training.refit
        )
        return self

    @translate_errors()
    def predict_proba(self, X_text: Any, X_image: Any = None) -> NDArray[np.float64]:
        """Calibrated probabilities, (posts, classes) in the order of `classes_`.

        Args:
            X_text: As of `fit`; None: the other half decides alone.
            X_image: The same of the pictures.

        Raises:
            DataError: A half cannot be used, or its vectors have other lengths than those of `fit`.
            ModelError: An encoder is another one than in `fit`.
        """
        check_is_fitted(self)
        halves = self._halves(X_text, X_image, self.setting_.modality, reset=False)
        check_consistent_length(*_tables(halves))
        wrong = [
            f"X_{name} has vectors of {found.dim} features, {self._widths[name]} are expected."
            for name, found in halves.items()
            if found.dim != self._widths[name]
        ]
        if wrong:
            raise DataError(" ".join(wrong))
        bank = self._bank(halves, self._dims)
        return self.model_.predict(bank, np.arange(len(bank)))

    def predict(self, X_text: Any, X_image: Any = None) -> NDArray[Any]:
        """The classes that are decided for, (posts,); see `predict_proba`."""
        probabilities = self.predict_proba(X_text, X_image)
        return self.classes_[self.model_.calibration.decide(probabilities, self.decide)]

    def score(
        self, X_text: Any, X_image: Any = None, y: Any = None, *, sample_weight: Any = None
    ) -> float:
        """Accuracy; ``score(X, y)`` too."""
        X_text, X_image, y = _as_called(X_text, X_image, y)
        predicted = self.predict(X_text, X_image)
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def _halves(
        self, X_text: Any, X_image: Any, modality: str, *, reset: bool
    ) -> dict[str, ModalityFeatures]:
        """Features of the halves that are read and given, by modality."""
        if X_image is None and X_text is not None:
            X_text, X_image = self._parted(X_text, reset)
        given = {"text": X_text, "image": X_image}
        read = MODALITIES if modality == "both" else (modality,)
        found = {
            name: features
            for name in read
            if (features := features_from_input(given[name], name, self._encode)) is not None
        }
        if not found:
            raise DataError(f"There is no X_{' and no X_'.join(read)}.")
        return found

    def _parted(self, X: Any, reset: bool) -> tuple[Any, Any]:
        """The two halves of one X."""
        table = as_entries(X)
        if isinstance(table, list) or table.ndim == 3:
            return X, None
        if holds_posts(table):
            if table.shape[1] > 2:
                raise DataError(
                    f"X has {table.shape[1]} columns; of posts two are expected, text and picture."
                )
            text, *image = (list(column) for column in table.T)
            return text, image[0] if image else None
        with np.errstate(over="ignore", invalid="ignore"):  # too large for float32 is an error
            columns = validate_data(self, X, reset=reset, dtype=VECTOR_DTYPES)
        every, own = columns.shape[1], self.text_features
        own = every if own is None else own
        if own > every:
            raise SettingsError(f"text_features={own}, but X has {every} columns.")
        return columns[:, :own] if own else None, columns[:, own:] if own < every else None

    def _encode(self, modality: str, posts: Sequence[Any]) -> ModalityFeatures:
        """Features of texts or pictures."""
        model = getattr(self, f"{modality}_model")
        if model is None:
            raise SettingsError(
                f"X_{modality} has to be encoded, but {modality}_model is not given.",
                f"Give {modality}_model=NAME, as [{modality}] model in mmsa.toml, or features.",
            )
        pools = split_terms(getattr(self, f"{modality}_pool"))
        tokens = self.level == "tokens" or not COMPUTED.keys().isdisjoint(pools)
        encoder = frozen_encoder(
            modality, model, tokens=tokens, device=self.device, online=self.online
        )
        learned_from = self._encoders.setdefault(modality, encoder.identity)
        if changed := encoder.identity.changes_since(learned_from):
            raise ModelError(
                f"The {modality} encoder here is not the one that the model was trained on.",
                f"Give {modality}_model as it was, or fit again.",
                changed,
            )
        return encoder.features(posts)

    def _bank(
        self, halves: Mapping[str, ModalityFeatures], dims: Dims, codes: Any = None
    ) -> FeatureBank:
        """The posts on the device; a half that all of them lack has these sizes.

        Raises:
            DataError: Posts have nothing that is read.
        """
        tables = _tables(halves)
        nothing = np.flatnonzero(np.all([table < 0 for table in tables], axis=0)).tolist()
        if nothing:
            which = join_names(map(str, nothing))
            raise DataError(f"{len(nothing)} post(s) have no half that is read: rows {which}.")
        rows, cells = len(tables[0]), max(1, self.setting_.grid**2)
        text, image = (
            halves[name]
            if name in halves
            else missing_features(
                getattr(dims, name),
                required_pools([(DEFAULT_PAIR, dims)], name, DEFAULT_ENCODER),
                cells,
                rows,
            )
            for name in MODALITIES
        )
        whole = len(halves) == 2 and all((table >= 0).all() for table in tables)
        labels = [-1] * rows if codes is None else codes.tolist()
        guids = [str(row) for row in range(rows)]
        bank = FeatureBank(text, image, guids, labels, partial=not whole)
        return bank.to(pick_device(self.device))


def _as_called(X_text: Any, X_image: Any, y: Any) -> tuple[Any, Any, Any]:
    """Halves and labels; of two arguments, as scikit-learn calls, the second is y."""
    return (X_text, None, X_image) if y is None else (X_text, X_image, y)


def _tables(halves: Mapping[str, ModalityFeatures]) -> list[NDArray[np.int64]]:
    """Row of each post in each half, −1 where it has none, (posts,)."""
    return [found.table[:, 0].numpy() for found in halves.values()]
