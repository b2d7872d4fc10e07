"""A store in an object store, with one index a driver."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError, SettingsError
from mmsa_cache.files.disk import make_folders, write_atomically
from mmsa_cache.files.objects import ObjectFolder
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.files.untrusted import read_regular
from mmsa_cache.store.encoder import ENCODER, read_encoder
from mmsa_cache.store.index import INDEX, MAX_INDEX_BYTES, Index
from mmsa_cache.store.objects import ObjectWriter, parse_object_name

from .host import RemoteFile, RemoteStore, files_of_store, is_of_store, local_files


class ObjectStore:
    """A `Host` in an object store.

    Raises:
        SettingsError: The address is invalid, or holds a password.
    """

    source = "the object store"

    def __init__(self, url: str) -> None:
        self._objects = ObjectFolder(url)
        self.name = self.title = self._objects.url
        self._small: dict[str, bytes] = {}
        """Contents of indexes and encoder records at the last `look`."""

    def look(self) -> RemoteStore:
        """Lists features with an index, the shards in the index, and the splits."""
        folders = [n.rpartition("/")[0] for n in self._list_files() if n.endswith(INDEX)]
        if not folders:
            raise CacheNotFoundError(
                f"There is no finished store at {self.name}.",
                "Check the address, or run mmsa extract --target, or cache push, to its end.",
            )
        indexed = self._read_small(folders)
        files = {  # listed again: shards are written before the indexes that name them
            name: file
            for name, file in self._list_files().items()
            if not (name.endswith(".h5") and name not in indexed)
            and not (name.endswith(ENCODER) and name not in self._small)
        }
        for name, content in self._small.items():
            files[name] = RemoteFile(len(content), hashlib.sha256(content).hexdigest())
        return RemoteStore(files)

    def check(self) -> None:
        """Checks that there is nothing but a store.

        Raises:
            DamagedCacheError: There are files that do not belong to a store.
            CacheError: The object store refuses, or does not answer.
        """
        self._list_files()

    def _list_files(self) -> dict[str, RemoteFile]:
        sizes = self._objects.sizes()
        copied = [name for name in sizes if name.endswith(".h5") and is_of_store(name)]
        if copied:
            raise DamagedCacheError(
                f"{self.title} holds shards under their names in a folder.",
                "Somebody copied them there: use mmsa cache push, to an address of its own.",
                copied,
            )
        return files_of_store(self.title, map(_remote_file, sizes.items()))

    def _read_small(self, folders: Sequence[str]) -> set[str]:
        """Reads indexes and encoder records; returns the names of the indexed shards."""
        indexed = set()
        with temporary_folder() as temporary:
            small = [f"{folder}/{file}" for folder in folders for file in (ENCODER, INDEX)]
            for folder in folders:
                make_folders(temporary / folder)
            limits = dict.fromkeys(small, MAX_INDEX_BYTES)  # another driver may write them now
            self._objects.fetch({name: temporary / name for name in small}, limits)
            self._small = {name: read_regular(temporary / name, MAX_INDEX_BYTES) for name in small}
            for folder in folders:
                try:
                    entries = Index.read(temporary / folder).entries.values()
                except DamagedCacheError as error:
                    message = error.message.removeprefix(f"{temporary}/")
                    hint = "Give the push or extract --target that wrote it again."
                    raise DamagedCacheError(f"{self.name}/{message}", hint) from error
                indexed |= {f"{folder}/{entry.file}" for entry in entries}
        return indexed

    def fetch(self, remote: RemoteStore, names: Sequence[str], folder: Path) -> None:
        """Downloads files."""
        targets, sizes = {}, {}
        for name in names:
            make_folders((folder / name).parent)
            if name in self._small:
                write_atomically(folder / name, self._small[name])
            else:
                object_name = _object_name(name, remote.files[name].sha256)
                targets[object_name] = folder / name
                sizes[object_name] = remote.files[name].size
        self._objects.fetch(targets, sizes)

    def put(self, folder: Path, card: str, *, private: bool) -> str:
        """Adds a store to the one there: shards, then splits, then records and indexes."""
        if private:
            raise SettingsError(
                "Who may read an object store is set there.", "Leave --private out."
            )
        remote, files = self._list_files(), local_files(folder)
        features = [path.parent for name, path in files.items() if name.endswith(ENCODER)]
        for own in features:
            shards = {
                f"{own.relative_to(folder).as_posix()}/{entry.file}": entry
                for entry in Index.read(own).entries.values()
            }
            missing = {name: entry for name, entry in shards.items() if name not in remote}
            self._objects.put_files(
                {_object_name(name, entry.sha256): folder / name for name, entry in missing.items()}
            )
        self._objects.put_files({n: p for n, p in files.items() if n.endswith(".parquet")})
        for own in features:
            ObjectWriter(self._objects, read_encoder(own)).finish()
        return ""


def _remote_file(listed: tuple[str, int]) -> tuple[str, RemoteFile]:
    """An object of a listing, under the name of its file in a store."""
    name, size = listed
    folder, _, last = name.rpartition("/")
    sha256 = parse_object_name(last)
    return (f"{folder}/{sha256[:16]}.h5" if sha256 else name), RemoteFile(size, sha256)


def _object_name(name: str, sha256: str | None) -> str:
    """The name of the object for a file of a store."""
    return f"{name.rpartition('/')[0]}/{sha256}.h5" if name.endswith(".h5") else name
