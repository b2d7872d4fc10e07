"""The folder of an export: which files it has, and how one appears complete, in place of an older
export alone."""

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
from mmsa_cache.files.locks import held_if_free
from mmsa_cache.files.paths import declared, refuse_link
from mmsa_cache.files.untrusted import parse_json, read_plain
from mmsa_cache.json_value import object_at
from mmsa_cache.runs.folder import MODEL_FILE

MODEL_TYPE = "mmsa"
CONFIG, METRICS, CARD, ONNX_FILE = "config.json", "metrics.json", "README.md", "model.onnx"
OWN_FILES = (CONFIG, METRICS, CARD, ONNX_FILE, MODEL_FILE)
"""Beside its encoders."""
ENCODERS = "encoders"
PARTS = ("text", "image", "joint")
ENCODER_FILES = {
    *(ENCODER_CONFIG, WEIGHTS, WEIGHTS_INDEX, PREPROCESSOR, PROCESSOR),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "vocab.bpe", "merges.txt", "bpe.codes", "dict.txt"),
    *("sentencepiece.bpe.model", "sentencepiece.model", "spiece.model", "spm.model"),
}
"""Of a model's folder, beside its weights."""
TENSORS = ".safetensors"
MOST_TEXT, MOST_WEIGHTS = 64 << 20, 64 << 30
"""Bytes of one file."""
_PLAIN_NAME = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*")
"""Of a folder or file from elsewhere."""


def most_bytes(name: str) -> int:
    """Limit of a file of an export."""
    return MOST_WEIGHTS if name.endswith((TENSORS, ".onnx")) else MOST_TEXT


def is_of_export(path: str) -> bool:
    """Whether a file is one of an export by its path in it."""
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
        config = parse_json(read_plain(folder / CONFIG, MOST_TEXT, links=False))
        return object_at(config).get("model_type") == MODEL_TYPE
    except (OSError, ValueError):
        return False


@contextmanager
def whole_folder(target: Path, force: bool) -> Iterator[Path]:
    """Makes a folder under a temporary name and renames it when it is complete.

    Args:
        target: The folder.
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
    found = sorted(_foreign(target))
    if found:
        raise SettingsError(
            f"{target} holds what mmsa export did not write: nothing was replaced.",
            "Move it away, or give another --to.",
            found,
        )


def _foreign(target: Path) -> Iterator[str]:
    """What lies in an export and is none of its files; of a foreign folder its name alone."""
    for above, folders, files in os.walk(target):
        inside = Path(above).relative_to(target).parts
        for name in files:
            if Path(above, name).is_symlink() or not _is_own((*inside, name)):
                yield "/".join((*inside, name))
        for name in list(folders):
            if Path(above, name).is_symlink() or not _is_own_folder((*inside, name)):
                folders.remove(name)
                yield "/".join((*inside, name, ""))


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
