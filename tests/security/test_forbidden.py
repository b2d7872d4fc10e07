"""Files of a store that this user may not read: named, never called damaged, never removed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.caches import make_store
from tests.support.small_work import mmsa


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Forbids what a path ends with; the tests may be run by root, who may read everything."""

    def forbid(end: str) -> None:
        def refused(function: Any) -> Any:
            def asked(path: Any, *arguments: Any, **named: Any) -> Any:
                if end in os.fspath(path) and not named.get("dir_fd"):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                return function(path, *arguments, **named)

            return asked

        monkeypatch.setattr(os, "open", refused(os.open))
        if end.endswith("/"):  # a folder that may not be entered
            monkeypatch.setattr(os, "stat", refused(os.stat))

    return forbid


@pytest.mark.parametrize("end", ["index.jsonl", "encoder.json", "/tiny-fb44479a/"])
def test_features(tmp_path: Path, forbid: Any, end: str) -> None:
    folder = make_store(tmp_path / "cache")
    assert folder.name == "tiny-fb44479a"
    files = sorted(folder.iterdir())
    forbid(end)
    for verb in (["verify"], ["prune", "--unfinished", "--yes"], ["push", f"file://{tmp_path}/s"]):
        said = mmsa(tmp_path, "cache", *verb, code=4).stderr
        assert "cannot be read: Permission denied." in said
        assert "damaged" not in said
        assert "elete" not in said
    assert "Permission denied" in mmsa(tmp_path, "cache", "ls").stdout
    assert sorted(folder.iterdir()) == files


def test_a_split(tmp_path: Path, forbid: Any) -> None:
    make_store(tmp_path / "cache")
    forbid("train.parquet")
    for verb in ("ls", "verify"):
        said = mmsa(tmp_path, "cache", verb, code=4).stderr
        assert "train.parquet cannot be read: Permission denied." in said
        assert "Change its permissions" in said
