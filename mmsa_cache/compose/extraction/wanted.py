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
class WantedFeatures:
    """Features of a split that are to be complete."""

    split: Split
    name: str
    settings: Settings
    """They lead to the encoder."""
    spec: EncoderSpec
    """In the precision of this machine, or that of features that were started."""
    encoder: StoredEncoder
    """Of the store: features that are complete may be of another device or precision."""


def wanted_features(
    settings: Settings,
    store: Store,
    policy: PathPolicy,
    name: str,
    splits: Sequence[Split],
    modalities: Sequence[str] = MODALITIES,
    *,
    online: bool = True,
    here: bool = True,
) -> Iterator[WantedFeatures]:
    """What is to be extracted under a name, split by split.

    Args:
        settings: The command's settings.
        store: Where it goes.
        policy: Where the paths of the settings may lead.
        name: Of encoders in the settings.
        splits: Their rows.
        modalities: Of which encoders are wanted.
        online: Whether encoders are fetched that are not on this machine.
        here: Whether they go to that store: features of another device that are complete there
            are wanted as they are.

    Raises:
        ModelError: An encoder is not found, or not allowed by the policy.
    """
    there: dict[str, tuple[Settings, EncoderSpec]] = {}
    for split, modality in itertools.product(splits, modalities):
        stored = store.encoders(modality)
        rows = split.rows[modality].wanted
        if modality not in there:
            own = _settings_of(settings, store, modality, name, rows)
            if own is None:
                continue
            spec = resolve_encoder(own, modality, default_precision(own), policy, online=online)
            there[modality] = own, spec
        own, spec = there[modality]
        asked = StoredEncoder.of(
            spec.identity, (name,), stored_encoder_settings(own, modality), library_versions()
        )
        computes = allowed_precisions(own)
        same = [
            e
            for e in stored
            if is_same_encoder(e, asked) and e.identity.fields["compute"] in computes
        ]
        complete = next((e for e in same if store.completeness(e, rows) == 1.0), None)
        if here and complete is not None:
            yield WantedFeatures(split, name, own, spec, complete.with_names_of(asked))
            continue
        started = next((c for c in computes if _is_started(spec.computed_in(c), same)), computes[0])
        spec = spec.computed_in(started)
        encoder = StoredEncoder.of(spec.identity, (name,), asked.told, asked.versions)
        yield WantedFeatures(split, name, own, spec, encoder)


def _is_started(spec: EncoderSpec, stored: Sequence[StoredEncoder]) -> bool:
    return any(encoder.identity == spec.identity for encoder in stored)


def _settings_of(
    settings: Settings, store: Store, modality: str, name: str, rows: SampleRows
) -> Settings | None:
    """Settings with an encoder as the default one: as set, or as the store has it.

    Where no model is named it is that of the store, with the other keys as they are set.
    None where neither has an encoder of this name and modality, or its features were imported.
    """
    stored, named = store.encoders(modality), names_encoder(settings, modality, name)
    if named:
        stored = [encoder for encoder in stored if encoder.identity.imported]
    found = select_encoder(settings, stored, modality, name, lambda e: store.completeness(e, rows))
    if found is None and not named:
        found = select_encoder(
            Settings(cache=settings.cache),
            stored,
            modality,
            name,
            lambda e: store.completeness(e, rows),
        )
    if found is not None and found.identity.imported:
        missing = int((store.row_indices(found, rows) < 0).sum())
        state = f"{missing} rows are missing: import them" if missing else "nothing to do"
        say(f"{modality} features: {found.identity.label}, imported; {state}.")
        return None
    if found is not None:
        say(f"{modality} encoder: {found.identity.label}, as in {store.root}.")
        return apply_explicit_values(
            use_stored_encoder(settings, modality, found), settings, modality, name
        )
    if name not in settings.encoder_names(modality):
        return None
    return settings.with_encoder(modality, name)
