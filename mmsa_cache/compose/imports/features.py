"""``mmsa cache import``: features that somebody else computed become features of the store.

Files are read twice, piece by piece: everything is checked before anything is published.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from mmsa_cache.store.writer import FeatureWriter

from .files import HINT, ImportRequest, guids, pieces, sources, unlike
from .place import Placed, place
from .source import FeatureFile
from .values import Twins, faults, make_shard

_NAME = r"\w[\w.+@:/-]{0,199}"
Splits = Mapping[str, Split]


@dataclass(frozen=True, slots=True)
class Imported:
    """The outcome."""

    modality: str
    encoder: str
    directory: str
    rows: int
    """Rows of the files."""
    rows_new: int
    """Rows that were not in the store."""
    rows_shared: int
    """Rows whose content another row has."""
    splits: dict[str, int]
    """Rows of each split."""
    dim: int
    tokens: bool
    bytes: int


def import_features(settings: Settings, request: ImportRequest) -> Imported:
    """Imports files, or nothing of them.

    Raises:
        SettingsError: The request is none.
        DataError: With every problem of the files at once.
        DiskError: Something cannot be written; what is sealed stays, the same command resumes.
        MmsaError: As reading the data raises.
    """
    _check_request(request)
    store = Store(settings.cache.dir)
    told = use_stored_data_settings(
        settings, store, PathPolicy(settings, store.root), extracting=True
    )
    splits, is_new = _splits(told, store, request.split)
    tables = {name: split.samples for name, split in splits.items()}
    found = sources(request, sum(map(len, tables.values())))
    placed, problems = place(guids(request, found, tables), tables, request.modality)
    problems += unlike(found)
    is_first, content = placed.twins
    twins = Twins(content)
    problems += _faults(found, placed, twins)
    if problems:
        raise DataError(f"{len(problems)} problem(s) with the features to import.", HINT, problems)
    encoder = _encoder(settings, request, found, placed)
    _say_alike(store, encoder)
    if is_new:
        for split in splits.values():
            split.write(store.root)
    writer, new = FeatureWriter(store.root, encoder), 0
    with writer.claim(lambda: say("Another process is writing these features; waiting.")):
        with progress(f"importing {request.name}", len(placed.keys), "rows") as advance:
            for start, source, rows in pieces(found):
                end = start + len(rows)
                shard = make_shard(rows, placed.keys[start:end], tokens=source.tokens)
                kept = is_first[start:end].nonzero()[0]
                if len(kept):
                    new += writer.publish(shard if len(kept) == len(rows) else shard.take(kept))
                advance(len(rows), "")
        writer.finish()
    _say_outcome(splits, placed, twins, int(is_first.sum()) - new)
    return Imported(
        request.modality,
        encoder.identity.label,
        str(writer.folder),
        len(placed.keys),
        new,
        int((~is_first).sum()),
        placed.splits,
        found[0].dim,
        found[0].tokens,
        writer.bytes,
    )


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
    """The splits that rows may belong to, and whether the store does not have them yet."""
    names = SPLITS if split == ALL else (split,)
    stored = {name: Split(*found) for name in names if (found := store.split(name)) is not None}
    if stored:
        return stored, False
    return {found.about.split: found for found in read_splits(settings, store, split)}, True


def _faults(sources: Sequence[FeatureFile], placed: Placed, twins: Twins) -> list[str]:
    """Every row that cannot be features; looks at equal contents too."""
    problems = []
    with progress("checking", len(placed.guids), "rows") as advance:
        for start, source, rows in pieces(sources):
            problems += [
                f"{source.path}: guid {placed.guids[start + row]}: {fault}"
                for row, fault in faults(rows)
            ]
            twins.look(start, rows)
            advance(len(rows), "")
    return problems


def _encoder(
    settings: Settings, request: ImportRequest, sources: Sequence[FeatureFile], placed: Placed
) -> StoredEncoder:
    """The record of the encoder; later commands find it by the model of its modality."""
    tokens = "keep" if sources[0].tokens else "none"
    fields: Fields = {
        "modality": request.modality,
        "encoder": request.name,
        "imported": True,
        "weights": request.weights or _hash(sources, placed),
        "dim": sources[0].dim,
        "tokens": tokens,
        "compute": str(sources[0].dtype),
        "device": "imported",
    }
    told: Fields = {
        request.modality: {"model": request.name},
        "joint": {"model": None},
        "tokens": tokens,
        "seed": settings.seed,
    }
    return StoredEncoder.of(EncoderIdentity.of_fields(fields), (DEFAULT_ENCODER,), told)


def _hash(sources: Sequence[FeatureFile], placed: Placed) -> str:
    """sha256 of the files, and of which rows they are."""
    total = hashlib.sha256()
    for path in dict.fromkeys(source.path for source in sources):
        total.update(bytes.fromhex(file_sha256(path)))
    total.update(placed.keys.tobytes())
    return f"sha256:{total.hexdigest()}"


def _say_alike(store: Store, encoder: StoredEncoder) -> None:
    """Says that the store has others of this name: rows of two splits need one encoder."""
    own = encoder.identity
    alike = [e.identity for e in store.encoders(own.modality) if e.identity.name == own.name]
    if any(other.imported and other != own for other in alike):
        say(
            f"Note: the store holds other {own.modality} features of {own.name}. If both are of "
            "the same encoder, import them with the same --weights-name."
        )


def _say_outcome(splits: Splits, placed: Placed, twins: Twins, there: int) -> None:
    """Says what a reader must know of what became of the rows."""
    if there:
        say(f"{there} rows were in the store, and stay as they are.")
    if twins.differing:
        say(
            f"Note: {twins.differing} rows have the same content as an earlier row, but other "
            "features; the first ones count."
        )
    for name, split in splits.items():
        if name not in placed.splits:
            say(f"No row is of the split {name}.")
        elif any(split.about.copies.values()):
            say(
                f"Note: imported features are of originals only; {name} has augmented copies, "
                "which training leaves out with these features."
            )
