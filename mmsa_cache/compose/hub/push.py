"""``mmsa cache push``: what a store holds now, to the hub or an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from mmsa_cache.compose.session.store import Store
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.stored import split_path, write_split
from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError
from mmsa_cache.files.abandoned import is_abandoned, process_mark
from mmsa_cache.files.disk import DISK, link_or_copy, make_folders, remove_tree, write_new
from mmsa_cache.names import SPLITS
from mmsa_cache.store.encoder import FEATURES
from mmsa_cache.store.index import INDEX, Index, IndexChange
from mmsa_cache.store.listing import StoredFeatures, list_features
from mmsa_cache.store.reader import verify_features
from mmsa_cache.store.shard_file import check_size

from .card import SharedFeatures, SharedSplit, card_of
from .host import local_files
from .hosts import host_of
from .private import shared_encoder, shared_split

_STAGING = ".push-"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was put there."""

    repository: str
    revision: str
    """The commit, at the hub; else empty."""
    files: int
    bytes: int
    encoders: list[str]
    splits: dict[str, int]
    """Rows of each split."""
    texts: bool


def push(
    settings: Settings, url: str, *, without_text: bool = False, private: bool = False
) -> Pushed:
    """Puts a store into a repository, in place of what another push put there.

    In an object store it is added to what is there.

    Args:
        settings: Name the store.
        url: ``hf://USER/REPO``, or that of an object store.
        without_text: Leave the texts out; training does not need them.
        private: A repository that is made now is private.

    Raises:
        SettingsError: The address is none, or the repository is public.
        CacheNotFoundError: There is no store, or no such repository.
        DamagedCacheError: The store is damaged, or other files are there.
        CacheError: The host cannot be reached, or refuses.
    """
    host, root = host_of(url), settings.cache.dir
    with _staging(root) as place:
        features = _link_features(root, place)
        splits = _copy_splits(Store(root), place, without_text=without_text)
        card = card_of(host.name, features, splits, texts=not without_text)
        files = local_files(place)
        size = sum(path.stat().st_size for path in files.values())
        say(f"Pushing {len(files)} files, {decimal(size)}, to {host.title}.")
        return Pushed(
            host.name,
            host.put(place, card, private=private),
            len(files),
            size,
            [found.encoder.identity.label for found in features],
            {found.about.split: found.rows for found in splits},
            not without_text,
        )


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder in the store in which the files to push are linked; it goes at the end."""
    if not list_features(root):
        raise CacheNotFoundError(f"There is no cache in {root}.", "Run mmsa extract.")
    for left in root.glob(f"{_STAGING}*"):
        if is_abandoned(left.name.removeprefix(_STAGING)):
            remove_tree(left)
    place = root / f"{_STAGING}{process_mark()}"
    DISK.make_folder(place, fresh=True)
    try:
        yield place
    finally:
        remove_tree(place)


def _link_features(root: Path, place: Path) -> list[SharedFeatures]:
    """The features that are sealed now: what is merged or added later changes nothing of them."""
    shared = []
    for found in list_features(root):
        if found.encoder is None or found.problem:
            raise DamagedCacheError(
                found.problem or f"{found.folder} cannot be read.", "Run mmsa cache verify."
            )
        if not found.rows:
            continue
        encoder = shared_encoder(found.encoder)
        folder = place / FEATURES / found.modality / found.folder.name
        make_folders(folder)
        index = _link_shards(found, folder)
        if not index.entries:  # removed just now
            DISK.remove_folder(folder)
            continue
        encoder.write(folder)
        lines = [IndexChange(add=entry).line() for entry in index.entries.values()]
        write_new(folder / INDEX, b"".join(lines))
        problems = verify_features(folder)
        if problems:
            raise DamagedCacheError(
                f"{len(problems)} damaged file(s) in {found.folder}.",
                "Delete the files named and run mmsa extract: it computes their rows again.",
                problems,
            )
        shared.append(SharedFeatures(encoder, index.rows, index.bytes))
    if not shared:
        raise CacheNotFoundError(f"Nothing is sealed in {root}.", "Run mmsa extract.")
    return shared


def _link_shards(found: StoredFeatures, folder: Path) -> Index:
    while True:
        index = Index.read(found.folder)
        try:
            for entry in index.entries.values():
                if not (folder / entry.file).exists():
                    check_size(found.folder / entry.file, entry.bytes)
                    link_or_copy(found.folder / entry.file, folder / entry.file)
        except (DamagedCacheError, FileNotFoundError):
            if not index.changed():  # else it was merged just now
                raise
        else:
            for path in folder.glob("*.h5"):
                if path.name not in {entry.file for entry in index.entries.values()}:
                    DISK.remove(path)
            return index


def _copy_splits(store: Store, place: Path, *, without_text: bool) -> list[SharedSplit]:
    shared = []
    for name in SPLITS:
        found = store.split(name)
        if found is None:
            continue
        about, samples = found
        kept = samples.without_texts() if without_text else samples
        write_split(split_path(place, name), shared_split(about), kept)
        shared.append(SharedSplit.of(about, samples))
    if not shared:
        raise CacheNotFoundError(f"{store.root} holds the rows of no split.", "Run mmsa extract.")
    return shared
