"""A repository of the Hugging Face hub, and errors that explain what the hub answers."""

from __future__ import annotations

import contextlib
import glob
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    MmsaError,
    SettingsError,
)
from mmsa_cache.files.objects import error_chain

from .host import MAX_FILES, RemoteFile

RepositoryKind = Literal["dataset", "model"]
_KIND_NAMES: dict[RepositoryKind, str] = {"dataset": "data set", "model": "model"}


@dataclass(frozen=True, slots=True)
class Commit:
    """The state of a repository at a commit."""

    revision: str
    files: list[tuple[str, RemoteFile]]
    is_private: bool


class HubRepository:
    """A repository of a data set or of a model.

    Args:
        name: ``USER/REPO``.
        kind: ``dataset`` or ``model``.
    """

    def __init__(self, name: str, kind: RepositoryKind) -> None:
        self.name = name
        self.kind = kind

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"the {_KIND_NAMES[self.kind]} {self.name}"

    def look(self) -> Commit:
        """Asks for the newest commit.

        Raises:
            CacheError: There is none, or the hub cannot be reached or refuses.
        """
        with hub_errors(self.name, self.kind):
            from huggingface_hub import HfApi
            from huggingface_hub.hf_api import RepoFile

            api = HfApi()
            info = api.repo_info(self.name, repo_type=self.kind)
            if info.sha is None:
                raise DamagedCacheError(f"{self.name} has no commit.", "Push to it.")
            tree = api.list_repo_tree(
                self.name, recursive=True, revision=info.sha, repo_type=self.kind
            )
            files = (
                (f.path, RemoteFile(f.size, None if f.lfs is None else f.lfs.sha256, f.blob_id))
                for f in tree
                if isinstance(f, RepoFile)
            )
            return Commit(info.sha, [*itertools.islice(files, MAX_FILES + 1)], bool(info.private))

    def fetch(self, revision: str, names: Sequence[str], folder: Path | None = None) -> Path:
        """Downloads files; resumes an interrupted download.

        Args:
            revision: The commit.
            names: The files.
            folder: Target; default: the cache of the hub's client.

        Returns:
            The folder of the files.

        Raises:
            CacheError: As `look` raises.
        """
        with hub_errors(self.name, self.kind):
            from huggingface_hub import snapshot_download

            snapshot = snapshot_download(
                self.name,
                repo_type=self.kind,
                revision=revision,
                local_dir=folder,
                allow_patterns=[glob.escape(name) for name in names],
            )
            return Path(str(snapshot))

    def make(self, *, private: bool) -> Commit:
        """Makes the repository if it is missing; returns its newest commit.

        Args:
            private: It must be private; a new one is made so.

        Raises:
            SettingsError: It must be private, and is public.
            CacheError: As `look` raises.
        """
        with hub_errors(self.name, self.kind):
            from huggingface_hub import HfApi

            HfApi().create_repo(
                self.name, repo_type=self.kind, private=private or None, exist_ok=True
            )
        commit = self.look()
        if private and not commit.is_private:
            raise SettingsError(
                f"{self.title[0].upper()}{self.title[1:]} is public; nothing was pushed.",
                "Make it private on the hub, or name another one.",
            )
        return commit

    def put(
        self,
        folder: Path,
        names: Sequence[str],
        replaced: Sequence[str],
        message: str,
        parent: Commit,
    ) -> str:
        """Uploads files as one commit.

        Args:
            folder: The folder of the files.
            names: The files.
            replaced: Patterns of older files; those that are not uploaded again are removed.
            message: Message of the commit.
            parent: The commit before it.

        Returns:
            The new revision.

        Raises:
            CacheError: There is a newer commit than the parent, or as `look` raises.
        """
        with hub_errors(self.name, self.kind):
            from huggingface_hub import HfApi

            commit = HfApi().upload_folder(
                repo_id=self.name,
                repo_type=self.kind,
                folder_path=folder,
                commit_message=message,
                allow_patterns=[glob.escape(name) for name in names],
                delete_patterns=list(replaced),
                parent_commit=parent.revision,
            )
            return str(commit.oid)


@contextlib.contextmanager
def hub_errors(name: str, kind: RepositoryKind = "dataset") -> Iterator[None]:
    """Turns errors of the hub's client into errors with the next step.

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
        raise _explain(f"{_KIND_NAMES[kind]} {name}", list(error_chain(error))) from error


def _explain(repository: str, causes: list[BaseException]) -> CacheError:
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    responses = [getattr(cause, "response", None) for cause in causes]
    codes = {getattr(r, "status_code", None) for r in responses if r is not None}
    login = "Run hf auth login with a token that may use it, or check its name."
    head, _, findings = str(causes[0]).partition("\n")
    if head.startswith("Invalid metadata"):
        return CacheError(
            f"The hub takes no card with this metadata: {' '.join(findings.split())[:1000]}",
            "Give another --license or --language.",
        )
    if "GatedRepoError" in names or 403 in codes:
        return CacheError(f"Your token may not use the {repository}.", login)
    if "RepositoryNotFoundError" in names or 404 in codes:
        return CacheNotFoundError(
            f"The hub has no {repository}, or none that your token may see.", login
        )
    if 401 in codes or "LocalTokenNotFoundError" in names:
        return CacheError("The hub knows no valid token of yours.", login)
    if 412 in codes:
        return CacheError(
            f"The {repository} was changed meanwhile.", "Give the same command again."
        )
    if "OfflineModeIsEnabled" in names:
        return CacheError("HF_HUB_OFFLINE is set: nothing is asked of the hub.", "Unset it.")
    reasons = dict.fromkeys(str(cause).partition("\n")[0][:300] for cause in causes)
    return CacheError(
        f"The hub did not do what was asked of it: {'; '.join(filter(None, reasons))[:1000]}",
        "Check the network and HF_ENDPOINT; the same command goes on where it stopped.",
    )
