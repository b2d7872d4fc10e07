"""``OUT.part``: probabilities of the rows that an interrupted prediction finished."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import DISK, explain_write_errors, make_folders
from mmsa_cache.files.paths import check_target, resolve_declared
from mmsa_cache.files.untrusted import open_regular

Floats = NDArray[np.float64]


class Partial:
    """A line of JSON that says what of, then a row of float64 (little endian) for each post.

    Args:
        out: The file that is to be written in the end.
        header: What the probabilities are of: run, data and rule.
        classes: Numbers of a row.
        force: What is there of something else is replaced.

    Attributes:
        rows: Those that were there, (rows, classes).

    Raises:
        SettingsError: The file is of something else.
        LinkError: It is a link.
        DiskError: It cannot be written.
    """

    def __init__(
        self, out: Path, header: Mapping[str, object], classes: int, *, force: bool
    ) -> None:
        self.path = resolve_declared(out.with_name(f"{out.name}.part"))
        first = json.dumps(header, sort_keys=True).encode() + b"\n"
        make_folders(self.path.parent)
        check_target(self.path)
        begun, data = self._read(len(first))
        if not first.startswith(begun) and not force:
            raise SettingsError(
                f"{self.path} was begun by another run, on other data or for another rule.",
                "Remove it, give another --out, or --force to begin anew.",
            )
        self.rows = self._whole(data if begun == first else b"", classes)
        self._size = len(first) + self.rows.nbytes if begun == first else 0
        with explain_write_errors(self.path):
            self._file = DISK.append(self.path, self._size if self.path.exists() else None)
        if not self._size:
            self._append(first)

    def _read(self, first: int) -> tuple[bytes, bytes]:
        """The first line, which has so many bytes, and what follows; nothing of no file."""
        try:
            with open_regular(self.path, links=False) as file:
                return file.readline(first), file.read()
        except FileNotFoundError:
            return b"", b""

    @staticmethod
    def _whole(data: bytes, classes: int) -> Floats:
        """The complete rows; those from the first that has no probabilities on are left out."""
        rows = np.frombuffer(data[: len(data) // (8 * classes) * 8 * classes], "<f8")
        rows = rows.reshape(-1, classes)
        good = (rows >= 0).all(1) & (abs(rows.sum(1) - 1) < 1e-6)
        return rows[: len(rows) if good.all() else int(good.argmin())]

    def add(self, rows: Floats) -> None:
        """Keeps rows; they are on the medium when it returns.

        Raises:
            SettingsError: Another process writes the file.
            DiskError: They cannot be written; what was there stays.
        """
        self._append(np.ascontiguousarray(rows, "<f8").tobytes())

    def _append(self, data: bytes) -> None:
        if os.fstat(self._file).st_size != self._size:
            raise SettingsError(f"Another process writes {self.path}.", "Give another --out.")
        rest = memoryview(data)
        with explain_write_errors(self.path):
            while rest:
                rest = rest[DISK.write(self._file, rest) :]
            DISK.fsync(self._file)
        self._size += len(data)

    def close(self) -> None:
        """Ends writing; the rows stay."""
        os.close(self._file)

    def remove(self) -> None:
        """Removes the file: the rows are where they were to be."""
        DISK.remove(self.path)
