"""``OUT.part``: the probabilities that an interrupted prediction finished."""

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


class PartialPredictions:
    """A file of a header in one line of JSON, then float64 (little endian) rows, one a post.

    Args:
        out: The result file that is written in the end.
        header: Identifies run, data and rule.
        classes: Number of classes.
        force: Whether a file with another header is replaced.

    Attributes:
        rows: The rows of an interrupted command, (rows, classes).

    Raises:
        SettingsError: The file has another header.
        LinkError: It is a link.
        DiskError: It cannot be written.
    """

    def __init__(
        self, out: Path, header: Mapping[str, object], classes: int, *, force: bool
    ) -> None:
        self.path = resolve_declared(out.with_name(f"{out.name}.part"))
        header_line = json.dumps(header, sort_keys=True).encode() + b"\n"
        make_folders(self.path.parent)
        check_target(self.path)
        old_header, data = self._read(len(header_line))
        if not header_line.startswith(old_header) and not force:
            raise SettingsError(
                f"{self.path} was begun by another run, on other data or for another rule.",
                "Remove it, give another --out, or --force to begin anew.",
            )
        self.rows = self._valid_rows(data if old_header == header_line else b"", classes)
        self._size = len(header_line) + self.rows.nbytes if old_header == header_line else 0
        with explain_write_errors(self.path):
            self._file = DISK.append(self.path, self._size if self.path.exists() else None)
        if not self._size:
            self._append(header_line)

    def _read(self, header_size: int) -> tuple[bytes, bytes]:
        """The header and the rows; both are empty where there is no file."""
        try:
            with open_regular(self.path, links=False) as file:
                return file.readline(header_size), file.read()
        except FileNotFoundError:
            return b"", b""

    @staticmethod
    def _valid_rows(data: bytes, classes: int) -> Floats:
        """The complete rows of probabilities, up to the first invalid row."""
        rows = np.frombuffer(data[: len(data) // (8 * classes) * 8 * classes], "<f8")
        rows = rows.reshape(-1, classes)
        valid = (rows >= 0).all(1) & (abs(rows.sum(1) - 1) < 1e-6)
        return rows[: len(rows) if valid.all() else int(valid.argmin())]

    def add(self, rows: Floats) -> None:
        """Appends rows and syncs them to the disk.

        Raises:
            SettingsError: Another process writes the file.
            DiskError: They cannot be written; earlier rows stay.
        """
        self._append(np.ascontiguousarray(rows, "<f8").tobytes())

    def _append(self, data: bytes) -> None:
        if os.fstat(self._file).st_size != self._size:
            raise SettingsError(f"Another process writes {self.path}.", "Give another --out.")
        left = memoryview(data)
        with explain_write_errors(self.path):
            while left:
                left = left[DISK.write(self._file, left) :]
            DISK.fsync(self._file)
        self._size += len(data)

    def close(self) -> None:
        """Closes the file, which keeps its rows."""
        os.close(self._file)

    def remove(self) -> None:
        """Removes the file, once the result is written."""
        DISK.remove(self.path)
