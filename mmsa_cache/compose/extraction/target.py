"""``mmsa extract --target``: the store that an extraction writes to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.data.stored_split import split_path, write_split
from mmsa_cache.files.objects import ObjectFolder
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.objects import ObjectWriter
from mmsa_cache.store.writer import FeatureWriter

from ..hub.object_store import ObjectStore
from ..hub.private import shared_encoder, shared_split
from .reading import Split


class Target:
    """A store in a local folder, or in an object store; the folder is then not written to.

    Args:
        root: The folder, ``[cache] dir``.
        url: Address in an object store; None: the folder.

    Raises:
        SettingsError: The address is invalid, or holds a password.
        DamagedCacheError: The object store holds files that do not belong to a store.
        CacheError: The object store refuses, or does not answer.
    """

    def __init__(self, root: Path, url: str | None = None) -> None:
        self._root, self._url = root, url
        self._writers: dict[str, FeatureWriter | ObjectWriter] = {}
        if url is not None:
            ObjectStore(url).check()

    def writer(self, encoder: StoredEncoder) -> FeatureWriter | ObjectWriter:
        """The writer for the features of an encoder, shared by all splits."""
        if encoder.fingerprint not in self._writers:
            self._writers[encoder.fingerprint] = (
                FeatureWriter(self._root, encoder)
                if self._url is None
                else ObjectWriter(ObjectFolder(self._url), shared_encoder(encoder))
            )
        writer = self._writers[encoder.fingerprint]
        if isinstance(writer, FeatureWriter):
            writer.add_names(encoder)
        return writer

    def write(self, splits: Sequence[Split]) -> None:
        """Writes the rows of splits; to an object store, without paths of this machine.

        Raises:
            DiskError: They cannot be written.
            CacheError: The object store refuses, or does not answer.
        """
        if self._url is None:
            for split in splits:
                split.write(self._root)
            return
        with temporary_folder() as folder:
            files = {}
            for split in splits:
                path = split_path(folder, split.about.split)
                write_split(path, shared_split(split.about), split.samples)
                files[path.relative_to(folder).as_posix()] = path
            ObjectFolder(self._url).put_files(files)
