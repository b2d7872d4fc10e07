"""The content of a store, of which each part is read once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.console import say
from mmsa_cache.data.stored_split import StoredSplit, augmentations, read_split, split_path
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError
from mmsa_cache.features.computed_pools import COMPUTED
from mmsa_cache.features.rows import SampleRows, sample_rows
from mmsa_cache.names import SPLITS
from mmsa_cache.notebook import as_html
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.listing import StoredFeatures, list_features
from mmsa_cache.store.older_schema import refuse_older
from mmsa_cache.store.reader import Features, open_features
from mmsa_cache.store.schema import Shard


class Store:
    """The splits and the features in a folder.

    Args:
        root: ``[cache] dir``; it need not exist.
        renewing: The files of splits are about to be written: damaged files, and files of an older
            schema, count as missing.
    """

    def __init__(self, root: Path, *, renewing: bool = False) -> None:
        self.root = root
        self._renewing = renewing
        self._splits: dict[str, tuple[StoredSplit, SampleTable] | None] = {}
        self._opened: dict[Path, Features | None] = {}
        self._verified: dict[Path, Features] = {}

    def split(self, name: str) -> tuple[StoredSplit, SampleTable] | None:
        """The record of a split and its rows; None where it was not extracted.

        Raises:
            StaleCacheError: The store is of an older schema.
            DamagedCacheError: The split's file is not what was written.
        """
        if name not in self._splits:
            self._splits[name] = self._read(split_path(self.root, name))
        return self._splits[name]

    def _read(self, path: Path) -> tuple[StoredSplit, SampleTable] | None:
        if not path.exists():
            if not self._renewing:
                refuse_older(self.root)
            return None
        try:
            return read_split(path)
        except DamagedCacheError as error:
            if not self._renewing:
                raise
            say(f"Note: {error.message} It is written anew.")
            return None

    @functools.cached_property
    def features(self) -> list[StoredFeatures]:
        """All readable features."""
        return [features for features in list_features(self.root) if not features.problem]

    def encoders(self, modality: str) -> list[StoredEncoder]:
        """The encoders of a modality."""
        return [f.encoder for f in self.features if f.modality == modality and f.encoder]

    def row_indices(self, encoder: StoredEncoder, rows: SampleRows) -> NDArray[np.int64]:
        """Indices of rows in the features of an encoder, −1 where missing, (rows,).

        Rows that the encoder cannot have, as copies of imported features, are left out.
        """
        features, keys = self._open(encoder), rows.of(encoder.identity).keys
        return np.full(len(keys), -1) if features is None else features.find_rows(keys)

    def completeness(self, encoder: StoredEncoder, rows: SampleRows) -> float:
        """Share of the rows of `row_indices` that the features of an encoder hold."""
        indices = self.row_indices(encoder, rows)
        return float((indices >= 0).mean()) if len(indices) else 1.0

    def rows(
        self, identity: EncoderIdentity, rows: SampleRows
    ) -> tuple[Sequence[Shard], NDArray[np.int64]]:
        """Stored rows of a model's encoder; each file is verified once.

        Returns:
            Shards, and the index of each row in them, −1 where missing, (rows,).

        Raises:
            DamagedCacheError: A file is not what was sealed.
        """
        matches = [
            e for e in self.encoders(identity.modality) if not e.identity.changes_since(identity)
        ]
        encoder = max(matches, key=lambda match: self.completeness(match, rows), default=None)
        if encoder is None:
            return (), np.full(len(rows.keys), -1)
        indices = self.row_indices(encoder, rows)
        if (indices < 0).all():
            return (), indices
        folder = encoder.folder(self.root)
        if folder not in self._verified:
            self._verified[folder] = open_features(folder)
        features = self._verified[folder]
        return features.shards, features.find_rows(rows.keys)

    def pools(self, encoder: StoredEncoder) -> tuple[str, ...]:
        """Names of the pooled vectors of an encoder, those computed from stored tokens included.

        Empty where nothing is sealed yet.
        """
        features = self._open(encoder)
        if features is None:
            return ()
        shard = features.shards[0]
        return (*shard.pools, *(COMPUTED if len(shard.tokens) else ()))

    def as_html(self, data: str | Path | None) -> str:
        """A summary of the store for notebooks."""
        splits = [split for name in SPLITS if (split := self.split(name))]
        facts = {"store": self.root, "posts": data} | {
            about.split: f"{len(rows)} rows{_by_class(about, rows)}" for about, rows in splits
        }
        header = ["features of", "encoder", "rows"]
        encoders = [[of.modality, of.label, of.rows] for of in self.features]
        notes = dict.fromkeys(about.note for about, _ in splits if about.note)
        return as_html("Session", facts, header, encoders, [*notes])

    def _open(self, encoder: StoredEncoder) -> Features | None:
        folder = encoder.folder(self.root)
        if folder not in self._opened:
            try:
                self._opened[folder] = open_features(folder, verify=False)
            except CacheNotFoundError:
                self._opened[folder] = None  # nothing is sealed yet
        return self._opened[folder]


def _by_class(about: StoredSplit, rows: SampleTable) -> str:
    """Counts as ``: positive 100, negative 30``; empty where no row has a label."""
    counts = [int((rows.labels == code).sum()) for code in range(len(about.classes))]
    parts = [f"{name} {count}" for name, count in zip(about.classes, counts, strict=True)]
    return f": {', '.join(parts)}" if any(counts) else ""


def needed_rows(
    stored: tuple[StoredSplit, SampleTable] | None, samples: SampleTable, modality: str
) -> SampleRows:
    """The rows of features that samples need.

    Args:
        stored: Their split, which may have augmented copies; None: originals only.
        samples: The samples of the split first; any others have no copies.
        modality: ``text`` or ``image``.
    """
    copies = np.zeros(len(samples), np.int64)
    if stored is None:
        return sample_rows(samples.digests(modality), copies, "none")
    about, own = stored
    copies[: len(own)] = samples[: len(own)].copies(about.copies)
    policies = augmentations(stored, modality, samples)
    return sample_rows(samples.digests(modality), copies, policies)
