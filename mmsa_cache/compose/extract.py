"""``mmsa extract``: composes data, encoders and the cache."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.filesize import decimal

from extract.encoders.compat import prepare_torchvision
from extract.encoders.protocol import Encoder
from extract.engine import extract
from extract.plan import Job
from extract.shards import estimate_bytes
from mmsa_cache.config.settings import ALL, CONFIG_NAME, Settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.dataset import survey
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, SPLITS
from mmsa_cache.store.lookup import nearest_cache
from mmsa_cache.store.writer import CacheWriter

from .cached import Cache
from .live import reader_of
from .session import Session
from .sieve import keep_good


@dataclass(frozen=True, slots=True)
class Extracted:
    """The outcome for one cache."""

    name: str
    """Its encoder's name in the settings."""
    split: str
    modality: str
    encoder: str
    directory: str
    samples: int
    rows: int
    rows_already_there: int
    bytes: int
    seconds: float
    set_aside: int
    """Rows of the split that are left out because of a bad text or picture."""


def extract_splits(
    settings: Settings, split: str, encoders: str = DEFAULT_ENCODER
) -> list[Extracted]:
    """Extracts what is missing of one split or of all.

    Args:
        settings: The command's settings.
        split: ``train``, ``test`` or ``all``.
        encoders: Names joined by commas, or ``all``; a name may have an encoder of one modality
            only. What two names have in common is extracted once.

    Returns:
        One record a cache.

    Raises:
        SettingsError: Unknown split or encoder.
        MmsaError: As the data, the encoders and the cache raise.
    """
    if split not in (*SPLITS, "all"):
        raise SettingsError(f"Unknown split {split!r}.", f"Valid: {', '.join(SPLITS)}, all.")
    names = _chosen_encoders(settings, encoders)
    wanted = _splits_of(settings) if split == "all" else (split,)
    with ThreadPoolExecutor(1) as pool:  # files are hashed while the libraries are imported
        reading = {name: pool.submit(survey, settings.data, name) for name in wanted}
        _import_libraries()
    kept = keep_good(settings, {name: task.result for name, task in reading.items()})
    for _, intake in kept.values():
        say(intake.summary())
    session = Session(settings, samples={part: samples for part, (samples, _) in kept.items()})
    records = []
    for name in names:
        # The caches of a name are written in one run, so that none waits for the one before it.
        # Every process takes their locks in this order.
        with contextlib.ExitStack() as locks:
            targets = [
                _Target(session, session.cache(part, modality, name))
                for part in wanted
                for modality in MODALITIES
                if name in settings.encoder_names(modality)
            ]
            for target in targets:
                locks.enter_context(target.writer.lock(target.say_waiting))
            _write_missing(session, targets)
            records += [
                target.record(name, kept[target.cache.split][1].aside) for target in targets
            ]
    return records


def _chosen_encoders(settings: Settings, names: str) -> list[str]:
    known = [DEFAULT_ENCODER, *settings.encoders]
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


class _Target:
    """One cache to be made or to be completed."""

    def __init__(self, session: Session, cache: Cache) -> None:
        self.cache, self.seconds, self.there = cache, 0.0, 0
        self.rows = session.rows(cache.split)
        self._samples = len(session.samples(cache.split))
        self.title = f"{cache.split} {cache.encoder.identity.modality} · {cache.encoder.label}"
        self.writer = CacheWriter(cache.folder, cache.fields, len(self.rows))
        nearest = nearest_cache(cache.folder.parent, cache.fields)
        if nearest is not None and nearest[1]:
            self.say(f"the cache {nearest[0].name} was made from something else:")
            for difference in nearest[1]:
                say(f"  - {difference}")

    def say(self, text: str) -> None:
        say(f"{self.title}: {text}")

    def say_waiting(self) -> None:
        self.say("another extraction is writing it; waiting.")

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[int], None]]:
        """Shows progress; measures from the end of the cache before it to its own."""
        started = time.monotonic()
        with progress(self.title, len(self.rows), "rows", self.there) as advance:
            yield lambda count: advance(count, "")
        self.seconds = time.monotonic() - started

    def record(self, name: str, set_aside: int) -> Extracted:
        return Extracted(
            name,
            self.cache.split,
            self.cache.encoder.identity.modality,
            self.cache.encoder.label,
            str(self.cache.folder),
            self._samples,
            len(self.rows),
            self.there,
            self.writer.bytes_done,
            round(self.seconds, 2),
            set_aside,
        )


def _write_missing(session: Session, targets: list[_Target]) -> None:
    """Writes what is missing; the locks of all caches are held."""
    settings = session.settings
    loaded: dict[tuple[str, str], Encoder] = {}
    jobs = []
    for target in targets:
        spec, total = target.cache.encoder, len(target.rows)
        target.there = target.writer.rows_done
        if target.writer.complete:
            target.say(f"complete, {target.there} rows; nothing to do.")
            continue
        if target.there:
            target.say(f"resuming, {target.there} of {total} rows were there.")
        key = (spec.identity.modality, spec.options.compute)
        if key not in loaded:
            loaded[key] = spec.load(session.device)
        encoder, reader = loaded[key], reader_of(spec, settings.seed)
        each = estimate_bytes(target.rows, reader, encoder)
        padded = encoder.size.padded_float32_bytes
        target.say(
            f"about {decimal(round(each * total))}, {decimal(round(each))} a row "
            f"(padded float32: {decimal(padded)} a row)."
        )
        jobs.append(Job(target.rows, reader, encoder, target.writer, target.watch, target.say))
    shard_rows, batch_size = settings.cache.shard_rows, settings.extract.batch_size
    extract(jobs, session.device, shard_rows=shard_rows, batch_size=batch_size)
