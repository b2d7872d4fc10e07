"""What a cache was made from, as named fields: its folder's name, and how two of them differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from mmsa_cache.files.hashing import digest

Fields = dict[str, JsonValue]
"""What something was made from, by name."""


def differences(
    expected: Mapping[str, JsonValue],
    found: Mapping[str, JsonValue],
    *,
    found_has: str = "the cache has",
    expected_is: str = "wanted is",
) -> list[str]:
    """Says field by field how ``found`` differs from ``expected``.

    Args:
        expected: What is needed.
        found: What is there.
        found_has: Words before a value that is there.
        expected_is: Words before a value that is needed.
    """
    missing = "(absent)"
    lines = []
    for key in sorted(expected.keys() | found.keys()):
        want, have = expected.get(key, missing), found.get(key, missing)
        if want != have:
            lines.append(f"{key}: {found_has} {_short(have)}, {expected_is} {_short(want)}")
    return lines


def cache_name(encoder: str, fields: Mapping[str, JsonValue]) -> str:
    """Folder name of features: the encoder's name and the first 8 digits of its fingerprint."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(encoder).name or encoder).strip("-.") or "encoder"
    return f"{slug}-{digest(fields)[:8]}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text
