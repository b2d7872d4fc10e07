"""Writes the missing rows of features, by this process or by a crew of workers."""

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
from .feature_requests import FeatureRequest
from .loading import load_encoder
from .readers import reader_of


class PendingFeatures:
    """Features of a split while they are completed.

    Args:
        request: Which features.
        writer: Writes the features of the encoder, of all splits.
    """

    def __init__(self, request: FeatureRequest, writer: FeatureWriter | ObjectWriter) -> None:
        self.request, self.writer, self.seconds = request, writer, 0.0
        self.jobs: list[FeatureJob[Any]] = []
        """One a part of the rows; empty where no row was missing."""
        identity = request.encoder.identity
        self.rows = request.split.rows[identity.modality]
        self.split = request.split.about.split
        self.title = f"{self.split} {identity.modality} · {identity.label}"
        self.note: Callable[[], str] = lambda: ""
        """Text beside the progress."""

    def say(self, text: str) -> None:
        say(f"{self.title}: {text}")

    def say_waiting(self) -> None:
        self.say("another extraction is writing it; waiting.")

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[int], None]]:
        """Shows the progress of the last job, and adds its time to `seconds`."""
        started, job = time.monotonic(), self.jobs[-1]
        with progress(self.title, job.total, "rows", job.present) as advance:
            yield lambda count: advance(count, self.note())
        self.seconds += time.monotonic() - started

    def count_missing(self) -> int:
        """Number of missing rows; tells the user before the first job."""
        total = len(self.rows)
        stored = int(self.writer.has(self.rows.keys).sum())
        if not self.jobs and stored == total:
            self.say(f"complete, {total} rows; nothing to do.")
        elif not self.jobs and stored:
            self.say(f"{stored} of {total} rows are there.")
        return total - stored


class Extraction:
    """Writes the missing rows of features, whose writers must be claimed.

    Raises:
        DeviceError: There is no such device.
    """

    def __init__(
        self, settings: Settings, features: Sequence[PendingFeatures], engine: EngineRequest
    ) -> None:
        self._settings, self._features, self._engine = settings, features, engine
        self._device = engine.device(settings)
        self._loaded: dict[str, Encoder] = {}

    def write(self, part: tuple[int, int]) -> None:
        """Writes a part of the rows.

        Args:
            part: Its number from 0, and the number of parts.
        """
        missing = {f: rows for f in self._features if (rows := f.count_missing())}
        # A single window occupies one worker, and more workers would take seconds to start.
        few = sum(missing.values()) <= self._settings.cache.shard_rows
        if self._engine.chosen is None or (self._engine.gpus_by_default and few):
            self._write_here(missing, part)
        elif missing:
            self._write_by_crew(list(missing), part)

    def _write_here(self, missing: dict[PendingFeatures, int], part: tuple[int, int]) -> None:
        readers = ThreadCounts.plan(self._device).readers
        preload_processes(self._device, sum(missing.values()), readers)  # while models are loaded
        jobs = [self._encoding_job(features, rows, part) for features, rows in missing.items()]
        started = time.monotonic()
        timings = extract(
            jobs,
            self._device,
            shard_rows=self._settings.cache.shard_rows,
            batch_size=rows_a_batch(self._settings.extract.batch_size, self._device),
        )
        note = reading_limit(timings, time.monotonic() - started, readers)
        if note:
            say(note)

    def _encoding_job(
        self, features: PendingFeatures, missing: int, part: tuple[int, int]
    ) -> EncodingJob:
        assert isinstance(features.writer, FeatureWriter)  # a target has an engine
        spec, key = features.request.spec, features.request.encoder.fingerprint
        if key not in self._loaded:
            self._loaded[key] = load_encoder(spec, self._device, self._settings)
        encoder, reader = self._loaded[key], reader_of(spec, self._settings.seed)
        if not features.jobs:
            size = estimate_bytes(features.rows, reader, encoder)
            padded = encoder.size.padded_float32_bytes
            features.say(
                f"about {decimal(round(size * missing))}, {decimal(round(size))} a row "
                f"(padded float32: {decimal(padded)} a row)."
            )
        job = EncodingJob(
            features.rows,
            features.writer,
            part,
            features.watch,
            features.say,
            reader=reader,
            encoder=encoder,
        )
        features.jobs.append(job)
        return job

    def _write_by_crew(self, pending: Sequence[PendingFeatures], part: tuple[int, int]) -> None:
        jobs = []
        for features in pending:
            job: FeatureJob[Depot] = FeatureJob(
                features.rows, features.writer, part, features.watch, features.say, features.title
            )
            features.jobs.append(job)
            jobs.append(job)
        size = self._settings.cache.shard_rows
        if not any(missing_windows(jobs, size)):
            return
        source = EncoderSource.of([features.request for features in pending], self._settings.seed)
        sealers = [features.writer.sealer for features in pending]
        crew = self._engine.crew(source, sealers, self._device, self._settings.extract.batch_size)
        for features in pending:
            features.note = lambda: f"{crew.workers} worker(s)"
        drive(jobs, crew, shard_rows=size)


def reading_limit(timings: Timings, seconds: float, readers: int) -> str:
    """A note for people if the models waited for reading a quarter of the time, else empty."""
    if seconds < _SHORTEST_NOTED or timings.starved < seconds / 4:
        return ""
    return (
        f"Reading was the limit: of {seconds:.0f} s the models had nothing to do for "
        f"{timings.starved:.0f} s, while {readers} core(s) read and decoded "
        f"({timings.read:.0f} s of their time). More cores, or smaller pictures, would help."
    )


_SHORTEST_NOTED = 10.0
"""Seconds; the limit of shorter extractions is not noted."""
