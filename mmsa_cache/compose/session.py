"""What one command works on: data, encoders, caches and features, each resolved once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from extract.encoders.image import ImageSpec
from extract.encoders.protocol import Encoder
from extract.encoders.text import TextSpec
from extract.plan import Row, plan_rows
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.dataset import single_sample
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.splits import IntArray, duplicate_groups
from mmsa_cache.errors import MmsaError, ModelError
from mmsa_cache.features.bank import BankChoice, FeatureBank
from mmsa_cache.features.batch import Dims
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, OWN_PAIR, EncoderPair
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.identity import EncoderIdentity, Origin

from .cached import Cache, copies_of, finished, locate
from .encoders import compute_here, resolve_encoder
from .live import encoded_now
from .samples import classes_of, load_samples

Identities = Mapping[str, Mapping[str, EncoderIdentity]]
"""By modality and name of the encoder in the settings."""


class Session:
    """Everything that one command works on; each part is resolved when first asked for, and kept.

    Args:
        settings: The command's settings.
        samples: Splits that were read already.
        trained_on: The encoders that a model was trained on: others are refused.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        samples: Mapping[str, Sequence[Sample]] | None = None,
        trained_on: Identities | None = None,
    ) -> None:
        self.settings = settings
        self._samples = {split: list(found) for split, found in (samples or {}).items()}
        self._rows: dict[str, list[Row]] = {}
        self._trained_on = trained_on or {}
        self._resolved: dict[tuple[str, str], TextSpec | ImageSpec] = {}
        self._loaded: dict[tuple[str, str], Encoder] = {}
        self._caches: dict[tuple[str, str, str], Cache] = {}

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
        return classes_of(self.settings)

    def samples(self, split: str) -> list[Sample]:
        """The samples of a split, without the rows that its extraction set aside.

        Raises:
            SettingsError: No data folder is set.
            DataError: With every problem at once.
        """
        if split not in self._samples:
            self._samples[split] = load_samples(self.settings, split)
        return self._samples[split]

    @functools.cached_property
    def groups(self) -> IntArray:
        """Duplicate groups of the training split, (samples,)."""
        return duplicate_groups(self.samples("train"))

    def rows(self, split: str) -> list[Row]:
        """The rows of a split's caches, in their order."""
        if split not in self._rows:
            samples = self.samples(split)
            self._rows[split] = plan_rows(samples, copies_of(self.settings, split, samples))
        return self._rows[split]

    def encoder(self, modality: str, name: str = DEFAULT_ENCODER) -> TextSpec | ImageSpec:
        """An encoder in the precision of this machine, resolved to local files but not loaded.

        Raises:
            SettingsError: There is no encoder of that name.
            ModelError: It cannot be found, or is not the one that the model was trained on.
        """
        if (modality, name) not in self._resolved:
            own = self.settings.with_encoder(modality, name)
            spec = resolve_encoder(own, modality, compute_here(own))
            trained_on = self._trained_on.get(modality, {}).get(name)
            changed = spec.identity.changes_since(trained_on) if trained_on is not None else []
            if changed:
                raise ModelError(
                    f"The {modality} encoder here is not the one that the model was trained on.",
                    "Restore the encoder's files, or train the model again.",
                    changed,
                )
            self._resolved[modality, name] = spec
        return self._resolved[modality, name]

    def text_encoder(self, name: str = DEFAULT_ENCODER) -> TextSpec:
        """See `encoder`."""
        found = self.encoder("text", name)
        assert isinstance(found, TextSpec)
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

    def identities(self, pairs: Sequence[EncoderPair] = (OWN_PAIR,)) -> Identities:
        """The encoders of some pairs."""
        return {
            modality: {
                name: self.encoder(modality, name).identity
                for name in dict.fromkeys(pair[MODALITIES.index(modality)] for pair in pairs)
            }
            for modality in MODALITIES
        }

    def labels(self, pairs: Sequence[EncoderPair] = (OWN_PAIR,)) -> dict[str, str]:
        """Names of the encoders for people, one line a modality."""
        return {
            modality: ", ".join(identity.label for identity in found.values())
            for modality, found in self.identities(pairs).items()
        }

    def notes(self, pairs: Sequence[EncoderPair] = (OWN_PAIR,)) -> list[str]:
        """What readers of figures must know: synthetic data, random weights."""
        random = [
            identity.label
            for found in self.identities(pairs).values()
            for identity in found.values()
            if identity.random_weights
        ]
        note = self.settings.data.note
        return list(dict.fromkeys([*([note] if note else []), *random]))

    def cache(self, split: str, modality: str, name: str = DEFAULT_ENCODER) -> Cache:
        """The cache of a split and an encoder, whether it exists or not."""
        key = (split, modality, name)
        if key not in self._caches:
            spec = self.encoder(modality, name)
            self._caches[key] = locate(self.settings, split, spec, self.rows(split))
        return self._caches[key]

    def bank(self, split: str, pairs: Sequence[EncoderPair] = (OWN_PAIR,)) -> FeatureBank:
        """Opens the caches of a split, on the CPU.

        Args:
            split: ``train`` or ``test``.
            pairs: Encoders whose features are wanted; the bank of the first pair is returned, and
                gives the others by `FeatureBank.using`.

        Raises:
            SettingsError: There is no encoder of such a name.
            CacheNotFoundError: The split was not extracted.
            StaleCacheError: It was extracted from something else; the fields are named.
            DamagedCacheError: A file is not what was sealed.
        """

        def open_features(modality: str, name: str) -> ModalityFeatures:
            return ModalityFeatures.open(finished(self.cache(split, modality, name), name))

        return _banks(open_features, self.samples(split)).open(pairs)

    def live_bank(
        self, samples: Sequence[Sample], pairs: Sequence[EncoderPair] = (OWN_PAIR,)
    ) -> FeatureBank:
        """Encodes samples now, without a cache and without variants.

        The features equal those of the cache up to the order of additions, which padding and
        batches change: about one part in a thousand, the resolution of float16.

        Args:
            samples: What to encode.
            pairs: See `bank`.
        """

        def encode(modality: str, name: str) -> ModalityFeatures:
            return self._encoded(samples, modality, name)

        return _banks(encode, samples).open(pairs)

    def live_pair(
        self,
        text: str | None,
        image: Path | None,
        readers: Sequence[tuple[EncoderPair, Dims]],
        positions: int,
    ) -> FeatureBank:
        """Encodes one post of which a part is missing; the bank masks that part out.

        Args:
            text: Its text, or None.
            image: Its picture, or None.
            readers: Of each model, its encoders and the features that it expects.
            positions: Patches that the model expects of a picture.
        """
        given = {"text": text, "image": image}
        sample = single_sample(text, image)

        def encode(modality: str, name: str) -> ModalityFeatures:
            if given[modality] is not None:
                return self._encoded([sample], modality, name)
            dims = [dims for pair, dims in readers if pair[MODALITIES.index(modality)] == name]
            vectors = {
                pool.removeprefix(f"{modality}_"): size
                for of_model in dims
                for pool, size in of_model.vectors.items()
                if pool.startswith(f"{modality}_")
            }
            return ModalityFeatures.absent(
                getattr(dims[0], modality), vectors, positions if modality == "image" else 1
            )

        return _banks(encode, [sample], partial=True).open([pair for pair, _ in readers])

    def _encoded(self, samples: Sequence[Sample], modality: str, name: str) -> ModalityFeatures:
        spec, encoder = self.encoder(modality, name), self.loaded(modality, name)
        return encoded_now(self.settings, self.device, samples, spec, encoder)

    def origin(self, pairs: Sequence[EncoderPair] = (OWN_PAIR,)) -> Origin:
        """What identifies the features of the training split and its labels."""
        folders = {
            modality: {name: self.cache("train", modality, name).folder.name for name in found}
            for modality, found in self.identities(pairs).items()
        }
        named = {
            modality: found[DEFAULT_ENCODER]
            if [*found] == [DEFAULT_ENCODER]
            else dict(sorted(found.items()))
            for modality, found in folders.items()
        }
        return Origin(text=named["text"], image=named["image"], classes=self.classes)

    def origin_of_all(self) -> Origin:
        """`origin` of every encoder that the settings name and this machine can resolve."""
        found: dict[str, dict[str, str]] = {modality: {} for modality in MODALITIES}
        for modality in MODALITIES:
            for name in self.settings.encoder_names(modality):
                try:
                    found[modality][name] = self.cache("train", modality, name).folder.name
                except MmsaError:
                    if name == DEFAULT_ENCODER:
                        raise
                    # A study that uses it does not match.
        return Origin(text=found["text"], image=found["image"], classes=self.classes)


def _banks(
    open_features: Callable[[str, str], ModalityFeatures],
    samples: Sequence[Sample],
    *,
    partial: bool = False,
) -> BankChoice:
    labels = [-1 if sample.label is None else sample.label for sample in samples]
    return BankChoice(open_features, [sample.guid for sample in samples], labels, partial=partial)
