"""Reads the samples that a command's settings select."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.file_hashes import FileHashCache
from mmsa_cache.data.layouts import rows
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.row_changes import describe_changes
from mmsa_cache.data.scan import SplitScan, scan_split
from mmsa_cache.data.set_aside import read_set_aside, set_aside_path
from mmsa_cache.data.split_summary import SplitSummary
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError, SettingsError, StaleCacheError
from mmsa_cache.features.bank import BankChoice
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import SPLITS, check_split, class_problem

from .store import Store


def classes_of(settings: Settings) -> tuple[str, ...]:
    """Class names in the order of their codes: those set, or those of the data.

    Raises:
        DataError: The data cannot be read, or a label cannot be the name of a class.
    """
    classes = rows.classes_of(settings.data)
    problems = [
        f"{name[:100]!r}: {problem}"
        for name in classes
        if (problem := class_problem(name)) is not None
    ]
    if problems:
        raise DataError(
            f"{len(problems)} label(s) cannot be the name of a class.",
            "Give them other names, or list the classes: [data] classes.",
            problems,
        )
    return classes


def splits_of(settings: Settings, store: Store) -> set[str]:
    """The splits of the data where it is on this machine, else those of a store."""
    root = settings.data.root
    with contextlib.suppress(DataError, SettingsError):  # reading the rows reports it
        if root is not None and root.exists():
            return {*find_layout(settings.data).splits}
    return {split for split in SPLITS if store.split(split)}


def load_samples(settings: Settings, split: str) -> SampleTable:
    """Reads the samples of a split; they must be those of the store if it has the split."""
    return read_samples(settings, split, Store(settings.cache.dir), strict=True)[0]


def read_samples(
    settings: Settings, split: str, store: Store, *, strict: bool
) -> tuple[SampleTable, bool]:
    """Reads the samples of a split from the data, or from the store where the data is missing.

    Args:
        settings: The command's settings.
        split: One of `SPLITS`.
        store: The store.
        strict: The data must be what was extracted.

    Returns:
        The samples, and whether they were read from the data.

    Raises:
        SettingsError: Neither has the split, or there is no split of this name.
        DataError: With every problem of the data at once.
        StaleCacheError: The data is not what was extracted; lists what changed.
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
    samples, summary = read_data(settings, split, store)
    if summary.aside:
        record = set_aside_path(settings.cache.dir, split)
        say(f"Note: {summary.aside} rows of {split} are left out, see {record}.")
    changes = describe_changes(stored[1], samples) if stored is not None and strict else []
    if changes:
        raise StaleCacheError(
            f"The split {split} in {root} is not what was extracted into {store.root}.",
            f"Run mmsa extract --split {split}: it computes only what is new.",
            changes,
        )
    return samples, True


def read_data(settings: Settings, split: str, store: Store) -> tuple[SampleTable, SplitSummary]:
    """Reads a split without the rows that its extraction set aside.

    Returns:
        The samples, and what was kept, merged, dropped and set aside.

    Raises:
        SettingsError: No data folder is set.
        DataError: With every problem at once.
    """
    rows = scan_if_extracted(settings, split, store)
    set_aside = read_set_aside(settings.cache.dir, split).identities
    rows.raise_bad([row for row in rows.bad if row.identity not in set_aside])
    guids = [s.guid for s in rows.samples if s.identity in set_aside] if set_aside else []
    samples = rows.samples.drop_guids(guids)
    return samples, rows.summarize(samples)


def scan_if_extracted(settings: Settings, split: str, store: Store) -> SplitScan:
    """`scan_incrementally`, but for a store that does not exist: only extraction makes it."""
    if store.root.is_dir():
        return scan_incrementally(settings, split, store)
    return scan_split(settings.data, split)


def scan_incrementally(settings: Settings, split: str, store: Store) -> SplitScan:
    """Reads a split; opens only files that changed since the store was last compared with them.

    Raises:
        SettingsError: No data folder is set.
        DataError: As `scan_split` raises.
    """
    stored = store.split(split)
    files = FileHashCache(
        store.root,
        settings.data.folder,
        split,
        None if stored is None else stored[1],
        rehash=settings.data.rehash,
    )
    return scan_split(settings.data, split, files)


def bank_choice(
    open_features: Callable[[str, str], ModalityFeatures],
    samples: Sequence[Sample],
) -> BankChoice:
    """Feature banks of samples by encoder; a modality that a sample lacks is masked out."""
    table = samples if isinstance(samples, SampleTable) else SampleTable.from_samples(samples)
    partial = not table.present.all()
    return BankChoice(open_features, table.guids, table.labels.tolist(), partial=partial)
