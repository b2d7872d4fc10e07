"""A folder of an object store that holds a store: features of many drivers, an index each."""

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

from .host import Remote, RemoteFile, files_of_store, is_of_store, local_files


class ObjectStore:
    """A `Host` of objects.

    Raises:
        SettingsError: It is none, or holds a password.
    """

    teller = "the object store"

    def __init__(self, url: str) -> None:
        self._objects = ObjectFolder(url)
        self.name = self.title = self._objects.url
        self._small: dict[str, bytes] = {}
        """Contents of indexes and of encoders' records, as they were looked at."""

    def look(self) -> Remote:
        """The features that have an index, with the shards that it names, and the splits."""
        folders = [n.rpartition("/")[0] for n in self._listed() if n.endswith(INDEX)]
        if not folders:
            raise CacheNotFoundError(
                f"There is no finished store at {self.name}.",
                "Check the address, or run mmsa extract --target, or cache push, to its end.",
            )
        named = self._read_small(folders)
        files = self._listed()  # again: what the indexes name was there before them
        unfinished = [n for n in files if n.endswith(".h5") and n not in named]
        for name in unfinished:
            del files[name]
        for name in [n for n in files if n.endswith(ENCODER) and n not in self._small]:
            del files[name]  # of features that have no index yet
        for name, content in self._small.items():
            files[name] = RemoteFile(len(content), hashlib.sha256(content).hexdigest())
        return Remote(files)

    def check(self) -> None:
        """Asks whether there is nothing but a store.

        Raises:
            DamagedCacheError: There are files that are no store's.
            CacheError: The object store refuses, or does not answer.
        """
        self._listed()

    def _listed(self) -> dict[str, RemoteFile]:
        sizes = self._objects.sizes()
        copied = [name for name in sizes if name.endswith(".h5") and is_of_store(name)]
        if copied:
            raise DamagedCacheError(
                f"{self.title} holds shards under their names in a folder.",
                "Somebody copied them there: use mmsa cache push, to an address of its own.",
                copied,
            )
        return files_of_store(self.title, map(_as_file, sizes.items()))

    def _read_small(self, folders: Sequence[str]) -> set[str]:
        """Reads indexes and records; the shards that they name."""
        named = set()
        with temporary_folder() as place:
            small = [f"{folder}/{file}" for folder in folders for file in (ENCODER, INDEX)]
            for folder in folders:
                make_folders(place / folder)
            limits = dict.fromkeys(small, MAX_INDEX_BYTES)  # another driver may write them now
            self._objects.fetch({name: place / name for name in small}, limits)
            self._small = {name: read_regular(place / name, MAX_INDEX_BYTES) for name in small}
            for folder in folders:
                try:
                    entries = Index.read(place / folder).entries.values()
                except DamagedCacheError as error:
                    found = error.message.removeprefix(f"{place}/")
                    hint = "Give the push or extract --target that wrote it again."
                    raise DamagedCacheError(f"{self.name}/{found}", hint) from error
                named |= {f"{folder}/{entry.file}" for entry in entries}
        return named

    def fetch(self, remote: Remote, names: Sequence[str], folder: Path) -> None:
        """Downloads files."""
        wanted, sizes = {}, {}
        for name in names:
            make_folders((folder / name).parent)
            if name in self._small:
                write_atomically(folder / name, self._small[name])
            else:
                object_name = _object_name(name, remote.files[name].sha256)
                wanted[object_name] = folder / name
                sizes[object_name] = remote.files[name].size
        self._objects.fetch(wanted, sizes)

    def put(self, folder: Path, card: str, *, private: bool) -> str:
        """Adds a store to what is there: shards, then splits, then records and indexes."""
        if private:
            raise SettingsError(
                "Who may read an object store is set there.", "Leave --private out."
            )
        there, files = self._listed(), local_files(folder)
        records = [path.parent for name, path in files.items() if name.endswith(ENCODER)]
        for place in records:
            shards = {
                f"{place.relative_to(folder).as_posix()}/{entry.file}": entry
                for entry in Index.read(place).entries.values()
            }
            missing = {name: entry for name, entry in shards.items() if name not in there}
            self._objects.put_files(
                {_object_name(name, entry.sha256): folder / name for name, entry in missing.items()}
            )
        self._objects.put_files({n: p for n, p in files.items() if n.endswith(".parquet")})
        for place in records:
            ObjectWriter(self._objects, read_encoder(place)).finish()
        return ""


def _as_file(listed: tuple[str, int]) -> tuple[str, RemoteFile]:
    """What a listing says of an object, under the name of its file in a store."""
    name, size = listed
    folder, _, last = name.rpartition("/")
    sha256 = parse_object_name(last)
    return (f"{folder}/{sha256[:16]}.h5" if sha256 else name), RemoteFile(size, sha256)


def _object_name(name: str, sha256: str | None) -> str:
    """Name of the object of a file in a store."""
    return f"{name.rpartition('/')[0]}/{sha256}.h5" if name.endswith(".h5") else name
