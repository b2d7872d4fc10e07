"""``mmsa predict --data``: predicts files of new posts."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fuse.figures.calibration import Decide
from mmsa_cache.config.hub_copy import use_local_copy
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

from ..extraction.bad_rows import find_undecodable_pictures, list_bad_rows
from ..session.path_policy import NO_OVERRIDES, RunOverrides
from .partial import Floats, PartialPredictions
from .predict import WHOLE_PAIRS, PredictedRow, row_as_json
from .predictor import Predictor, find_run, load_predictor

OnBad = Literal["fail", "skip"]
_WINDOW = 512
"""Posts that are encoded at a time; an interruption loses no more."""
_SKIP = "Repair them, or leave them empty: --on-bad skip."


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """The options of ``mmsa predict --data``."""

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
    """Keys of ``[data]`` that replace the run's: ``encoding``, ``columns``."""
    force: bool = False


@dataclass(frozen=True, slots=True)
class BulkResult:
    """Counts of a prediction."""

    out: Path
    rows: int
    """All rows of the data."""
    resumed: int
    """Rows that an interrupted command had finished."""
    bad: list[str]
    """Guids of the rows that are left empty."""


def predict_file(request: BulkRequest) -> BulkResult:
    """Predicts every row of a table or a folder; resumes an interrupted call.

    Stored features are used where there are some; other rows are encoded, a window at a time.
    Labels are not read.

    Raises:
        SettingsError: The files cannot be written, or the data has several splits.
        ModelError: The run cannot be loaded.
        DataError: The data cannot be read; lists every bad row, before anything is encoded.
    """
    format_rows = _FORMATS.get(request.out.suffix.lower())
    if format_rows is None:
        raise SettingsError(
            f"{request.out} has no ending that says how to write it.",
            f"Valid: {', '.join(_FORMATS)}.",
        )
    check_outputs(request.out, force=request.force)
    run = find_run(request.run, online=request.overrides.online)
    model = load_predictor(run.path, request.overrides, request.decide)
    samples, guids, bad = _read_posts(request, model)
    _note_partial_posts(model, samples)
    header = {
        "mmsa": "predictions",
        "run": _run_digest(run),
        "data": _posts_digest(samples, guids, bad),
        "rule": model.rule,
    }
    partial = PartialPredictions(request.out, header, len(model.classes), force=request.force)
    resumed, windows = len(partial.rows), [partial.rows]
    with contextlib.closing(partial):
        if resumed:
            say(f"{resumed} of {len(samples)} posts were predicted before.")
        with progress("predicting", len(samples), "posts", resumed) as advance:
            for first in range(resumed, len(samples), _WINDOW):
                window = samples[first : first + _WINDOW]
                windows.append(np.array(model.predict_posts(window, reuse=True)))
                partial.add(windows[-1])
                advance(len(window), "")
    rows = _rows(guids, bad, model, np.concatenate(windows))
    write_result(request.out, format_rows(model.classes, rows))
    if format_rows is _format_csv and (note := escaped_guids_note(guids)):
        say(note)
    partial.remove()
    return BulkResult(request.out, len(guids), resumed, bad)


def _read_posts(request: BulkRequest, model: Predictor) -> tuple[SampleTable, list[str], list[str]]:
    """Reads the posts.

    Returns:
        The posts that can be predicted, the guids of all rows, and the guids of the bad rows.

    Raises:
        SettingsError: The data has several splits.
        DataError: It cannot be read, or some rows are bad and not to be skipped.
    """
    data = use_local_copy(_data_settings(request, model.session.settings.data))
    splits = find_layout(data).splits
    if len(splits) > 1:
        raise SettingsError(
            f"{request.data} has several splits: {', '.join(splits)}.",
            f"Give one with --split, or the file alone, as --data {request.data}/FILE.",
        )
    # Where there is no split, reading one raises the reason.
    scan = scan_split(data, (splits or SPLITS[-1:])[0], labelled=False)
    for note in scan.listing.notes:
        say(f"Note: {note}")
    lines = scan.listing.first_line
    undecodable = find_undecodable_pictures(scan.samples, "looking for bad pictures")
    bad = sorted([*scan.bad, *undecodable], key=lambda row: lines[row.guid])
    if request.on_bad == "fail":
        raise_problems([m for row in bad for m in row.messages], request.data, _SKIP)
    if bad:
        say(f"{len(bad)} of {scan.rows} rows are bad and left empty:")
        list_bad_rows(bad)
    guids = [row.guid for row in bad]
    return scan.samples.drop_guids(guids), list(lines), guids


def _data_settings(request: BulkRequest, of_run: DataSettings) -> DataSettings:
    """Settings for reading the posts: those of the run, with what the request replaces."""
    message = "These options cannot be used:"
    own = validate(DataSettings, dict(request.reading), message, "", SettingsError)
    columns = {"label": None} | own.columns.model_dump(exclude_unset=True)
    changes = {name: getattr(own, name) for name in own.model_fields_set}
    changes |= {"root": request.data, "columns": of_run.columns.model_copy(update=columns)}
    return of_run.model_copy(update=changes | {"rows": "all", "missing": "allow"})


def _note_partial_posts(model: Predictor, samples: SampleTable) -> None:
    halves = int((~samples.present.all(1)).sum())
    if halves:
        say(f"{halves} of {len(samples)} posts have a text or a picture alone.")
    if halves and not model.accepts_missing_modality:
        say(WHOLE_PAIRS)


def _run_digest(run: RunFolder) -> str:
    """Identifies a trained model."""
    files = [file_sha256(run.file_path(name)) for name in ("config.json", MODEL_FILE)]
    return hashlib.sha256(canonical_json(files)).hexdigest()


def _posts_digest(samples: SampleTable, guids: list[str], bad: list[str]) -> str:
    """Identifies posts and their order."""
    return hashlib.sha256(canonical_json([samples.digest({}), guids, bad])).hexdigest()


def _rows(
    guids: list[str], bad: list[str], model: Predictor, probabilities: Floats
) -> Iterator[PredictedRow]:
    """A row for each guid, in order.

    Args:
        guids: Of all rows.
        bad: Guids of the rows that are left empty.
        model: Decides for the classes.
        probabilities: Of the other rows, (rows, classes).
    """
    tags = model.decide(probabilities) if len(probabilities) else []
    predictions, empty = zip(tags, probabilities.tolist(), strict=True), set(bad)
    for guid in guids:
        yield (guid, None, None) if guid in empty else (guid, *next(predictions))


def _format_json_lines(classes: list[str], rows: Iterable[PredictedRow]) -> str:
    return "".join(f"{json.dumps(row_as_json(classes, row), ensure_ascii=False)}\n" for row in rows)


def _format_csv(classes: list[str], rows: Iterable[PredictedRow]) -> str:
    header = ["guid", "tag", *(f"p_{name}" for name in classes)]
    empty = [""] * len(classes)
    cells = ([guid, tag or "", *(p or empty)] for guid, tag, p in rows)
    return csv_text(itertools.chain([header], cells))


_FORMATS = {".csv": _format_csv, ".jsonl": _format_json_lines, ".ndjson": _format_json_lines}
"""Ending of the file → format."""
