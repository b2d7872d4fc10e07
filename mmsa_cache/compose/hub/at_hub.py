"""A repository of the Hugging Face hub, of a data set or a model, and what the hub answers."""

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

Kind = Literal["dataset", "model"]
"""As the hub calls them."""
_WORDS: dict[Kind, str] = {"dataset": "data set", "model": "model"}


@dataclass(frozen=True, slots=True)
class Commit:
    """A repository at one of its commits."""

    revision: str
    files: list[tuple[str, RemoteFile]]
    is_private: bool


class AtHub:
    """A repository.

    Args:
        name: ``USER/REPO``.
        kind: What it is of.
    """

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.kind = kind

    @property
    def title(self) -> str:
        """For people."""
        return f"the {_WORDS[self.kind]} {self.name}"

    def look(self) -> Commit:
        """Its newest commit.

        Raises:
            CacheError: There is none, or the hub cannot be reached or refuses.
        """
        with asking(self.name, self.kind):
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
        """Downloads files; what an interrupted call downloaded is kept.

        Args:
            revision: The commit.
            names: The files.
            folder: Where to; default: the cache of the hub's client.

        Returns:
            The folder in which they are.

        Raises:
            CacheError: As of `look`.
        """
        with asking(self.name, self.kind):
            from huggingface_hub import snapshot_download

            found = snapshot_download(
                self.name,
                repo_type=self.kind,
                revision=revision,
                local_dir=folder,
                allow_patterns=[glob.escape(name) for name in names],
            )
            return Path(str(found))

    def make(self, *, private: bool) -> Commit:
        """Its newest commit; it is made if it is missing.

        Args:
            private: Nobody else may see it.

        Raises:
            SettingsError: It is to be private, and is public.
            CacheError: As of `look`.
        """
        with asking(self.name, self.kind):
            from huggingface_hub import HfApi

            HfApi().create_repo(
                self.name, repo_type=self.kind, private=private or None, exist_ok=True
            )
        found = self.look()
        if private and not found.is_private:
            raise SettingsError(
                f"{self.title[0].upper()}{self.title[1:]} is public; nothing was pushed.",
                "Make it private on the hub, or name another one.",
            )
        return found

    def put(
        self, folder: Path, names: Sequence[str], replaced: Sequence[str], said: str, before: Commit
    ) -> str:
        """Uploads files as one commit.

        Args:
            folder: Where they are.
            names: The files.
            replaced: Patterns of files that go where they are not among them.
            said: Message of the commit.
            before: The commit that it is to follow.

        Returns:
            The new revision.

        Raises:
            CacheError: There is another commit by now, or as of `look`.
        """
        with asking(self.name, self.kind):
            from huggingface_hub import HfApi

            done = HfApi().upload_folder(
                repo_id=self.name,
                repo_type=self.kind,
                folder_path=folder,
                commit_message=said,
                allow_patterns=[glob.escape(name) for name in names],
                delete_patterns=list(replaced),
                parent_commit=before.revision,
            )
            return str(done.oid)


@contextlib.contextmanager
def asking(name: str, kind: Kind = "dataset") -> Iterator[None]:
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
        raise _told(f"{_WORDS[kind]} {name}", list(error_chain(error))) from error


def _told(named: str, causes: list[BaseException]) -> CacheError:
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    answers = [getattr(cause, "response", None) for cause in causes]
    codes = {getattr(answer, "status_code", None) for answer in answers if answer is not None}
    login = "Run hf auth login with a token that may use it, or check its name."
    head, _, findings = str(causes[0]).partition("\n")
    if head.startswith("Invalid metadata"):
        return CacheError(
            f"The hub takes no card with this metadata: {' '.join(findings.split())[:1000]}",
            "Give another --license or --language.",
        )
    if "GatedRepoError" in names or 403 in codes:
        return CacheError(f"Your token may not use the {named}.", login)
    if "RepositoryNotFoundError" in names or 404 in codes:
        return CacheNotFoundError(
            f"The hub has no {named}, or none that your token may see.", login
        )
    if 401 in codes or "LocalTokenNotFoundError" in names:
        return CacheError("The hub knows no valid token of yours.", login)
    if 412 in codes:
        return CacheError(f"The {named} was changed meanwhile.", "Give the same command again.")
    if "OfflineModeIsEnabled" in names:
        return CacheError("HF_HUB_OFFLINE is set: nothing is asked of the hub.", "Unset it.")
    shown = dict.fromkeys(str(cause).partition("\n")[0][:300] for cause in causes)
    return CacheError(
        f"The hub did not do what was asked of it: {'; '.join(filter(None, shown))[:1000]}",
        "Check the network and HF_ENDPOINT; the same command goes on where it stopped.",
    )
