"""One copy of the features for many processes."""

from __future__ import annotations

import os
import pickle
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsa_cache.errors import DamagedCacheError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.source import BankSource, share_grids
from tests.support.bank_sources import ROWS, WANTED


def test_a_process_opens_the_same_bank_and_maps_the_grids(
    bank: FeatureBank, tmp_path: Path
) -> None:
    with share_grids(bank, WANTED, [0, 2, 4, 9], tmp_path / "here") as source:
        assert sorted(source.grids) == [("default", 2), ("default", 4)], (
            "of 4×4 positions no 9×9 comes"
        )
        again: FeatureBank = pickle.loads(pickle.dumps(source)).open("cpu")
        assert np.load(source.grids["default", 2], mmap_mode="r").shape == (ROWS, 4, 4)
    assert list((tmp_path / "here").iterdir()) == []
    rows = torch.arange(ROWS)
    for side in (2, 4):
        torch.testing.assert_close(again.image.grid(rows, side), bank.image.grid(rows, side))
    torch.testing.assert_close(again.text.sequences(rows), bank.text.sequences(rows))
    assert torch.equal(again.labels, bank.labels)
    with pytest.raises(DamagedCacheError, match="are not its"):
        again.image.use_averaged(3, torch.zeros(ROWS, 4, 4))


def test_grids_of_killed_processes_are_swept_those_of_living_ones_stay(
    bank: FeatureBank, tmp_path: Path
) -> None:
    dead, alive = (
        tmp_path / f".grids-{platform.node()}-{pid}-0a" for pid in (2**22 + 1, os.getppid())
    )
    elsewhere = tmp_path / ".grids-elsewhere-4194305-0a"
    for folder in (dead, alive, elsewhere):
        folder.mkdir()
    with share_grids(bank, WANTED, [], tmp_path) as source:
        assert source == BankSource.of(bank, WANTED)
        assert not dead.exists()
        assert alive.exists()
        assert elsewhere.exists()
