"""Data, encoders and features of one command, each resolved once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from extract.encoders.image import ImageSpec
from extract.encoders.protocol import Encoder
from extract.encoders.text import TextSpec
from mmsa_cache.config.settings import ALL, Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.protocol import JOINED
from mmsa_cache.data.splits import IntArray
from mmsa_cache.data.table import SampleTable, concatenate_tables
from mmsa_cache.errors import CacheNotFoundError, ModelError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.rows import SampleRows
from mmsa_cache.names import (
    DEFAULT_ENCODER,
    DEFAULT_PAIR,
    MODALITIES,
    SPLITS,
    EncoderPair,
    split_terms,
)
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity, Identities

from .checks import Checks
from .completion import use_stored_data_settings, use_stored_encoder, use_stored_encoders
from .encoders import EncoderSpec, default_precision, refuse_imported, resolve_encoder
from .path_policy import PathPolicy
from .samples import bank_choice, classes_of, read_samples
from .selection import (
    is_same_encoder,
    missing_encoder_error,
    missing_rows_hint,
    names_encoder,
    select_encoder,
)
from .store import Store, needed_rows


class Session:
    """Data, encoders and features of one command; each part is resolved on first use and kept.

    Settings that are not set are taken from the store. Data and encoders on this machine are
    compared with those of the store.

    Args:
        settings: The command's settings.
        samples: Splits that were read already.
        trained_on: The encoders of a model: others are refused. Its data may have changed.
        path_policy: Which paths of a run's settings may be used; default: as of the user's own.
        online: Whether missing encoders may be downloaded by their hub names.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        samples: Mapping[str, Sequence[Sample]] | None = None,
        trained_on: Identities | None = None,
        path_policy: PathPolicy | None = None,
        online: bool = False,
    ) -> None:
        self.online, self.store = online, Store(settings.cache.dir)
        self.path_policy = path_policy or PathPolicy(settings, self.store.root)
        self._strict = trained_on is None
        self.settings = use_stored_data_settings(
            settings, self.store, self.path_policy, extracting=not self._strict
        )
        self._samples = {
            split: rows if isinstance(rows, SampleTable) else SampleTable.from_samples(rows)
            for split, rows in (samples or {}).items()
        }
        self._rows: dict[tuple[str, str], SampleRows] = {}
        self.trained_on = trained_on or {}
        self._find_encoder = functools.cache(self._select_encoder)
        self._resolved: dict[tuple[str, str], EncoderSpec] = {}
        self._loaded: dict[tuple[str, str], Encoder] = {}
        self._checks = Checks(self.store.root, self.path_policy)

    @functools.cached_property
    def device(self) -> torch.device:
        """The device of models.

        Raises:
            DeviceError: There is no such device.
        """
        return pick_device(self.settings.device)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their codes."""
        split = self.store.split(self._split) if self._strict else None
        return split[0].classes if split else classes_of(self.settings)

    @property
    def _split(self) -> str:
        """The split whose rows decide which stored features are most complete."""
        return next((split for split in SPLITS if self.store.split(split)), SPLITS[0])

    def samples(self, split: str) -> SampleTable:
        """The samples of a split or of `JOINED`, without the rows that extraction set aside.

        Raises:
            SettingsError: Neither the store nor the data has the split.
            DataError: With every problem at once.
            StaleCacheError: The data is not what was extracted; lists what changed.
        """
        if split not in self._samples and split == JOINED:
            self._samples[split] = concatenate_tables([self.samples("train"), self.samples("val")])
        elif split not in self._samples:
            samples, checked = read_samples(self.settings, split, self.store, strict=self._strict)
            self._samples[split] = samples
            self._checks.record("the data", done=checked or not self._strict)
        return self._samples[split]

    def groups(self, split: str = "train") -> IntArray:
        """Duplicate group of each sample of a split, (samples,)."""
        return self.samples(split).groups()

    def rows(self, split: str, modality: str) -> SampleRows:
        """The rows of features that a split needs; with a model's encoders, originals only."""
        if (split, modality) not in self._rows:
            first = "train" if split == JOINED else split
            stored = self.store.split(first) if self._strict else None
            self._rows[split, modality] = needed_rows(stored, self.samples(split), modality)
        return self._rows[split, modality]

    def stored_encoder(self, split: str, modality: str, name: str) -> StoredEncoder:
        """The encoder of the store that the settings describe.

        Raises:
            SettingsError: Several match.
            CacheNotFoundError: None does.
        """
        encoder = self._find_encoder(split, modality, name)
        if encoder is None:
            raise missing_encoder_error(self.settings, self.store, modality, name)
        return encoder

    def _select_encoder(self, split: str, modality: str, name: str) -> StoredEncoder | None:
        return select_encoder(
            self.settings,
            self.store.encoders(modality),
            modality,
            name,
            lambda encoder: self.store.completeness(encoder, self.rows(split, modality)),
            trained_on=self.trained_on.get(modality, {}).get(name),
        )

    def pools(self, modality: str, name: str) -> tuple[str, ...]:
        """Names of the pooled vectors of an encoder; empty where the store lacks it."""
        stored = self._find_encoder(self._split, modality, name)
        return () if stored is None else self.store.pools(stored)

    def feature_folder(self, split: str, modality: str, name: str = DEFAULT_ENCODER) -> Path:
        """The folder of the features of `stored_encoder`."""
        return self.stored_encoder(split, modality, name).folder(self.store.root)

    def encoder(self, modality: str, name: str = DEFAULT_ENCODER) -> EncoderSpec:
        """An encoder in the precision of this machine, resolved to local files but not loaded.

        Raises:
            SettingsError: There is no encoder of that name.
            ModelError: It cannot be found, or is not the one that the model was trained on.
        """
        if (modality, name) not in self._resolved:
            trained_on = self.trained_on.get(modality, {}).get(name)
            stored = self._find_encoder(self._split, modality, name) if self._strict else None
            refuse_imported(stored.identity if stored is not None else trained_on)
            own = self._encoder_settings(modality, name)
            compute = default_precision(own)
            spec = resolve_encoder(own, modality, compute, self.path_policy, self.online)
            changed = spec.identity.changes_since(trained_on) if trained_on is not None else []
            if changed:
                raise ModelError(
                    f"The {modality} encoder here is not the one that the model was trained on.",
                    "Restore the encoder's files, or train the model again.",
                    changed,
                )
            self._resolved[modality, name] = spec
        return self._resolved[modality, name]

    def _encoder_settings(self, modality: str, name: str) -> Settings:
        """Settings with an encoder as the default one of its modality."""
        stored = self._find_encoder(self._split, modality, name) if self._strict else None
        if stored is None:
            return self.settings.with_encoder(modality, name)
        return use_stored_encoder(self.settings, modality, stored)

    def text_encoder(self, name: str = DEFAULT_ENCODER) -> TextSpec:
        """`encoder` of a text model that has tokens."""
        spec = self.encoder("text", name)
        if not isinstance(spec, TextSpec):
            raise ModelError(f"{spec.label} has no tokens.", "Give another --text-model.")
        return spec

    def image_encoder(self, name: str = DEFAULT_ENCODER) -> ImageSpec:
        """`encoder` of an image model."""
        spec = self.encoder("image", name)
        assert isinstance(spec, ImageSpec)
        return spec

    def load_encoder(self, modality: str, name: str = DEFAULT_ENCODER) -> Encoder:
        """The model of `encoder`, on the device."""
        if (modality, name) not in self._loaded:
            self._loaded[modality, name] = self.encoder(modality, name).load(self.device)
        return self._loaded[modality, name]

    def identities(self, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> Identities:
        """The encoders of some pairs, by modality and name."""
        return {
            modality: {
                name: self._identity(modality, name)
                for name in dict.fromkeys(term for p in pairs for term in split_terms(p[index]))
            }
            for index, modality in enumerate(MODALITIES)
        }

    def _identity(self, modality: str, name: str) -> EncoderIdentity:
        if name in self.trained_on.get(modality, {}):
            return self.trained_on[modality][name]
        stored = self._find_encoder(self._split, modality, name) if self.store.features else None
        return self.encoder(modality, name).identity if stored is None else stored.identity

    def completed_settings(self, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> Settings:
        """The settings, with the encoders of some pairs as the store has them."""
        encoders = {
            (modality, name): stored
            for modality, named in self.identities(pairs).items()
            for name in named
            if (stored := self._find_encoder(self._split, modality, name)) is not None
        }
        return use_stored_encoders(self.settings, encoders)

    def encoder_labels(self, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> dict[str, str]:
        """Names of the encoders for people, by modality."""
        return {
            modality: ", ".join(identity.label for identity in encoders.values())
            for modality, encoders in self.identities(pairs).items()
        }

    def notes(self, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> list[str]:
        """Notes for readers of figures: synthetic data, random weights."""
        random = [
            identity.label
            for encoders in self.identities(pairs).values()
            for identity in encoders.values()
            if identity.random_weights
        ]
        return list(dict.fromkeys(filter(None, [self.settings.data.note, *random])))

    def bank(self, split: str, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> FeatureBank:
        """Opens the features of a split, on the CPU.

        Args:
            split: See `samples`.
            pairs: Encoders to open; the first pair's bank gives the others by its `using`.

        Raises:
            SettingsError: Several encoders of the store match.
            CacheNotFoundError: Rows, or an encoder, were not extracted.
            StaleCacheError: The data or an encoder on this machine differs from the store; lists
                what changed.
            DamagedCacheError: A file is not what was sealed.
        """
        open_features = functools.partial(self._open_features, split)
        bank = bank_choice(open_features, self.samples(split)).open(pairs)
        self._checks.report_unchecked()
        return bank

    def _open_features(self, split: str, modality: str, name: str) -> ModalityFeatures:
        stored = self.stored_encoder(split, modality, name)
        if self._strict:
            several = sum(is_same_encoder(e, stored) for e in self.store.encoders(modality)) > 1
            if several or not names_encoder(self.settings, modality, name):
                self._checks.report_encoder(modality, stored, precision=several)
            self._checks.check_encoder(modality, stored, self._encoder_settings(modality, name))
        try:
            return ModalityFeatures.open(stored.folder(self.store.root), self.rows(split, modality))
        except CacheNotFoundError as error:
            which = ALL if split == JOINED else split
            hint = missing_rows_hint(stored.identity, which, name)
            raise CacheNotFoundError(error.message, hint) from error

    def _repr_html_(self) -> str:
        return self.store.as_html(self.settings.data.root)
