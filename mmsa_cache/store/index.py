"""The index of a feature folder: an append-only list of its sealed shards.

Each line states a shard that was added and the shards that it replaces. Only complete lines count:
the next writer cuts off what a killed one left.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from mmsa_cache.errors import DamagedCacheError
from mmsa_cache.files.disk import DISK, Disk, write_atomically
from mmsa_cache.files.untrusted import parse_json, read_regular

from .problems import read_error, rebuild_hint

INDEX = "index.jsonl"
MAX_INDEX_BYTES = 1 << 27
"""Limit of an index; a line takes about 200 bytes."""
MAX_SHARD_BYTES = 16 << 30
"""Limit of a shard, 30 times that of sealed ones: a sparse file may claim any size."""
SHARD_FILES = "[0-9a-f]" * 16 + ".h5"
"""Glob pattern of shards."""

_Count = Annotated[int, Strict(), Field(gt=0, lt=1 << 48)]
_Name = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class ShardEntry(BaseModel):
    """A shard in the index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rows: _Count
    bytes: Annotated[int, Strict(), Field(gt=0, le=MAX_SHARD_BYTES)]

    @property
    def name(self) -> str:
        """Name of the shard, from its content."""
        return self.sha256[:16]

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}.h5"


class IndexChange(BaseModel):
    """One line: the shard that was added, if any, and the shards that were dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    add: ShardEntry | None = None
    drop: tuple[_Name, ...] = ()

    def line(self) -> bytes:
        """The line, with a checksum."""
        content = self.model_dump_json()
        return f'{{"change": {content}, "crc32": {zlib.crc32(content.encode())}}}\n'.encode()


@dataclass(slots=True)
class Index:
    """The sealed shards of a feature folder, in the order in which they were added."""

    folder: Path
    entries: dict[str, ShardEntry] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    """Names of shards that were replaced or removed."""
    _lines: bytearray = field(default_factory=bytearray)
    """The complete lines."""
    _read_state: tuple[int, int, int] | None = None
    """`_state` of the file when it was read."""

    @classmethod
    def read(cls, folder: Path, earlier: Index | None = None) -> Index:
        """Reads the index of a folder; an empty one if there is none.

        Args:
            folder: The feature folder.
            earlier: An earlier reading, whose lines are not parsed again.

        Raises:
            DamagedCacheError: It is not what was written.
            DeviceError: The system has no descriptor or memory left.
        """
        index = cls(folder)
        index._read_state = index._state()
        try:
            content = read_regular(index.path, MAX_INDEX_BYTES, links=False)
        except FileNotFoundError:
            return index
        except (OSError, ValueError) as error:
            raise read_error(index.path, error, rebuild_hint(folder)) from error
        end, parsed = content.rfind(b"\n") + 1, 0
        if earlier is not None and content.startswith(bytes(earlier._lines)):
            index.entries, index.dropped = dict(earlier.entries), set(earlier.dropped)
            parsed = earlier.size
        lines = content[parsed:end].split(b"\n")[:-1]
        for number, line in enumerate(lines, start=1 + content.count(b"\n", 0, parsed)):
            index._apply(_parse_line(line, f"{index.path}:{number}", folder), number)
        index._lines += content[:end]
        return index

    @property
    def size(self) -> int:
        """Bytes of the complete lines."""
        return len(self._lines)

    @property
    def path(self) -> Path:
        return self.folder / INDEX

    @property
    def rows(self) -> int:
        return sum(entry.rows for entry in self.entries.values())

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries.values())

    def changed(self) -> bool:
        """Whether another writer has changed the file since it was read."""
        return self._state() != self._read_state

    def _state(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.lstat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns, status.st_ino

    def append(self, changes: Sequence[IndexChange], disk: Disk = DISK) -> None:
        """Appends lines; the folder's lock must be held and the index be up to date.

        Raises:
            OSError: No line was added.
        """
        line = b"".join(change.line() for change in changes)
        if not self.size:
            write_atomically(self.path, line, disk)
        else:
            descriptor = disk.append(self.path, self.size)
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[disk.write(descriptor, rest) :]
                disk.fsync(descriptor)
            except BaseException:
                disk.truncate(descriptor, self.size)
                raise
            finally:
                os.close(descriptor)
        for change in changes:
            self._apply(change, 0)
        self._lines += line
        self._read_state = self._state()

    def _apply(self, change: IndexChange, line: int) -> None:
        where = f"{self.path}:{line}"
        for name in change.drop:
            if self.entries.pop(name, None) is None:
                raise DamagedCacheError(
                    f"{where}: drops an unknown shard.", rebuild_hint(self.folder)
                )
            self.dropped.add(name)
        added = change.add
        if added is not None:
            if added.name in self.entries:
                raise DamagedCacheError(f"{where}: adds a shard again.", rebuild_hint(self.folder))
            self.entries[added.name] = added


def _parse_line(line: bytes, where: str, folder: Path) -> IndexChange:
    try:
        content = parse_json(line)
        if not isinstance(content, dict) or content.keys() != {"change", "crc32"}:
            raise ValueError("it has other keys")
        change = IndexChange.model_validate(content["change"])
        if change.line() != line + b"\n":
            raise ValueError("its checksum or its form is wrong")
    except (ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DamagedCacheError(
            f"{where}: not a line of an index ({reason}).", rebuild_hint(folder)
        ) from error
    return change
