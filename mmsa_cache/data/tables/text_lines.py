"""Streams the lines of a text file in a data folder."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import check_encoding, stat_inside
from mmsa_cache.errors import BadFileError
from mmsa_cache.files.untrusted import open_regular

from .encodings import matching_encodings

_MAX_BYTES = 1 << 40
_MAX_LINE = 16 << 20
"""Most characters of a line, which must fit into memory."""
_BLOCK = 1 << 20


def with_utf8(data: DataSettings) -> DataSettings:
    """Settings for reading a label file, which is UTF-8 even if texts are not."""
    return data.model_copy(update={"encoding": "utf-8", "encoding_errors": "strict"})


class TextLines:
    """Yields the lines of a file; each iteration starts anew.

    Line ends are kept, a byte order mark is removed.

    Args:
        path: The file.
        root: The data folder, which must contain the file.
        data: Encoding and links.

    Raises:
        BadFileError: The file is missing, not a regular one, or outside of the folder.
    """

    def __init__(self, path: Path, root: Path, data: DataSettings) -> None:
        check_encoding(data.encoding)
        base = root.resolve()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        stat_inside(base, name, _MAX_BYTES, follow_links=data.follow_links)
        self._path = path
        self._data = data

    def __iter__(self) -> Iterator[str]:
        name, data = self._path.name, self._data
        try:
            with open_regular(self._path) as file:
                text = io.TextIOWrapper(file, data.encoding, data.encoding_errors, newline="")
                first = True
                while line := text.readline(_MAX_LINE):
                    if len(line) == _MAX_LINE and not line.endswith(("\n", "\r")):
                        raise BadFileError(
                            "line too long", f"{name}: a line is longer than {_MAX_LINE} characters"
                        )
                    yield line.removeprefix("\ufeff") if first else line
                    first = False
        except UnicodeDecodeError:
            raise self._undecodable() from None
        except UnicodeError as error:  # UTF-16 without a byte order mark
            raise BadFileError("bytes not valid in the encoding", f"{name}: {error}") from error
        except BadFileError:
            raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BadFileError("unreadable", f"{name}: {reason}") from error

    def _undecodable(self) -> BadFileError:
        """The error that names the first invalid byte, and the encodings that would fit."""
        encoding = self._data.encoding
        decoder = codecs.getincrementaldecoder(encoding)()
        line, bytes_read, offset = 1, 0, 0
        with open_regular(self._path) as file:
            sample = file.read(_BLOCK)
            block = sample
            while True:
                bytes_read += len(block)
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:  # relative to bytes left over and the block
                    offset = bytes_read - len(error.object) + error.start
                    line += block.count(b"\n", 0, max(0, offset - bytes_read + len(block)))
                    break
                line += block.count(b"\n")
                block = file.read(_BLOCK)
        encodings = [
            name for name in matching_encodings([sample]) if name != codecs.lookup(encoding).name
        ]
        valid = f"; its beginning is valid {' and '.join(encodings)}" if encodings else ""
        return BadFileError(
            "bytes not valid in the encoding",
            f"{self._path.name}:{line}: byte {offset} is not valid {encoding}{valid} "
            "(declare another --encoding, or encoding_errors = 'replace')",
        )
