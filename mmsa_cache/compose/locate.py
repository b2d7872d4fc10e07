"""The caches that a command's settings mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extract.inputs.augment import POLICY
from extract.plan import plan_rows
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import CacheNotFoundError, MmsaError, StaleCacheError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, OWN_PAIR, EncoderPair
from mmsa_cache.store.fingerprint import cache_name
from mmsa_cache.store.lookup import find_cache

from .cache_identity import cache_fields, cache_folder, copies_of
from .encoders import Spec, computes_of, resolve_encoder
from .samples import classes_of


def locate(
    settings: Settings, split: str, modality: str, rows: Sequence[tuple[Sample, int]]
) -> tuple[Spec, dict[str, Any]]:
    """The encoder and the fingerprint's fields of one cache.

    Where the precision is ``auto``, a cache of any precision that is there is taken.

    Args:
        settings: The command's settings.
        split: Its split.
        modality: ``text`` or ``image``.
        rows: (sample, variant) in the order of the cache.
    """
    parent = cache_folder(settings, split, modality)
    own, *others = computes_of(settings)
    spec = resolve_encoder(settings, modality, own)
    fields = cache_fields(spec.fields, settings, rows, POLICY)
    for compute in (own, *others):
        wanted = fields | {"compute": compute}
        if (parent / cache_name(spec.name, wanted)).is_dir():
            return spec.computed_in(compute), wanted
    return spec, fields


def cache_rows(
    settings: Settings, split: str, samples: Sequence[Sample]
) -> list[tuple[Sample, int]]:
    """(sample, variant) in the order of a cache."""
    return [(r.sample, r.variant) for r in plan_rows(samples, copies_of(settings, split, samples))]


def finished_cache(
    settings: Settings, split: str, modality: str, name: str, rows: Sequence[tuple[Sample, int]]
) -> Path:
    """The finished cache of one encoder; of a named one an error says the command that makes it."""
    parent = cache_folder(settings, split, modality)
    spec, fields = locate(settings.with_encoder(modality, name), split, modality, rows)
    try:
        return find_cache(parent, spec.name, fields)
    except (CacheNotFoundError, StaleCacheError) as error:
        if name == DEFAULT_ENCODER:
            raise
        hint = f"Run mmsa extract --split {split} --encoders {name}."
        own = all(problem.partition(":")[0] not in spec.fields for problem in error.problems)
        if isinstance(error, StaleCacheError) and own:
            raise StaleCacheError(error.message, hint, error.problems) from error
        raise CacheNotFoundError(
            f"The {modality} encoder {name!r} ({spec.label}) has no finished cache of the split "
            f"{split} in {parent}.",
            hint,
        ) from error


def origin_of(
    settings: Settings, bank: FeatureBank, pairs: Sequence[EncoderPair] = (OWN_PAIR,)
) -> dict[str, Any]:
    """What identifies the features and the labels that a study is made on.

    Of a modality the name of the cache, or those by encoder where others than the default are used.
    """
    origin: dict[str, Any] = {}
    for place, modality in enumerate(MODALITIES):
        folders = {
            pair[place]: Path(getattr(bank.using(*pair), modality).name).name for pair in pairs
        }
        own = folders.get(DEFAULT_ENCODER)
        origin[modality] = own if own and len(folders) == 1 else dict(sorted(folders.items()))
    return origin | {"classes": list(classes_of(settings))}


def origins_here(settings: Settings, samples: Sequence[Sample]) -> dict[str, Any]:
    """`origin_of` of every encoder that the settings name and this machine can resolve."""
    rows = cache_rows(settings, "train", samples)
    origin: dict[str, Any] = {}
    for modality in MODALITIES:
        origin[modality] = {}
        for name in settings.encoder_names(modality):
            own = settings.with_encoder(modality, name)
            try:
                spec, fields = locate(own, "train", modality, rows)
            except MmsaError:
                if name == DEFAULT_ENCODER:
                    raise
                continue  # a study that uses it does not match
            origin[modality][name] = cache_name(spec.name, fields)
    return origin | {"classes": list(classes_of(settings))}
