"""Folders among the system's temporary ones."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

import pytest

from mmsa_cache.files.disk import write_new
from mmsa_cache.files.temporary import temporary_folder


def test_folders_go_at_the_end_and_those_of_killed_processes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = os.fork()
    if not child:
        with temporary_folder() as own:
            write_new(own / "a", b"1")
            os._exit(0)  # as a signal ends it
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert (left / "a").read_bytes() == b"1"
    stays = [f"mmsa-{platform.node()}-{os.getppid()}-0a.x", "mmsa-elsewhere-4194305-0a.x", "mmsa-x"]
    for name in stays:
        (tmp_path / name).mkdir()
    with temporary_folder() as own, temporary_folder() as beside:
        here = {path.name for path in tmp_path.iterdir()}
        assert here == {own.name, beside.name, *stays}
    assert {path.name for path in tmp_path.iterdir()} == set(stays)
