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
"""Both modalities are X, not metadata of scikit-learn."""


class FusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # it has no types
    """Classifies posts by text and picture, with scikit-learn's interface.

    ``fit(X_text, X_image, y)``, then ``predict(X_text, X_image)``. Each of X_text and X_image is

    - an array of vectors, (posts, features);
    - arrays (positions, features), one a post: of the tokens of a text or the patches of a picture,
      which ``level = "tokens"`` reads one by one;
    - texts; paths of pictures, or pictures of Pillow. `text_model` and `image_model` encode them,
      each distinct one once in a process;
    - None if it is not used. An entry that is None or a blank text is masked out.

    A single X, as in ``cross_val_score(classifier, X, y)``, holds both modalities: an array whose
    first `text_features` columns are the text's, or a table of two columns, text and picture,
    whose cells are any of the above.

    The parameters are the fields of `fuse.Setting` and these:

    Args:
        beta: Of the ACB loss; None: 1 − `alpha`.
        folds: Folds of the posts, a member each; fewer where a class has fewer groups. 1: a single
            member, stopped early on an eighth of the posts.
        seeds: Members a fold.
        refit: Whether the model's members, one a seed, learn from all posts; those of the folds
            then only calibrate it.
        decide: What `predict` decides by: ``accuracy`` or ``macro_f1``.
        random_state: Seed of folds and trainings: a number, a RandomState, or None for a new one
            in each `fit`.
        device: ``auto``, ``cpu`` or ``cuda``.
        text_features: Columns of a single X that are the text's, from the first; None: all.
        text_model: Frozen encoder of texts, a name as in ``[text] model`` of ``mmsa.toml``; or a
            dictionary with keys of that section.
        image_model: The same of pictures.
        online: Whether encoders that are not on this machine may be downloaded.

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
        """Trains on posts; also called as ``fit(X, y)``.

        Args:
            X_text: The texts, see above.
            X_image: The pictures.
            y: Labels, (posts,).
            groups: Posts of the same value stay in one fold, as duplicates must, (posts,).

        Raises:
            SettingsError: A parameter is invalid.
            DataError: The texts, the pictures or the labels cannot be used.
            TrainingError: The loss is not finite.
        """
        parameters = vars(self)
        training, modality = training_parameters(parameters), build_setting(parameters).modality
        X_text, X_image, y = _sort_arguments(X_text, X_image, y)
        self._encoders: dict[str, EncoderIdentity] = {}
        features = self._features(X_text, X_image, modality, reset=True)
        self.classes_, codes = encode_labels(y)
        groups = np.arange(len(codes)) if groups is None else column_or_1d(groups)
        check_consistent_length(*_tables(features), codes, groups)
        groups = np.unique(groups, return_inverse=True)[1]
        pools = {name: each.pools for name, each in features.items()}
        self.setting_ = setting = build_setting(parameters, pools)
        protocol = training.protocol(codes, groups)
        self.folds_ = protocol.folds
        bank = self._bank(features, Dims(1, 1, {"text_mean": 1, "image_mean": 1}), codes)
        self._dims = input_dims(bank, setting)
        self._widths = {name: each.dim for name, each in features.items()}
        names = [str(name) for name in self.classes_]
        self.model_ = train_on_all_rows(
            setting, bank, groups, protocol, names=names, refit=training.refit
        )
        return self

    @translate_errors()
    def predict_proba(self, X_text: Any, X_image: Any = None) -> NDArray[np.float64]:
        """Calibrated probabilities, (posts, classes) in the order of `classes_`.

        Args:
            X_text: As of `fit`; None: the pictures decide alone.
            X_image: As of `fit`; None: the texts decide alone.

        Raises:
            DataError: The inputs cannot be used, or have vectors of other lengths than in `fit`.
            ModelError: An encoder has changed since `fit`.
        """
        check_is_fitted(self)
        features = self._features(X_text, X_image, self.setting_.modality, reset=False)
        check_consistent_length(*_tables(features))
        wrong = [
            f"X_{name} has vectors of {each.dim} features, {self._widths[name]} are expected."
            for name, each in features.items()
            if each.dim != self._widths[name]
        ]
        if wrong:
            raise DataError(" ".join(wrong))
        bank = self._bank(features, self._dims)
        return self.model_.predict(bank, np.arange(len(bank)))

    def predict(self, X_text: Any, X_image: Any = None) -> NDArray[Any]:
        """Predicted classes, (posts,); see `predict_proba`."""
        probabilities = self.predict_proba(X_text, X_image)
        return self.classes_[self.model_.calibration.decide(probabilities, self.decide)]

    def score(
        self, X_text: Any, X_image: Any = None, y: Any = None, *, sample_weight: Any = None
    ) -> float:
        """Accuracy; also called as ``score(X, y)``."""
        X_text, X_image, y = _sort_arguments(X_text, X_image, y)
        predicted = self.predict(X_text, X_image)
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def _features(
        self, X_text: Any, X_image: Any, modality: str, *, reset: bool
    ) -> dict[str, ModalityFeatures]:
        """Features of the inputs that the setting reads, by modality."""
        if X_image is None and X_text is not None:
            X_text, X_image = self._split(X_text, reset)
        inputs = {"text": X_text, "image": X_image}
        names = MODALITIES if modality == "both" else (modality,)
        features = {
            name: each
            for name in names
            if (each := features_from_input(inputs[name], name, self._encode)) is not None
        }
        if not features:
            raise DataError(f"There is no X_{' and no X_'.join(names)}.")
        return features

    def _split(self, X: Any, reset: bool) -> tuple[Any, Any]:
        """Text and image inputs of a single X."""
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
        identity = self._encoders.setdefault(modality, encoder.identity)
        if changes := encoder.identity.changes_since(identity):
            raise ModelError(
                f"The {modality} encoder here is not the one that the model was trained on.",
                f"Give {modality}_model as it was, or fit again.",
                changes,
            )
        return encoder.features(posts)

    def _bank(
        self, features: Mapping[str, ModalityFeatures], dims: Dims, codes: Any = None
    ) -> FeatureBank:
        """A bank of the posts on the device.

        Args:
            features: By modality.
            dims: Sizes of a modality without features.
            codes: Class codes, (posts,); None: not known.

        Raises:
            DataError: Posts lack every modality that the setting reads.
        """
        tables = _tables(features)
        empty = np.flatnonzero(np.all([table < 0 for table in tables], axis=0)).tolist()
        if empty:
            which = join_names(map(str, empty))
            raise DataError(f"{len(empty)} post(s) have no half that is read: rows {which}.")
        rows, cells = len(tables[0]), max(1, self.setting_.grid**2)
        text, image = (
            features[name]
            if name in features
            else missing_features(
                getattr(dims, name),
                required_pools([(DEFAULT_PAIR, dims)], name, DEFAULT_ENCODER),
                cells,
                rows,
            )
            for name in MODALITIES
        )
        whole = len(features) == 2 and all((table >= 0).all() for table in tables)
        labels = [-1] * rows if codes is None else codes.tolist()
        guids = [str(row) for row in range(rows)]
        bank = FeatureBank(text, image, guids, labels, partial=not whole)
        return bank.to(pick_device(self.device))


def _sort_arguments(X_text: Any, X_image: Any, y: Any) -> tuple[Any, Any, Any]:
    """Inputs and labels; of two arguments, as scikit-learn passes, the second is y."""
    return (X_text, None, X_image) if y is None else (X_text, X_image, y)


def _tables(features: Mapping[str, ModalityFeatures]) -> list[NDArray[np.int64]]:
    """Row of each post in each modality, −1 where it has none, (posts,)."""
    return [each.table[:, 0].numpy() for each in features.values()]
