"""``mmsa cache push``: uploads a store to the hub or an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from mmsa_cache.compose.session.store import Store
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.stored_split import split_path, write_split
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
from .hosts import open_host
from .private import shared_encoder, shared_split

_STAGING = ".push-"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was uploaded."""

    repository: str
    revision: str
    """The commit at the hub; else empty."""
    files: int
    bytes: int
    encoders: list[str]
    splits: dict[str, int]
    """Rows of each split."""
    texts: bool


def push(
    settings: Settings, url: str, *, without_text: bool = False, private: bool = False
) -> Pushed:
    """Uploads a store; a repository is replaced, the content of an object store is extended.

    Args:
        settings: Name the store.
        url: ``hf://USER/REPO``, or the address of an object store.
        without_text: Leave the texts out; training does not need them.
        private: The repository must be private; a new one is made so.

    Raises:
        SettingsError: The address is invalid, or the repository is public.
        CacheNotFoundError: There is no store, or no such repository.
        DamagedCacheError: The store is damaged, or the host holds other files.
        CacheError: The host cannot be reached, or refuses.
    """
    host, root = open_host(url), settings.cache.dir
    with _staging(root) as staging:
        features = _link_features(root, staging)
        splits = _copy_splits(Store(root), staging, without_text=without_text)
        card = card_of(host.name, features, splits, texts=not without_text)
        files = local_files(staging)
        size = sum(path.stat().st_size for path in files.values())
        say(f"Pushing {len(files)} files, {decimal(size)}, to {host.title}.")
        return Pushed(
            host.name,
            host.put(staging, card, private=private),
            len(files),
            size,
            [shared.encoder.identity.label for shared in features],
            {shared.about.split: shared.rows for shared in splits},
            not without_text,
        )


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """Makes a folder in the store for links to the files to push; removes it at the end."""
    if not list_features(root):
        raise CacheNotFoundError(f"There is no cache in {root}.", "Run mmsa extract.")
    for left in root.glob(f"{_STAGING}*"):
        if is_abandoned(left.name.removeprefix(_STAGING)):
            remove_tree(left)
    staging = root / f"{_STAGING}{process_mark()}"
    DISK.make_folder(staging, fresh=True)
    try:
        yield staging
    finally:
        remove_tree(staging)


def _link_features(root: Path, staging: Path) -> list[SharedFeatures]:
    """Links the shards that are sealed now, so that later merges do not change what is pushed."""
    shared = []
    for stored in list_features(root):
        if stored.encoder is None or stored.problem:
            raise DamagedCacheError(
                stored.problem or f"{stored.folder} cannot be read.", "Run mmsa cache verify."
            )
        if not stored.rows:
            continue
        encoder = shared_encoder(stored.encoder)
        folder = staging / FEATURES / stored.modality / stored.folder.name
        make_folders(folder)
        index = _link_shards(stored, folder)
        if not index.entries:  # removed just now
            DISK.remove_folder(folder)
            continue
        encoder.write(folder)
        lines = [IndexChange(add=entry).line() for entry in index.entries.values()]
        write_new(folder / INDEX, b"".join(lines))
        problems = verify_features(folder)
        if problems:
            raise DamagedCacheError(
                f"{len(problems)} damaged file(s) in {stored.folder}.",
                "Delete the files named and run mmsa extract: it computes their rows again.",
                problems,
            )
        shared.append(SharedFeatures(encoder, index.rows, index.bytes))
    if not shared:
        raise CacheNotFoundError(f"Nothing is sealed in {root}.", "Run mmsa extract.")
    return shared


def _link_shards(stored: StoredFeatures, folder: Path) -> Index:
    """Links all shards of features; starts again if they are merged meanwhile."""
    while True:
        index = Index.read(stored.folder)
        try:
            for entry in index.entries.values():
                if not (folder / entry.file).exists():
                    check_size(stored.folder / entry.file, entry.bytes)
                    link_or_copy(stored.folder / entry.file, folder / entry.file)
        except (DamagedCacheError, FileNotFoundError):
            if not index.changed():
                raise
        else:
            for path in folder.glob("*.h5"):
                if path.name not in {entry.file for entry in index.entries.values()}:
                    DISK.remove(path)
            return index


def _copy_splits(store: Store, staging: Path, *, without_text: bool) -> list[SharedSplit]:
    shared = []
    for name in SPLITS:
        split = store.split(name)
        if split is None:
            continue
        about, samples = split
        shown = samples.without_texts() if without_text else samples
        write_split(split_path(staging, name), shared_split(about), shown)
        shared.append(SharedSplit.of(about, samples))
    if not shared:
        raise CacheNotFoundError(f"{store.root} holds the rows of no split.", "Run mmsa extract.")
    return shared
