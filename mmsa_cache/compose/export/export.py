"""``mmsa export``: a run as a self-contained folder in the layout of the Hugging Face hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fuse.export.onnx_export import describe_inputs, export_onnx
from fuse.figures.study import StudySource
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES
from mmsa_cache.runs.folder import RunFolder, write_json
from mmsa_cache.runs.record import RunRecord
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.version import __version__

from ..encoders import resolve_at_hand
from ..predictor import MODEL_FILE, Predictor, load_model
from ..session import Session
from .card import Card, render_card

FORMATS = ("safetensors", "onnx")
MODEL_TYPE = "mmsa"
ONNX_FILE = "model.onnx"
_OWN = {f"{modality}_encoder": DEFAULT_ENCODER for modality in MODALITIES}
_ENCODER_FILES = ("*.json", "*.txt", "*.model", "vocab*", "merges*", "bpe.codes", "tokenizer*")
"""What is copied of an encoder's folder besides its safetensors; never anything pickled."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and where."""

    run: str
    """Name or folder of a run."""
    to: Path
    """The folder to make; it appears complete or not at all."""
    form: str = "safetensors"
    """``safetensors``; ``onnx`` adds stage two as one graph, checked against PyTorch."""
    force: bool = False
    """Replace an existing export."""


@dataclass(frozen=True, slots=True)
class Export:
    """A folder that was written."""

    run: str
    directory: str
    files: dict[str, int]
    """Bytes by name."""
    onnx_difference: float | None
    """Largest difference of a probability between the ONNX graph and PyTorch."""
    notes: list[str]


def export(request: ExportRequest) -> Export:
    """Writes a folder that `load_model` and ``mmsa predict --run`` take, wherever it is moved.

    Raises:
        SettingsError: The folder exists, or the packages for ONNX are missing.
        ModelError: The run cannot be loaded, its encoders are not those it was trained on, or the
            ONNX graph differs from PyTorch.
    """
    if request.form not in FORMATS:
        raise SettingsError(f"Unknown --format {request.form!r}.", f"Valid: {', '.join(FORMATS)}.")
    run = RunFolder.find(request.run)
    model = load_model(request.run, device="cpu")
    difference: float | None = None
    with _whole_folder(request.to, request.force) as folder:
        shutil.copyfile(run.path / MODEL_FILE, folder / MODEL_FILE)
        record = _portable(run.record, model, folder)
        write_json(folder / "config.json", {**_for_the_hub(record, model), **record.as_json()})
        write_json(folder / "metrics.json", run.figures.as_json())
        inputs: dict[str, list[str | int]] = {}
        if request.form == "onnx":
            dims = [kept.dims for kept in record.models]
            difference = export_onnx(
                model.ensemble, dims, folder / ONNX_FILE, _onnx_metadata(record)
            )
            inputs = describe_inputs(folder / ONNX_FILE)
            say(f"ONNX: largest difference of a probability from PyTorch {difference:.1e}.")
        root = run.record.settings.data.root
        card = Card(
            run.name,
            record,
            run.figures,
            root.name if root else "unnamed data",
            run.environment.packages,
            inputs,
            difference,
        )
        (folder / "README.md").write_text(render_card(card), encoding="utf-8")
        _check(folder)
        sizes = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return Export(request.run, str(request.to), sizes, difference, model.notes)


def _portable(record: RunRecord, model: Predictor, folder: Path) -> RunRecord:
    """The record without paths of this machine; local encoders are copied into the folder.

    Raises:
        ModelError: The members read several encoders of a modality.
    """
    if len(set(record.pairs)) > 1:
        raise ModelError(
            "The run averages models of different encoders; an export has one of each modality.",
            "Export runs of a single study.",
        )
    pair = record.pairs[0]
    values = model.session.settings.with_pair(*pair).model_dump()
    values["data"]["root"] = None
    values["cache"]["dir"] = "cache"
    joint = values["joint"]["model"] is not None
    for section, key in (
        [("joint", "model")] if joint else [("text", "model"), ("image", "weights")]
    ):
        values[section][key] = _copied(folder, section, values[section][key])
    return record.model_copy(
        update={
            "models": [
                kept.model_copy(update={"setting": kept.setting | _OWN}) for kept in record.models
            ],
            "origin": None,
            "settings": Settings.model_validate(values),
            "encoders": {
                modality: {DEFAULT_ENCODER: _identity(record, model, modality, name)}
                for modality, name in zip(MODALITIES, pair, strict=True)
            },
            "studies": [
                StudySource(name=source.name, trial=source.trial, score=source.score)
                for source in record.studies
            ],
        }
    )


