"""Refuses calls that open, move or remove files outside the few modules that may: ``make lint``.

What is written goes through `mmsa_cache.files.disk`, which follows no link; what is read through
`mmsa_cache.files.untrusted`, which takes regular files up to a size. ``python -m tests.lint``
prints what does otherwise.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mmsa_cache", "extract", "fuse")
ALLOWED = {f"mmsa_cache/files/{name}.py" for name in ("disk", "paths", "temporary", "untrusted")}
"""The modules through which all others do it."""
MODULES = {
    "": "open",
    "io": "open open_code FileIO",
    "os": "open link symlink mkfifo mknod truncate mkdir makedirs rename renames replace remove "
    "removedirs rmdir unlink chmod chown utime",
    "shutil": "copy copy2 copyfile copymode copystat copytree move rmtree chown make_archive "
    "unpack_archive",
    "tempfile": "NamedTemporaryFile TemporaryDirectory TemporaryFile SpooledTemporaryFile "
    "mkdtemp mkstemp mktemp",
    "gzip": "open GzipFile",
    "zipfile": "ZipFile",
    "tarfile": "open TarFile",
    "numpy": "load save savez savez_compressed savetxt fromfile loadtxt genfromtxt memmap",
    "torch": "load save",
    "safetensors": "safe_open",
    "safetensors.torch": "load_file save_file load_model save_model",
    "safetensors.numpy": "load_file save_file",
    "h5py": "File",
    "filelock": "FileLock SoftFileLease SoftFileLock UnixFileLock WindowsFileLock",
    "PIL.Image": "open",
}
"""Functions by their module."""
METHODS = {
    *("read_bytes", "read_text", "write_bytes", "write_text", "touch", "chmod", "tofile"),
    *("mkdir", "unlink", "rmdir", "symlink_to", "hardlink_to"),
    *("save", "save_pretrained", "savefig", "to_csv", "to_json", "to_parquet"),
}
"""Of paths and others, whatever they are called on."""
_OPEN_KEYWORDS = {"mode", "buffering", "encoding", "errors", "newline"}

EXCEPTIONS = {
    ("extract/bench.py", "PIL.Image.open"): "the loop that is measured against",
    ("extract/encoders/timm_tower.py", "safetensors.torch.load_file"): "maps a checked file",
    ("extract/encoders/transformer.py", "safetensors.torch.load_file"): "maps checked files",
    ("extract/inputs/build_synonyms.py", ".read_text"): "a tool of whoever maintains the words",
    ("extract/inputs/build_synonyms.py", ".write_bytes"): "a tool of whoever maintains the words",
    ("extract/inputs/decode.py", "PIL.Image.open"): "of bytes",
    ("extract/inputs/synonyms.py", ".read_bytes"): "part of the package",
    ("fuse/bench.py", "h5py.File"): "the loop that is measured against",
    ("fuse/export/onnx_export.py", ".save"): "into a folder made just before",
    ("fuse/search/dispatch.py", ".open"): "of workers",
    ("fuse/training/runner.py", ".save"): "of a checkpoint, which writes through the disk",
    ("mmsa_cache/api/opening.py", "open"): "its own, of a session",
    ("mmsa_cache/compose/demo.py", ".save"): "into bytes",
    ("mmsa_cache/compose/bench/gpu/posts.py", ".save"): "into bytes",
    ("mmsa_cache/compose/bench/gpu/posts.py", ".save_pretrained"): "into a temporary folder",
    ("mmsa_cache/compose/pages/thumbnails.py", ".save"): "into bytes",
    ("mmsa_cache/compose/imports/arrays.py", "zipfile.ZipFile"): "of a file that is open",
    ("mmsa_cache/console.py", "io.FileIO"): "the null device",
    ("mmsa_cache/data/containers/tar.py", "tarfile.TarFile"): "of a file that is open",
    ("mmsa_cache/files/locks.py", "filelock.SoftFileLease"): "checks the path just before",
    ("mmsa_cache/files/locks.py", "filelock.SoftFileLock"): "makes a new file",
    ("mmsa_cache/store/shard_bytes.py", "h5py.File"): "into bytes",
    ("mmsa_cache/store/shard_file.py", "h5py.File"): "of a file that is open",
    ("mmsa_cache/features/source.py", "numpy.save"): "into a file of the disk",
    ("mmsa_cache/features/source.py", "numpy.load"): "maps what this process's parent wrote",
    ("mmsa_cache/compose/bench/gpu/stores.py", "numpy.savez"): "into a file of the disk",
    ("mmsa_cache/compose/bench/gpu/stores.py", "numpy.load"): "of a file that is open",
}
"""File and call → why."""


def findings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every such call in a module."""
    names = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _dotted(node.func, names)
            module, _, function = name.rpartition(".")
            if function in MODULES.get(module, "").split():
                yield node.lineno, name
            elif isinstance(node.func, ast.Attribute) and _is_of_a_path(node, node.func.attr):
                yield node.lineno, f".{node.func.attr}"


def _imported(tree: ast.AST) -> dict[str, str]:
    """What the names that a module imports stand for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """``numpy.save`` for ``np.save``; empty for what is no chain of names."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _is_of_a_path(call: ast.Call, name: str) -> bool:
    """Whether a method's call is one of a path, as far as its arguments tell."""
    keywords = {keyword.arg for keyword in call.keywords}
    if name in ("rename", "replace"):  # those of texts take two, those of dates only keywords
        return len(call.args) == 1 and not keywords
    if name == "open":
        texts = [isinstance(a, ast.Constant) and isinstance(a.value, str) for a in call.args]
        return not (call.args or keywords) or any(texts) or bool(keywords & _OPEN_KEYWORDS)
    return name in METHODS and (name != "save" or bool(call.args))


def problems() -> list[str]:
    """What is to be changed, a line each."""
    found: list[str] = []
    unused = set(EXCEPTIONS)
    for path in sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        if file in ALLOWED:
            continue
        for line, name in findings(ast.parse(path.read_bytes())):
            unused.discard((file, name))
            if (file, name) not in EXCEPTIONS:
                found.append(f"{file}:{line}: {name}: use mmsa_cache.files.disk or .untrusted")
    return [*found, *(f"tests/lint.py: {file} has no {name}" for file, name in sorted(unused))]


if __name__ == "__main__":
    lines = problems()
    print("\n".join(lines) or "Files are opened through mmsa_cache.files.disk and untrusted alone.")
    sys.exit(bool(lines))
