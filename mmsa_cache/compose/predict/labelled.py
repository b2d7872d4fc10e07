"""Matches the rows of a label file with the posts of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.layouts.rows import read_labels
from mmsa_cache.data.set_aside import read_set_aside
from mmsa_cache.data.splits import IntArray
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError
from mmsa_cache.escaping import unescape_cell
from mmsa_cache.names import SPLIT_STEMS, SPLITS, suggest


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows that are scored."""

    splits: IntArray
    """Indices in `SPLITS`, (rows,)"""
    indices: IntArray
    """Indices in the samples of the split, (rows,)"""
    labels: IntArray
    """Class codes, (rows,)"""


def match_labels(
    labels: Path, classes: Sequence[str], posts: Mapping[str, SampleTable], settings: Settings
) -> LabelledRows:
    """Finds the posts of a label file by their guids.

    Args:
        labels: The file.
        classes: Class names in the order of their codes.
        posts: The splits that may hold them.
        settings: How tables are read, and the store with the list of rows that were set aside.

    Raises:
        DataError: A row has no label, or is not in the data, or a guid is in several splits.
    """
    rows = read_labels(labels, tuple(classes), settings.data)
    without_label = [row.guid for row in rows if row.label is None]
    if without_label:
        raise DataError(
            f"{labels}: {len(without_label)} row(s) have the label null.",
            "Give a file with labels.",
            without_label[:10],
        )
    set_aside = {
        guid
        for split in SPLITS
        for guid, *_ in read_set_aside(settings.cache.dir, split).identities
    }
    known = {guid for samples in posts.values() for guid in samples.guids} | set_aside
    for row in rows:
        if row.guid not in known:
            row.guid = unescape_cell(row.guid)
    guids = {row.guid for row in rows} - set_aside
    locations = _locate(labels, guids, posts)
    missing = sorted(guids - locations.keys())
    if missing:
        shown = [f"{guid}{suggest(guid, locations)}" for guid in missing[:10]]
        raise DataError(f"{labels}: {len(missing)} guid(s) are not in the data.", "", shown)
    judged = [row for row in rows if row.guid in locations]
    if not judged:
        raise DataError(f"{labels}: every row was set aside when features were extracted.")
    if len(judged) < len(rows):
        say(f"Note: {len(rows) - len(judged)} rows are not scored: they were set aside.")
    splits, indices = np.array([locations[row.guid] for row in judged], np.int64).T
    return LabelledRows(splits, indices, np.array([row.label for row in judged], np.int64))


def _locate(
    labels: Path, guids: set[str], posts: Mapping[str, SampleTable]
) -> dict[str, tuple[int, int]]:
    """Guid → index of its split in `SPLITS`, and its index in the split.

    Where several splits have all guids, the name of the file decides.
    """
    indices = {
        split: {guid: index for index, guid in enumerate(samples.guids)}
        for split, samples in posts.items()
    }
    splits = [split for split, by_guid in indices.items() if guids <= by_guid.keys()]
    if len(splits) != 1:
        stem = labels.stem.lower()
        named = [split for split in splits if stem in SPLIT_STEMS[split]]
        repeated = [g for g in guids if sum(g in by_guid for by_guid in indices.values()) > 1]
        if not named and repeated:
            raise DataError(
                f"{labels}: {len(repeated)} guid(s) are in several splits.",
                f"Say of which split the rows are: --split {' or '.join(indices)}.",
                sorted(repeated)[:10],
            )
        splits = named or [*indices]
    return {
        guid: (SPLITS.index(split), indices[split][guid])
        for split in splits
        for guid in guids & indices[split].keys()
    }
