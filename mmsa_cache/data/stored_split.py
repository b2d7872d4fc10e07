"""The file of a split in the store: its rows, and the settings of its extraction.

``CACHE/data/SPLIT.parquet`` is a Parquet table that any library reads. Here it is not trusted: its
layout (see `plain_parquet`), its values and their hash are checked.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, JsonValue, model_validator

from mmsa_cache.config.sections import MOST_COPIES
from mmsa_cache.errors import (
    CacheNotFoundError,
    DamagedCacheError,
    DataError,
    ForbiddenCacheError,
    StaleCacheError,
    error_reason,
    is_exhausted,
    limit_error,
)
from mmsa_cache.files.disk import DISK, Disk, make_folders, write_atomically
from mmsa_cache.files.hashing import canonical_json
from mmsa_cache.files.paths import check_target, refuse_link
from mmsa_cache.files.untrusted import open_regular, parse_json
from mmsa_cache.names import SPLITS, check_name
from mmsa_cache.validation import Table, validate

from .layouts.listing import NOT_PLAIN
from .plain_parquet import check_plain, key_value_metadata, read_footer, write_table
from .row_masks import unpack_rows
from .table import COLUMNS, SampleTable, byte_array

SCHEMA = 2
"""Version of the store's format."""
_METADATA_KEY = b"mmsa"
_MAX_BYTES = 16 << 30
_ROW_BYTES = 64
"""Fewest bytes of a row: two hashes."""
_HINT = "Copy the store again, or run mmsa extract."
_OUTSIDE = r"^$|^/|(^|/)\.\.(/|$)|\x00"
"""A path that may lead out of a folder."""


class StoredSplit(Table):
    """Metadata of a split."""

    split: str
    layout: str
    """See `SplitSummary`; so are the counts."""
    classes: tuple[str, ...]
    """Class names in the order of their codes."""
    note: str | None = None
    """Shown with all scores on this data."""
    merged: int = Field(default=0, ge=0)
    dropped: int = Field(default=0, ge=0)
    aside: int = Field(default=0, ge=0)
    augmentation: str = "none"
    """``POLICY:SEED`` of the augmented copies, or ``none``."""
    others: dict[str, str] = Field(default_factory=dict)
    """Another augmentation → mask of the rows that it applies to, see `row_masks`; the empty name
    marks texts whose copies are the text itself."""
    copies: dict[int, int] = Field(default_factory=dict)
    """Class code → augmented copies per sample."""
    told: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the extraction, which complete those of stage two."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_name("split", self.split, SPLITS)
        if len(set(self.classes)) < len(self.classes) or not self.classes:
            raise ValueError("the classes are not distinct names")
        if any(
            not (0 <= code < len(self.classes) and 0 <= n <= MOST_COPIES)
            for code, n in self.copies.items()
        ):
            raise ValueError("the copies are not numbers of classes")
        return self


def augmentations(
    stored: tuple[StoredSplit, SampleTable], modality: str, samples: SampleTable
) -> str | Sequence[str]:
    """``POLICY:SEED`` of the copies of all samples, or a list with that of each one.

    Args:
        stored: A split of the store.
        modality: ``text`` or ``image``.
        samples: Samples of the split.
    """
    split, table = stored
    if modality != "text" or not split.others:
        return split.augmentation
    digests = table.digests("text")
    by_digest: Mapping[bytes, str] = {
        digest.tobytes(): name
        for name, mask in split.others.items()
        for digest in digests[unpack_rows(mask, len(table))]
    }
    return [
        by_digest.get(digest.tobytes(), split.augmentation) for digest in samples.digests("text")
    ]


def split_path(cache: Path, split: str) -> Path:
    """Path of the file of a split."""
    return cache / "data" / f"{split}.parquet"


def write_split(path: Path, split: StoredSplit, samples: SampleTable, disk: Disk = DISK) -> None:
    """Writes or replaces the file of a split; after an error it is unchanged.

    Raises:
        DataError: The values would be refused by `read_split`.
        DiskError: It cannot be written.
    """
    try:
        _check_values(samples.table, len(split.classes))
    except (ValueError, pa.ArrowException) as error:
        raise DataError(f"The split {split.split} cannot be stored: {error}.") from error
    make_folders(path.parent, disk)
    content = parse_json(split.model_dump_json())
    record = {"schema": SCHEMA, "sha256": _digest(samples.table, content), "about": content}
    table = write_table(samples.table, {_METADATA_KEY: json.dumps(record, sort_keys=True).encode()})
    write_atomically(path, table, disk)


