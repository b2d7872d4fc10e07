"""Rows of a file with labels, found among the posts of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.layouts.report import read_labels
from mmsa_cache.data.set_aside import read_set_aside
from mmsa_cache.data.splits import IntArray
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError
from mmsa_cache.escaping import unescape_cell
from mmsa_cache.names import SPLIT_STEMS, SPLITS, suggest


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows that are scored."""

    splits: IntArray
    """Places in `SPLITS`, (rows,)"""
    places: IntArray
    """Places in the samples of the split, (rows,)"""
    labels: IntArray
    """Class codes, (rows,)"""


def match(
    labels: Path, classes: Sequence[str], posts: Mapping[str, SampleTable], settings: Settings
) -> Labelled:
    """Finds the rows of a file by their guids.

    Args:
        labels: The file.
        classes: Class names in the order of their codes.
        posts: The splits that may hold them.
        settings: How tables are read, and the store, which knows what was set aside.

    Raises:
        DataError: A row has no label, or is not in the data, or a guid is in several splits.
    """
    rows = read_labels(labels, tuple(classes), settings.data)
    unlabelled = [row.guid for row in rows if row.label is None]
    if unlabelled:
        raise DataError(
            f"{labels}: {len(unlabelled)} row(s) have the label null.",
            "Give a file with labels.",
            unlabelled[:10],
        )
    set_aside = {
        guid
        for split in SPLITS
        for guid, *_ in read_set_aside(settings.cache.dir, split).identities
    }
    known = {guid for of in posts.values() for guid in of.guids} | set_aside
    for row in rows:
        if row.guid not in known:
            row.guid = unescape_cell(row.guid)
    wanted = [row.guid for row in rows]
    where = _where(labels, {*wanted} - set_aside, posts)
    missing = sorted({*wanted} - where.keys() - set_aside)
    if missing:
        shown = [f"{guid}{suggest(guid, where)}" for guid in missing[:10]]
        raise DataError(f"{labels}: {len(missing)} guid(s) are not in the data.", "", shown)
    judged = [row for row in rows if row.guid in where]
    if not judged:
        raise DataError(f"{labels}: every row was set aside when features were extracted.")
    if len(judged) < len(rows):
        say(f"Note: {len(rows) - len(judged)} rows are not scored: they were set aside.")
    found = np.array([where[row.guid] for row in judged], np.int64)
    codes = np.array([row.label for row in judged], np.int64)
    return Labelled(found[:, 0], found[:, 1], codes)


def _where(
    labels: Path, wanted: set[str], posts: Mapping[str, SampleTable]
) -> dict[str, tuple[int, int]]:
    """Guid → place of its split in `SPLITS`, and its place there.

    Guids that each split counts anew are those of the split that the file is named after.
    """
    found = {split: {g: n for n, g in enumerate(of.guids)} for split, of in posts.items()}
    complete = [split for split, places in found.items() if wanted <= places.keys()]
    if len(complete) != 1:
        stem = labels.stem.lower()
        named = [split for split in complete if stem in SPLIT_STEMS[split]]
        twice = [guid for guid in wanted if sum(guid in places for places in found.values()) > 1]
        if not named and twice:
            raise DataError(
                f"{labels}: {len(twice)} guid(s) are in several splits.",
                f"Say of which split the rows are: --split {' or '.join(found)}.",
                sorted(twice)[:10],
            )
        complete = named or [*found]
    return {
        guid: (SPLITS.index(split), found[split][guid])
        for split in complete
        for guid in wanted & found[split].keys()
    }
