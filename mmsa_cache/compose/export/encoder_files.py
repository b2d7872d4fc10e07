"""Copies encoders into an export, file by file by a list of known names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from extract.encoders.folder import (
    TOKENIZER_FILES,
    WEIGHTS,
    WEIGHTS_INDEX,
    find_files,
    find_weight_files,
    read_config,
)
from mmsa_cache.errors import ModelError
from mmsa_cache.files.disk import DISK, copy_new, make_folders

from ..export_folder import ENCODER_FILES, ENCODERS, TENSORS, most_bytes
from ..session.path_policy import ENCODER_PATHS, PathPolicy

_WEIGHTS = ("pretrained", "random")
"""Values of ``image.weights`` that name no file."""


def copy_encoders(values: dict[str, Any], folder: Path, policy: PathPolicy) -> None:
    """Copies the encoders of dumped settings into an export, and changes their paths.

    Raises:
        ModelError: The run may not name a path, or it is no encoder.
    """
    for name, sections in [("", values), *values["encoders"].items()]:
        joint = sections["joint"] is not None and sections["joint"]["model"] is not None
        for section, key in ENCODER_PATHS:
            if sections[section] is not None and joint == (section == "joint"):
                target = f"{section}-{name}" if name else section
                sections[section][key] = _copy_model(folder, target, sections[section][key], policy)


def _copy_model(folder: Path, section: str, name: str, policy: PathPolicy) -> str:
    """Copies an encoder's file or folder; returns its path in the export.

    Names of the hub or of a package are returned as they are. For missing files, the path where
    they can be put later is returned.
    """
    source = Path(name)
    if name in _WEIGHTS or not source.exists():
        return f"{ENCODERS}/{section}/{source.name}" if source.is_absolute() else name
    policy.require(source, f"the run's {section} model")
    return copy_encoder(source, folder / ENCODERS / section).relative_to(folder).as_posix()


def copy_encoder(source: Path, target: Path) -> Path:
    """Copies a model's folder, or a file of weights, into an export.

    Args:
        source: The folder or file.
        target: Folder to make in the export.

    Returns:
        The copy.

    Raises:
        ModelError: It is neither, or one of its files is a link. Nothing is copied.
    """
    if not source.is_dir():
        if source.suffix != TENSORS or source.is_symlink():
            raise ModelError(
                f"{source} is no file of weights (*.safetensors), or a link: it is not copied.",
                "Give a file of its own.",
            )
        names, source, copy = [source.name], source.parent, target
    else:
        names, copy = _file_names(source), target / source.resolve().name
    make_folders(target.parent)
    for folder in (target, copy):
        DISK.make_folder(folder)
    for name in names:
        try:
            copy_new(source / name, copy / name, most_bytes(name))
        except ValueError as error:
            raise ModelError(f"{source / name} cannot be copied: {error}.") from error
    return copy if copy != target else target / names[0]


def _file_names(folder: Path) -> list[str]:
    """Sorted names of the files of a model's folder.

    Raises:
        ModelError: It is no such folder, or has tokenizer or weight files of unknown names.
    """
    try:
        read_config(folder)
        names = ENCODER_FILES & {path.name for path in folder.iterdir()}
        if names & {WEIGHTS, WEIGHTS_INDEX}:
            names |= {path.name for path in find_weight_files(folder)}
        links = sorted(name for name in names if (folder / name).is_symlink())
        if links:
            raise ValueError(f"no link is copied ({', '.join(links)})")
        # All of these are part of the encoder's identity.
        hashed = {path.name for path in find_files(folder, (*TOKENIZER_FILES, f"*{TENSORS}"))}
        if hashed - names:
            unknown = ", ".join(sorted(hashed - names))
            raise ValueError(f"it holds files of unknown names ({unknown})")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} is not copied: {error}.", "Give a Hugging Face model folder of plain files."
        ) from error
    return sorted(names)
