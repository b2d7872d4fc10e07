"""Reports of run directories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsa_cache.compose.report import page
from mmsa_cache.compose.report.gallery import GalleryPost
from mmsa_cache.runs.folder import RunFolder


def render(folder: Path, posts: Mapping[str, GalleryPost], title: str = "", **options: Any) -> str:
    """The report of a run directory."""
    title = title or folder.resolve().name
    return page.render(RunFolder(folder), posts, title, **options).html
