"""The data card of a store that is shared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.filesize import decimal

from mmsa_cache.data.stored import StoredSplit
from mmsa_cache.data.table import UNKNOWN_LABEL, SampleTable
from mmsa_cache.store.encoder import StoredEncoder


@dataclass(frozen=True, slots=True)
class SharedFeatures:
    """Features that are shared."""

    encoder: StoredEncoder
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SharedSplit:
    """A split that is shared."""

    about: StoredSplit
    rows: int
    counts: dict[str, int]
    """Class → rows."""
    unlabelled: int

    @classmethod
    def of(cls, about: StoredSplit, samples: SampleTable) -> SharedSplit:
        """Counts the rows of a split."""
        labels = samples.labels
        known = np.bincount(labels[labels != UNKNOWN_LABEL], minlength=len(about.classes))
        counts = dict(zip(about.classes, known.tolist(), strict=True))
        return cls(about, len(samples), counts, int((labels == UNKNOWN_LABEL).sum()))


def card_of(
    repository: str,
    features: Sequence[SharedFeatures],
    splits: Sequence[SharedSplit],
    *,
    texts: bool,
) -> str:
    """The page that the hub shows of a repository.

    Args:
        repository: ``USER/REPO``.
        features: All that it holds.
        splits: All that it holds.
        texts: Whether the texts are in it.
    """
    lines = ["---", "tags: [mmsa]", "configs:", "- config_name: default", "  data_files:"]
    for split in splits:
        name = split.about.split
        lines += [f"  - split: {name}", f"    path: data/{name}.parquet"]
    lines += ["---", f"# {repository.rpartition('/')[2]}", ""]
    lines += [
        "Features of frozen encoders for image-text posts, made by mmsa. It holds no pictures"
        + (" and no texts, only their hashes." if not texts else "; the texts are in data/."),
        "",
        "```",
        f"mmsa cache pull hf://{repository} --cache cache",
        "mmsa train --cache cache",
        "```",
        "",
        *(f"Note: {_plain(note)}." for note in _notes(features, splits)),
        "",
        "| split | rows | classes |",
        "|---|---|---|",
    ]
    for split in splits:
        counts = [f"{_plain(name)} {count}" for name, count in split.counts.items() if count]
        counts += [f"no label {split.unlabelled}"] if split.unlabelled else []
        lines.append(f"| {split.about.split} | {split.rows} | {', '.join(counts)} |")
    lines += ["", "| modality | encoder | weights | rows | size |", "|---|---|---|---|---|"]
    for found in features:
        identity = found.encoder.identity
        weights = _plain(str(identity.fields.get("weights", "none"))[:60])
        lines.append(
            f"| {identity.modality} | {_plain(identity.label)} | {weights} | {found.rows} | "
            f"{decimal(found.bytes)} |"
        )
    return "\n".join(lines) + "\n"


def _notes(features: Sequence[SharedFeatures], splits: Sequence[SharedSplit]) -> list[str]:
    notes = [split.about.note for split in splits if split.about.note]
    notes += [f.encoder.identity.label for f in features if f.encoder.identity.random_weights]
    for found in features:
        if found.encoder.identity.imported:
            notes.append(f"the features of {found.encoder.identity.name} were imported")
    return list(dict.fromkeys(notes))


def _plain(text: str) -> str:
    """Words of others, on one line and outside of the markup."""
    text = json.dumps(text, ensure_ascii=False)[1:-1]
    return "".join(f"\\{letter}" if letter in "|<>[]`*_#" else letter for letter in text)
