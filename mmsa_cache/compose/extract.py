"""``mmsa extract``: composes data, encoders and the cache."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.filesize import decimal

from extract.encode import estimate_bytes
from extract.encoders.compat import prepare_torchvision
from extract.engine import extract
from extract.job import Job
from extract.plan import plan_rows
from mmsa_cache.config.settings import ALL, CONFIG_NAME, Settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, SPLITS
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.fingerprint import cache_name
from mmsa_cache.store.lookup import nearest_cache
from mmsa_cache.store.writer import CacheWriter

from .cache_identity import cache_folder, copies_of
from .encoders import Loaded
from .live import reader_of
from .locate import locate
from .samples import survey_split
from .sieve import take


def extract_splits(
    settings: Settings, split: str, encoders: str = DEFAULT_ENCODER
) -> list[dict[str, Any]]:
    """Extracts what is missing of one split or of all.

    Args:
        settings: The command's settings.
        split: ``train``, ``test`` or ``all``.
        encoders: Names joined by commas, or ``all``; a name may have an encoder of one modality
            only. What two names have in common is extracted once.

    Returns:
        One record a cache: split, modality, name, encoder, directory, rows, rows that were already
        there, samples set aside, and seconds.

    Raises:
        SettingsError: Unknown split or encoder.
        MmsaError: As the data, the encoders and the cache raise.
    """
    if split not in (*SPLITS, "all"):
        raise SettingsError(f"Unknown split {split!r}.", f"Valid: {', '.join(SPLITS)}, all.")
    named = _chosen_encoders(settings, encoders)
    wanted = _splits_of(settings) if split == "all" else (split,)
    with ThreadPoolExecutor(1) as pool:  # files are hashed while the libraries are imported
        reading = {name: pool.submit(survey_split, settings, name) for name in wanted}
        _import_libraries()
    taken = take(settings, {name: task.result for name, task in reading.items()})
    for _, report in taken.values():
        say(report.summary())
    records: list[dict[str, Any]] = []
    for name, modalities in named.items():
        places = [
            (settings.with_encoder(modality, name), part, taken[part][0], modality)
            for part in wanted
            for modality in modalities
        ]
        # The caches of a name are written in one go, so that none waits for the end of the one
        # before it. Every process takes their locks in this order.
        with contextlib.ExitStack() as locks:
            caches = [_Cache(*place) for place in places]
            for cache in caches:
                locks.enter_context(cache.writer.lock(cache.say_waiting))
            _extract(settings, caches)
            records += [
                {"name": name, **cache.record(), "set_aside": taken[part][1].aside}
                for cache, (_, part, *_) in zip(caches, places, strict=True)
            ]
    return records


def _chosen_encoders(settings: Settings, names: str) -> dict[str, list[str]]:
    """The modalities that each wanted name has an encoder of."""
    known = [DEFAULT_ENCODER, *settings.encoders]
    wanted = known if names == ALL else list(dict.fromkeys(names.split(",")))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SettingsError(
            f"{CONFIG_NAME} has no encoder {', '.join(map(repr, unknown))}.",
            f"Known: {', '.join(known)}, {ALL}; others are described under [encoders.NAME.image] "
            "or [encoders.NAME.text].",
        )
    return {name: [m for m in MODALITIES if name in settings.encoder_names(m)] for name in wanted}


def _import_libraries() -> None:
    """The imports that resolving an encoder needs; they take seconds."""
    prepare_torchvision()
    import timm  # noqa: F401


def _splits_of(settings: Settings) -> tuple[str, ...]:
    """The splits that the data has: raw MVSA knows no test, unlabelled pairs no train."""
    if settings.data.root is None:
        return SPLITS  # reading says what is missing
    return tuple(find_layout(settings.data.root).splits)


class _Cache:
    """One cache to be made or to be completed."""

    def __init__(
        self, settings: Settings, split: str, samples: list[Sample], modality: str
    ) -> None:
        self.modality, self.seconds, self.there = modality, 0.0, 0
        self._split, self._samples = split, samples
        self.rows = plan_rows(samples, copies_of(settings, split, samples))
        identity = [(row.sample, row.variant) for row in self.rows]
        self.spec, self.fields = locate(settings, split, modality, identity)
        parent = cache_folder(settings, split, modality)
        self._directory = parent / cache_name(self.spec.name, self.fields)
        self.title = f"{split} {modality} · {self.spec.label}"
        self.writer = CacheWriter(self._directory, self.fields, len(self.rows))
        nearest = nearest_cache(parent, self.fields)
        if nearest is not None and nearest[1]:
            self.say(f"the cache {nearest[0].name} does not serve:")
            for difference in nearest[1]:
                say(f"  - {difference}")

    def say(self, text: str) -> None:
        say(f"{self.title}: {text}")

    def say_waiting(self) -> None:
        self.say("another extraction is at work here; waiting for it.")

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[int], None]]:
        """Shows how far it is; takes the time from the end of the cache before it to its own."""
        started = time.monotonic()
        with progress(self.title, len(self.rows), "rows", self.there) as advance:
            yield lambda count: advance(count, "")
        self.seconds = time.monotonic() - started

    def record(self) -> dict[str, Any]:
        return {
            "split": self._split,
            "modality": self.modality,
            "encoder": self.spec.label,
            "directory": str(self._directory),
            "samples": len(self._samples),
            "rows": len(self.rows),
            "rows_already_there": self.there,
            "bytes": self.writer.bytes_done,
            "seconds": round(self.seconds, 2),
        }


def _extract(settings: Settings, caches: list[_Cache]) -> None:
    """Writes what is missing; the locks of all caches are held."""
    device = pick_device(settings.device)
    encoders: dict[tuple[str, str], Loaded] = {}
    jobs = []
    for cache in caches:
        total = len(cache.rows)
        cache.there = cache.writer.rows_done
        if cache.writer.complete:
            cache.say(f"complete, {cache.there} rows; nothing to do.")
            continue
        if cache.there:
            cache.say(f"resuming, {cache.there} of {total} rows were there.")
        key = (cache.modality, cache.fields["compute"])
        if key not in encoders:
            encoders[key] = cache.spec.load(device)
        encoder, reader = encoders[key], reader_of(cache.modality, cache.spec, settings.seed)
        each = estimate_bytes(cache.rows, reader, encoder)
        padded = encoder.size.padded_float32_bytes
        cache.say(
            f"about {decimal(round(each * total))}, {decimal(round(each))} a row "
            f"(padded float32: {decimal(padded)} a row)."
        )
        jobs.append(Job(cache.rows, reader, encoder, cache.writer, cache.watch, cache.say))
    shard_rows, batch_size = settings.cache.shard_rows, settings.extract.batch_size
    extract(jobs, device, shard_rows=shard_rows, batch_size=batch_size)
