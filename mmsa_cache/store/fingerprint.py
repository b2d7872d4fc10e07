"""Fields that identify features: the name of their folder, and differences between them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from mmsa_cache.files.hashing import digest

Fields = dict[str, JsonValue]
"""Name → value of everything that features depend on."""


def differences(
    expected: Mapping[str, JsonValue],
    found: Mapping[str, JsonValue],
    *,
    found_has: str = "the store has",
    expected_is: str = "expected",
) -> list[str]:
    """Describes field by field how ``found`` differs from ``expected``.

    Args:
        expected: The needed fields.
        found: The existing fields.
        found_has: Words before an existing value.
        expected_is: Words before a needed value.
    """
    missing = "(absent)"
    lines = []
    for key in sorted(expected.keys() | found.keys()):
        expected_value, found_value = expected.get(key, missing), found.get(key, missing)
        if expected_value != found_value:
            lines.append(
                f"{key}: {found_has} {_short(found_value)}, {expected_is} {_short(expected_value)}"
            )
    return lines


def cache_name(encoder: str, fields: Mapping[str, JsonValue]) -> str:
    """Name of a feature folder: the encoder's name and the first 8 digits of its fingerprint."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(encoder).name or encoder).strip("-.") or "encoder"
    return f"{slug}-{digest(fields)[:8]}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text
