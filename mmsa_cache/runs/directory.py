"""Folders of runs: made under a temporary name, renamed when complete."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import DISK, discard, make_folders, remove_tree, sync, touch_after
from mmsa_cache.files.hashing import digest
from mmsa_cache.files.locks import try_lock
from mmsa_cache.files.paths import check_tree

RUNS = Path("runs")
CHECKPOINT = "checkpoint"
"""Folder in an unfinished run from which training resumes."""


@contextmanager
def new_run(name: str | None, identity: Mapping[str, object]) -> Iterator[tuple[str, Path]]:
    """Makes a run's folder under a temporary name and renames it when it is complete.

    The temporary name is a hash of the identity, so the same command finds the checkpoint of an
    interrupted one, whatever the run's name.

    Args:
        name: The run's name; default: the date and time.
        identity: Everything that the training depends on.

    Yields:
        The name and the folder to write into. When the run is interrupted, the folder is kept if it
        has a `CHECKPOINT` folder, and deleted otherwise.

    Raises:
        SettingsError: The name is taken or not a plain file name, or the same run is in progress.
        LinkError: A folder on the way, or something in a folder that was kept, is a link.
    """
    name = name or time.strftime("run-%Y%m%d-%H%M%S")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SettingsError(
            f"{name!r} is not a plain name for a run.", "Use letters, digits, - _ ."
        )
    if (RUNS / name).exists():
        raise SettingsError(f"The run {RUNS / name} exists already.", "Give another --name.")
    folder = RUNS / f".unfinished-{digest(identity)[:16]}"
    lock = folder.with_suffix(".lock")
    make_folders(RUNS)
    with try_lock(lock) as free:
        if not free:
            raise SettingsError("The same is being trained by another process.", "Wait.")
        check_tree(folder)
        make_folders(folder)
        try:
            yield name, folder
            _publish(folder, RUNS / name)
        except BaseException:
            if not (folder / CHECKPOINT).is_dir():
                remove_tree(folder)
            raise
        remove_tree(RUNS / name / CHECKPOINT)
    discard(lock)


def _publish(folder: Path, target: Path) -> None:
    """Renames a folder when all its files are on the medium.

    Raises:
        SettingsError: Another run has taken the name meanwhile.
    """
    if (folder / "config.json").is_file():  # the time of the run
        touch_after(folder / "config.json", RUNS.glob("[!.]*/config.json"))
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
    try:
        DISK.rename(folder, target)
    except OSError as error:
        if not (target.exists() or target.is_symlink()):
            raise
        raise SettingsError(
            f"The run {target} exists by now.",
            "Run the same command with another --name: the training is kept.",
        ) from error
    sync(RUNS)
