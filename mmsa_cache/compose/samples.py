"""The samples that a command's settings mean."""

from __future__ import annotations

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data import aside
from mmsa_cache.data.dataset import Survey, survey
from mmsa_cache.data.intake import Intake
from mmsa_cache.data.layouts.listing import LABELS
from mmsa_cache.data.layouts.rows import data_classes
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import SettingsError


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
