"""Verifies downloaded files: against their host, and as a store."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import numpy as np

from mmsa_cache.data.stored_split import read_split
from mmsa_cache.errors import DamagedCacheError, DiskError, MmsaError
from mmsa_cache.files.disk import DISK
from mmsa_cache.files.hashing import file_sha256
from mmsa_cache.files.untrusted import open_regular
from mmsa_cache.store.encoder import ENCODER, read_encoder
from mmsa_cache.store.index import INDEX, Index
from mmsa_cache.store.reader import Features, open_features, verify_features
from mmsa_cache.store.writer import FeatureWriter

from .host import RemoteFile, RemoteStore
from .private import foreign_paths

_HINT = "Nothing was put in place. Try again after a push that may be going on, or tell its owner."


def describe_difference(path: Path, file: RemoteFile, source: str) -> str:
    """How a local file differs from that of a host; empty where it does not.

    Args:
        path: The local file.
        file: The file of the host.
        source: Name of the host in messages.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_size != file.size:
        return f"it has {status.st_size} bytes, {source} says {file.size}"
    if file.sha256 is not None:
        differs = file_sha256(path) != file.sha256
    elif file.blob is None:
        return ""
    else:
        content = hashlib.sha1(b"blob %d\0" % status.st_size, usedforsecurity=False)
        with open_regular(path, links=False) as stream:
            while piece := stream.read(1 << 20):
                content.update(piece)
        differs = content.hexdigest() != file.blob
    return f"it has another hash than {source} says" if differs else ""


def matches_remote(path: Path, file: RemoteFile, source: str) -> bool:
    """Whether a local file exists and has the hash of a host's file."""
    return file.is_hashed and path.exists() and not describe_difference(path, file, source)


def verify(staging: Path, remote: RemoteStore, source: str) -> tuple[list[str], dict[str, int]]:
    """Verifies all downloaded files as a store.

    Returns:
        Names of the encoders, and the number of rows of each split.

    Raises:
        DamagedCacheError: Lists all problems.
    """
    problems = []
    for name, file in remote.files.items():
        path = staging / name
        problem = describe_difference(path, file, source) if path.exists() else "it did not come"
        if problem:
            problems.append(f"{name}: {problem}")
    if not problems:
        encoders, splits, problems = _read_all(staging, remote)
    if problems:
        raise DamagedCacheError("What was pulled is no store.", _HINT, problems)
    return encoders, splits


def _read_all(staging: Path, remote: RemoteStore) -> tuple[list[str], dict[str, int], list[str]]:
    encoders: list[str] = []
    splits: dict[str, int] = {}
    problems: list[str] = []
    for name in sorted({name.rpartition("/")[0] for name in remote.files}):
        try:
            if name == "data":
                for path in sorted((staging / name).glob("*.parquet")):
                    about, samples = read_split(path)
                    splits[about.split] = len(samples)
                    problems += [f"{path.name}: {foreign}" for foreign in foreign_paths(about.told)]
                    if about.split != path.stem:
                        problems.append(f"{path.name} holds the split {about.split!r}")
            else:
                problems += _check_features(staging, name, remote, encoders)
        except DiskError:
            raise
        except MmsaError as error:
            problems.append(error.message.replace(f"{staging}/", ""))
    if not splits or not encoders:
        problems.append("it has no split, or no features")
    return encoders, splits, problems


def _check_features(
    staging: Path, name: str, remote: RemoteStore, encoders: list[str]
) -> list[str]:
    """Checks the features in a folder; adds the encoder to `encoders` if they are sound."""
    folder = staging / name
    encoder, index = read_encoder(folder), Index.read(folder)
    indexed = {ENCODER, INDEX, *(entry.file for entry in index.entries.values())}
    files = {file.rpartition("/")[2] for file in remote.files if file.startswith(f"{name}/")}
    problems = [f"{name}/{file}: its index does not name it" for file in sorted(files - indexed)]
    problems += [f"{name}/{file}: it is missing" for file in sorted(indexed - files)]
    problems += [f"{name}: it names {path}" for path in foreign_paths(encoder.told)]
    if not problems:
        problems = verify_features(folder)
    if not problems:
        if _has_duplicates(open_features(folder, verify=False)):
            DISK.remove(folder / INDEX)
            with FeatureWriter(staging, encoder).claim(lambda: None):
                pass  # adopts the shards without an index, each row once
        encoders.append(encoder.identity.label)
    return problems


def _has_duplicates(features: Features) -> bool:
    """Whether two drivers have sealed the same row."""
    keys = np.concatenate([shard.keys for shard in features.shards])
    return bool((features.find_rows(keys) != np.arange(len(keys))).any())
