"""What is to be extracted: the rows of an encoder, how they are read, and their batches."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from extract.encoders.protocol import Encoder, HasPrepare
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError
from mmsa_cache.features.rows import WantedRows, wanted_rows
from mmsa_cache.key_table import KeyTable
from mmsa_cache.store.keys import KEY_BYTES, Keys, as_keys
from mmsa_cache.store.schema import Shard


@dataclass(frozen=True, slots=True)
class Row:
    """One input: a sample's text or picture, or an augmented copy of it."""

    sample: Sample
    """The first one that has it."""
    variant: int
    """0: the original."""
    key: bytes
    """See `store.keys`."""


# Row → the text or picture and the augmentation used ("" for an original).
Reader = Callable[[Row], tuple[Any, str]]


class RowPlan(Sequence[Row]):
    """The distinct rows of samples; each is made when it is asked for, from 32 bytes.

    Args:
        samples: The samples.
        wanted: Their rows.
    """

    def __init__(self, samples: Sequence[Sample], wanted: WantedRows) -> None:
        self.wanted = wanted
        self._samples = samples
        places, first = np.unique(wanted.table, return_index=True)
        self._sample, self._variant = np.divmod(first[places >= 0], wanted.table.shape[1])

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> RowPlan:
        """A plan of distinct rows as they are."""
        table = np.full((len(rows), 1 + max(row.variant for row in rows)), -1)
        for number, row in enumerate(rows):
            table[number, row.variant] = number
        return cls([row.sample for row in rows], WantedRows(as_keys(r.key for r in rows), table))

    @property
    def keys(self) -> Keys:
        """(rows, 16)"""
        return self.wanted.keys

    def __len__(self) -> int:
        return len(self.wanted.keys)

    @overload
    def __getitem__(self, places: int) -> Row: ...
    @overload
    def __getitem__(self, places: slice) -> list[Row]: ...
    def __getitem__(self, places: int | slice) -> Row | list[Row]:
        if isinstance(places, slice):
            return self.at(np.arange(len(self))[places])
        return self.at(np.array([range(len(self))[places]]))[0]

    def at(self, places: NDArray[np.int64]) -> list[Row]:
        """Some of the rows; many at once are made far faster than one by one."""
        numbers = self._sample[places]
        samples: Iterable[Sample]
        if isinstance(self._samples, SampleTable):
            samples = self._samples.take(numbers)
        else:
            samples = (self._samples[number] for number in numbers.tolist())
        variants = self._variant[places].tolist()
        keys = self.keys[places]
        return [
            Row(sample, variant, key.tobytes())
            for sample, variant, key in zip(samples, variants, keys, strict=True)
        ]


def plan_rows(
    samples: Sequence[Sample],
    copies: dict[int, int],
    augmentation: str | Sequence[str],
    modality: str,
) -> RowPlan:
    """The distinct rows of samples: originals in order, then the copies sample by sample.

    Args:
        samples: A split.
        copies: Class code → augmented copies a sample; missing classes get none.
        augmentation: The policy and its seed, or those of each sample; see `wanted_rows`.
        modality: ``text`` or ``image``.
    """
    if isinstance(samples, SampleTable):
        digests, counts = samples.digests(modality), samples.copies(copies)
    else:
        contents = (s.text_sha256 if modality == "text" else s.image_sha256 for s in samples)
        digests = np.frombuffer(bytes.fromhex("".join(contents)), np.uint8).reshape(-1, 32)
        counts = np.array([0 if s.label is None else copies.get(s.label, 0) for s in samples])
    return RowPlan(samples, wanted_rows(digests, counts, augmentation))


