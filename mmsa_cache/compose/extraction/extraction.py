"""The missing rows of features: written by this process, or by a crew."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.filesize import decimal

from extract.crew.driver import drive
from extract.crew.protocol import Depot
from extract.encoders.protocol import Encoder
from extract.engine import extract
from extract.plan import EncodingJob, FeatureJob, missing_windows
from extract.reading.reading import preload_processes
from extract.shards import estimate_bytes
from extract.streams import ThreadCounts, Timings, rows_a_batch
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import progress, say
from mmsa_cache.store.objects import ObjectWriter
from mmsa_cache.store.writer import FeatureWriter

from .crew import EncoderSource, EngineRequest
from .loading import load_encoder
from .readers import reader_of
from .wanted import WantedFeatures


class Work:
    """Features of a split, to be made or to be completed.

    Args:
        wanted: Which.
        writer: Of all splits' features of this encoder.
    """

    def __init__(self, wanted: WantedFeatures, writer: FeatureWriter | ObjectWriter) -> None:
        self.wanted, self.writer, self.seconds = wanted, writer, 0.0
        self.jobs: list[FeatureJob[Any]] = []
        """What was to be done, part by part; none where all rows were there."""
        self.rows = wanted.split.rows[wanted.encoder.identity.modality]
        self.split = wanted.split.about.split
        label = wanted.encoder.identity.label
        self.title = f"{self.split} {wanted.encoder.identity.modality} · {label}"
        self.note: Callable[[], str] = lambda: ""
        """What is shown beside the progress."""

    def say(self, text: str) -> None:
        say(f"{self.title}: {text}")

    def say_waiting(self) -> None:
        self.say("another extraction is writing it; waiting.")

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[int], None]]:
        """Shows progress; measures from the end of the features before to its own."""
        started, job = time.monotonic(), self.jobs[-1]
        with progress(self.title, job.total, "rows", job.present) as advance:
            yield lambda count: advance(count, self.note())
        self.seconds += time.monotonic() - started

    def missing(self) -> int:
        """How many rows are; says so the first time."""
        total = len(self.rows)
        there = int(self.writer.has(self.rows.keys).sum())
        if not self.jobs and there == total:
            self.say(f"complete, {total} rows; nothing to do.")
        elif not self.jobs and there:
            self.say(f"{there} of {total} rows are there.")
        return total - there


class Extraction:
    """Writes what is missing of features; their claims must be held.

    Raises:
        DeviceError: There is no such device.
    """

    def __init__(self, settings: Settings, works: Sequence[Work], engine: EngineRequest) -> None:
        self._settings, self._works, self._engine = settings, works, engine
        self._device = engine.device(settings)
        self._loaded: dict[str, Encoder] = {}

    def write(self, part: tuple[int, int]) -> None:
        """Writes a part.

        Args:
            part: Its number from 0, and of parts.
        """
        missing = {work: rows for work in self._works if (rows := work.missing())}
        # One window is one worker's work, and others would take seconds to start.
        little = sum(missing.values()) <= self._settings.cache.shard_rows
        if self._engine.chosen is None or (self._engine.by_itself and little):
            self._here(missing, part)
        elif missing:
            self._by_crew(list(missing), part)

    def _here(self, missing: dict[Work, int], part: tuple[int, int]) -> None:
        readers = ThreadCounts.plan(self._device).readers
        preload_processes(self._device, sum(missing.values()), readers)  # while models are loaded
        jobs = []
        for work, rows in missing.items():
            assert isinstance(work.writer, FeatureWriter)  # a target has an engine
            spec, key = work.wanted.spec, work.wanted.encoder.fingerprint
            if key not in self._loaded:
                self._loaded[key] = load_encoder(spec, self._device, self._settings)
            encoder, reader = self._loaded[key], reader_of(spec, self._settings.seed)
            if not work.jobs:
                each = estimate_bytes(work.rows, reader, encoder)
                padded = encoder.size.padded_float32_bytes
                work.say(
                    f"about {decimal(round(each * rows))}, {decimal(round(each))} a row "
                    f"(padded float32: {decimal(padded)} a row)."
                )
            job = EncodingJob(
                work.rows,
                work.writer,
                part,
                work.watch,
                work.say,
                reader=reader,
                encoder=encoder,
            )
            work.jobs.append(job)
            jobs.append(job)
        started = time.monotonic()
        timings = extract(
            jobs,
            self._device,
            shard_rows=self._settings.cache.shard_rows,
            batch_size=rows_a_batch(self._settings.extract.batch_size, self._device),
        )
        seconds = time.monotonic() - started
        limit = reading_limit(timings, seconds, readers)
        if limit:
            say(limit)

    def _by_crew(self, works: Sequence[Work], part: tuple[int, int]) -> None:
        jobs = []
        for work in works:
            job: FeatureJob[Depot] = FeatureJob(
                work.rows, work.writer, part, work.watch, work.say, work.title
            )
            work.jobs.append(job)
            jobs.append(job)
        size = self._settings.cache.shard_rows
        if not any(missing_windows(jobs, size)):
            return
        source = EncoderSource.of([work.wanted for work in works], self._settings.seed)
        sealers = [work.writer.sealer for work in works]
        crew = self._engine.crew(source, sealers, self._device, self._settings.extract.batch_size)
        for work in works:
            work.note = lambda: f"{crew.workers} worker(s)"
        drive(jobs, crew, shard_rows=size)


def reading_limit(timings: Timings, seconds: float, readers: int) -> str:
    """A line for people where the models waited for rows to be read; "" where they hardly did."""
    if seconds < _WORTH_SAYING or timings.starved < seconds / 4:
        return ""
    return (
        f"Reading was the limit: of {seconds:.0f} s the models had nothing to do for "
        f"{timings.starved:.0f} s, while {readers} core(s) read and decoded "
        f"({timings.read:.0f} s of their time). More cores, or smaller pictures, would help."
    )


_WORTH_SAYING = 10.0
"""Seconds of an extraction below which its limit is not."""
