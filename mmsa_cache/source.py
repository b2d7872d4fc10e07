"""One copy of the features for many processes: caches by their folders, mapped by each."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from .bank import FeatureBank, ModalityFeatures
from .disk import is_left, own_mark
from .errors import SettingsError
from .store import open_shards

_GRIDS = ".grids-"


@dataclass(frozen=True, slots=True)
class BankSource:
    """What a process needs to open a bank that another one has verified. Picklable."""

    text: Path
    """Folder of the text cache."""
    image: Path
    guids: tuple[str, ...]
    labels: tuple[int, ...]
    grids: Mapping[int, Path] = field(default_factory=dict)
    """Files of grids made once, by side."""

    @classmethod
    def of(cls, bank: FeatureBank) -> BankSource:
        """The source of a bank whose features come from caches."""
        return cls(
            Path(bank.text.name).resolve(),
            Path(bank.image.name).resolve(),
            tuple(bank.guids),
            tuple(bank.labels.tolist()),
        )

    def open(self, device: str) -> FeatureBank:
        """Maps the caches, without hashing them again, and moves them to a device."""
        text, image = (
            ModalityFeatures(open_shards(folder, verify=False), str(folder))
            for folder in (self.text, self.image)
        )
        for side, path in self.grids.items():
            image.use_averaged(side, torch.from_numpy(np.load(path, mmap_mode="c")))
        return FeatureBank(text, image, self.guids, self.labels).to(torch.device(device))


@contextlib.contextmanager
def shared_grids(bank: FeatureBank, sides: Iterable[int], folder: Path) -> Iterator[BankSource]:
    """Makes coarser grids once, in files that every worker maps; they go at the end.

    Args:
        bank: An opened bank on the CPU.
        sides: Cells along each side; sides that the encoder cannot give are left out.
        folder: Where the files may lie for a while.
    """
    source = BankSource.of(bank)
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    place = folder / f"{_GRIDS}{own_mark()}"
    place.mkdir(exist_ok=True)
    try:
        grids = {}
        for side in sorted({side for side in sides if side > 0}):
            with contextlib.suppress(SettingsError):  # the trials that want it will say so
                np.save(place / f"{side}.npy", bank.image.averaged(side).numpy())
                grids[side] = place.resolve() / f"{side}.npy"
        yield replace(source, grids=grids)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes what killed processes of this machine left."""
    for path in folder.glob(f"{_GRIDS}*"):
        if is_left(path.name.removeprefix(_GRIDS)):
            shutil.rmtree(path, ignore_errors=True)
