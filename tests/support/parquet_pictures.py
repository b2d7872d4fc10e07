"""Tables with pictures inside."""

from __future__ import annotations

import io
import tarfile

import pyarrow as pa

ROWS, LIMIT = 120, 1 << 16
PICTURES = [b"BM" + row.to_bytes(2, "little") * (50 + row) for row in range(ROWS)]
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def add(
    tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, "/etc/passwd", len(content)
    tar.addfile(entry, io.BytesIO(content))
