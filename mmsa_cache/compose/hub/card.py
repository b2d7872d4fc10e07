"""The data card of a store that is shared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.filesize import decimal

from mmsa_cache.data.stored_split import StoredSplit
from mmsa_cache.data.table import UNKNOWN_LABEL, SampleTable
from mmsa_cache.store.encoder import StoredEncoder


@dataclass(frozen=True, slots=True)
class SharedFeatures:
    """Features in a shared store."""

    encoder: StoredEncoder
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SharedSplit:
    """A split in a shared store."""

    about: StoredSplit
    rows: int
    counts: dict[str, int]
    """Class → rows."""
    unlabelled: int

    @classmethod
    def of(cls, about: StoredSplit, samples: SampleTable) -> SharedSplit:
        """Counts the rows of a split."""
        labels = samples.labels
        labelled = labels[labels != UNKNOWN_LABEL]
        counts = np.bincount(labelled, minlength=len(about.classes)).tolist()
        by_class = dict(zip(about.classes, counts, strict=True))
        return cls(about, len(labels), by_class, len(labels) - len(labelled))


def card_of(
    repository: str,
    features: Sequence[SharedFeatures],
    splits: Sequence[SharedSplit],
    *,
    texts: bool,
) -> str:
    """The data card of a repository, in Markdown.

    Args:
        repository: ``USER/REPO``.
        features: All features of the store.
        splits: All splits of the store.
        texts: Whether the store has the texts.
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
        *(f"Note: {_escape(note)}." for note in _notes(features, splits)),
        "",
        "| split | rows | classes |",
        "|---|---|---|",
    ]
    for split in splits:
        counts = [f"{_escape(name)} {count}" for name, count in split.counts.items() if count]
        counts += [f"no label {split.unlabelled}"] if split.unlabelled else []
        lines.append(f"| {split.about.split} | {split.rows} | {', '.join(counts)} |")
    lines += ["", "| modality | encoder | weights | rows | size |", "|---|---|---|---|---|"]
    for shared in features:
        identity = shared.encoder.identity
        weights = _escape(str(identity.fields.get("weights", "none"))[:60])
        lines.append(
            f"| {identity.modality} | {_escape(identity.label)} | {weights} | {shared.rows} | "
            f"{decimal(shared.bytes)} |"
        )
    return "\n".join(lines) + "\n"


def _notes(features: Sequence[SharedFeatures], splits: Sequence[SharedSplit]) -> list[str]:
    notes = [split.about.note for split in splits if split.about.note]
    identities = [shared.encoder.identity for shared in features]
    notes += [identity.label for identity in identities if identity.random_weights]
    notes += [f"the features of {i.name} were imported" for i in identities if i.imported]
    return list(dict.fromkeys(notes))


def _escape(text: str) -> str:
    """Escapes text for Markdown tables, on one line."""
    text = json.dumps(text, ensure_ascii=False)[1:-1]
    return "".join(f"\\{letter}" if letter in "|<>[]`*_#" else letter for letter in text)
