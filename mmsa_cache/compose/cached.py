"""Where the features of an encoder are cached, and the fields that identify them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from extract.encoders.image import ImageSpec
from extract.encoders.text import TextSpec
from extract.inputs.augment import POLICY
from extract.plan import Row
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.splits import report_copies
from mmsa_cache.errors import CacheNotFoundError, StaleCacheError
from mmsa_cache.hashing import rows_digest
from mmsa_cache.names import DEFAULT_ENCODER
from mmsa_cache.store.fingerprint import Fields, cache_name
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.lookup import find_cache

from .encoders import computes_of


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache of a split and an encoder, whether it exists or not."""

    split: str
    encoder: TextSpec | ImageSpec
    """In the precision of the cache."""
    fields: Fields
    """What its fingerprint is made of."""
    folder: Path


def locate(
    settings: Settings, split: str, encoder: TextSpec | ImageSpec, rows: Sequence[Row]
) -> Cache:
    """The cache of an encoder; where the precision is ``auto``, one of any precision that exists.

    Args:
        settings: The command's settings.
        split: ``train`` or ``test``.
        encoder: In the precision of this machine.
        rows: The cache's rows, in order.
    """
    parent = settings.cache.dir / split / encoder.identity.modality
    fields = _fields(settings, encoder.identity, rows)
    computes = computes_of(settings)
    caches = [
        Cache(
            split, encoder.computed_in(compute), wanted, parent / cache_name(encoder.name, wanted)
        )
        for compute in computes
        if (wanted := fields | {"compute": compute})
    ]
    return next((cache for cache in caches if cache.folder.is_dir()), caches[0])


def copies_of(settings: Settings, split: str, samples: Sequence[Sample]) -> dict[int, int]:
    """Augmented copies a sample of each class; only labelled training rows get any."""
    variants = settings.extract.variants
    if split != "train" or variants == "none":
        return {}
    labels = [sample.label for sample in samples if sample.label is not None]
    return dict.fromkeys(labels, variants) if isinstance(variants, int) else report_copies(labels)


def _fields(settings: Settings, encoder: EncoderIdentity, rows: Sequence[Row]) -> Fields:
    """All fields of a fingerprint: the encoder's, the data's and the augmentation's."""
    is_text, data = encoder.modality == "text", settings.data
    augmented = any(row.variant for row in rows)
    hashes = (row.sample.text_sha256 if is_text else row.sample.image_sha256 for row in rows)
    fields: Fields = {
        **encoder.fields,
        "augmentation": f"{POLICY}:{settings.seed}" if augmented else "none",
        "shard_rows": settings.cache.shard_rows,
        "batch_size": settings.extract.batch_size,
        "rows": rows_digest(
            (row.sample.guid, row.variant, content)
            for row, content in zip(rows, hashes, strict=True)
        ),
    }
    if is_text:
        fields |= {
            "encoding": data.encoding,
            "encoding_errors": data.encoding_errors,
            "max_chars": data.max_chars,
        }
    return fields


def finished(cache: Cache, name: str) -> Path:
    """The folder of a finished cache.

    Args:
        cache: The cache.
        name: Its encoder's name in the settings; an error names the command that makes the cache.

    Raises:
        CacheNotFoundError: It is not there, or not finished.
        StaleCacheError: Only caches of other fields are there.
    """
    parent, spec = cache.folder.parent, cache.encoder
    try:
        return find_cache(parent, spec.name, cache.fields)
    except (CacheNotFoundError, StaleCacheError) as error:
        if name == DEFAULT_ENCODER:
            raise
        hint = f"Run mmsa extract --split {cache.split} --encoders {name}."
        own = all(problem.partition(":")[0] not in spec.fields for problem in error.problems)
        if isinstance(error, StaleCacheError) and own:
            raise StaleCacheError(error.message, hint, error.problems) from error
        raise CacheNotFoundError(
            f"The {spec.identity.modality} encoder {name!r} ({spec.label}) has no finished cache "
            f"of the split {cache.split} in {parent}.",
            hint,
        ) from error
