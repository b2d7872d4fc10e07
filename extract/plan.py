"""What is extracted: the rows of an encoder, their batches, and the jobs that add them."""

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
from mmsa_cache.features.rows import SampleRows, sample_rows
from mmsa_cache.key_table import KeyTable
from mmsa_cache.store.keys import KEY_BYTES, Keys, as_keys
from mmsa_cache.store.schema import Shard


@dataclass(frozen=True, slots=True)
class Row:
    """One input: a sample's text or picture, or an augmented copy of it."""

    sample: Sample
    """The first sample that has this input."""
    variant: int
    """0: the original."""
    key: bytes
    """See `store.keys`."""


# Row → the text or picture and the augmentation used ("" for an original).
Reader = Callable[[Row], tuple[Any, str]]


class RowPlan(Sequence[Row]):
    """The distinct rows of samples. A row is made when it is accessed; it is kept as 32 bytes.

    Args:
        samples: The samples.
        sample_rows: The distinct keys, and the rows of each sample.
    """

    def __init__(self, samples: Sequence[Sample], sample_rows: SampleRows) -> None:
        self.sample_rows = sample_rows
        self._samples = samples
        rows, first = np.unique(sample_rows.table, return_index=True)
        self._sample, self._variant = np.divmod(first[rows >= 0], sample_rows.table.shape[1])

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> RowPlan:
        """A plan of given distinct rows."""
        table = np.full((len(rows), 1 + max(row.variant for row in rows)), -1)
        for index, row in enumerate(rows):
            table[index, row.variant] = index
        return cls([row.sample for row in rows], SampleRows(as_keys(r.key for r in rows), table))

    @property
    def keys(self) -> Keys:
        """(rows, 16)"""
        return self.sample_rows.keys

    def __len__(self) -> int:
        return len(self.sample_rows.keys)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self.take(np.array([range(len(self))[index]]))[0]

    def take(self, rows: NDArray[np.int64]) -> list[Row]:
        """Rows by number; many at once are far faster than one by one."""
        indices = self._sample[rows]
        samples: Iterable[Sample]
        if isinstance(self._samples, SampleTable):
            samples = self._samples.take(indices)
        else:
            samples = (self._samples[index] for index in indices.tolist())
        variants = self._variant[rows].tolist()
        keys = self.keys[rows]
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
        augmentation: The policy and its seed, or those of each sample; see `sample_rows`.
        modality: ``text`` or ``image``.
    """
    if isinstance(samples, SampleTable):
        digests, counts = samples.digests(modality), samples.copies(copies)
    else:
        contents = (s.text_sha256 if modality == "text" else s.image_sha256 for s in samples)
        digests = np.frombuffer(bytes.fromhex("".join(contents)), np.uint8).reshape(-1, 32)
        counts = np.array([0 if s.label is None else copies.get(s.label, 0) for s in samples])
    return RowPlan(samples, sample_rows(digests, counts, augmentation))


def plan_batches(
    inputs: Sequence[Tensor], batch_size: int, positions: int | None = None, step: int = 1
) -> list[list[int]]:
    """Indices of the inputs, batch by batch, ordered by length to keep padding small.

    Args:
        inputs: Their first axis is their length.
        batch_size: Rows a batch at most.
        positions: Positions a batch at most, padded ones included; a batch has one row at least.
        step: Lengths are padded up to multiples of it.
    """
    order = sorted(range(len(inputs)), key=lambda index: (inputs[index].shape[0], index))
    batches: list[list[int]] = []
    for index in order:
        rows = len(batches[-1]) if batches else batch_size
        padded = (rows + 1) * (-(-inputs[index].shape[0] // step) * step)
        if rows == batch_size or (positions is not None and padded > positions):
            batches.append([])
        batches[-1].append(index)
    return batches


@dataclass(slots=True)
class PreparedRows:
    """Rows that are ready for the model."""

    inputs: list[Tensor] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: PreparedRows) -> None:
        """Appends rows."""
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
    """Tells which rows of some features are sealed."""

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Whether each row is sealed by now, (rows,)."""


class RowWriter(RowLookup, Protocol):
    """Takes encoded rows."""

    def publish(self, *shards: Shard) -> int:
        """Seals rows as one shard; returns how many were new."""


W = TypeVar("W", bound=RowLookup, covariant=True)


@dataclass(slots=True)
class FeatureJob(Generic[W]):
    """Rows to add to the features of an encoder; the part must be claimed."""

    rows: RowPlan
    """All rows, in order."""
    writer: W
    """The same object for all jobs of the same features."""
    part: tuple[int, int] = (0, 1)
    """Index of the part to compute, and number of parts N: it takes every N-th window."""
    watch: Callable[[], AbstractContextManager[Callable[[int], None]]] = lambda: nullcontext(
        lambda count: None
    )
    """Entered while the job runs; its value is called with the number of rows just encoded."""
    notice: Callable[[str], None] = lambda text: None
    """Called with messages for the user, such as that batches had to be halved."""
    name: str = ""
    """For messages."""
    total: int = 0
    """Rows of the part, without those of earlier jobs."""
    computed: int = 0
    """Rows of the part that this job entered."""
    present: int = 0
    """Rows of the part that others had entered."""
    duplicates: int = 0
    """Rows whose input is that of another row, of this job or of an earlier one."""

    def missing(self, shard_rows: int, planned: KeyTable) -> list[NDArray[np.int64]]:
        """The missing rows of each window of this part.

        Windows are cut from all rows, sealed or not. So a row is batched with the same rows in an
        unbroken run and in one that was continued.

        Args:
            shard_rows: Rows a window.
            planned: Rows that earlier jobs add to the same features; this job's are added.

        Returns:
            Row numbers of each window that lacks some.
        """
        part, parts = self.part
        planned_before = planned.find(self.rows.keys) >= 0
        planned.add(self.rows.keys[~planned_before])
        self.duplicates = self.rows.sample_rows.shared + int(planned_before.sum())
        sealed = self.writer.has(self.rows.keys)
        numbers = np.arange(len(self.rows))
        own = ((numbers // shard_rows) % parts == part) & ~planned_before
        self.total, self.present = int(own.sum()), int((own & sealed).sum())
        rows = numbers[own & ~sealed]
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
