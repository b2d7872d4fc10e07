"""Checkpoints by somebody else in the folder of an unfinished run: they fit, or are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from fuse.setting import Setting
from fuse.training.checkpoints import FolderCheckpoint
from fuse.training.task import Task
from fuse.training.trainer import fit_group
from mmsa_cache.errors import ModelError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.files.untrusted import open_tensors
from tests.support.shards import make_shard

ROWS = 24
NAMES = ("a", "b", "c")
SETTING = Setting(text_dim=4, image_dim=4, epochs=3)


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    shard = make_shard(0, ROWS, 1)
    image = replace(shard, pools=("first", "mean"))
    sides = ModalityFeatures([shard], "made up"), ModalityFeatures([image], "made up")
    return FeatureBank(*sides, [*map(str, range(ROWS))], [row % 3 for row in range(ROWS)])


def go_on(bank: FeatureBank, folder: Path, stop_after: int = 9) -> None:
    epochs = 0

    def count(_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == stop_after:
            raise KeyboardInterrupt

    task = Task(np.arange(16), np.arange(16, ROWS), 1)
    checkpoint = FolderCheckpoint(folder, seconds=0)
    fit_group(SETTING, bank, [task], names=NAMES, on_epoch=count, checkpoint=checkpoint)


def of(**entries: Any) -> dict[str, Any]:
    return {"dict": [[*entry] for entry in entries.items()]}


CHANGES: dict[str, dict[str, Any]] = {
    "no such epoch": {"best": 10},
    "a text": {"best": "x"},
    "no epoch": {"stopped": True, "best": -1, "history": {"list": []}},
    "no weights": {"member": of()},
    "a number": {"member": 5},
    "a list": {"optimiser": {"list": []}},
    "no groups": {"optimiser": of(state=of(), param_groups={"list": []})},
    "no optimiser": {"schedule": of(optimizer=None)},
    "no best weights": {"best_state": of(), "stopped": True},
}


def test_what_does_not_fit_is_refused(bank: FeatureBank, tmp_path: Path) -> None:
    folder = tmp_path / "unfinished" / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        go_on(bank, folder, stop_after=1)
    path = folder / "member-0000.safetensors"
    with open_tensors(path) as file:
        state = dict(json.loads(file.metadata()["state"])["dict"])
    tensors = load_file(path)

    def put(changed: dict[str, Any], cut: int | None = None) -> None:
        cuts = {
            key: value[:cut].clone() if value.dim() else value for key, value in tensors.items()
        }
        save_file(cuts, path, {"state": json.dumps(of(**{**state, **changed}))})

    refusal = rf"{folder} cannot be read(.|\n)*Delete {folder.parent} to train from the beginning"
    for changed in CHANGES.values():
        put(changed)
        with pytest.raises(ModelError, match=refusal):
            go_on(bank, folder)
    put({}, cut=1)
    with pytest.raises(ModelError, match=refusal):
        go_on(bank, folder)
    put({})
    go_on(bank, folder)


def test_what_fails_by_itself_is_no_fault_of_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = FolderCheckpoint(tmp_path)
    with pytest.raises(LookupError, match="mine"), checkpoint.resuming():
        raise LookupError("mine")
