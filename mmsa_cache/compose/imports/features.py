"""``mmsa cache import``: adds features of other programs to the store.

Files are read twice, piece by piece: all of them are checked before anything is written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.compose.extraction.reading import Split, read_splits
from mmsa_cache.compose.session.completion import use_stored_data_settings
from mmsa_cache.compose.session.path_policy import PathPolicy
from mmsa_cache.compose.session.store import Store
from mmsa_cache.config.settings import ALL, Settings
from mmsa_cache.console import progress, say
from mmsa_cache.errors import DataError, SettingsError
from mmsa_cache.files.hashing import file_sha256
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, SPLITS, check_split, unknown_name
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.fingerprint import Fields
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.writer import FeatureWriter

from .files import (
    HINT,
    ImportRequest,
    describe_differences,
    list_guids,
    open_files,
    read_pieces,
)
from .matching import MatchedRows, match_rows
from .source import FeatureFile
from .values import DuplicateCheck, find_faults, make_shard

_NAME = r"\w[\w.+@:/-]{0,199}"
Splits = Mapping[str, Split]


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import."""

    modality: str
    encoder: str
    directory: str
    rows: int
    """Rows of the files."""
    rows_new: int
    """Rows that were not in the store."""
    rows_shared: int
    """Rows with the content of an earlier row."""
    splits: dict[str, int]
    """Rows of each split."""
    dim: int
    tokens: bool
    bytes: int


def import_features(settings: Settings, request: ImportRequest) -> Imported:
    """Imports all files, or none if there is a problem.

    Raises:
        SettingsError: The request is invalid.
        DataError: With every problem of the files at once.
        DiskError: Something cannot be written; what is sealed stays, the same command resumes.
        MmsaError: As reading the data raises.
    """
    _check_request(request)
    store = Store(settings.cache.dir)
    policy = PathPolicy(settings, store.root)
    completed = use_stored_data_settings(settings, store, policy, extracting=True)
    splits, is_new = _splits(completed, store, request.split)
    tables = {name: split.samples for name, split in splits.items()}
    files = open_files(request, sum(map(len, tables.values())))
    matched, problems = match_rows(list_guids(request, files, tables), tables, request.modality)
    problems += describe_differences(files)
    is_first, content = matched.group_by_content()
    duplicates = DuplicateCheck(content)
    problems += _check_values(files, matched, duplicates)
    if problems:
        raise DataError(f"{len(problems)} problem(s) with the features to import.", HINT, problems)
    encoder = _encoder(settings, request, files, matched)
    _note_same_name(store, encoder)
    if is_new:
        for split in splits.values():
            split.write(store.root)
    writer = FeatureWriter(store.root, encoder)
    with writer.claim(lambda: say("Another process is writing these features; waiting.")):
        new = _write_rows(writer, files, matched.keys, is_first, f"importing {request.name}")
        writer.finish()
    _report(splits, matched, duplicates, int(is_first.sum()) - new)
    return Imported(
        request.modality,
        encoder.identity.label,
        str(writer.folder),
        len(matched.keys),
        new,
        int((~is_first).sum()),
        matched.splits,
        files[0].dim,
        files[0].tokens,
        writer.bytes,
    )


def _write_rows(
    writer: FeatureWriter,
    files: Sequence[FeatureFile],
    keys: Keys,
    is_first: NDArray[np.bool_],
    title: str,
) -> int:
    """Writes the first row of each content; returns how many the store did not have."""
    new = 0
    with progress(title, len(keys), "rows") as advance:
        for start, file, rows in read_pieces(files):
            end = start + len(rows)
            shard = make_shard(rows, keys[start:end], tokens=file.tokens)
            selected = is_first[start:end].nonzero()[0]
            if len(selected):
                new += writer.publish(shard if len(selected) == len(rows) else shard.take(selected))
            advance(len(rows), "")
    return new


def _check_request(request: ImportRequest) -> None:
    if request.modality not in MODALITIES:
        raise unknown_name("Unknown modality", request.modality, MODALITIES)
    check_split(request.split, (*SPLITS, ALL))
    for what in (request.name, request.weights or request.name):
        if not re.fullmatch(_NAME, what):
            raise SettingsError(
                f"{what[:100]!r} is no name of an encoder or of weights.",
                "Write letters, digits and . _ + @ : / -, 200 at most.",
            )


def _splits(settings: Settings, store: Store, split: str) -> tuple[Splits, bool]:
    """The splits that rows may belong to, and whether they are new to the store."""
    names = SPLITS if split == ALL else (split,)
    stored = {name: Split(*of) for name in names if (of := store.split(name)) is not None}
    if stored:
        return stored, False
    return {new.about.split: new for new in read_splits(settings, store, split)}, True


def _check_values(
    files: Sequence[FeatureFile], matched: MatchedRows, duplicates: DuplicateCheck
) -> list[str]:
    """Reads all rows: returns the problems of their values, and counts duplicates."""
    problems = []
    with progress("checking", len(matched.guids), "rows") as advance:
        for start, file, rows in read_pieces(files):
            problems += [
                f"{file.path}: guid {matched.guids[start + row]}: {fault}"
                for row, fault in find_faults(rows)
            ]
            duplicates.add(start, rows)
            advance(len(rows), "")
    return problems


def _encoder(
    settings: Settings, request: ImportRequest, files: Sequence[FeatureFile], matched: MatchedRows
) -> StoredEncoder:
    """The record of the encoder, which later commands find by the model of its modality."""
    tokens = "keep" if files[0].tokens else "none"
    fields: Fields = {
        "modality": request.modality,
        "encoder": request.name,
        "imported": True,
        "weights": request.weights or _hash(files, matched),
        "dim": files[0].dim,
        "tokens": tokens,
        "compute": str(files[0].dtype),
        "device": "imported",
    }
    told: Fields = {
        request.modality: {"model": request.name},
        "joint": {"model": None},
        "tokens": tokens,
        "seed": settings.seed,
    }
    return StoredEncoder.of(EncoderIdentity.of_fields(fields), (DEFAULT_ENCODER,), told)


def _hash(files: Sequence[FeatureFile], matched: MatchedRows) -> str:
    """sha256 of the files and of the keys of their rows."""
    total = hashlib.sha256()
    for path in dict.fromkeys(file.path for file in files):
        total.update(bytes.fromhex(file_sha256(path)))
    total.update(matched.keys.tobytes())
    return f"sha256:{total.hexdigest()}"


def _note_same_name(store: Store, encoder: StoredEncoder) -> None:
    """Tells the user of other imported encoders of this name: all splits need the same one."""
    own = encoder.identity
    same_name = [e.identity for e in store.encoders(own.modality) if e.identity.name == own.name]
    if any(other.imported and other != own for other in same_name):
        say(
            f"Note: the store holds other {own.modality} features of {own.name}. If both are of "
            "the same encoder, import them with the same --weights-name."
        )


def _report(
    splits: Splits, matched: MatchedRows, duplicates: DuplicateCheck, in_store: int
) -> None:
    """Tells the user about rows that were not written, and splits without rows or copies."""
    if in_store:
        say(f"{in_store} rows were in the store, and stay as they are.")
    if duplicates.differing:
        say(
            f"Note: {duplicates.differing} rows have the same content as an earlier row, but other "
            "features; the first ones count."
        )
    for name, split in splits.items():
        if name not in matched.splits:
            say(f"No row is of the split {name}.")
        elif any(split.about.copies.values()):
            say(
                f"Note: imported features are of originals only; {name} has augmented copies, "
                "which training leaves out with these features."
            )
