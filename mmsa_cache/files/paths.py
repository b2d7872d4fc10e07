"""Paths walked without following links, so that nothing planted redirects what is written.

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
    """Flags of `os.open` that this system has."""
    return sum(getattr(os, name, 0) for name in names)


OPENS_FOLDERS = os.open in os.supports_dir_fd
"""Whether a folder can be opened, to be a path's first step: not on Windows."""
# O_PATH, of Linux, asks for no right to read the folders on the way.
_WALK = os.O_RDONLY | os_flags("O_PATH", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")


def shipped_studies() -> Path:
    """The studies that come with mmsa: beside its packages in a clone, in one when installed."""
    inside = Path(__file__).resolve().parents[1] / "studies"
    return inside if inside.is_dir() else inside.parents[1] / "studies"


def is_valid_path(value: object) -> bool:
    """Whether a value may be the name of a file: no NUL is in it, and no half of a character."""
    if not isinstance(value, str | os.PathLike):
        return False
    try:
        return b"\0" not in os.fsencode(value)
    except (TypeError, ValueError):
        return False


def check_paths(**values: object) -> None:
    """Refuses arguments that are no paths of files; None is as by default.

    Raises:
        SettingsError: Names them all.
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
    """A path whose ``~`` is a folder; one of a user that there is not stays."""
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def resolve_declared(path: Path) -> Path:
    """A folder or file that the user names, without the links outside the working folder.

    Links below the working folder stay: they may have come with somebody's files.
    """
    path = expand_home(path)
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (Path.resolve follows links)
    if absolute.is_relative_to(Path.cwd()):
        return path
    return Path(os.path.realpath(absolute))  # (Path.resolve raises for links in a circle)


def _steps(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Where the walk begins, and the names from there to the path."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100
    home = Path.cwd()
    start = home if absolute.is_relative_to(home) else Path(absolute.anchor)
    return start, absolute.relative_to(start).parts


@contextlib.contextmanager
def open_parent(path: Path) -> Iterator[tuple[int | None, str]]:
    """Opens the folder that holds a path, step by step and over no link.

    Yields:
        Its descriptor and the path's last name, for the ``dir_fd`` of the calls of `os`; none and
        the path where no folder can be opened.

    Raises:
        LinkError: A step is a link.
        OSError: A folder is missing, or is none.
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
                place = start.joinpath(*above[:number])
                refuse_link(place)
                raise type(error)(error.errno, error.strerror, str(place)) from None
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


def refuse_link(path: Path) -> None:
    """Refuses a path that is itself a link.

    Raises:
        LinkError: It is one.
    """
    if path.is_symlink():
        raise LinkError(
            f"{path} is a link: nothing is written through links below the working folder.",
            "Remove it, or name the folder that it leads to (as --cache DIR or [cache] dir).",
        )


def check_target(path: Path, *, folder: bool = False, replaced: bool = False) -> None:
    """Checks a path that a library is about to open by its name, to write to it.

    Args:
        path: There may be nothing there yet.
        folder: Whether it is to be a folder; else a regular file.
        replaced: Whether another file takes its place: then it may have other names.

    Raises:
        LinkError: It, or a step to it, is a link, or it is of another kind.
    """
    try:
        with open_parent(path) as (parent, name):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    refuse_link(path)
    fits, kind = (stat.S_ISDIR, "folder") if folder else (stat.S_ISREG, "regular file")
    if not fits(found.st_mode):
        raise LinkError(f"{path} is no {kind}: it is not written to.", "Remove it.")
    if not (folder or replaced) and found.st_nlink > 1:
        raise LinkError(
            f"{path} has another name (a hard link), of what may be anybody's file: it is not "
            "written to.",
            f"Make it a file of its own: cp {path} COPY && mv COPY {path}",
        )


def check_tree(folder: Path) -> None:
    """Checks that a folder, if it is there, holds folders and regular files alone.

    Raises:
        LinkError: Something else is there.
    """
    check_target(folder, folder=True)
    for place, folders, files in os.walk(folder):  # links to folders are not walked
        for name in folders:
            check_target(Path(place, name), folder=True)
        for name in files:
            check_target(Path(place, name))
