"""``mmsa extract``: composes data, encoders and the store."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from extract.encoders.compat import prepare_torchvision
from extract.encoders.image import ImageSpec
from extract.encoders.protocol import Encoder
from extract.encoders.text import TextSpec
from extract.engine import extract
from extract.inputs.augment import POLICY
from extract.plan import Job, RowPlan, plan_rows
from extract.shards import estimate_bytes
from mmsa_cache.config.settings import ALL, CONFIG_NAME, Settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.intake import Intake
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.splits import copies_of
from mmsa_cache.data.stored import StoredSplit, path_of, write_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.rows import WantedRows
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, SPLITS
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.writer import FeatureWriter

from .completion import told_of_data, told_of_encoder, with_data, with_encoder_of
from .encoders import compute_here, computes_of, library_versions, resolve_encoder
from .live import reader_of
from .samples import classes_of, survey_known
from .selection import is_named, is_same, select
from .sieve import keep_good
from .store import Store


@dataclass(frozen=True, slots=True)
class Extracted:
    """The outcome for one encoder and split."""

    name: str
    """Its encoder's name in the settings."""
    split: str
    modality: str
    encoder: str
    directory: str
    samples: int
    rows: int
    """Rows that the split needs, equal inputs counted once."""
    rows_computed: int
    rows_already_there: int
    rows_shared: int
    """Rows that were not computed since their input equals that of another row."""
    bytes: int
    """Of all features of this encoder."""
    seconds: float
    set_aside: int
    """Rows of the split that are left out because of a bad text or picture."""


def extract_splits(
    settings: Settings,
    split: str,
    encoders: str = DEFAULT_ENCODER,
    part: tuple[int, int] = (0, 1),
) -> list[Extracted]:
    """Extracts what is missing of one split or of all.

    Args:
        settings: The command's settings; what they do not say is as the store was told.
        split: ``train``, ``test`` or ``all``.
        encoders: Names joined by commas, or ``all``; a name may have an encoder of one modality
            only. What two names have in common is extracted once.
        part: Number of the part of the rows to extract, from 0, and of parts.

    Returns:
        One record an encoder and split.

    Raises:
        SettingsError: Unknown split or encoder.
        MmsaError: As the data, the encoders and the store raise.
    """
    if split not in (*SPLITS, "all"):
        raise SettingsError(f"Unknown split {split!r}.", f"Valid: {', '.join(SPLITS)}, all.")
    store = Store(settings.cache.dir)
    settings = with_data(settings, store, extracting=True)
    names = _chosen_encoders(settings, store, encoders)
    splits = _read_splits(settings, store, split)
    records = []
    for name in names:
        # The features of a name are written in one run, so that none waits for those before it.
        # Every process takes their claims in this order.
        with contextlib.ExitStack() as claims:
            writers: dict[str, FeatureWriter] = {}
            targets = [
                _Target(store.root, wanted, writers)
                for wanted in _wanted(settings, store, name, splits)
            ]
            for target in {id(target.writer): target for target in targets}.values():
                claims.enter_context(target.writer.claim(target.say_waiting, part))
            _write_missing(settings, targets, part)
            records += [target.record() for target in targets]
    return records


def part_of(shards: str) -> tuple[int, int]:
    """``I/N`` → the number of the part from 0, and of parts.

    Raises:
        SettingsError: It is none.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shards)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise SettingsError(
            f"--shards {shards!r} is no part of the rows.", "Write I/N, as 2/8: part 2 of 8."
        )
    return int(match[1]) - 1, int(match[2])


def _read_splits(settings: Settings, store: Store, split: str) -> list[Split]:
    """Reads splits and states in the store which rows they have."""
    wanted = _splits_of(settings) if split == "all" else (split,)
    with ThreadPoolExecutor(1) as pool:  # files are hashed while the libraries are imported
        reading = {name: pool.submit(survey_known, settings, name, store) for name in wanted}
        _import_libraries()
    kept = keep_good(settings, {name: task.result for name, task in reading.items()})
    splits = []
    for name, (samples, intake) in kept.items():
        say(intake.summary())
        splits.append(Split(_about(settings, name, samples, intake), samples))
        write_split(path_of(store.root, name), splits[-1].about, samples)
    return splits


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


def _chosen_encoders(settings: Settings, store: Store, names: str) -> list[str]:
    stored = [name for found in store.features if found.encoder for name in found.encoder.names]
    known = list(dict.fromkeys([DEFAULT_ENCODER, *settings.encoders, *stored]))
    wanted = known if names == ALL else list(dict.fromkeys(names.split(",")))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SettingsError(
            f"{CONFIG_NAME} has no encoder {', '.join(map(repr, unknown))}.",
            f"Known: {', '.join(known)}, {ALL}; others are described under [encoders.NAME.image] "
            "or [encoders.NAME.text].",
        )
    return wanted


def _import_libraries() -> None:
    """The imports that resolving an encoder needs; they take seconds."""
    prepare_torchvision()
    import timm  # noqa: F401


def _splits_of(settings: Settings) -> tuple[str, ...]:
    """The splits that the data has: raw MVSA knows no test, unlabelled pairs no train."""
    if settings.data.root is None:
        return SPLITS  # reading raises what is missing
    return find_layout(settings.data.root).splits


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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Features of a split that are to be complete."""

    split: Split
    name: str
    spec: TextSpec | ImageSpec
    """In the precision of this machine, or that of features that were started."""
    encoder: StoredEncoder
    """Of the store: features that are complete may be of another device or precision."""


