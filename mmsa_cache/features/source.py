"""One copy of the features for many processes: caches by their folders, mapped by each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.abandoned import is_abandoned, process_mark
from mmsa_cache.files.disk import (
    DISK,
    explain_write_errors,
    make_folders,
    new_file,
    remove_tree,
)
from mmsa_cache.names import DEFAULT_PAIR, MODALITIES, EncoderPair, split_terms
from mmsa_cache.native.memory import release_memory

from .bank import BankChoice, FeatureBank
from .modality import DerivedKey, ModalityFeatures
from .rows import SampleRows

_DERIVED = ".derived-"
_SWEPT = (_DERIVED, ".grids-")
"""Prefixes of folders of killed processes; earlier versions wrote the second one."""
DerivedName = tuple[str, str, DerivedKey]
"""Modality, name of the encoder, and what is derived of its positions."""


@dataclass(frozen=True, slots=True)
class BankSource:
    """What a process needs to open a bank that another one has verified. Picklable."""

    folders: Mapping[tuple[str, str], Path]
    """Of the caches, by modality and name of the encoder."""
    pair: EncoderPair
    """Encoders of the bank that is opened at once; others when they are first needed."""
    rows: Mapping[str, SampleRows]
    """What is wanted of them, by modality."""
    guids: tuple[str, ...]
    labels: tuple[int, ...]
    partial: bool = False
    """See `FeatureBank`."""
    derived: Mapping[DerivedName, Path] = field(default_factory=dict)
    """Files of `ModalityFeatures.derived`."""

    @classmethod
    def of(
        cls,
        bank: FeatureBank,
        rows: Mapping[str, SampleRows],
        pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,),
    ) -> BankSource:
        """The source of banks whose features come from a store."""
        folders = {}
        for text, image in {one for pair in pairs for one in product(*map(split_terms, pair))}:
            found = bank.using(text, image)
            folders["text", text] = Path(found.text.name).resolve()
            folders["image", image] = Path(found.image.name).resolve()
        labels = tuple(bank.labels.tolist())
        return cls(folders, pairs[0], rows, tuple(bank.guids), labels, bank.partial)

    def open(self, device: str) -> FeatureBank:
        """Maps the features, without hashing them again, and moves them to a device; tokens only
        when they are first read."""
        choice = BankChoice(self._map, self.guids, self.labels, partial=self.partial)
        choice.device, choice.tokens = torch.device(device), False
        return choice.bank(*self.pair)

    def _map(self, modality: str, name: str) -> ModalityFeatures:
        folder = self.folders.get((modality, name))
        if folder is None:
            raise SettingsError(f"The {modality} encoder {name!r} was not opened beforehand.")
        found = ModalityFeatures.open(folder, self.rows[modality], verify=False)
        for (*encoder, key), path in self.derived.items():
            if encoder == [modality, name]:
                found.use_derived(key, torch.from_numpy(np.load(path, mmap_mode="c")))
        return found


@contextlib.contextmanager
def share_derived(
    bank: FeatureBank,
    rows: Mapping[str, SampleRows],
    names: Iterable[DerivedName],
    folder: Path,
    pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,),
) -> Iterator[BankSource]:
    """Computes derived features once, in temporary files that every worker maps.

    Args:
        bank: An opened bank on the CPU.
        rows: See `BankSource.of`.
        names: Those that an encoder cannot give are left out.
        folder: Where the temporary files go.
        pairs: See `BankSource.of`.

    Raises:
        DiskError: There is no room for the files.
    """
    source = BankSource.of(bank, rows, pairs)
    make_folders(folder)
    _sweep(folder)
    files = folder / f"{_DERIVED}{process_mark()}"
    DISK.make_folder(files, fresh=True)
    try:
        derived = _write_derived(bank, names, files.resolve(), pairs[0])
        del bank  # the workers map their own
        release_memory()
        yield replace(source, derived=derived)
    finally:
        remove_tree(files)


def _write_derived(
    bank: FeatureBank, names: Iterable[DerivedName], folder: Path, pair: EncoderPair
) -> dict[DerivedName, Path]:
    paths: dict[DerivedName, Path] = {}
    for modality, encoder, key in dict.fromkeys(names):
        encoders = dict(zip(MODALITIES, pair, strict=True)) | {modality: encoder}
        path = folder / f"{len(paths)}.npy"
        with contextlib.suppress(SettingsError):  # the trials that need it will say so
            features = getattr(bank.using(**encoders), modality)
            values = features.derived(key).numpy()
            with explain_write_errors(path), new_file(path) as file:
                np.save(file, values)
            paths[modality, encoder, key] = path
    return paths


def _sweep(folder: Path) -> None:
    """Removes what killed processes of this machine left."""
    for prefix in _SWEPT:
        for path in folder.glob(f"{prefix}*"):
            if is_abandoned(path.name.removeprefix(prefix)):
                remove_tree(path)
