"""The splits that ``mmsa extract`` reads."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from extract.encoders.compat import prepare_torchvision
from extract.inputs.augment import POLICY, augmentation_policy
from extract.inputs.segment import UNSPACED
from extract.plan import RowPlan, plan_rows
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.row_masks import pack_rows
from mmsa_cache.data.split_summary import SplitSummary
from mmsa_cache.data.splits import copies_per_class
from mmsa_cache.data.stored_split import StoredSplit, augmentations, split_path, write_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.names import MODALITIES, SPLITS

from ..session.completion import stored_data_settings
from ..session.samples import classes_of, scan_if_extracted, scan_incrementally
from ..session.store import Store
from .bad_rows import exclude_bad_rows


@dataclass(frozen=True)
class Split:
    """A split to extract."""

    about: StoredSplit
    samples: SampleTable

    @functools.cached_property
    def rows(self) -> dict[str, RowPlan]:
        """The rows of features that it needs, by modality."""
        about, samples = self.about, self.samples
        return {
            modality: plan_rows(
                samples, about.copies, augmentations((about, samples), modality, samples), modality
            )
            for modality in MODALITIES
        }

    def write(self, root: Path) -> None:
        """Writes its rows and record into a store."""
        write_split(split_path(root, self.about.split), self.about, self.samples)


def read_splits(settings: Settings, store: Store, split: str) -> list[Split]:
    """Reads splits, without the rows that are set aside."""
    names = _splits_of(settings) if split == "all" else (split,)
    with ThreadPoolExecutor(1) as pool:  # files are hashed while the libraries are imported
        scans = {name: pool.submit(scan_incrementally, settings, name, store) for name in names}
        _import_libraries()
    good = exclude_bad_rows(settings, {name: scan.result for name, scan in scans.items()})
    for samples, summary in good.values():
        say(summary.summary())
        text, picture = (~samples.present).sum(0).tolist()
        if text or picture:
            say(f"{summary.split}: {picture} posts have no picture, {text} no text.")
    return [
        Split(_describe_split(settings, name, samples, summary, store.split(name)), samples)
        for name, (samples, summary) in good.items()
    ]


def preview_splits(settings: Settings, store: Store, split: str) -> list[Split]:
    """Reads splits without decoding pictures or writing anything.

    Rows with broken pictures, which `read_splits` leaves out, are among them.
    """
    splits = []
    for name in _splits_of(settings) if split == "all" else (split,):
        scan = scan_if_extracted(settings, name, store)
        samples = scan.samples.drop_guids([row.guid for row in scan.bad])
        summary = scan.summarize(samples)
        about = _describe_split(settings, name, samples, summary, store.split(name))
        splits.append(Split(about, samples))
    return splits


def _describe_split(
    settings: Settings,
    split: str,
    samples: SampleTable,
    summary: SplitSummary,
    stored: tuple[StoredSplit, SampleTable] | None,
) -> StoredSplit:
    copies = copies_per_class(settings.extract.variants, split, samples.labels)
    policies = other_policies(samples, settings.seed, stored) if any(copies.values()) else {}
    copied = samples.copies(copies) > 0
    counts = {name: int((rows & copied).sum()) for name, rows in policies.items()}
    unchangeable = counts.pop("", 0)
    for name, count in counts.items():
        segmenter = name.rpartition(":")[0]
        say(f"{split}: {count} texts without spaces between words are copied by {segmenter}.")
    if unchangeable:
        say(f"{split}: {unchangeable} texts of one word have no copies: nothing would change them.")
    return StoredSplit(
        split=split,
        layout=summary.layout,
        classes=classes_of(settings),
        note=settings.data.note,
        merged=summary.merged,
        dropped=summary.dropped,
        aside=summary.aside,
        augmentation=f"{POLICY}:{settings.seed}" if any(copies.values()) else "none",
        others={name: pack_rows(rows) for name, rows in policies.items()},
        copies=copies,
        told=stored_data_settings(settings, settings.cache.dir),
    )


def other_policies(
    samples: SampleTable, seed: int, stored: tuple[StoredSplit, SampleTable] | None
) -> dict[str, NDArray[np.bool_]]:
    """The texts whose copies need another policy than `POLICY`: those without spaces.

    Texts of which a store has copies by `POLICY` keep them.

    Returns:
        Policy with its seed → mask, (samples,); the policy ``""`` makes no copies.
    """
    texts = samples.table["text"]
    unspaced = np.flatnonzero(pc.fill_null(pc.match_substring_regex(texts, UNSPACED), False))
    copied = set()
    if stored is not None and len(unspaced):
        policies, default = augmentations(stored, "text", stored[1]), f"{POLICY}:{seed}"
        each = [policies] * len(stored[1]) if isinstance(policies, str) else policies
        digests = zip(stored[1].digests("text"), each, strict=True)
        copied = {digest.tobytes() for digest, policy in digests if policy == default}
    masks: dict[str, NDArray[np.bool_]] = {}
    digests_here = samples.digests("text")[unspaced]
    rows = zip(unspaced, texts.take(unspaced).to_pylist(), digests_here, strict=True)
    for row, text, digest in rows:
        policy = augmentation_policy(text)
        if policy != POLICY and digest.tobytes() not in copied:
            name = f"{policy}:{seed}" if policy else ""
            masks.setdefault(name, np.zeros(len(samples), bool))[row] = True
    return masks


def _import_libraries() -> None:
    """Imports what resolving an encoder needs; that takes seconds."""
    prepare_torchvision()
    import timm  # noqa: F401


def _splits_of(settings: Settings) -> tuple[str, ...]:
    """The splits of the data: raw MVSA has no test, unlabelled posts have no train."""
    if settings.data.root is None:
        return SPLITS  # reading them raises the error
    return find_layout(settings.data).splits
