"""One copy of the features for many processes."""

from __future__ import annotations

import errno
import os
import pickle
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsa_cache.errors import DamagedCacheError, DiskError, SettingsError
from mmsa_cache.features import modality
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.computed_pools import COMPUTED
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.source import BankSource, DerivedName, share_derived
from tests.support.bank_sources import ROWS, WANTED, write


def test_a_process_opens_the_same_bank_and_maps_what_is_derived(
    bank: FeatureBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[DerivedName] = [("image", "default", side) for side in (2, 4, 9)]
    names += [("text", "default", pool) for pool in COMPUTED]
    with share_derived(bank, WANTED, names, tmp_path / "here") as source:
        assert set(names) - set(source.derived) == {("image", "default", 9)}, (
            "of 4×4 positions no 9×9 comes"
        )
        again: FeatureBank = pickle.loads(pickle.dumps(source)).open("cpu")
        assert np.load(source.derived["image", "default", 2], mmap_mode="r").shape == (ROWS, 4, 4)
    assert list((tmp_path / "here").iterdir()) == []
    rows = torch.arange(ROWS)
    for side in (2, 4):
        torch.testing.assert_close(again.image.grid(rows, side), bank.image.grid(rows, side))
    for pool in COMPUTED:
        expected = bank.text.vectors(rows, pool)
        with monkeypatch.context() as patch:
            patch.delattr(modality, "compute_pool")  # it is not computed anew
            assert torch.equal(again.text.vectors(rows, pool), expected)
    torch.testing.assert_close(again.text.sequences(rows), bank.text.sequences(rows))
    assert torch.equal(again.labels, bank.labels)
    with pytest.raises(DamagedCacheError, match="is of other rows"):
        again.image.use_derived(3, torch.zeros(ROWS, 4, 4))


def test_a_full_disk_is_named_and_nothing_stays(
    bank: FeatureBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(file: object, values: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", save)
    sharing = share_derived(bank, WANTED, [("text", "default", "max")], tmp_path / "here")
    with pytest.raises(DiskError, match=r"0\.npy cannot be written: No space"), sharing:
        pass
    assert list((tmp_path / "here").iterdir()) == []


def test_files_of_killed_processes_are_swept_those_of_living_ones_stay(
    bank: FeatureBank, tmp_path: Path
) -> None:
    dead, alive = (
        tmp_path / f".derived-{platform.node()}-{pid}-0a" for pid in (2**22 + 1, os.getppid())
    )
    elsewhere = tmp_path / ".derived-elsewhere-4194305-0a"
    earlier = tmp_path / dead.name.replace(".derived-", ".grids-")  # of an earlier version
    for folder in (dead, alive, elsewhere, earlier):
        folder.mkdir()
    with share_derived(bank, WANTED, [], tmp_path) as source:
        assert source == BankSource.of(bank, WANTED)
        assert not dead.exists()
        assert not earlier.exists()
        assert alive.exists()
        assert elsewhere.exists()


def test_pools_of_an_encoder_without_tokens_are_left_out(tmp_path: Path) -> None:
    text, image = (
        ModalityFeatures.open(write(tmp_path / "store", side, 0), WANTED[side]) for side in WANTED
    )
    bank = FeatureBank(text, image, [str(row) for row in range(ROWS)], [0] * ROWS)
    names: list[DerivedName] = [("text", "default", pool) for pool in COMPUTED]
    with share_derived(bank, WANTED, [*names, ("image", "default", 2)], tmp_path) as source:
        assert source.derived == {}
    for pool in COMPUTED:
        with pytest.raises(SettingsError, match="extracted with tokens = 'none'"):
            bank.text.derived(pool)
