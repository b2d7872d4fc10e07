"""What a cache was made from, as named fields and one hash over them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Fields = dict[str, Any]


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(fields: Mapping[str, Any]) -> str:
    """sha256 over the canonical form of all fields (hex)."""
    return hashlib.sha256(canonical(fields)).hexdigest()


def rows_digest(rows: Iterable[tuple[str, int, str]]) -> str:
    """sha256 over the ordered (guid, variant, content hash) list (hex)."""
    return hashlib.sha256(canonical([list(row) for row in rows])).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Says field by field how ``found`` differs from ``expected``."""
    missing = "(absent)"
    lines = []
    for key in sorted(expected.keys() | found.keys()):
        want, have = expected.get(key, missing), found.get(key, missing)
        if want != have:
            lines.append(f"{key}: the cache has {_short(have)}, wanted is {_short(want)}")
    return lines


def cache_name(encoder: str, fields: Mapping[str, Any]) -> str:
    """Folder name of a cache: the encoder's name and the first 8 digits of the fingerprint."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(encoder).name or encoder).strip("-.") or "encoder"
    return f"{slug}-{digest(fields)[:8]}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text