def _wanted(
    settings: Settings, store: Store, name: str, splits: Sequence[Split]
) -> Iterator[_Wanted]:
    """What is to be extracted under a name, split by split."""
    there: dict[str, tuple[Settings, TextSpec | ImageSpec]] = {}
    for split, modality in itertools.product(splits, MODALITIES):
        stored = store.encoders(modality)
        rows = split.rows[modality].wanted
        if modality not in there:
            own = _settings_of(settings, store, modality, name, rows)
            if own is None:
                continue
            there[modality] = own, resolve_encoder(own, modality, compute_here(own))
        own, spec = there[modality]
        asked = StoredEncoder.of(
            spec.identity, (name,), told_of_encoder(own, modality), library_versions()
        )
        computes = computes_of(own)
        same = [e for e in stored if is_same(e, asked) and e.identity.fields["compute"] in computes]
        complete = next((e for e in same if store.share(e, rows) == 1.0), None)
        if complete is not None:
            yield _Wanted(split, name, spec, complete.also_named(asked))
            continue
        started = next((c for c in computes if _is_started(spec.computed_in(c), same)), computes[0])
        spec = spec.computed_in(started)
        encoder = StoredEncoder.of(spec.identity, (name,), asked.told, asked.versions)
        yield _Wanted(split, name, spec, encoder)


def _is_started(spec: TextSpec | ImageSpec, stored: Sequence[StoredEncoder]) -> bool:
    return any(encoder.identity == spec.identity for encoder in stored)


def _settings_of(
    settings: Settings, store: Store, modality: str, name: str, rows: WantedRows
) -> Settings | None:
    """Settings with an encoder as the default one: as set, or as the store has it.

    None where neither has an encoder of this name and modality.
    """
    if not is_named(settings, modality, name):
        stored = store.encoders(modality)
        found = select(settings, stored, modality, name, lambda e: store.share(e, rows))
        if found is not None:
            say(f"{modality} encoder: {found.identity.label}, as in {store.root}.")
            return with_encoder_of(settings, modality, found)
    if name not in settings.encoder_names(modality):
        return None
    return settings.with_encoder(modality, name)


class _Target:
    """Features of a split, to be made or to be completed."""

    def __init__(self, root: Path, wanted: _Wanted, writers: dict[str, FeatureWriter]) -> None:
        self.wanted, self.seconds = wanted, 0.0
        self.job: Job | None = None
        """What was to be done; None where all rows were there."""
        self.rows = wanted.split.rows[wanted.encoder.identity.modality]
        self.split = wanted.split.about.split
        label = wanted.encoder.identity.label
        self.title = f"{self.split} {wanted.encoder.identity.modality} · {label}"
        self.writer = writers.setdefault(
            wanted.encoder.fingerprint, FeatureWriter(root, wanted.encoder)
        )

    def say(self, text: str) -> None:
        say(f"{self.title}: {text}")

    def say_waiting(self) -> None:
        self.say("another extraction is writing it; waiting.")

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[int], None]]:
        """Shows progress; measures from the end of the features before to its own."""
        started = time.monotonic()
        there = int(self.writer.has(self.rows.keys).sum())
        with progress(self.title, len(self.rows), "rows", there) as advance:
            yield lambda count: advance(count, "")
        self.seconds = time.monotonic() - started

    def record(self) -> Extracted:
        job = self.job
        return Extracted(
            name=self.wanted.name,
            split=self.split,
            modality=self.wanted.encoder.identity.modality,
            encoder=self.wanted.encoder.identity.label,
            directory=str(self.writer.folder),
            samples=len(self.wanted.split.samples),
            rows=len(self.rows),
            rows_computed=job.computed if job else 0,
            rows_already_there=job.there if job else len(self.rows),
            rows_shared=job.shared if job else self.rows.wanted.shared,
            bytes=self.writer.bytes,
            seconds=round(self.seconds, 2),
            set_aside=self.wanted.split.about.aside,
        )


def _write_missing(settings: Settings, targets: list[_Target], part: tuple[int, int]) -> None:
    """Writes what is missing; the claims of all features are held."""
    device = pick_device(settings.device)
    loaded: dict[str, Encoder] = {}
    jobs = []
    for target in targets:
        spec, total = target.wanted.spec, len(target.rows)
        there = int(target.writer.has(target.rows.keys).sum())
        if there == total:
            target.say(f"complete, {total} rows; nothing to do.")
            continue
        if there:
            target.say(f"{there} of {total} rows are there.")
        key = target.wanted.encoder.fingerprint
        if key not in loaded:
            loaded[key] = spec.load(device)
        encoder, reader = loaded[key], reader_of(spec, settings.seed)
        each = estimate_bytes(target.rows, reader, encoder)
        padded = encoder.size.padded_float32_bytes
        target.say(
            f"about {decimal(round(each * total))}, {decimal(round(each))} a row "
            f"(padded float32: {decimal(padded)} a row)."
        )
        target.job = Job(
            target.rows, reader, encoder, target.writer, part, target.watch, target.say
        )
        jobs.append(target.job)
    shard_rows, batch_size = settings.cache.shard_rows, settings.extract.batch_size
    extract(jobs, device, shard_rows=shard_rows, batch_size=batch_size)
