"""The folder of an export: its files, and how it is written or replaced atomically."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extract.encoders.folder import CONFIG as ENCODER_CONFIG
from extract.encoders.folder import WEIGHTS, WEIGHTS_INDEX
from extract.encoders.preprocessing import PREPROCESSOR, PROCESSOR
from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import DISK, discard, make_folders, remove_tree
from mmsa_cache.files.locks import try_lock
from mmsa_cache.files.paths import refuse_link, resolve_declared
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.json_value import object_at
from mmsa_cache.runs.folder import MODEL_FILE

MODEL_TYPE = "mmsa"
CONFIG, METRICS, CARD, ONNX_FILE = "config.json", "metrics.json", "README.md", "model.onnx"
OWN_FILES = (CONFIG, METRICS, CARD, ONNX_FILE, MODEL_FILE)
"""Files of an export beside its encoders."""
ENCODERS = "encoders"
PARTS = ("text", "image", "joint")
ENCODER_FILES = {
    *(ENCODER_CONFIG, WEIGHTS, WEIGHTS_INDEX, PREPROCESSOR, PROCESSOR),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "vocab.bpe", "merges.txt", "bpe.codes", "dict.txt"),
    *("sentencepiece.bpe.model", "sentencepiece.model", "spiece.model", "spm.model"),
}
"""Files of a model's folder beside its weights."""
TENSORS = ".safetensors"
MOST_TEXT, MOST_WEIGHTS = 64 << 20, 64 << 30
"""Limits of one file, in bytes."""
_PLAIN_NAME = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*")
"""Allowed names of folders and files."""


def most_bytes(name: str) -> int:
    """Size limit of a file of an export."""
    return MOST_WEIGHTS if name.endswith((TENSORS, ".onnx")) else MOST_TEXT


def is_of_export(path: str) -> bool:
    """Whether a path in an export is one of its files."""
    parts = tuple(path.split("/"))
    folders = (parts[:end] for end in range(1, len(parts)))
    return (
        all(map(_PLAIN_NAME.fullmatch, parts))
        and all(map(_is_own_folder, folders))
        and _is_own(parts)
    )


def is_export(folder: Path) -> bool:
    """Whether a folder holds the record of an export."""
    try:
        config = parse_json(read_regular(folder / CONFIG, MOST_TEXT, links=False))
        return object_at(config).get("model_type") == MODEL_TYPE
    except (OSError, ValueError):
        return False


@contextmanager
def whole_folder(target: Path, force: bool) -> Iterator[Path]:
    """Writes a folder under a temporary name and renames it when it is complete.

    Args:
        target: The folder.
        force: Whether an older export is replaced.

    Raises:
        SettingsError: The name is taken, or another process exports to it.
        LinkError: The path contains a link.
    """
    target = Path(os.path.abspath(resolve_declared(target)))  # noqa: PTH100  (no link is followed)
    unfinished, replaced, lock = (
        target.parent / f".{target.name}.{end}" for end in ("unfinished", "replaced", "lock")
    )
    make_folders(target.parent)
    with try_lock(lock) as free:
        if not free:
            raise SettingsError(f"Another process exports to {target}.", "Wait.")
        try:
            if replaced.is_dir() and not target.exists():  # killed between the two renames
                DISK.rename(replaced, target)
            remove_tree(unfinished)
            remove_tree(replaced)
            _check_free(target, force)
            DISK.make_folder(unfinished, fresh=True)
            yield unfinished
            if target.exists():
                DISK.rename(target, replaced)
            DISK.rename(unfinished, target)
        finally:
            remove_tree(unfinished)
            remove_tree(replaced)
            discard(lock)


def _check_free(target: Path, force: bool) -> None:
    refuse_link(target)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not force:
        raise SettingsError(f"{target} exists already.", "Give another --to, or add --force.")
    if not is_export(target):
        raise SettingsError(
            f"{target} is not a folder that mmsa export made, so it is not replaced.",
            "Give another --to, or remove it.",
        )
    foreign = sorted(_foreign_paths(target))
    if foreign:
        raise SettingsError(
            f"{target} holds what mmsa export did not write: nothing was replaced.",
            "Move it away, or give another --to.",
            foreign,
        )


def _foreign_paths(target: Path) -> Iterator[str]:
    """Paths in an export that are not its own; foreign folders without their content."""
    for parent, folders, files in os.walk(target):
        parts = Path(parent).relative_to(target).parts
        for name in files:
            if Path(parent, name).is_symlink() or not _is_own((*parts, name)):
                yield "/".join((*parts, name))
        for name in list(folders):
            if Path(parent, name).is_symlink() or not _is_own_folder((*parts, name)):
                folders.remove(name)
                yield "/".join((*parts, name, ""))


def _is_own(parts: tuple[str, ...]) -> bool:
    if len(parts) == 1:
        return parts[0] in OWN_FILES
    if len(parts) == 3:
        return parts[2].endswith(TENSORS)
    return len(parts) == 4 and (parts[3] in ENCODER_FILES or parts[3].endswith(TENSORS))


def _is_own_folder(parts: tuple[str, ...]) -> bool:
    return (
        parts[0] == ENCODERS
        and (len(parts) == 1 or parts[1].partition("-")[0] in PARTS)
        and len(parts) <= 3
    )
