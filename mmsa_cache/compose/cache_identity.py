"""What identifies the caches that a command's settings mean.

The encoders' own fields come from stage one; this adds the data's and the augmentation's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.splits import report_copies
from mmsa_cache.hashing import rows_digest


def copies_of(settings: Settings, split: str, samples: Sequence[Sample]) -> dict[int, int]:
    """Augmented copies a sample of each class; only labelled training rows get any."""
    variants = settings.extract.variants
    if split != "train" or variants == "none":
        return {}
    labels = [sample.label for sample in samples if sample.label is not None]
    return dict.fromkeys(labels, variants) if isinstance(variants, int) else report_copies(labels)


def cache_fields(
    encoder: Mapping[str, Any],
    settings: Settings,
    rows: Sequence[tuple[Sample, int]],
    policy: str,
) -> dict[str, Any]:
    """All fields of a cache's fingerprint.

    Args:
        encoder: The encoder's own fields.
        settings: The command's settings.
        rows: (sample, variant) in the order of the cache.
        policy: Name of the augmentation policy in force.
    """
    modality = encoder["modality"]
    augmented = any(variant for _, variant in rows)
    fields = {
        **encoder,
        "augmentation": f"{policy}:{settings.seed}" if augmented else "none",
        "shard_rows": settings.cache.shard_rows,
        "batch_size": settings.extract.batch_size,
        "rows": rows_digest(
            (s.guid, v, s.text_sha256 if modality == "text" else s.image_sha256) for s, v in rows
        ),
    }
    if modality == "text":
        fields |= {
            "encoding": settings.data.encoding,
            "encoding_errors": settings.data.encoding_errors,
            "max_chars": settings.data.max_chars,
        }
    return fields


def cache_folder(settings: Settings, split: str, modality: str) -> Path:
    """``CACHE/SPLIT/MODALITY``"""
    return settings.cache.dir / split / modality
