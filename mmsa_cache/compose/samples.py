"""What the caches of a command's settings are: the one place that says which features are meant.

The encoders' own fields come from stage one; this adds the data's and the augmentation's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data import aside
from mmsa_cache.data.adapters import LABELS, Intake, data_classes
from mmsa_cache.data.dataset import Sample, Survey, survey
from mmsa_cache.data.splits import report_copies
from mmsa_cache.errors import SettingsError
from mmsa_cache.store.fingerprint import rows_digest

MODALITIES = ("text", "image")


def classes_of(settings: Settings) -> tuple[str, ...]:
    """Class names in the order of their codes: those set, or those of the data."""
    data = settings.data
    if data.classes is not None:
        return data.classes
    if data.root is None:
        return LABELS
    return data_classes(data.root, encoding=data.encoding, encoding_errors=data.encoding_errors)


def load_samples(settings: Settings, split: str) -> list[Sample]:
    """The samples that ``take_in`` gives; a person is told how many rows are left out."""
    samples, report = take_in(settings, split)
    if report.aside:
        record = aside.path_of(settings.cache.dir, split)
        say(f"Note: {report.aside} rows of {split} are left out, see {record}.")
    return samples


def take_in(settings: Settings, split: str) -> tuple[list[Sample], Intake]:
    """Reads a split as the settings say, without the rows that its extraction set aside.

    Returns:
        The samples, and what was kept, merged, dropped and set aside.

    Raises:
        SettingsError: No data folder is set.
        DataError: With every problem at once.
    """
    found = survey_split(settings, split)
    known = aside.read(settings.cache.dir, split).identities
    found.raise_bad([row for row in found.bad if row.identity not in known])
    samples = [sample for sample in found.samples if sample.identity not in known]
    return samples, found.intake(samples)


def survey_split(settings: Settings, split: str) -> Survey:
    """Finds the good and the bad rows of a split as the settings say.

    Raises:
        SettingsError: No data folder is set.
        DataError: As `dataset.survey` does.
    """
    if settings.data.root is None:
        raise SettingsError(
            "No data folder is set.", "Give --data DIR, or root under [data] in mmsa.toml."
        )
    return survey(
        settings.data.root,
        split,
        encoding=settings.data.encoding,
        encoding_errors=settings.data.encoding_errors,
        max_chars=settings.data.max_chars,
        classes=classes_of(settings),
        allow_empty_text=settings.data.allow_empty_text,
    )


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
