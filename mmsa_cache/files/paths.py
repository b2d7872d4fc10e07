"""Opens folders without following links, so that planted links cannot redirect writes.

A folder that a user declares (``[cache] dir``, ``--to``) may itself lie behind links, which
`resolve_declared` follows once, outside the working folder. From there on no step may be a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

from mmsa_cache.errors import LinkError, SettingsError


def os_flags(*names: str) -> int:
    """The sum of those flags of `os.open` that this system has."""
    return sum(getattr(os, name, 0) for name in names)


OPENS_FOLDERS = os.open in os.supports_dir_fd
"""Whether folders can be opened and paths be relative to them: not on Windows."""
# Linux's O_PATH needs no right to read the folders.
_WALK = os.O_RDONLY | os_flags("O_PATH", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")


def shipped_studies() -> Path:
    """The folder of mmsa's own studies: beside the packages in a clone, inside when installed."""
    inside = Path(__file__).resolve().parents[1] / "studies"
    return inside if inside.is_dir() else inside.parents[1] / "studies"


def is_valid_path(value: object) -> bool:
    """Whether a value can be a file's name: encodable, without NUL."""
    if not isinstance(value, str | os.PathLike):
        return False
    try:
        return b"\0" not in os.fsencode(value)
    except (TypeError, ValueError):
        return False


def check_paths(**values: object) -> None:
    """Refuses arguments that are neither paths nor None.

    Raises:
        SettingsError: With all of them.
    """
    wrong = [
        f"{name}={shorten(repr(value), 100)}"
        for name, value in values.items()
        if value is not None and not (is_valid_path(value) and _is_short(str(value)))
    ]
    if wrong:
        raise SettingsError(f"{', '.join(wrong)}: the path of a file or folder is expected.")


def _is_short(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Replaces ``~`` by the home folder, unless there is no such user."""
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def resolve_declared(path: Path) -> Path:
    """Resolves the links of a path that the user named, outside the working folder.

    Links below the working folder stay, and are refused later: they may come with foreign files.
    """
    path = expand_home(path)
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (Path.resolve follows links)
    if absolute.is_relative_to(Path.cwd()):
        return path
    return Path(os.path.realpath(absolute))  # (Path.resolve raises for links in a circle)


def _steps(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder to start from, and the names from there to the path."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100
    home = Path.cwd()
    start = home if absolute.is_relative_to(home) else Path(absolute.anchor)
    return start, absolute.relative_to(start).parts


@contextlib.contextmanager
def open_parent(path: Path) -> Iterator[tuple[int | None, str]]:
    """Opens the parent folder of a path, one folder after the other, without following links.

    Yields:
        Its descriptor, for ``dir_fd``, and the path's last name; None and the whole path where
        folders cannot be opened.

    Raises:
        LinkError: A folder on the way is a link.
        OSError: A folder is missing, or is no folder.
    """
    start, names = _steps(path)
    *above, name = names or (".",)
    if not OPENS_FOLDERS:
        for number in range(1, len(names)):
            refuse_link(start.joinpath(*names[:number]))
        yield None, str(start.joinpath(*names))
        return
    folder = os.open(start, _WALK & ~os_flags("O_NOFOLLOW"))
    try:
        for number, step in enumerate(above, start=1):
            try:
                inner = os.open(step, _WALK, dir_fd=folder)
            except OSError as error:
                failed = start.joinpath(*above[:number])
                refuse_link(failed)
                raise type(error)(error.errno, error.strerror, str(failed)) from None
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


def refuse_link(path: Path) -> None:
    """Refuses a path that is a link.

    Raises:
        LinkError: It is a link.
    """
    if path.is_symlink():
        raise LinkError(
            f"{path} is a link: nothing is written through links below the working folder.",
            "Remove it, or name the folder that it leads to (as --cache DIR or [cache] dir).",
        )


def check_target(path: Path, *, folder: bool = False, replaced: bool = False) -> None:
    """Checks a path before something is written to it by its name.

    Args:
        path: A file or folder; it need not exist.
        folder: Whether it must be a folder; else a regular file.
        replaced: Whether the file will be replaced; it may then have hard links.

    Raises:
        LinkError: It is a link, lies behind one, or is of another kind.
    """
    try:
        with open_parent(path) as (parent, name):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    refuse_link(path)
    is_kind, kind = (stat.S_ISDIR, "folder") if folder else (stat.S_ISREG, "regular file")
    if not is_kind(status.st_mode):
        raise LinkError(f"{path} is no {kind}: it is not written to.", "Remove it.")
    if not (folder or replaced) and status.st_nlink > 1:
        raise LinkError(
            f"{path} has another name (a hard link), of what may be anybody's file: it is not "
            "written to.",
            f"Make it a file of its own: cp {path} COPY && mv COPY {path}",
        )


def check_tree(folder: Path) -> None:
    """Checks that a folder, if it exists, holds only folders and regular files.

    Raises:
        LinkError: It holds something else.
    """
    check_target(folder, folder=True)
    for parent, folders, files in os.walk(folder):  # does not follow links
        for name in folders:
            check_target(Path(parent, name), folder=True)
        for name in files:
            check_target(Path(parent, name))
