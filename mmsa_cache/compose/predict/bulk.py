"""``mmsa predict --data``: posts that no model has seen, whole files of them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from extract.inputs.undecodable import find_undecodable
from fuse.figures.calibration import Decide
from mmsa_cache.config.hub_copy import with_copy
from mmsa_cache.config.sections import DataSettings
from mmsa_cache.console import progress, say
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.layouts.listing import raise_problems
from mmsa_cache.data.scan import scan_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import SettingsError
from mmsa_cache.escaping import csv_text, escaped_guids_note
from mmsa_cache.files.hashing import canonical_json, file_sha256
from mmsa_cache.files.results import check_outputs, write_result
from mmsa_cache.names import SPLITS
from mmsa_cache.runs.folder import MODEL_FILE, RunFolder
from mmsa_cache.validation import validate

from ..session.path_policy import NO_OVERRIDES, RunOverrides
from .partial import Floats, Partial
from .predict import WHOLE_PAIRS
from .predictor import Predictor, find_run, load_model

OnBad = Literal["fail", "skip"]
_WINDOW = 512
"""Posts that are encoded at a time, and that an interruption costs at most."""
_SHOWN = 20
_SKIP = "Repair them, or leave them empty: --on-bad skip."


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """Posts to predict, and where to."""

    run: str
    data: Path
    """A table, a folder of one split, or ``hf://datasets/NAME``."""
    out: Path
    """``.csv`` or ``.jsonl``."""
    overrides: RunOverrides = NO_OVERRIDES
    decide: Decide | None = None
    on_bad: OnBad = "fail"
    """``skip``: bad rows are left empty."""
    reading: Mapping[str, object] = field(default_factory=dict)
    """Keys of ``[data]`` in the place of the run's: ``encoding``, ``columns``."""
    force: bool = False


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What was predicted."""

    out: Path
    rows: int
    """All, in the order of the data."""
    resumed: int
    """Rows that an interrupted command had finished."""
    bad: list[str]
    """Guids of the rows that are left empty."""


def predict_file(request: BulkRequest) -> BulkResult:
    """Predicts every row of a table or a folder; an interrupted call goes on where it was.

    Features of the store are read where it has them; other rows are encoded, some at a time. No
    label is needed, and none is looked at.

    Raises:
        SettingsError: The files cannot be written, or the data has several splits.
        ModelError: The run cannot be loaded.
        DataError: The data cannot be read; every bad row is named, before anything is encoded.
    """
    written = _FORMS.get(request.out.suffix.lower())
    if written is None:
        raise SettingsError(
            f"{request.out} has no ending that says how to write it.",
            f"Valid: {', '.join(_FORMS)}.",
        )
    check_outputs(request.out, force=request.force)
    run = find_run(request.run, online=request.overrides.online)
    model = load_model(run.path, **asdict(request.overrides), decide=request.decide)
    samples, guids, bad = _posts(request, model)
    _say_halves(model, samples)
    header = {
        "mmsa": "predictions",
        "run": _digest_of_run(run),
        "data": _digest_of(samples, guids, bad),
        "rule": model.rule,
    }
    part = Partial(request.out, header, len(model.classes), force=request.force)
    resumed, windows = len(part.rows), [part.rows]
    with contextlib.closing(part):
        if resumed:
            say(f"{resumed} of {len(samples)} posts were predicted before.")
        with progress("predicting", len(samples), "posts", resumed) as advance:
            for first in range(resumed, len(samples), _WINDOW):
                window = samples[first : first + _WINDOW]
                windows.append(np.array(model.predict_posts(window, reuse=True)))
                part.add(windows[-1])
                advance(len(window), "")
    rows = _rows(guids, bad, model, np.concatenate(windows))
    write_result(request.out, written(model.classes, rows))
    if written is _as_csv and (marks := escaped_guids_note(guids)):
        say(marks)
    part.remove()
    return BulkResult(request.out, len(guids), resumed, bad)


def _posts(request: BulkRequest, model: Predictor) -> tuple[SampleTable, list[str], list[str]]:
    """The posts that can be predicted, and the guids of all rows and of the bad ones, in order.

    Raises:
        SettingsError: The data has several splits.
        DataError: It cannot be read, or some rows are bad and not to be skipped.
    """
    settings = model.session.settings
    own = _reading(request, settings.data)
    data = with_copy(own)
    splits = find_layout(data).splits
    if len(splits) > 1:
        raise SettingsError(
            f"{request.data} has several splits: {', '.join(splits)}.",
            f"Give one with --split, or the file alone, as --data {request.data}/FILE.",
        )
    # Where there is no split, reading one says why.
    found = scan_split(data, (splits or SPLITS[-1:])[0], labelled=False)
    for note in found.listing.notes:
        say(f"Note: {note}")
    lines = found.listing.first_line
    with progress("looking for bad pictures", len(found.samples), "pictures") as advance:
        broken = find_undecodable(found.samples, lambda count: advance(count, ""))
    bad = sorted([*found.bad, *broken], key=lambda row: lines[row.guid])
    if request.on_bad == "fail":
        raise_problems([m for row in bad for m in row.messages], request.data, _SKIP)
    if bad:
        say(f"{len(bad)} of {found.rows} rows are bad and left empty:")
        for row in bad[:_SHOWN]:
            say(f"  - {row.guid}: {'; '.join(row.messages)}")
        if len(bad) > _SHOWN:
            say(f"  … and {len(bad) - _SHOWN} more")
    names = [row.guid for row in bad]
    return found.samples.drop_guids(names), list(lines), names


def _reading(request: BulkRequest, of_run: DataSettings) -> DataSettings:
    """How the posts are read: as those that the run learned from, where nothing else is said."""
    message = "These options cannot be used:"
    own = validate(DataSettings, dict(request.reading), message, "", SettingsError)
    columns = {"label": None} | own.columns.model_dump(exclude_unset=True)
    changes = {name: getattr(own, name) for name in own.model_fields_set}
    changes |= {"root": request.data, "columns": of_run.columns.model_copy(update=columns)}
    return of_run.model_copy(update=changes | {"rows": "all", "missing": "allow"})


def _say_halves(model: Predictor, samples: SampleTable) -> None:
    halves = int((~samples.present.all(1)).sum())
    if halves:
        say(f"{halves} of {len(samples)} posts have a text or a picture alone.")
    if halves and not model.knows_halves:
        say(WHOLE_PAIRS)


def _digest_of_run(run: RunFolder) -> str:
    """Tells a trained model from others."""
    files = [file_sha256(run.place(name)) for name in ("config.json", MODEL_FILE)]
    return hashlib.sha256(canonical_json(files)).hexdigest()


def _digest_of(samples: SampleTable, guids: list[str], bad: list[str]) -> str:
    """Tells posts from others, and their order."""
    return hashlib.sha256(canonical_json([samples.digest({}), guids, bad])).hexdigest()


Row = tuple[str, str | None, list[float] | None]
"""Guid, the class that is decided for, probabilities; None of a bad row."""


def json_row(classes: list[str], row: Row) -> dict[str, object]:
    """``guid``, ``tag`` and ``probabilities`` by class."""
    guid, tag, found = row
    named = None if found is None else dict(zip(classes, found, strict=True))
    return {"guid": guid, "tag": tag, "probabilities": named}


def _rows(guids: list[str], bad: list[str], model: Predictor, found: Floats) -> Iterator[Row]:
    """A row each guid, in order; `found` are those that are not bad, (rows, classes)."""
    tags = model.decide(found) if len(found) else []
    good, empty = zip(tags, found, strict=True), set(bad)
    for guid in guids:
        tag, probabilities = (None, None) if guid in empty else next(good)
        yield guid, tag, None if probabilities is None else probabilities.tolist()


def _as_json_lines(classes: list[str], rows: Iterable[Row]) -> str:
    lines = (json.dumps(json_row(classes, row), ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _as_csv(classes: list[str], rows: Iterable[Row]) -> str:
    header = ["guid", "tag", *(f"p_{name}" for name in classes)]
    empty = [""] * len(classes)
    cells = ([guid, tag or "", *(p or empty)] for guid, tag, p in rows)
    return csv_text(itertools.chain([header], cells))


_FORMS = {".csv": _as_csv, ".jsonl": _as_json_lines, ".ndjson": _as_json_lines}
"""By the ending of the file."""
