"""Whether files that came from somewhere are what their host says, and a store."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import numpy as np

from mmsa_cache.data.stored import read_split
from mmsa_cache.errors import DamagedCacheError, DiskError, MmsaError
from mmsa_cache.files.disk import DISK
from mmsa_cache.files.hashing import file_sha256
from mmsa_cache.files.untrusted import open_regular
from mmsa_cache.store.encoder import ENCODER, read_encoder
from mmsa_cache.store.index import INDEX, Index
from mmsa_cache.store.reader import Features, open_features, verify_features
from mmsa_cache.store.writer import FeatureWriter

from .host import Remote, RemoteFile
from .private import places_of

_HINT = "Nothing was put in place. Try again after a push that may be going on, or tell its owner."


def difference(path: Path, wanted: RemoteFile, teller: str) -> str:
    """How a file differs from what its host says of it; empty where it does not."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    if found.st_size != wanted.size:
        return f"it has {found.st_size} bytes, {teller} says {wanted.size}"
    if wanted.sha256 is not None:
        other = file_sha256(path) != wanted.sha256
    elif wanted.blob is None:
        return ""
    else:
        content = hashlib.sha1(b"blob %d\0" % found.st_size, usedforsecurity=False)
        with open_regular(path, links=False) as file:
            while piece := file.read(1 << 20):
                content.update(piece)
        other = content.hexdigest() != wanted.blob
    return f"it has another hash than {teller} says" if other else ""


def is_same(path: Path, wanted: RemoteFile, teller: str) -> bool:
    """Whether a file is there that is, by its hash, the one that a host has."""
    return wanted.is_hashed and path.exists() and not difference(path, wanted, teller)


def verify(staging: Path, remote: Remote, teller: str) -> tuple[list[str], dict[str, int]]:
    """Checks all files as a store; the encoders, and the rows of each split.

    Raises:
        DamagedCacheError: With everything that is wrong.
    """
    problems = []
    for name, wanted in remote.files.items():
        path = staging / name
        differs = difference(path, wanted, teller) if path.exists() else "it did not come"
        if differs:
            problems.append(f"{name}: {differs}")
    if not problems:
        encoders, splits, problems = _read_all(staging, remote)
    if problems:
        raise DamagedCacheError("What was pulled is no store.", _HINT, problems)
    return encoders, splits


def _read_all(staging: Path, remote: Remote) -> tuple[list[str], dict[str, int], list[str]]:
    encoders: list[str] = []
    splits: dict[str, int] = {}
    problems: list[str] = []
    for name in sorted({name.rpartition("/")[0] for name in remote.files}):
        try:
            if name == "data":
                for path in sorted((staging / name).glob("*.parquet")):
                    about, samples = read_split(path)
                    splits[about.split] = len(samples)
                    problems += [f"{path.name}: {place}" for place in places_of(about.told)]
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


def _check_features(staging: Path, name: str, remote: Remote, encoders: list[str]) -> list[str]:
    folder = staging / name
    encoder, index = read_encoder(folder), Index.read(folder)
    named = {ENCODER, INDEX, *(entry.file for entry in index.entries.values())}
    have = {file.rpartition("/")[2] for file in remote.files if file.startswith(f"{name}/")}
    problems = [f"{name}/{file}: its index does not name it" for file in sorted(have - named)]
    problems += [f"{name}/{file}: it is missing" for file in sorted(named - have)]
    problems += [f"{name}: it names {place}" for place in places_of(encoder.told)]
    if not problems:
        problems = verify_features(folder)
    if not problems:
        if _has_twins(open_features(folder, verify=False)):
            DISK.remove(folder / INDEX)
            with FeatureWriter(staging, encoder).claim(lambda: None):
                pass  # it adopts what no index names, each row once
        encoders.append(encoder.identity.label)
    return problems


def _has_twins(features: Features) -> bool:
    """Whether rows are there twice: sealed by two drivers."""
    keys = np.concatenate([shard.keys for shard in features.shards])
    return bool((features.find_rows(keys) != np.arange(len(keys))).any())
