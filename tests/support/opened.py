"""A task of Ray that opens a bank on a machine; its module imports little."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuse.search.ray_source import RaySource


def opened(source: RaySource, keep: Path) -> tuple[str, set[str], set[int], float]:
    """Opens a source on a machine whose cache folder is one of the machine's name.

    Returns:
        The machine, the folders that are read, the files that were fetched, and a sum of features.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    os.environ["XDG_CACHE_HOME"] = str(keep / node)
    bank = source.open("cpu")
    files = {path.stat().st_ino for path in (keep / node).rglob("*.h5")}
    return node, {bank.text.name, bank.image.name}, files, float(bank.text.pooled.sum())