def _identity(record: RunRecord, model: Predictor, modality: str, name: str) -> EncoderIdentity:
    """The encoder at hand; where there is none, the one that the model was trained on.

    Raises:
        ModelError: The one at hand is another one.
    """
    trained_on = record.encoders[modality][name]
    if not is_at_hand(model.session, modality, name):
        say(
            f"Note: the {modality} encoder {trained_on.label} is not at hand: the export names it, "
            "and predicts where it is."
        )
        return trained_on
    return model.session.encoder(modality, name).identity


def is_at_hand(session: Session, modality: str, name: str = DEFAULT_ENCODER) -> bool:
    """Whether an encoder's files are on this machine."""
    own = session.settings.with_encoder(modality, name)
    return resolve_at_hand(own, modality, session.reach) is not None


def _for_the_hub(record: RunRecord, model: Predictor) -> dict[str, Any]:
    """What the Hugging Face hub reads of ``config.json``."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": sorted({type(member).__name__ for member in model.ensemble.members}),
        "mmsa_version": __version__,
        "id2label": {str(code): name for code, name in enumerate(record.classes)},
        "label2id": {name: code for code, name in enumerate(record.classes)},
    }


def _copied(folder: Path, part: str, name: str) -> str:
    """Copies an encoder's file or folder; a name of the hub or of a package stays a name.

    Files that are not at hand are named by the place where they can be put later.
    """
    source = Path(name)
    if source.is_file():
        wanted = [source]
        target = folder / "encoders" / part
        found = target / source.name
    elif source.is_dir():
        patterns = (*_ENCODER_FILES, "*.safetensors")
        wanted = sorted({path for pattern in patterns for path in source.glob(pattern)})
        target = found = folder / "encoders" / part / source.resolve().name
    else:
        return f"encoders/{part}/{source.name}" if source.is_absolute() else name
    target.mkdir(parents=True)
    for path in wanted:
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    return found.relative_to(folder).as_posix()


def _onnx_metadata(record: RunRecord) -> dict[str, str]:
    """Metadata of the graph, for users who get the file alone."""
    values = record.as_json()
    return {
        "mmsa_version": __version__,
        "classes": json.dumps(values["classes"]),
        "calibration": json.dumps(values["calibration"]),
        "encoders": json.dumps(values["encoder_fields"]),
        "notes": json.dumps(values["notes"]),
    }


def _check(folder: Path) -> None:
    """Loads the export, and resolves the encoders that are at hand, before it is published."""
    model = load_model(folder, device="cpu")
    for modality in MODALITIES:
        if is_at_hand(model.session, modality):
            model.session.encoder(modality)


@contextmanager
def _whole_folder(target: Path, force: bool) -> Iterator[Path]:
    """Makes a folder under a temporary name and renames it when it is complete.

    Raises:
        SettingsError: The name is taken, or another process exports to it.
    """
    target = target.expanduser().resolve()
    unfinished, replaced, lock = (
        target.parent / f".{target.name}.{end}" for end in ("unfinished", "replaced", "lock")
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            try:
                if replaced.is_dir() and not target.exists():  # a kill came between two renames
                    replaced.rename(target)
                _clear(unfinished, replaced)
                _check_free(target, force)
                unfinished.mkdir()
                yield unfinished
                if target.exists():
                    target.rename(replaced)
                unfinished.rename(target)
            finally:
                _clear(unfinished, replaced)
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise SettingsError(f"Another process exports to {target}.", "Wait.") from error


def _clear(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _check_free(target: Path, force: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not force:
        raise SettingsError(f"{target} exists already.", "Give another --to, or add --force.")
    try:
        ours = json.loads((target / "config.json").read_bytes())["model_type"] == MODEL_TYPE
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise SettingsError(
            f"{target} is not a folder that mmsa export made, so it is not replaced.",
            "Give another --to.",
        )
