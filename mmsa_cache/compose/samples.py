"""The samples that a command's settings mean."""

from __future__ import annotations

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data import aside
from mmsa_cache.data.dataset import survey
from mmsa_cache.data.intake import Intake
from mmsa_cache.data.layouts import rows
from mmsa_cache.data.table import SampleTable


def classes_of(settings: Settings) -> tuple[str, ...]:
    """Class names in the order of their codes: those set, or those of the data."""
    return rows.classes_of(settings.data)


def load_samples(settings: Settings, split: str) -> SampleTable:
    """The samples of `take_in`; prints how many rows are left out."""
    samples, report = take_in(settings, split)
    if report.aside:
        record = aside.path_of(settings.cache.dir, split)
        say(f"Note: {report.aside} rows of {split} are left out, see {record}.")
    return samples


def take_in(settings: Settings, split: str) -> tuple[SampleTable, Intake]:
    """Reads a split as the settings say, without the rows that its extraction set aside.

    Returns:
        The samples, and what was kept, merged, dropped and set aside.

    Raises:
        SettingsError: No data folder is set.
        DataError: With every problem at once.
    """
    found = survey(settings.data, split)
    known = aside.read(settings.cache.dir, split).identities
    found.raise_bad([row for row in found.bad if row.identity not in known])
    left_out = [s.guid for s in found.samples if s.identity in known] if known else []
    samples = found.samples.without(left_out)
    return samples, found.intake(samples)
