"""What one command works on: data, encoders and features, each resolved once."""

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
from mmsa_cache.data.table import SampleTable, concatenated
from mmsa_cache.errors import CacheNotFoundError, ModelError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.rows import WantedRows
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
from .samples import banks_of, classes_of, samples_of_split
from .selection import is_named, is_same, missing, select
from .store import Store, needed_rows


class Session:
    """Everything that one command works on; each part is resolved when first asked for, and kept.

    What the settings do not say is as the store was told. Data and encoders are those of the store;
    where they are at hand too they are checked.

    Args:
        settings: The command's settings.
        samples: Splits that were read already.
        trained_on: The encoders of a model: others are refused. Its data may have changed.
        path_policy: Where a run's paths may lead; default: they are the user's own.
        online: Whether encoders that are not on this machine may be fetched by their hub names.
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
            split: found if isinstance(found, SampleTable) else SampleTable.from_samples(found)
            for split, found in (samples or {}).items()
        }
        self._rows: dict[tuple[str, str], WantedRows] = {}
        self.trained_on = trained_on or {}
        self._stored: dict[tuple[str, str, str], StoredEncoder | None] = {}
        self._resolved: dict[tuple[str, str], EncoderSpec] = {}
        self._loaded: dict[tuple[str, str], Encoder] = {}
        self._checks = Checks(self.store.root, self.path_policy)

    @functools.cached_property
    def device(self) -> torch.device:
        """Where models run.

        Raises:
            DeviceError: It is not there.
        """
        return pick_device(self.settings.device)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their codes."""
        found = self.store.split(self._split) if self._strict else None
        return found[0].classes if found else classes_of(self.settings)

    @property
    def _split(self) -> str:
        """The split that encoders are chosen by."""
        return next((split for split in SPLITS if self.store.split(split)), SPLITS[0])

    def samples(self, split: str) -> SampleTable:
        """The samples of a split or of `JOINED`, without the rows that extraction set aside.

        Raises:
            SettingsError: Neither the store nor the settings lead to the split, or it is none.
            DataError: With every problem at once.
            StaleCacheError: The data at hand is not what was extracted; says what changed.
        """
        if split not in self._samples and split == JOINED:
            self._samples[split] = concatenated([self.samples("train"), self.samples("val")])
        elif split not in self._samples:
            found = samples_of_split(self.settings, split, self.store, strict=self._strict)
            self._samples[split], checked = found
            self._checks.add("the data", done=checked or not self._strict)
        return self._samples[split]

    def groups(self, split: str = "train") -> IntArray:
        """Duplicate groups of the samples of a split, (samples,)."""
        return self.samples(split).groups()

    def rows(self, split: str, modality: str) -> WantedRows:
        """The rows of features that a split needs; with a model's encoders, of originals only."""
        if (split, modality) not in self._rows:
            first = "train" if split == JOINED else split
            stored = self.store.split(first) if self._strict else None
            self._rows[split, modality] = needed_rows(stored, self.samples(split), modality)
        return self._rows[split, modality]

    def stored(self, split: str, modality: str, name: str = DEFAULT_ENCODER) -> StoredEncoder:
        """The encoder of the store that the settings mean.

        Raises:
            SettingsError: Several fit.
            CacheNotFoundError: None does.
        """
        found = self._in_store(split, modality, name)
        if found is None:
            raise missing(
                self.settings, self.store.encoders(modality), modality, name, self.store.root
            )
        return found

    def _in_store(self, split: str, modality: str, name: str) -> StoredEncoder | None:
        key = (split, modality, name)
        if key not in self._stored:
            self._stored[key] = select(
                self.settings,
                self.store.encoders(modality),
                modality,
                name,
                lambda encoder: self.store.share(encoder, self.rows(split, modality)),
                trained_on=self.trained_on.get(modality, {}).get(name),
            )
        return self._stored[key]

    def pools(self, modality: str, name: str) -> tuple[str, ...]:
        """The pools of an encoder in the store; none where it is not there, see `stored`."""
        stored = self._in_store(self._split, modality, name)
        return () if stored is None else self.store.pools(stored)

    def folder(self, split: str, modality: str, name: str = DEFAULT_ENCODER) -> Path:
        """Where the features of `stored` are."""
        return self.stored(split, modality, name).folder(self.store.root)

    def encoder(self, modality: str, name: str = DEFAULT_ENCODER) -> EncoderSpec:
        """An encoder in the precision of this machine, resolved to local files but not loaded.

        Raises:
            SettingsError: There is no encoder of that name.
            ModelError: It cannot be found, or is not the one that the model was trained on.
        """
        if (modality, name) not in self._resolved:
            trained_on = self.trained_on.get(modality, {}).get(name)
            stored = self._in_store(self._split, modality, name) if self._strict else None
            refuse_imported(stored.identity if stored is not None else trained_on)
            own = self._settings_of(modality, name)
            spec = resolve_encoder(
                own, modality, default_precision(own), self.path_policy, self.online
            )
            changed = spec.identity.changes_since(trained_on) if trained_on is not None else []
            if changed:
                raise ModelError(
                    f"The {modality} encoder here is not the one that the model was trained on.",
                    "Restore the encoder's files, or train the model again.",
                    changed,
                )
            self._resolved[modality, name] = spec
        return self._resolved[modality, name]

    def _settings_of(self, modality: str, name: str) -> Settings:
        """Settings with an encoder in the place of the default one."""
        stored = self._in_store(self._split, modality, name) if self._strict else None
        if stored is None:
            return self.settings.with_encoder(modality, name)
        return use_stored_encoder(self.settings, modality, stored)

    def text_encoder(self, name: str = DEFAULT_ENCODER) -> TextSpec:
        """See `encoder`; it must have tokens."""
        found = self.encoder("text", name)
        if not isinstance(found, TextSpec):
            raise ModelError(f"{found.label} has no tokens.", "Give another --text-model.")
        return found

    def image_encoder(self, name: str = DEFAULT_ENCODER) -> ImageSpec:
        """See `encoder`."""
        found = self.encoder("image", name)
        assert isinstance(found, ImageSpec)
        return found

    def loaded(self, modality: str, name: str = DEFAULT_ENCODER) -> Encoder:
        """The model of `encoder`, on the device.

        Raises:
            MmsaError: As `encoder` raises, or the model cannot be loaded.
        """
        if (modality, name) not in self._loaded:
            self._loaded[modality, name] = self.encoder(modality, name).load(self.device)
        return self._loaded[modality, name]

    def identities(self, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> Identities:
        """The encoders of some pairs."""
        return {
            modality: {
                name: self._identity(modality, name)
                for name in dict.fromkeys(n for pair in pairs for n in split_terms(pair[place]))
            }
            for place, modality in enumerate(MODALITIES)
        }

    def _identity(self, modality: str, name: str) -> EncoderIdentity:
        if name in self.trained_on.get(modality, {}):
            return self.trained_on[modality][name]
        stored = self._in_store(self._split, modality, name) if self.store.features else None
        return self.encoder(modality, name).identity if stored is None else stored.identity

    def completed(self, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> Settings:
        """The settings with the encoders of some pairs as the store has them."""
        chosen = {
            (modality, name): stored
            for modality, found in self.identities(pairs).items()
            for name in found
            if (stored := self._in_store(self._split, modality, name)) is not None
        }
        return use_stored_encoders(self.settings, chosen)

    def labels(self, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> dict[str, str]:
        """Names of the encoders for people, one line a modality."""
        return {
            modality: ", ".join(identity.label for identity in found.values())
            for modality, found in self.identities(pairs).items()
        }

    def notes(self, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> list[str]:
        """What readers of figures must know: synthetic data, random weights."""
        random = [
            identity.label
            for found in self.identities(pairs).values()
            for identity in found.values()
            if identity.random_weights
        ]
        return list(dict.fromkeys(filter(None, [self.settings.data.note, *random])))

    def bank(self, split: str, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)) -> FeatureBank:
        """Opens the features of a split, on the CPU.

        Args:
            split: See `samples`.
            pairs: Encoders that are wanted; the first pair's bank gives the others by its `using`.

        Raises:
            SettingsError: Several encoders of the store fit.
            CacheNotFoundError: Rows, or an encoder, were not extracted.
            StaleCacheError: The data or an encoder at hand is another one; says what changed.
            DamagedCacheError: A file is not what was sealed.
        """

        def open_features(modality: str, name: str) -> ModalityFeatures:
            stored = self.stored(split, modality, name)
            if self._strict:
                several = sum(is_same(e, stored) for e in self.store.encoders(modality)) > 1
                if several or not is_named(self.settings, modality, name):
                    self._checks.chosen(modality, stored, precision=several)
                self._checks.encoder(modality, stored, self._settings_of(modality, name))
            folder = stored.folder(self.store.root)
            try:
                return ModalityFeatures.open(folder, self.rows(split, modality))
            except CacheNotFoundError as error:
                own = "" if name == DEFAULT_ENCODER else f" --encoders {name}"
                which = ALL if split == JOINED else split
                hint = f"Run mmsa extract --split {which}{own}: it computes what is missing."
                if stored.identity.imported:
                    hint = "Run mmsa cache import with the features of all rows."
                raise CacheNotFoundError(error.message, hint) from error

        bank = banks_of(open_features, self.samples(split)).open(pairs)
        self._checks.say()
        return bank

    def _repr_html_(self) -> str:
        return self.store.as_html(self.settings.data.root)
