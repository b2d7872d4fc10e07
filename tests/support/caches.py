"""A store of rows and tables in a folder with an mmsa.toml."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmsa_cache.compose.cache.caches import CacheInfo, existing_caches
from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.stored_split import StoredSplit, split_path, write_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.features.rows import sample_rows
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.schema import Shard
from tests.support.shards import writer_of

COPIES = {1: 2}
"""Two of every sample of the second class."""
AUGMENTATION = "made-up:1"


def table(labels: Sequence[int | None] = (0, 1, 2)) -> SampleTable:
    """Samples a, b, … without pictures."""
    found = []
    for place, label in enumerate(labels):
        text, image = (hashlib.sha256(f"{what}{place}".encode()).hexdigest() for what in "ti")
        found.append(Sample("abcdefgh"[place], label, f"text {place}", None, text, image))
    return SampleTable.from_samples(found)


def keys_of(samples: SampleTable) -> Keys:
    """The rows that their texts need: the originals, then the copies."""
    return sample_rows(samples.digests("text"), samples.copies(COPIES), AUGMENTATION).keys


def shard(keys: Keys) -> Shard:
    """Row i has i + 1 positions, all ones in four dimensions; the first three are originals."""
    lengths = [i + 1 for i in range(len(keys))]
    return Shard(
        keys,
        ["rotation" if i > 2 else "" for i in range(len(keys))],
        np.cumsum([0, *lengths]).astype(np.int64),
        np.ones((sum(lengths), 4), np.float16),
        np.array([[[3.0, 4.0, 0, 0]]] * len(keys), np.float16),
        ("mean",),
    )


def write_table(root: Path, samples: SampleTable, split: str = "train") -> None:
    about = StoredSplit(
        split=split,
        layout="report",
        classes=("positive", "neutral", "negative"),
        augmentation=AUGMENTATION,
        copies=COPIES if split == "train" else {},
    )
    write_split(split_path(root, split), about, samples)


def make_store(root: Path, keys: Keys | None = None) -> Path:
    """A store of three samples; the folder of its features."""
    samples = table()
    write_table(root, samples)
    writer = writer_of(root)
    with writer.claim(lambda: None):
        writer.publish(shard(keys_of(samples) if keys is None else keys))
    return writer.folder


def settings_of(root: Path) -> Settings:
    return load_settings({"cache.dir": root}, folder=root.parent, environ={})


def only(root: Path) -> CacheInfo:
    (info,) = existing_caches(settings_of(root))
    return info
