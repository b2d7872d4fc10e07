"""Splits whose every row must be good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.scan import scan_split
from mmsa_cache.data.split_summary import SplitSummary
from mmsa_cache.data.table import SampleTable


def intake(root: Path, split: str, **data: Any) -> tuple[SampleTable, SplitSummary]:
    found = scan_split(DataSettings(root=root, **data), split)
    found.raise_bad(found.bad)
    return found.samples, found.summarize(found.samples)


def read_split(root: Path, split: str, **data: Any) -> SampleTable:
    return intake(root, split, **data)[0]
