"""The samples of a split as columns; a million samples take about 0.3 kB each."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from mmsa_cache.names import MODALITIES

from .pairs import Sample

IntArray = NDArray[np.int64]

COLUMNS = pa.schema(
    [
        pa.field("guid", pa.large_string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("text", pa.large_string()),
        pa.field("text_sha256", pa.binary(32), nullable=False),
        pa.field("image_sha256", pa.binary(32), nullable=False),
        pa.field("text_key", pa.binary(16)),
        pa.field("image", pa.large_string()),
    ]
)
"""The fields of a `Sample`; ``image`` is the path of its picture, relative to a folder."""
UNKNOWN_LABEL = -1
"""Class code of an unlabelled sample in arrays."""
_WINDOW = 4096
"""Rows that are Python objects at a time."""


class SampleTable(Sequence[Sample]):
    """Samples as columns.

    Args:
        table: A table of the schema `COLUMNS`.
        folder: Where the paths of pictures start; None if pictures are not available.
    """

    def __init__(self, table: pa.Table, folder: Path | None = None) -> None:
        self.table = table.combine_chunks()
        self.folder = folder

    @classmethod
    def from_samples(cls, samples: Iterable[Sample], folder: Path | None = None) -> SampleTable:
        """Makes a table.

        Args:
            samples: Samples with all their hashes.
            folder: Folder of their pictures; None leaves pictures out.
        """
        builder = TableBuilder(folder)
        window: list[Sample] = []
        for sample in samples:
            window.append(sample)
            if len(window) == _WINDOW:
                builder.add(window)
                window = []
        builder.add(window)
        return builder.table()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> SampleTable: ...

    def __getitem__(self, index: int | slice) -> Sample | SampleTable:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:  # shares the columns
                return SampleTable(self.table.slice(start, max(0, stop - start)), self.folder)
            return self.take(np.arange(len(self))[index])
        row = range(len(self))[index]
        return next(self._samples(row, 1))

    def __iter__(self) -> Iterator[Sample]:
        for first in range(0, len(self), _WINDOW):
            yield from self._samples(first, _WINDOW)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampleTable):
            return NotImplemented
        return self.folder == other.folder and bool(self.table.equals(other.table))

    __hash__ = None  # type: ignore[assignment]

    def _samples(self, first: int, rows: int) -> Iterator[Sample]:
        columns = [column.to_pylist() for column in self.table.slice(first, rows).columns]
        for guid, label, text, text_sha256, image_sha256, key, image in zip(*columns, strict=True):
            path = None if self.folder is None or image is None else self.folder / image
            yield Sample(guid, label, text, path, text_sha256.hex(), image_sha256.hex(), key)

    @property
    def guids(self) -> list[str]:
        """Guids of the samples."""
        return list(self.table["guid"].to_pylist())

    @property
    def labels(self) -> IntArray:
        """Class codes, (rows,); `UNKNOWN_LABEL` if unlabelled."""
        codes = pc.fill_null(self.table["label"], UNKNOWN_LABEL)
        return np.asarray(codes.to_numpy(), np.int64)

    @property
    def has_texts(self) -> bool:
        """Whether the table has texts; a store may be shared without them."""
        return int(self.table["text"].null_count) == 0

    def digests(self, modality: str) -> NDArray[np.uint8]:
        """sha256 of every sample's text or picture, (rows, 32); zeros if it has none."""
        return byte_array(self.table[f"{modality}_sha256"], 32)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether each sample has a text and a picture, (rows, 2)."""
        return np.stack([self.digests(modality).any(1) for modality in MODALITIES], 1)

    def groups(self) -> IntArray:
        """Groups duplicates: samples that show the same post.

        Two samples are duplicates if their texts agree without URLs and a leading ``RT @name``, or
        if their pictures have the same bytes. Groups that share a member are merged.

        Returns:
            Group number of each sample, (rows,), numbered by first appearance; cached.
        """
        return self._groups

    @functools.cached_property
    def _groups(self) -> IntArray:
        from .duplicates import connected_groups  # imports scipy and imagehash

        rows = np.arange(len(self))
        pairs = []
        for name in ("image_sha256", "text_key"):
            codes = pc.dictionary_encode(self.table[name]).combine_chunks().indices
            present = ~codes.is_null().to_numpy(zero_copy_only=False)
            if name == "image_sha256":  # samples without pictures are no duplicates
                present &= self.digests("image").any(1)
            present_rows = rows[present]
            codes = codes.filter(pa.array(present)).to_numpy()
            _, first, code = np.unique(codes, return_index=True, return_inverse=True)
            pairs.append(np.stack([present_rows[first][code], present_rows], 1))
        return connected_groups(len(self), np.concatenate(pairs))

    def digest(self, copies: Mapping[int, int]) -> str:
        """sha256 over the contents, labels and copies of all samples in order, without guids (hex).

        Args:
            copies: Class code → augmented copies per sample; missing classes get none.
        """
        numbers = np.stack([self.labels, self.copies(copies)], 1).astype("<i4")
        parts = [self.digests("text"), self.digests("image"), numbers.view(np.uint8)]
        digest = hashlib.sha256()
        for first in range(0, len(self), _WINDOW):
            window = [part[first : first + _WINDOW] for part in parts]
            digest.update(np.concatenate(window, 1).tobytes())
        return digest.hexdigest()

    def copies(self, by_label: Mapping[int, int]) -> IntArray:
        """Augmented copies of each sample, (rows,), by those of its class code."""
        each = np.zeros(len(self), np.int64)
        for label, count in by_label.items():
            each[self.labels == label] = count
        return each

    def take(self, indices: ArrayLike) -> SampleTable:
        """The samples at indices, in their order."""
        return SampleTable(self.table.take(pa.array(np.asarray(indices, np.int64))), self.folder)

    def drop_guids(self, guids: Collection[str]) -> SampleTable:
        """The samples without those of some guids."""
        out = pc.is_in(self.table["guid"], pa.array(list(guids), pa.large_string()))
        return SampleTable(self.table.filter(pc.invert(out)), self.folder) if guids else self

    def with_folder(self, folder: Path | None) -> SampleTable:
        """The same samples with their pictures in another folder."""
        return SampleTable(self.table, folder)

    def without_texts(self) -> SampleTable:
        """The same samples with only the hashes of their texts."""
        nulls = pa.nulls(len(self), pa.large_string())
        index = COLUMNS.get_field_index("text")
        return SampleTable(self.table.set_column(index, COLUMNS.field(index), nulls), self.folder)


def concatenate_tables(tables: Iterable[SampleTable]) -> SampleTable:
    """Concatenates tables, without their folders of pictures."""
    return SampleTable(pa.concat_tables([table.table for table in tables]))


class TableBuilder:
    """Builds a `SampleTable` chunk by chunk.

    Args:
        folder: Folder of the pictures; None leaves pictures out.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._start = f"{str(folder).rstrip('/')}/"
        self._columns: list[list[pa.Array]] = [[] for _ in COLUMNS]

    def add(self, samples: Sequence[Sample]) -> None:
        """Adds samples."""
        columns = [
            [sample.guid for sample in samples],
            [sample.label for sample in samples],
            [sample.text for sample in samples],
            [bytes.fromhex(sample.text_sha256) for sample in samples],
            [bytes.fromhex(sample.image_sha256) for sample in samples],
            [sample.text_key for sample in samples],
            [self._relative(sample.image_path) for sample in samples],
        ]
        for chunks, field, values in zip(self._columns, COLUMNS, columns, strict=True):
            chunks.append(pa.array(values, field.type))

    def _relative(self, path: Path | None) -> str | None:
        if self._folder is None or path is None:
            return None
        text = str(path)  # cheaper than what Path does
        if not text.startswith(self._start):
            raise ValueError(f"{path} is not in {self._folder}")
        return text[len(self._start) :]

    def table(self) -> SampleTable:
        """All samples; the builder is empty afterwards."""
        columns = []
        for chunks, field in zip(self._columns, COLUMNS, strict=True):
            columns.append(pa.concat_arrays([pa.array([], field.type), *chunks]))
            chunks.clear()  # only one column is in memory twice
        return SampleTable(pa.table(columns, COLUMNS), self._folder)


def byte_array(column: Any, width: int) -> NDArray[np.uint8]:
    """A column of fixed-size binaries without nulls as an array, (rows, width)."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    data = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    first = array.offset * width
    return data[first : first + len(array) * width].reshape(-1, width)
