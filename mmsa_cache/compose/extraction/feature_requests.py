"""The features that ``mmsa extract`` has to complete."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.features.rows import SampleRows
from mmsa_cache.names import MODALITIES
from mmsa_cache.store.encoder import StoredEncoder

from ..session.completion import apply_explicit_values, stored_encoder_settings, use_stored_encoder
from ..session.encoders import (
    EncoderSpec,
    allowed_precisions,
    default_precision,
    library_versions,
    resolve_encoder,
)
from ..session.path_policy import PathPolicy
from ..session.selection import is_same_encoder, names_encoder, select_encoder
from ..session.store import Store
from .reading import Split


@dataclass(frozen=True, slots=True)
class FeatureRequest:
    """Features of a split to complete."""

    split: Split
    name: str
    """The encoder's name in the settings."""
    settings: Settings
    """Settings with the encoder as the default one of its modality."""
    spec: EncoderSpec
    """The encoder in the precision of this machine, or in that of features that were started."""
    encoder: StoredEncoder
    """Its record; complete features may be of another device or precision."""


def feature_requests(
    settings: Settings,
    store: Store,
    policy: PathPolicy,
    name: str,
    splits: Sequence[Split],
    modalities: Sequence[str] = MODALITIES,
    *,
    online: bool = True,
    local: bool = True,
) -> Iterator[FeatureRequest]:
    """The features to extract under a name, split by split.

    Args:
        settings: The command's settings.
        store: The local store.
        policy: Which paths of the settings may be used.
        name: Name of encoders in the settings.
        splits: Their rows are needed.
        modalities: Modalities of the encoders.
        online: Whether missing encoders are downloaded.
        local: Whether the features go to the local store: complete ones there are kept, also those
            of another device.

    Raises:
        ModelError: An encoder is not found, or not allowed by the policy.
    """
    resolved: dict[str, tuple[Settings, EncoderSpec]] = {}
    for split, modality in itertools.product(splits, modalities):
        rows = split.rows[modality].sample_rows
        if modality not in resolved:
            own = _encoder_settings(settings, store, modality, name, rows)
            if own is None:
                continue
            spec = resolve_encoder(own, modality, default_precision(own), policy, online=online)
            resolved[modality] = own, spec
        own, spec = resolved[modality]
        record = StoredEncoder.of(
            spec.identity, (name,), stored_encoder_settings(own, modality), library_versions()
        )
        precisions = allowed_precisions(own)
        usable = [
            encoder
            for encoder in store.encoders(modality)
            if is_same_encoder(encoder, record) and encoder.identity.fields["compute"] in precisions
        ]
        complete = next((e for e in usable if store.completeness(e, rows) == 1.0), None)
        if local and complete is not None:
            yield FeatureRequest(split, name, own, spec, complete.with_names_of(record))
            continue
        started = [encoder.identity for encoder in usable]
        spec = next(
            (s for p in precisions if (s := spec.computed_in(p)).identity in started),
            spec.computed_in(precisions[0]),
        )
        encoder = StoredEncoder.of(spec.identity, (name,), record.told, record.versions)
        yield FeatureRequest(split, name, own, spec, encoder)


def _encoder_settings(
    settings: Settings, store: Store, modality: str, name: str, rows: SampleRows
) -> Settings | None:
    """Settings with an encoder as the default one of its modality.

    Where the settings name no model, it is that of the store, with the other keys as set.

    Returns:
        None where neither has an encoder of this name and modality, or its features were imported.
    """

    def completeness(encoder: StoredEncoder) -> float:
        return store.completeness(encoder, rows)

    stored, named = store.encoders(modality), names_encoder(settings, modality, name)
    if named:
        stored = [encoder for encoder in stored if encoder.identity.imported]
    encoder = select_encoder(settings, stored, modality, name, completeness)
    if encoder is None and not named:
        unset = Settings(cache=settings.cache)
        encoder = select_encoder(unset, stored, modality, name, completeness)
    if encoder is None:
        known = name in settings.encoder_names(modality)
        return settings.with_encoder(modality, name) if known else None
    label = encoder.identity.label
    if encoder.identity.imported:
        missing = int((store.row_indices(encoder, rows) < 0).sum())
        state = f"{missing} rows are missing: import them" if missing else "nothing to do"
        say(f"{modality} features: {label}, imported; {state}.")
        return None
    say(f"{modality} encoder: {label}, as in {store.root}.")
    own = use_stored_encoder(settings, modality, encoder)
    return apply_explicit_values(own, settings, modality, name)
