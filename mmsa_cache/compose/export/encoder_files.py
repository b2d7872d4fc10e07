"""The files of an encoder that an export carries: those of a model by their names, nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from mmsa_cache.disk import DISK, copy_new, make_folders
from mmsa_cache.errors import ModelError
from mmsa_cache.untrusted import parse_json, read_plain

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_NAMES = {
    *(_CONFIG, _WEIGHTS, _INDEX, "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "vocab.bpe", "merges.txt", "bpe.codes", "dict.txt"),
    *("sentencepiece.bpe.model", "sentencepiece.model", "spiece.model", "spm.model"),
}
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_MOST_TEXT, _MOST_WEIGHTS = 64 << 20, 64 << 30
"""Bytes of one file."""


def is_encoder_file(name: str) -> bool:
    """Whether a file of this name belongs to a model's folder."""
    return name in _NAMES or _SHARD.fullmatch(name) is not None


def copy_encoder(source: Path, target: Path) -> Path:
    """Copies a model's folder, or a file of weights, into an export.

    Args:
        source: The folder or file.
        target: Folder to make in the export.

    Returns:
        The copy.

    Raises:
        ModelError: It is neither, or one of its files is a link. Nothing was copied then.
    """
    if not source.is_dir():
        if source.suffix != ".safetensors" or source.is_symlink():
            raise ModelError(
                f"{source} is no file of weights (*.safetensors), or a link: it is not copied.",
                "Give a file of its own.",
            )
        names, source, copy = [source.name], source.parent, target
    else:
        names, copy = _names(source), target / source.resolve().name
    make_folders(target.parent)
    for folder in (target, copy):
        DISK.make_folder(folder)
    for name in names:
        limit = _MOST_WEIGHTS if name.endswith(".safetensors") else _MOST_TEXT
        try:
            copy_new(source / name, copy / name, limit)
        except ValueError as error:
            raise ModelError(f"{source / name} cannot be copied: {error}.") from error
    return copy if copy != target else target / names[0]


def _names(folder: Path) -> list[str]:
    """The files of a model's folder, sorted.

    Raises:
        ModelError: It is none.
    """
    try:
        config = parse_json(read_plain(folder / _CONFIG, _MOST_TEXT, links=False))
        kind = config.get("model_type") if isinstance(config, dict) else None
        if not isinstance(kind, str):
            raise ValueError("its config.json names no model_type")
        there = {path.name for path in folder.iterdir()}
        wanted = _NAMES & there
        if _INDEX in there:
            wanted |= _shards(parse_json(read_plain(folder / _INDEX, _MOST_TEXT, links=False)))
        links = sorted(name for name in wanted if (folder / name).is_symlink())
        if links:
            raise ValueError(f"no link is copied ({', '.join(links)})")
        if wanted - there:
            raise ValueError(f"it lacks {', '.join(sorted(wanted - there))}")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} is not copied: {error}.", "Give a Hugging Face model folder of plain files."
        ) from error
    return sorted(wanted)


def _shards(index: object) -> set[str]:
    """The files of weights that an index names."""
    found = index.get("weight_map") if isinstance(index, dict) else None
    names = set(found.values()) if isinstance(found, dict) else {None}
    if not all(isinstance(name, str) and _SHARD.fullmatch(name) for name in names):
        raise ValueError(f"{_INDEX} names other files than model-00001-of-00002.safetensors")
    return {str(name) for name in names}