def read_split(path: Path) -> tuple[StoredSplit, SampleTable]:
    """Reads the file of a split without trusting it.

    Returns:
        The metadata, and the samples without pictures.

    Raises:
        CacheNotFoundError: There is no such file.
        StaleCacheError: It is of another version of the format.
        DamagedCacheError: It is not what was written.
        ForbiddenCacheError: This user may not read it.
        LinkError: It is, or is reached by, a link: it may belong to another store.
    """
    check_target(path.parent, folder=True)
    refuse_link(path)
    try:
        with open_regular(path, links=False) as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= _MAX_BYTES:
                raise ValueError(f"it has {size} bytes")
            # Closed with its last reference: the table's columns lie in it.
            mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        return _read_table(path, memoryview(mapped))
    except FileNotFoundError as error:
        raise CacheNotFoundError(f"There is no {path}.", "Run mmsa extract.") from error
    except PermissionError as error:
        raise ForbiddenCacheError(path) from error
    except (OSError, ValueError, pa.ArrowException) as error:
        if is_exhausted(error):
            raise limit_error(path, error_reason(error)) from error
        raise DamagedCacheError(f"{path}: {error}", _HINT) from error


def _read_table(path: Path, data: memoryview) -> tuple[StoredSplit, SampleTable]:
    footer = read_footer(data)
    metadata = key_value_metadata(footer)
    record = parse_json(metadata[_METADATA_KEY]) if set(metadata) == {_METADATA_KEY} else None
    if not isinstance(record, dict) or type(record.get("schema")) is not int:
        raise ValueError("it is not the table of a split")
    if record["schema"] != SCHEMA:
        raise StaleCacheError(
            f"{path} has schema {record['schema']}, this program writes {SCHEMA}.",
            "Run mmsa extract into another --cache folder, or install the fitting version.",
        )
    if set(record) != {"schema", "sha256", "about"}:
        raise ValueError("it does not say what a split's table says")
    message = f"{path}: what it says of its split cannot be used."
    split = validate(StoredSplit, record["about"], message, _HINT, DamagedCacheError)
    check_plain(data, footer, COLUMNS, _ROW_BYTES)
    table = _decode_columns(data)
    _check_values(table, len(split.classes))
    for mask in split.others.values():
        unpack_rows(mask, len(table))
    if record["sha256"] != _digest(table, record["about"]):
        raise ValueError("its content is not what was written")
    return split, SampleTable(table)


def _decode_columns(data: memoryview) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(pa.py_buffer(data))) as file:
        schema = file.schema_arrow.remove_metadata()
        expected = pa.schema([_stored_field(field) for field in COLUMNS])
        if not schema.equals(expected):
            raise ValueError("its columns are not those of a split's table")
        columns = []
        for field in COLUMNS:  # one by one: only one column is in memory twice
            column = file.read([field.name], use_threads=False).column(0)
            columns.append(column.cast(field.type).combine_chunks())
    return pa.table(columns, COLUMNS)


def _stored_field(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field


def _check_values(table: pa.Table, classes: int) -> None:
    table.validate(full=True)
    guids, labels, texts, images = (table[name] for name in ("guid", "label", "text", "image"))
    if pc.count_distinct(guids).as_py() != len(table):
        raise ValueError("a guid is there twice")
    wrong = pc.filter(guids, pc.match_substring_regex(guids, NOT_PLAIN))
    if len(wrong):
        raise ValueError(f"guid {wrong[0].as_py()[:100]!r} is not a plain name")
    codes = pc.min_max(labels).as_py()
    if codes["min"] is not None and not 0 <= codes["min"] <= codes["max"] < classes:
        raise ValueError(f"a label is not the code of one of {classes} classes")
    if texts.null_count not in (0, len(table)):
        raise ValueError("some texts are missing")
    if not SampleTable(table).present.any(1).all():
        raise ValueError("a row has neither a text nor a picture")
    outside = pc.filter(images, pc.match_substring_regex(images, _OUTSIDE))
    if len(outside):
        raise ValueError(f"picture {outside[0].as_py()[:100]!r} may be outside of its folder")


def _digest(table: pa.Table, content: Any) -> str:
    """sha256 over the metadata and all values (hex)."""
    digest = hashlib.sha256(canonical_json(content))
    for field, column in zip(COLUMNS, table.columns, strict=True):
        nulls = np.packbits(column.is_null().to_numpy())
        digest.update(f"\0{field.name} {len(column)}\0".encode() + nulls.tobytes())
        for part in _value_buffers(column.combine_chunks()):
            digest.update(part)
    return digest.hexdigest()


def _value_buffers(column: pa.Array) -> list[Any]:
    """Buffers of a column's values; nulls are zeros."""
    if pa.types.is_large_string(column.type):
        strings = column.fill_null("")
        lengths = pc.binary_length(strings).to_numpy()
        first = strings.offset * 8
        start = int.from_bytes(strings.buffers()[1][first : first + 8], "little")
        return [lengths, (strings.buffers()[2] or b"")[start : start + int(lengths.sum())]]
    if pa.types.is_fixed_size_binary(column.type):
        width = column.type.byte_width
        return [byte_array(column.fill_null(bytes(width)), width)]
    return [column.fill_null(0).to_numpy()]
