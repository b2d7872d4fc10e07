"""The samples that a command's settings mean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data import aside
from mmsa_cache.data.changes import differences
from mmsa_cache.data.dataset import Survey, survey
from mmsa_cache.data.intake import Intake
from mmsa_cache.data.layouts import rows
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.stats import KnownFiles
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError, SettingsError, StaleCacheError
from mmsa_cache.features.bank import BankChoice
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import SPLITS, check_split, class_problem

from .store import Store


def classes_of(settings: Settings) -> tuple[str, ...]:
    """Class names in the order of their codes: those set, or those of the data.

    Raises:
        DataError: The data cannot be read, or a run could not keep one of its labels.
    """
    found = rows.classes_of(settings.data)
    wrong = [f"{name[:100]!r}: {why}" for name in found if (why := class_problem(name)) is not None]
    if wrong:
        raise DataError(
            f"{len(wrong)} label(s) cannot be the name of a class.",
            "Give them other names, or list the classes: [data] classes.",
            wrong,
        )
    return found


def splits_of(settings: Settings, store: Store) -> set[str]:
    """The splits of the data where it is at hand, else those of a store."""
    root = settings.data.root
    with contextlib.suppress(DataError, SettingsError):  # others say what is wrong with it
        if root is not None and root.exists():
            return {*find_layout(settings.data).splits}
    return {split for split in SPLITS if store.split(split)}


def load_samples(settings: Settings, split: str) -> SampleTable:
    """The samples of `samples_of_split`, which must be those of the store if it has the split."""
    return samples_of_split(settings, split, Store(settings.cache.dir), strict=True)[0]


def samples_of_split(
    settings: Settings, split: str, store: Store, *, strict: bool
) -> tuple[SampleTable, bool]:
    """The samples of a split, and whether the data was at hand.

    Args:
        settings: The command's settings.
        split: One of `SPLITS`.
        store: Has the samples where the data is not at hand.
        strict: Data at hand must be what was extracted.

    Raises:
        SettingsError: Neither is there, or it is no split.
        DataError: With every problem of the data at once.
        StaleCacheError: It is not what was extracted; says what changed.
    """
    check_split(split)
    stored, root = store.split(split), settings.data.root
    if stored is not None and (root is None or not root.exists()):
        return stored[1], False
    if root is None:
        raise SettingsError(
            f"Neither a data folder is set nor does {store.root} hold the split {split}.",
            "Run mmsa init DIR and mmsa extract; or give --data DIR, or the --cache of another.",
        )
    found, report = read_data(settings, split, store)
    if report.aside:
        record = aside.path_of(settings.cache.dir, split)
        say(f"Note: {report.aside} rows of {split} are left out, see {record}.")
    changes = differences(stored[1], found) if stored is not None and strict else []
    if changes:
        raise StaleCacheError(
            f"The split {split} in {root} is not what was extracted into {store.root}.",
            f"Run mmsa extract --split {split}: it computes only what is new.",
            changes,
        )
    return found, True


def read_data(settings: Settings, split: str, store: Store) -> tuple[SampleTable, Intake]:
    """Reads a split as the settings say, without the rows that its extraction set aside.

    Returns:
        The samples, and what was kept, merged, dropped and set aside.

    Raises:
        SettingsError: No data folder is set.
        DataError: With every problem at once.
    """
    # Only an extraction begins a store.
    there = store.root.is_dir()
    found = survey_incrementally(settings, split, store) if there else survey(settings.data, split)
    known = aside.read(settings.cache.dir, split).identities
    found.raise_bad([row for row in found.bad if row.identity not in known])
    left_out = [s.guid for s in found.samples if s.identity in known] if known else []
    samples = found.samples.without(left_out)
    return samples, found.intake(samples)


def survey_incrementally(settings: Settings, split: str, store: Store) -> Survey:
    """Reads a split; files that did not change since a store's last look are not opened.

    Raises:
        SettingsError: No data folder is set.
        DataError: As `survey` raises.
    """
    stored = store.split(split)
    known = KnownFiles(
        store.root,
        settings.data.folder,
        split,
        None if stored is None else stored[1],
        rehash=settings.data.rehash,
    )
    return survey(settings.data, split, known)


def banks_of(
    open_features: Callable[[str, str], ModalityFeatures],
    samples: Sequence[Sample],
) -> BankChoice:
    """Banks of samples by their encoders; a half that a sample lacks is masked out."""
    table = samples if isinstance(samples, SampleTable) else SampleTable.from_samples(samples)
    partial = not table.present.all()
    return BankChoice(open_features, table.guids, table.labels.tolist(), partial=partial)
