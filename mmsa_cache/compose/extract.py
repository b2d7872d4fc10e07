"""``mmsa extract``: composes data, encoders and the store."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from extract.encoders.protocol import Encoder
from extract.engine import extract
from extract.plan import Job
from extract.shards import estimate_bytes
from extract.streams import Timings, Workers, rows_a_batch
from mmsa_cache.config.settings import ALL, CONFIG_NAME, Settings
from mmsa_cache.console import progress, say
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, SPLITS, check_split, no_such
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.writer import FeatureWriter

from .completion import with_data
from .hub.data_set import fetched
from .lexicon import with_lexicon
from .outside import Reach
from .readers import reader_of
from .reading import read_splits
from .samples import splits_of
from .store import Store
from .wanted import WantedFeatures, wanted_features


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
        split: One of `SPLITS`, or ``all``.
        encoders: Names joined by commas, or ``all``; a name may have an encoder of one modality
            only. What two names have in common is extracted once.
        part: Number of the part of the rows to extract, from 0, and of parts.

    Returns:
        One record an encoder and split.

    Raises:
        SettingsError: Unknown split or encoder.
        MmsaError: As the data, the encoders and the store raise.
    """
    check_split(split, (*SPLITS, ALL))
    store = Store(settings.cache.dir, renewing=True)
    reach = Reach(settings, store.root)
    settings = with_data(fetched(settings), store, reach, extracting=True)
    names = chosen_encoders(settings, store, encoders)
    splits = read_splits(settings, store, split)
    if split == "train" and not store.split("val") and "val" in splits_of(settings, store):
        say("Note: the data has a split val, which is not extracted: --split val, or all.")
    names = with_lexicon(names, settings, store, splits)
    wanted = {name: list(wanted_features(settings, store, reach, name, splits)) for name in names}
    for found in splits:
        found.write(store.root)
    records = []
    for features in wanted.values():
        # The features of a name are written in one run, so that none waits for those before it.
        # Every process takes their claims in this order.
        with contextlib.ExitStack() as claims:
            writers: dict[str, FeatureWriter] = {}
            targets = [_Target(store.root, found, writers) for found in features]
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


def chosen_encoders(settings: Settings, store: Store, names: str) -> list[str]:
    """The encoders that ``--encoders`` names.

    Raises:
        SettingsError: Neither the settings nor the store have one of them.
    """
    stored = [name for found in store.features if found.encoder for name in found.encoder.names]
    every = list(dict.fromkeys([DEFAULT_ENCODER, *settings.encoders, *stored]))
    known = list(dict.fromkeys([*every, *settings.named_encoders]))
    wanted = every if names == ALL else list(dict.fromkeys(names.split(",")))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise no_such(
            f"{CONFIG_NAME} has no encoder",
            unknown[0],
            [*known, ALL],
            "Others are described under [encoders.NAME.image] or [encoders.NAME.text].",
        )
    return wanted


class _Target:
    """Features of a split, to be made or to be completed."""

    def __init__(
        self, root: Path, wanted: WantedFeatures, writers: dict[str, FeatureWriter]
    ) -> None:
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
        total, there = (self.job.wanted, self.job.there) if self.job else (0, 0)
        with progress(self.title, total, "rows", there) as advance:
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
            f"about {decimal(round(each * (total - there)))}, {decimal(round(each))} a row "
            f"(padded float32: {decimal(padded)} a row)."
        )
        target.job = Job(
            target.rows,
            target.writer,
            part,
            target.watch,
            target.say,
            reader=reader,
            encoder=encoder,
        )
        jobs.append(target.job)
    started = time.monotonic()
    timings = extract(
        jobs,
        device,
        shard_rows=settings.cache.shard_rows,
        batch_size=rows_a_batch(settings.extract.batch_size, device),
    )
    for target in targets if part == (0, 1) else ():
        target.writer.finish()
    limit = reading_limit(timings, time.monotonic() - started, Workers.plan(device).readers)
    if limit:
        say(limit)


def reading_limit(timings: Timings, seconds: float, readers: int) -> str:
    """A line for people where the models waited for rows to be read; "" where they hardly did.

    Args:
        timings: Of an extraction.
        seconds: That it took.
        readers: Threads that read.
    """
    if seconds < _WORTH_SAYING or timings.starved < seconds / 4:
        return ""
    return (
        f"Reading was the limit: of {seconds:.0f} s the models had nothing to do for "
        f"{timings.starved:.0f} s, while {readers} thread(s) read and decoded "
        f"({timings.read:.0f} s of their time). More cores, or smaller pictures, would help."
    )


_WORTH_SAYING = 10.0
"""Seconds of an extraction below which its limit is not."""