def plan_batches(
    inputs: Sequence[Tensor], batch_size: int, positions: int | None = None, step: int = 1
) -> list[list[int]]:
    """Places of the inputs, batch by batch, ordered by length so that padding stays small.

    Args:
        inputs: Their first axis is their length.
        batch_size: Rows a batch at most.
        positions: Positions a batch at most, padded ones included; a batch has one row at least.
        step: Lengths are padded up to multiples of it.
    """
    order = sorted(range(len(inputs)), key=lambda place: (inputs[place].shape[0], place))
    batches: list[list[int]] = []
    for place in order:
        rows = len(batches[-1]) if batches else batch_size
        padded = (rows + 1) * (-(-inputs[place].shape[0] // step) * step)
        if rows == batch_size or (positions is not None and padded > positions):
            batches.append([])
        batches[-1].append(place)
    return batches


@dataclass(slots=True)
class PreparedRows:
    """Rows that are ready for the model."""

    inputs: list[Tensor] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: PreparedRows) -> None:
        """Takes further rows."""
        self.inputs += other.inputs
        self.operations += other.operations
        self.problems += other.problems
        self.seconds += other.seconds


def read_rows(rows: Sequence[Row], reader: Reader, encoder: HasPrepare) -> PreparedRows:
    """Reads rows and prepares them for the model; unreadable ones become problems."""
    started = time.perf_counter()
    result = PreparedRows()

    def values() -> Iterator[Any]:  # one by one: pictures are large until they are prepared
        for row in rows:
            try:
                value, operation = reader(row)
            except DataError as error:
                result.problems.append(error.message)
                continue
            result.operations.append(operation)
            yield value

    result.inputs = encoder.prepare(values())
    result.seconds = time.perf_counter() - started
    return result


class RowLookup(Protocol):
    """Features that know which of their rows are sealed."""

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Which rows are sealed by now, (rows,)."""


class RowWriter(RowLookup, Protocol):
    """What the loop puts encoded rows into."""

    def publish(self, *shards: Shard) -> int:
        """Seals rows as one shard; how many were not there."""


To = TypeVar("To", bound=RowLookup, covariant=True)


@dataclass(slots=True)
class FeatureJob(Generic[To]):
    """Rows that are to be added to an encoder's features; the part must be claimed."""

    rows: RowPlan
    """All that are wanted, in order."""
    writer: To
    """Jobs of the same features have the same."""
    part: tuple[int, int] = (0, 1)
    """Number of the part to compute, from 0, and of parts: every so-manieth window is its."""
    watch: Callable[[], AbstractContextManager[Callable[[int], None]]] = lambda: nullcontext(
        lambda count: None
    )
    """Entered while this job is worked on; its value is called with rows just encoded."""
    notice: Callable[[str], None] = lambda text: None
    """Called with what people should know meanwhile, as that the batches had to be halved."""
    name: str = ""
    """What messages call it."""
    wanted: int = 0
    """Rows of the part, without those that a job before wants."""
    computed: int = 0
    """Rows of the part that were encoded."""
    there: int = 0
    """Rows of the part that somebody else had entered."""
    shared: int = 0
    """Wanted rows whose input is that of another one, of this job or of one before it."""

    def missing(self, shard_rows: int, planned: KeyTable) -> list[NDArray[np.int64]]:
        """The missing rows of each window of this part.

        Windows are those of all rows, whatever is sealed, so that a row has the same company in
        its batch in an unbroken run and in one that was continued.

        Args:
            shard_rows: Rows a window.
            planned: Rows that jobs before this one add to the same features; grows by its own.

        Returns:
            Numbers of rows, without windows that have none.
        """
        number, parts = self.part
        twins = planned.places(self.rows.keys) >= 0
        planned.add(self.rows.keys[~twins])
        self.shared = self.rows.wanted.shared + int(twins.sum())
        sealed = self.writer.has(self.rows.keys)
        every = np.arange(len(self.rows))
        own = (every // shard_rows) % parts == number
        self.wanted = int((own & ~twins).sum())
        self.there = int((own & sealed & ~twins).sum())
        rows = every[own & ~sealed & ~twins]
        cuts = np.flatnonzero(np.diff(rows // shard_rows)) + 1
        return np.split(rows, cuts) if len(rows) else []


@dataclass(slots=True, kw_only=True)
class EncodingJob(FeatureJob[RowWriter]):
    """Rows that this process encodes."""

    reader: Reader
    encoder: Encoder


def missing_windows(
    jobs: Sequence[FeatureJob[RowLookup]], shard_rows: int
) -> list[list[NDArray[np.int64]]]:
    """The missing rows of each window of each job, (jobs, windows, rows)."""
    planned: dict[int, KeyTable] = defaultdict(lambda: KeyTable(KEY_BYTES))
    return [job.missing(shard_rows, planned[id(job.writer)]) for job in jobs]
