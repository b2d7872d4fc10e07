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
from mmsa_cache.data.policies import augmentations
from mmsa_cache.data.row_masks import pack_rows
from mmsa_cache.data.scan import scan_split
from mmsa_cache.data.split_summary import SplitSummary
from mmsa_cache.data.splits import copies_per_class
from mmsa_cache.data.stored import StoredSplit, split_path, write_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.names import MODALITIES, SPLITS

from ..session.completion import stored_data_settings
from ..session.samples import classes_of, scan_incrementally
from ..session.store import Store
from .bad_rows import exclude_bad_rows


@dataclass(frozen=True)
class Split:
    """A split that is to be extracted."""

    about: StoredSplit
    samples: SampleTable

    @functools.cached_property
    def rows(self) -> dict[str, RowPlan]:
        """The rows that it needs, by modality."""
        about, samples = self.about, self.samples
        return {
            modality: plan_rows(
                samples, about.copies, augmentations((about, samples), modality, samples), modality
            )
            for modality in MODALITIES
        }

    def write(self, root: Path) -> None:
        """States in a store which rows it has."""
        write_split(split_path(root, self.about.split), self.about, self.samples)


def read_splits(settings: Settings, store: Store, split: str) -> list[Split]:
    """Reads splits, without the rows that are set aside."""
    wanted = _splits_of(settings) if split == "all" else (split,)
    with ThreadPoolExecutor(1) as pool:  # files are hashed while the libraries are imported
        reading = {name: pool.submit(scan_incrementally, settings, name, store) for name in wanted}
        _import_libraries()
    kept = exclude_bad_rows(settings, {name: task.result for name, task in reading.items()})
    for samples, intake in kept.values():
        say(intake.summary())
        text, picture = (~samples.present).sum(0).tolist()
        if text or picture:
            say(f"{intake.split}: {picture} posts have no picture, {text} no text.")
    return [
        Split(_about(settings, name, samples, intake, store.split(name)), samples)
        for name, (samples, intake) in kept.items()
    ]


def seen_splits(settings: Settings, store: Store, split: str) -> list[Split]:
    """Splits as `read_splits` has them, as far as can be seen: no picture is decoded, so none that
    is broken is left out, and nothing is written."""
    found = []
    for name in _splits_of(settings) if split == "all" else (split,):
        known = store.root.is_dir()
        seen = (
            scan_incrementally(settings, name, store) if known else scan_split(settings.data, name)
        )
        samples = seen.samples.drop_guids([row.guid for row in seen.bad])
        about = _about(settings, name, samples, seen.summarize(samples), store.split(name))
        found.append(Split(about, samples))
    return found


def _about(
    settings: Settings,
    split: str,
    samples: SampleTable,
    intake: SplitSummary,
    stored: tuple[StoredSplit, SampleTable] | None,
) -> StoredSplit:
    copies = copies_per_class(settings.extract.variants, split, samples.labels)
    own = other_policies(samples, settings.seed, stored) if any(copies.values()) else {}
    made = samples.copies(copies) > 0
    counts = {name: int((rows & made).sum()) for name, rows in own.items()}
    without = counts.pop("", 0)
    for name, count in counts.items():
        cutter = name.rpartition(":")[0]
        say(f"{split}: {count} texts without spaces between words are copied by {cutter}.")
    if without:
        say(f"{split}: {without} texts of one word have no copies: nothing would change them.")
    return StoredSplit(
        split=split,
        layout=intake.layout,
        classes=classes_of(settings),
        note=settings.data.note,
        merged=intake.merged,
        dropped=intake.dropped,
        aside=intake.aside,
        augmentation=f"{POLICY}:{settings.seed}" if any(copies.values()) else "none",
        others={name: pack_rows(rows) for name, rows in own.items()},
        copies=copies,
        told=stored_data_settings(settings, settings.cache.dir),
    )


def other_policies(
    samples: SampleTable, seed: int, stored: tuple[StoredSplit, SampleTable] | None
) -> dict[str, NDArray[np.bool_]]:
    """The texts whose copies are made in another way than `POLICY` has it, (samples,) each.

    Texts whose copies a store has by `POLICY`, as all had once, keep them.
    """
    texts = samples.table["text"]
    marked = np.flatnonzero(pc.fill_null(pc.match_substring_regex(texts, UNSPACED), False))
    kept = set()
    if stored is not None and len(marked):
        policies, usual = augmentations(stored, "text", stored[1]), f"{POLICY}:{seed}"
        whole = [policies] * len(stored[1]) if isinstance(policies, str) else policies
        digests = zip(stored[1].digests("text"), whole, strict=True)
        kept = {digest.tobytes() for digest, policy in digests if policy == usual}
    found: dict[str, NDArray[np.bool_]] = {}
    own = samples.digests("text")[marked]
    for row, text, digest in zip(marked, texts.take(marked).to_pylist(), own, strict=True):
        policy = augmentation_policy(text)
        if policy != POLICY and digest.tobytes() not in kept:
            name = f"{policy}:{seed}" if policy else ""
            found.setdefault(name, np.zeros(len(samples), bool))[row] = True
    return found


def _import_libraries() -> None:
    """The imports that resolving an encoder needs; they take seconds."""
    prepare_torchvision()
    import timm  # noqa: F401


def _splits_of(settings: Settings) -> tuple[str, ...]:
    """The splits that the data has: raw MVSA knows no test, unlabelled pairs no train."""
    if settings.data.root is None:
        return SPLITS  # reading raises what is missing
    return find_layout(settings.data).splits
