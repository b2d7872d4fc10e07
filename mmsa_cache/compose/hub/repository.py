"""A data set repository that holds a store: its name, its files, and what the hub answers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    MmsaError,
    SettingsError,
)
from mmsa_cache.names import SPLITS
from mmsa_cache.store.index import MAX_INDEX_BYTES

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATASET = "dataset"
CARD = "README.md"
_OTHERS = {CARD, ".gitattributes"}
"""Files of a repository that are not the store's."""
_FEATURES = r"features/(?:text|image)/[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9a-f]{8}"
_LIMITS = (
    (re.compile(rf"{_FEATURES}/encoder\.json"), 1 << 20),
    (re.compile(rf"{_FEATURES}/index\.jsonl"), MAX_INDEX_BYTES),
    (re.compile(rf"{_FEATURES}/[0-9a-f]{{16}}\.h5"), 16 << 30),
    (re.compile(rf"data/(?:{'|'.join(SPLITS)})\.parquet"), 16 << 30),
)
"""The files of a store, and the most bytes of each."""
_MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the hub says of a file."""

    size: int
    sha256: str | None
    """Of files in large-file storage."""
    blob: str
    """sha1 of git of the others."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository at one commit."""

    revision: str
    private: bool
    files: dict[str, RemoteFile]
    """Those of a store."""


def repository_of(url: str) -> str:
    """``hf://USER/REPO`` → ``USER/REPO``.

    Raises:
        SettingsError: It names none.
    """
    match = re.fullmatch(r"hf://(?:datasets/)?([A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96})", url)
    if match is None or re.search(r"[.]{2}|[-]{2}", url):
        raise SettingsError(f"{url[:200]!r} is no repository.", "Write hf://USER/REPO.")
    return match[1]


def is_of_store(path: str) -> bool:
    """Whether a file is a store's by its name."""
    return any(pattern.fullmatch(path) for pattern, _ in _LIMITS)


def local_files(root: Path) -> dict[str, Path]:
    """The files of a store in a folder, by their path in a repository."""
    found = {}
    for pattern in ("features/*/*/*", "data/*.parquet"):
        for path in root.glob(pattern):
            name = path.relative_to(root).as_posix()
            if is_of_store(name):
                found[name] = path
    return found


def look(api: HfApi, repository: str) -> Remote:
    """What a repository holds at its newest commit.

    Raises:
        DamagedCacheError: Files that are no store's, or too large ones.
    """
    from huggingface_hub.hf_api import RepoFile

    info = api.dataset_info(repository)
    if info.sha is None:
        raise DamagedCacheError(f"{repository} has no commit.", "Push a store to it.")
    files: dict[str, RemoteFile] = {}
    problems: list[str] = []
    listed = api.list_repo_tree(repository, recursive=True, revision=info.sha, repo_type=DATASET)
    for found in listed:
        if not isinstance(found, RepoFile) or found.path in _OTHERS:
            continue
        limit = next((n for pattern, n in _LIMITS if pattern.fullmatch(found.path)), None)
        if limit is None:
            problems.append(f"{found.path!r} is no file of a store")
        elif not 0 < found.size <= limit:
            problems.append(f"{found.path} has {found.size} bytes")
        else:
            sha256 = None if found.lfs is None else found.lfs.sha256
            files[found.path] = RemoteFile(found.size, sha256, found.blob_id)
        if len(files) + len(problems) > _MAX_FILES:
            problems.append(f"it has more than {_MAX_FILES} files")
            break
    if len({path.casefold() for path in files}) < len(files):
        problems.append("names differ in upper and lower case only")
    if problems:
        raise DamagedCacheError(
            f"The repository {repository} is not that of a store.",
            "Use a repository that mmsa cache push alone writes to.",
            problems,
        )
    return Remote(info.sha, bool(info.private), files)


@contextlib.contextmanager
def asking(repository: str) -> Iterator[None]:
    """Turns what the hub's client raises into an error with the next step.

    Raises:
        CacheError: The hub cannot be reached, or refuses.
    """
    try:
        yield
    except MmsaError:
        raise
    except Exception as error:  # the client raises many kinds: network, name, access
        if isinstance(error, OSError) and error.errno is not None:  # a disk
            raise
        raise _told(repository, list(_causes(error))) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(repository: str, causes: list[BaseException]) -> CacheError:
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    answers = [getattr(cause, "response", None) for cause in causes]
    codes = {getattr(answer, "status_code", None) for answer in answers if answer is not None}
    login = "Run hf auth login with a token that may use it, or check its name."
    if "GatedRepoError" in names or 403 in codes:
        return CacheError(f"Your token may not use the data set {repository}.", login)
    if "RepositoryNotFoundError" in names or 404 in codes:
        return CacheNotFoundError(
            f"The hub has no data set {repository}, or none that your token may see.", login
        )
    if 401 in codes or "LocalTokenNotFoundError" in names:
        return CacheError("The hub knows no valid token of yours.", login)
    if 412 in codes:
        return CacheError(
            f"The data set {repository} was changed meanwhile.", "Give the same command again."
        )
    if "OfflineModeIsEnabled" in names:
        return CacheError("HF_HUB_OFFLINE is set: nothing is asked of the hub.", "Unset it.")
    shown = dict.fromkeys(str(cause).partition("\n")[0][:300] for cause in causes)
    return CacheError(
        f"The hub did not do what was asked of it: {'; '.join(filter(None, shown))[:1000]}",
        "Check the network and HF_ENDPOINT; the same command goes on where it stopped.",
    )
