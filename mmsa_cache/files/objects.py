"""A folder of an object store (``s3://BUCKET/PATH``, or another address that fsspec knows).

Objects are written whole under their final names. Credentials come from the environment alone; an
address with a password is refused.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mmsa_cache.console import say
from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    MmsaError,
    SettingsError,
)

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://[^\s?#*\[\]{}]+")
_PASSWORD = re.compile(r"//[^/@]*:[^/]*@")
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_UNAVAILABLE = re.compile(
    "Connect|Timeout|Endpoint|Disconnected|Payload|IncompleteRead|DNS|Unavailable|SlowDown|Internal"
)
"""Parts of the names of errors that say that a server is unavailable."""
PATIENCE = 180.0
"""Seconds to retry a store that has answered before, besides the client's own retries."""
_LONGEST_LISTING = 600.0
"""Seconds; the pages of a hostile listing may never end."""
T = TypeVar("T")
_LOGIN = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the role of this machine, and "
    "for a server of your own AWS_ENDPOINT_URL."
)
_AGAIN = "The same command goes on where it stopped."


class ObjectFolder:
    """The objects below an address; picklable, without credentials.

    Raises:
        SettingsError: The address is invalid, or holds a password.
    """

    def __init__(self, url: str) -> None:
        if _PASSWORD.search(url):
            raise SettingsError(
                "The address of an object store holds a password.",
                f"Credentials come from the environment alone. {_LOGIN}",
            )
        match = _ADDRESS.fullmatch(url)
        if match is None or match[1] == "hf" or "::" in url or ".." in url.split("/"):
            raise SettingsError(
                f"{url[:200]!r} is no address of an object store.", "Write s3://BUCKET/PATH."
            )
        self.url, self._is_local = url.rstrip("/"), match[1] in ("file", "local")
        self._answered = False

    def __reduce__(self) -> tuple[type[ObjectFolder], tuple[str]]:
        return ObjectFolder, (self.url,)

    def below(self, folder: str) -> ObjectFolder:
        """The objects in a subfolder."""
        return ObjectFolder(f"{self.url}/{folder}")

    def sizes(self) -> dict[str, int]:
        """Lists all objects: name below the address → bytes.

        Raises:
            CacheError: The store refuses or does not answer. All methods raise it.
        """

        def sizes(client: Any, root: str) -> dict[str, int]:
            client.invalidate_cache()
            bound = {"timeout": _LONGEST_LISTING} if client.async_impl else {}
            return {
                path.removeprefix(f"{root}/"): details["size"]
                for path, details in client.find(root, detail=True, **bound).items()
                if details["type"] == "file" and path.startswith(f"{root}/")
            }

        return self._call(sizes)

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Writes an object, replacing one of the same name."""
        self._call(lambda client, root: client.pipe_file(f"{root}/{name}", bytes(content)))

    def put_files(self, files: Mapping[str, Path]) -> None:
        """Uploads files in parallel, name → file."""
        paths = [os.fspath(path) for path in files.values()]
        self._call(lambda client, root: client.put(paths, [f"{root}/{name}" for name in files]))

    def ranges(self, names: Sequence[str], ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Reads byte ranges (first, end) of objects in parallel; None for a missing object."""
        starts, ends = [first for first, _ in ranges], [end for _, end in ranges]

        def read(client: Any, root: str) -> list[bytes | None]:
            paths = [f"{root}/{name}" for name in names]
            contents = client.cat_ranges(paths, starts, ends, on_error="return")
            for content in contents:
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
            return [None if isinstance(content, Exception) else content for content in contents]

        return self._call(read)

    def fetch(self, files: Mapping[str, Path], most: Mapping[str, int]) -> None:
        """Downloads objects, name → file, into existing folders.

        Args:
            files: Target files by object name.
            most: Most bytes by object name.

        Raises:
            DamagedCacheError: An object is larger; the download stops.
        """
        limits = {os.fspath(path): most[name] for name, path in files.items()}

        def fetch(client: Any, root: str) -> None:
            names = [f"{root}/{name}" for name in files]
            client.get(names, [*limits], callback=_size_limits(limits))

        self._call(fetch)

    @functools.cached_property
    def _client(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            client, root = url_to_fs(self.url, **({"auto_mkdir": True} if self._is_local else {}))
        except (ImportError, ValueError) as error:
            raise SettingsError(
                f"There is no client for the address {self.url}.",
                "For s3:// install mmsa[s3]; others need the package that fsspec names for them.",
            ) from error
        return client, str(root)

    def _call(self, operation: Callable[[Any, str], T]) -> T:
        """Runs an operation of the client; retries while a store is unavailable for a time."""
        until = time.monotonic() + PATIENCE if self._answered else 0.0
        pauses = (min(2.0**number, 15.0) for number in itertools.count())
        while True:
            try:
                result = operation(*self._client)
            except MmsaError:
                raise
            except Exception as error:  # clients raise many kinds: network, name, access
                explained = self._explain(list(error_chain(error)))
                if explained is None:
                    raise
                if not isinstance(explained, _UnavailableError) or time.monotonic() > until:
                    raise explained from error
                say(f"{explained.message} It is asked again.")
                time.sleep(next(pauses))
            else:
                self._answered = True
                return result

    def _explain(self, causes: Sequence[BaseException]) -> CacheError | None:
        """The error that explains one of a client; None if a local disk failed."""
        names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
        answers = [getattr(cause, "response", None) or {} for cause in causes]
        codes = {str(a["Error"].get("Code")) for a in answers if "Error" in a}
        reason = ", ".join(codes) or _mask_secrets(str(causes[0]).partition("\n")[0])[:500]
        if "NoSuchBucket" in codes:
            return CacheNotFoundError(f"There is no bucket for {self.url}.", "Make it first.")
        if names & {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}:
            return CacheError(f"The environment has no credentials for {self.url}.", _LOGIN)
        if any(map(_UNAVAILABLE.search, names | codes)):
            return _UnavailableError(f"{self.url} does not answer.", f"Check the network. {_AGAIN}")
        if "PermissionError" in names and not self._is_local:
            return CacheError(f"The credentials may not use {self.url}: {reason}.", _LOGIN)
        if isinstance(causes[0], OSError) and causes[0].errno is not None and not codes:
            return None
        return CacheError(f"{self.url} did not do what was asked of it: {reason}.", _AGAIN)


def _size_limits(most: Mapping[str, int]) -> Any:
    """A callback that ends downloads above the limits, by the names of their files."""
    from fsspec.callbacks import Callback

    class Bounded(Callback):  # type: ignore[misc]
        def __init__(self, name: str = "", most: float = math.inf) -> None:
            super().__init__()
            self._name, self._most = name, most

        def branched(self, path_1: str, path_2: str, **_: object) -> Bounded:
            return Bounded(path_1, most[path_2])

        def call(self, hook_name: str | None = None, **_: object) -> None:
            if max(self.size or 0, self.value) > self._most:
                raise DamagedCacheError(
                    f"The object {self._name} is larger than the {self._most} bytes that it had.",
                    "Try again after a push that may be going on, or tell its owner.",
                )

    return Bounded()


class _UnavailableError(CacheError):
    """The store is unavailable."""


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its chain of causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _mask_secrets(text: str) -> str:
    for name in _SECRETS:
        text = text.replace(os.environ.get(name) or "\0", "***")
    return text
