"""Reports of run directories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuse.report import report
from fuse.report.gallery import Post
from mmsa_cache.compose.run_files import read_run


def render(folder: Path, posts: Mapping[str, Post], title: str = "", **options: Any) -> str:
    """The report of a run directory."""
    return report.render(read_run(folder), posts, title or folder.resolve().name, **options)
