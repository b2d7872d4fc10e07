"""A data set repository of the hub that holds a store, and what the hub answers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsa_cache.disk import write_new
from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    MmsaError,
    SettingsError,
)
from mmsa_cache.objects import causes_of

from .host import CARD, Remote, RemoteFile, files_of_store, local_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATASET = "dataset"


def repository_of(url: str) -> str:
    """``hf://USER/REPO`` → ``USER/REPO``.

    Raises:
        SettingsError: It names none.
    """
    match = re.fullmatch(r"hf://(?:datasets/)?([A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96})", url)
    if match is None or re.search(r"[.]{2}|[-]{2}", url):
        raise SettingsError(f"{url[:200]!r} is no repository.", "Write hf://USER/REPO.")
    return match[1]


class Repository:
    """A `Host` of the hub.

    Args:
        url: ``hf://USER/REPO``.

    Raises:
        SettingsError: It names none.
    """

    teller = "the hub"

    def __init__(self, url: str) -> None:
        self.name = repository_of(url)
        self.title = f"the data set {self.name}"

    def look(self) -> Remote:
        """What it holds at its newest commit."""
        with asking(self.name):
            from huggingface_hub import HfApi

            return self._look(HfApi())[0]

    def _look(self, api: HfApi) -> tuple[Remote, bool]:
        """What it holds, and whether it is private."""
        from huggingface_hub.hf_api import RepoFile

        info = api.dataset_info(self.name)
        if info.sha is None:
            raise DamagedCacheError(f"{self.name} has no commit.", "Push a store to it.")
        tree = api.list_repo_tree(self.name, recursive=True, revision=info.sha, repo_type=DATASET)
        listed = (
            (f.path, RemoteFile(f.size, None if f.lfs is None else f.lfs.sha256, f.blob_id))
            for f in tree
            if isinstance(f, RepoFile)
        )
        return Remote(files_of_store(self.title, listed), info.sha), bool(info.private)

    def fetch(self, remote: Remote, names: Sequence[str], folder: Path) -> None:
        """Downloads files; what an interrupted call downloaded is kept."""
        with asking(self.name):
            from huggingface_hub import snapshot_download

            snapshot_download(
                self.name,
                repo_type=DATASET,
                revision=remote.revision,
                local_dir=folder,
                allow_patterns=list(names),
            )

    def put(self, folder: Path, card: str, *, private: bool) -> str:
        """Uploads a store as one state of the repository, in place of the one before."""
        write_new(folder / CARD, card.encode())
        with asking(self.name):
            from huggingface_hub import HfApi

            api = HfApi()
            api.create_repo(self.name, repo_type=DATASET, private=private or None, exist_ok=True)
            before, is_private = self._look(api)
            if private and not is_private:
                raise SettingsError(
                    f"The data set {self.name} is public; nothing was pushed.",
                    "Make it private on the hub, or name another one.",
                )
            done = api.upload_folder(
                repo_id=self.name,
                repo_type=DATASET,
                folder_path=folder,
                commit_message="mmsa cache push",
                allow_patterns=[CARD, *local_files(folder)],
                delete_patterns=["features/*", "data/*"],
                parent_commit=before.revision,
            )
            return str(done.oid)


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
        raise _told(repository, list(causes_of(error))) from error


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
