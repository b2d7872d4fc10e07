"""What a wheel holds."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for name in ("mmsa_cache", "extract", "fuse")
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == found
