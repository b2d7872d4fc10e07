"""``mmsa extract --target``: where features, and the rows of splits, go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.data.stored import split_path, write_split
from mmsa_cache.files.objects import ObjectFolder
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.objects import ObjectWriter
from mmsa_cache.store.writer import FeatureWriter

from ..hub.object_store import ObjectStore
from ..hub.private import shared_encoder, shared_split
from .reading import Split


class Target:
    """The store in a folder, or that at an address: then nothing is written to the folder.

    Args:
        root: The folder, ``[cache] dir``.
        url: Of an object store; None: the folder.

    Raises:
        SettingsError: The address is none, or holds a password.
        DamagedCacheError: There are files that are no store's.
        CacheError: The object store refuses, or does not answer.
    """

    def __init__(self, root: Path, url: str | None = None) -> None:
        self._root, self._url = root, url
        self._writers: dict[str, FeatureWriter | ObjectWriter] = {}
        if url is not None:
            ObjectStore(url).check()

    def writer(self, encoder: StoredEncoder) -> FeatureWriter | ObjectWriter:
        """What features of an encoder are entered with; the same for all its splits."""
        if encoder.fingerprint not in self._writers:
            self._writers[encoder.fingerprint] = (
                FeatureWriter(self._root, encoder)
                if self._url is None
                else ObjectWriter(ObjectFolder(self._url), shared_encoder(encoder))
            )
        found = self._writers[encoder.fingerprint]
        if isinstance(found, FeatureWriter):
            found.add_names(encoder)
        return found

    def write(self, splits: Sequence[Split]) -> None:
        """States which rows splits have; at an address, without places of this machine.

        Raises:
            DiskError: They are not written.
            CacheError: As above.
        """
        if self._url is None:
            for split in splits:
                split.write(self._root)
            return
        with temporary_folder() as place:
            files = {}
            for split in splits:
                path = split_path(place, split.about.split)
                write_split(path, shared_split(split.about), split.samples)
                files[path.relative_to(place).as_posix()] = path
            ObjectFolder(self._url).put_files(files)
