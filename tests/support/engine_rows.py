"""Rows of a store."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.store.index import INDEX
from tests.support.shards import Row, rows_of

Rows = dict[tuple[str, bytes], Row]
"""By the name of the encoder's folder and the row's key."""


def rows_in(root: Path) -> Rows:
    return {
        (index.parent.name, key): row
        for index in root.glob(f"features/*/*/{INDEX}")
        for key, row in rows_of(index.parent).items()
    }
