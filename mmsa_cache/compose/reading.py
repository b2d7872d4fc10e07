"""The splits that ``mmsa extract`` reads."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from extract.encoders.compat import prepare_torchvision
from extract.inputs.augment import POLICY
from extract.plan import RowPlan, plan_rows
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.intake import Intake
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.splits import copies_of
from mmsa_cache.data.stored import StoredSplit, path_of, write_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.names import MODALITIES, SPLITS

from .completion import told_of_data
from .samples import classes_of, survey_known
from .sieve import keep_good
from .store import Store


@dataclass(frozen=True)
class Split:
    """A split that is to be extracted."""

    about: StoredSplit
    samples: SampleTable

    @functools.cached_property
    def rows(self) -> dict[str, RowPlan]:
        """The rows that it needs, by modality."""
        about = self.about
        return {
            modality: plan_rows(self.samples, about.copies, about.augmentation, modality)
            for modality in MODALITIES
        }

    def write(self, root: Path) -> None:
        """States in a store which rows it has."""
        write_split(path_of(root, self.about.split), self.about, self.samples)


def read_splits(settings: Settings, store: Store, split: str) -> list[Split]:
    """Reads splits, without the rows that are set aside."""
    wanted = _splits_of(settings) if split == "all" else (split,)
    with ThreadPoolExecutor(1) as pool:  # files are hashed while the libraries are imported
        reading = {name: pool.submit(survey_known, settings, name, store) for name in wanted}
        _import_libraries()
    kept = keep_good(settings, {name: task.result for name, task in reading.items()})
    for samples, intake in kept.values():
        say(intake.summary())
        text, picture = (~samples.present).sum(0).tolist()
        if text or picture:
            say(f"{intake.split}: {picture} posts have no picture, {text} no text.")
    return [
        Split(_about(settings, name, samples, intake), samples)
        for name, (samples, intake) in kept.items()
    ]


def _about(settings: Settings, split: str, samples: SampleTable, intake: Intake) -> StoredSplit:
    copies = copies_of(settings.extract.variants, split, samples.labels)
    return StoredSplit(
        split=split,
        layout=intake.layout,
        classes=classes_of(settings),
        note=settings.data.note,
        merged=intake.merged,
        dropped=intake.dropped,
        aside=intake.aside,
        augmentation=f"{POLICY}:{settings.seed}" if any(copies.values()) else "none",
        copies=copies,
        told=told_of_data(settings, settings.cache.dir),
    )


def _import_libraries() -> None:
    """The imports that resolving an encoder needs; they take seconds."""
    prepare_torchvision()
    import timm  # noqa: F401


def _splits_of(settings: Settings) -> tuple[str, ...]:
    """The splits that the data has: raw MVSA knows no test, unlabelled pairs no train."""
    if settings.data.root is None:
        return SPLITS  # reading raises what is missing
    return find_layout(settings.data).splits
