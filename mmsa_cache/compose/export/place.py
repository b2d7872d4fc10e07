"""Where an export goes: a folder that appears complete, in place of an older export alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsa_cache.disk import DISK, discard, make_folders, remove_tree
from mmsa_cache.errors import SettingsError
from mmsa_cache.locks import held_if_free
from mmsa_cache.paths import declared, refuse_link
from mmsa_cache.untrusted import parse_json, read_plain

from .encoder_files import is_encoder_file

MODEL_TYPE = "mmsa"
CONFIG, METRICS, CARD, ONNX_FILE = "config.json", "metrics.json", "README.md", "model.onnx"
ENCODERS = "encoders"
PARTS = ("text", "image", "joint")
_MOST_BYTES = 64 << 20
"""Of ``config.json``."""


@contextmanager
def whole_folder(target: Path, own: tuple[str, ...], force: bool) -> Iterator[Path]:
    """Makes a folder under a temporary name and renames it when it is complete.

    Args:
        target: The folder.
        own: Names of the files of an export beside its encoders.
        force: Whether an older export is replaced.

    Raises:
        SettingsError: The name is taken, or another process exports to it.
        LinkError: It is a link, or lies behind one.
    """
    target = Path(os.path.abspath(declared(target)))  # noqa: PTH100  (no link is followed)
    unfinished, replaced, lock = (
        target.parent / f".{target.name}.{end}" for end in ("unfinished", "replaced", "lock")
    )
    make_folders(target.parent)
    with held_if_free(lock) as free:
        if not free:
            raise SettingsError(f"Another process exports to {target}.", "Wait.")
        try:
            if replaced.is_dir() and not target.exists():  # a kill came between two renames
                DISK.rename(replaced, target)
            remove_tree(unfinished)
            remove_tree(replaced)
            _check_free(target, own, force)
            DISK.make_folder(unfinished, fresh=True)
            yield unfinished
            if target.exists():
                DISK.rename(target, replaced)
            DISK.rename(unfinished, target)
        finally:
            remove_tree(unfinished)
            remove_tree(replaced)
            discard(lock)


def _check_free(target: Path, own: tuple[str, ...], force: bool) -> None:
    refuse_link(target)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not force:
        raise SettingsError(f"{target} exists already.", "Give another --to, or add --force.")
    try:
        config = parse_json(read_plain(target / CONFIG, _MOST_BYTES, links=False))
        ours = config["model_type"] == MODEL_TYPE
    except (OSError, ValueError, LookupError, TypeError):
        ours = False
    if not ours:
        raise SettingsError(
            f"{target} is not a folder that mmsa export made, so it is not replaced.",
            "Give another --to.",
        )
    found = sorted(_foreign(target, own))
    if found:
        raise SettingsError(
            f"{target} holds what mmsa export did not write: nothing was replaced.",
            "Move it away, or give another --to.",
            found,
        )


def _foreign(target: Path, own: tuple[str, ...]) -> Iterator[str]:
    """What lies in an export and is none of its files; of a foreign folder its name alone."""
    for above, folders, files in os.walk(target):
        inside = Path(above).relative_to(target).parts
        for name in files:
            if Path(above, name).is_symlink() or not _is_own((*inside, name), own):
                yield "/".join((*inside, name))
        for name in list(folders):
            if Path(above, name).is_symlink() or not _is_own_folder((*inside, name)):
                folders.remove(name)
                yield "/".join((*inside, name, ""))


def _is_own(parts: tuple[str, ...], own: tuple[str, ...]) -> bool:
    if len(parts) == 1:
        return parts[0] in own
    if len(parts) == 3:
        return parts[2].endswith(".safetensors")
    return len(parts) == 4 and is_encoder_file(parts[3])


def _is_own_folder(parts: tuple[str, ...]) -> bool:
    return (
        parts[0] == ENCODERS
        and (len(parts) == 1 or parts[1].partition("-")[0] in PARTS)
        and len(parts) <= 3
    )
