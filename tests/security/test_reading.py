"""Files that are no files, too large or of absurd sizes: each is refused, at once and in words."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save

from fuse.training.checkpoints import FolderCheckpoint
from mmsa_cache.data.files import read_inside
from mmsa_cache.data.set_aside import read_set_aside, set_aside_path
from mmsa_cache.errors import BadFileError, MmsaError, ModelError
from mmsa_cache.files.hashing import file_sha256
from mmsa_cache.files.untrusted import open_regular, open_tensors, parse_json, read_regular
from mmsa_cache.json_value import object_at
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.json_lines import JsonLines
from tests.support.data_folders import mmsa
from tests.support.made_up_run import write_run
from tests.support.older_runs import FILES

SPARSE = 1 << 40
"""Bytes of a file that takes no room."""


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE)


PLANTS: list[Callable[[Path], None]] = [_fifo, _device, _folder, _sparse]
plants = pytest.mark.parametrize("plant", PLANTS)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """What is read of a terabyte would show."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (1 << 20)  # KiB


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def replace(path: Path, plant: Callable[[Path], None]) -> Path:
    path.unlink(missing_ok=True)
    plant(path)
    return path


@plants
@pytest.mark.parametrize("name", FILES)
def test_every_file_of_a_run(run: Path, name: str, plant: Callable[[Path], None]) -> None:
    replace(run / name, plant)
    folder = RunFolder(run)
    if name == "studies.json" and plant is not _sparse:
        assert folder.snapshots == []
        return
    with pytest.raises(ModelError, match=name):
        getattr(folder, FILES[name])


@plants
def test_files_of_models_and_checkpoints(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    path = replace(tmp_path / "member-0000.safetensors", plant)
    with pytest.raises((OSError, ValueError, SafetensorError)), open_tensors(path):
        pass
    checkpoint = FolderCheckpoint(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        checkpoint.records()
    if path.is_file():
        with pytest.raises(ModelError, match="cannot be read"):
            checkpoint.load(0)


@plants
def test_other_files(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    path = set_aside_path(tmp_path, "train")
    path.parent.mkdir(parents=True, exist_ok=True)
    plant(path)
    with pytest.raises(MmsaError):
        read_set_aside(tmp_path, "train")
    lines = JsonLines(tmp_path / "log.jsonl")
    plant(lines.path)
    with pytest.raises(MmsaError, match="cannot be read"):
        lines.read()
    picture = tmp_path / "1.jpg"
    plant(picture)
    with pytest.raises(BadFileError):
        read_inside(tmp_path.resolve(), "1.jpg", 1 << 20)
    if plant is not _sparse:
        with pytest.raises(OSError, match=r"regular file|directory"):
            file_sha256(path)


@plants
def test_settings_and_label_files(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    (tmp_path / "posts").mkdir()
    plant(tmp_path / "posts/train.txt")
    assert mmsa(tmp_path, "check", "--data", "posts", code=3).output
    plant(tmp_path / "mmsa.toml")
    code = 2 if plant is _sparse else 3
    said = mmsa(tmp_path, "train", "--data", "posts", code=code).output
    assert "train.txt" in said if plant is not _sparse else "mmsa.toml: not valid TOML" in said


def test_a_file_that_grows_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        read_regular(path, 4)
    with pytest.raises(IsADirectoryError), open_regular(tmp_path):
        pass


def test_a_header_of_tensors_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.ones(2)}
    path.write_bytes(save(tensors))
    with open_tensors(path) as file:
        assert torch.equal(file.get_tensor("a"), tensors["a"])
    text = json.dumps({"__metadata__": {"x": "y" * (17 << 20)}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match="its header has"), open_tensors(path):
        pass


@pytest.mark.parametrize("text", ["1e999", "[-1e999]", "NaN", '{"a": Infinity}', "-Infinity"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no finite number"):
        parse_json(text)


def test_objects_inside_each_other() -> None:
    found = parse_json('{"info": {"features": {"label": 1}}, "list": [{}]}')
    assert object_at(found, "info", "features") == {"label": 1}
    assert object_at(found) == found
    for keys in (("info", "rows"), ("list", "info"), ("nothing", "at", "all")):
        with pytest.raises(ValueError, match=f"holds no object {'.'.join(keys)}"):
            object_at(found, *keys)
    with pytest.raises(ValueError, match="it is no JSON object"):
        object_at([found])
