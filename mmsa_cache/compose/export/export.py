"""``mmsa export``: a run as a self-contained folder in the layout of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from fuse.export.onnx_export import describe_inputs, export_onnx
from fuse.figures.study import StudySource
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.files.disk import copy_new, write_new
from mmsa_cache.files.paths import check_target
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.json_value import JsonObject
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, EncoderPair, split_terms, unknown_name
from mmsa_cache.runs.folder import MODEL_FILE, RunFolder, write_json
from mmsa_cache.runs.record import RunRecord
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.version import __version__

from ..export_folder import (
    CARD,
    CONFIG,
    METRICS,
    MODEL_TYPE,
    MOST_WEIGHTS,
    ONNX_FILE,
    whole_folder,
)
from ..hub.hub_repository import HubRepository
from ..hub.model import model_repository, push_model
from ..predict.predictor import Predictor, load_model, load_predictor
from ..session.encoders import resolve_local_encoder
from ..session.path_policy import NO_OVERRIDES, RunOverrides
from ..session.session import Session
from .card import CardContent, render_card
from .encoder_files import copy_encoders

FORMATS = ("safetensors", "onnx")
_DEFAULT_ENCODERS = {f"{modality}_encoder": DEFAULT_ENCODER for modality in MODALITIES}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and where."""

    run: str
    """Name or folder of a run."""
    to: Path | None = None
    """Folder to write; it appears complete or not at all."""
    push: str | None = None
    """Hub repository to push to, ``USER/REPO``."""
    private: bool = False
    """Whether a new repository is private."""
    form: str = "safetensors"
    """``safetensors``, or ``onnx``, which adds stage two as one graph, checked against PyTorch."""
    force: bool = False
    """Whether an existing export is replaced."""
    license: str | None = None
    """License of the model, as the hub names it."""
    languages: Sequence[str] = ()
    """Languages of the training texts, as ISO 639 codes."""
    overrides: RunOverrides = NO_OVERRIDES
    """With ``online``, missing encoders are fetched from the hub, to check them."""


@dataclass(frozen=True, slots=True)
class Export:
    """A written export."""

    run: str
    directory: str | None
    """None if it was only pushed to the hub."""
    repository: str | None
    """Hub repository."""
    revision: str | None
    """Its commit."""
    files: dict[str, int]
    """Bytes by name."""
    onnx_difference: float | None
    """Largest difference of a probability between the ONNX graph and PyTorch."""
    notes: list[str]


def export(request: ExportRequest) -> Export:
    """Writes a folder that `load_model` and ``mmsa predict --run`` accept on any machine.

    Raises:
        SettingsError: No target is given, the folder exists, the repository holds something
            else, or the packages for ONNX are missing.
        ModelError: The run cannot be loaded, its encoders are not those it was trained on, or the
            ONNX graph differs from PyTorch.
        CacheError: The hub cannot be reached, or refuses. The folder was written.
    """
    if request.form not in FORMATS:
        raise unknown_name("Unknown --format", request.form, FORMATS)
    if request.to is None and request.push is None:
        raise SettingsError(
            "Nothing says where the export goes.", "Give --to FOLDER, or --push USER/REPO."
        )
    hub = None if request.push is None else model_repository(request.push)
    run = RunFolder.find(request.run)
    model = load_predictor(run.path, replace(request.overrides, device="cpu"))
    with ExitStack() as stack:
        to = request.to or stack.enter_context(temporary_folder()) / run.name
        with whole_folder(to, request.force) as folder:
            difference = _write(request, hub, run, model, folder)
            sizes = {
                path.relative_to(folder).as_posix(): path.stat().st_size
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
        revision = None if hub is None else push_model(hub, to, sizes, private=request.private)
    return Export(
        request.run,
        None if request.to is None else str(request.to),
        None if hub is None else hub.name,
        revision,
        sizes,
        difference,
        model.notes,
    )


def _write(
    request: ExportRequest,
    hub: HubRepository | None,
    run: RunFolder,
    model: Predictor,
    folder: Path,
) -> float | None:
    """Fills an export's folder and checks it; returns the ONNX graph's difference from PyTorch."""
    copy_new(run.path / MODEL_FILE, folder / MODEL_FILE, MOST_WEIGHTS)
    record = _portable_record(run.record, model, folder)
    write_json(folder / CONFIG, {**_hub_config(record, model), **record.as_json()})
    write_json(folder / METRICS, run.figures.as_json())
    difference: float | None = None
    inputs: dict[str, list[str | int]] = {}
    if request.form == "onnx":
        check_target(folder / ONNX_FILE)
        dims = [m.dims for m in record.models]
        difference = export_onnx(model.ensemble, dims, folder / ONNX_FILE, _onnx_metadata(record))
        inputs = describe_inputs(folder / ONNX_FILE)
        say(f"ONNX: largest difference of a probability from PyTorch {difference:.1e}.")
    card = CardContent(
        name=run.name,
        record=record,
        figures=run.figures,
        data=run.record.settings.data,
        packages=run.environment.packages,
        onnx_inputs=inputs,
        onnx_difference=difference,
        repository=hub.name if hub else None,
        license=request.license,
        languages=request.languages,
    )
    write_new(folder / CARD, render_card(card).encode())
    _check(folder)
    return difference


def _portable_record(record: RunRecord, model: Predictor, folder: Path) -> RunRecord:
    """The record without paths of this machine; local encoders are copied into the folder.

    Raises:
        ModelError: The members read several encoders of a modality as their own.
    """
    pair, others = _encoders_of(record)
    settings = model.session.settings
    names = dict.fromkeys(name for of_modality in others.values() for name in of_modality)
    values = settings.with_pair(*pair).model_dump()
    values["encoders"] = {name: settings.named_encoders[name].model_dump() for name in names}
    values["data"]["root"] = None
    values["cache"]["dir"] = "cache"
    copy_encoders(values, folder, model.session.path_policy)
    encoders = {}
    for modality, own in zip(MODALITIES, pair, strict=True):
        sources = {DEFAULT_ENCODER: own} | {name: name for name in others[modality]}
        encoders[modality] = {
            name: _identity(record, model, modality, source) for name, source in sources.items()
        }
    return record.model_copy(
        update={
            "models": [
                m.model_copy(update={"setting": m.setting | _DEFAULT_ENCODERS})
                for m in record.models
            ],
            "origin": None,
            "settings": Settings.model_validate(values),
            "encoders": encoders,
            "studies": [
                StudySource(name=source.name, trial=source.trial, score=source.score)
                for source in record.studies
            ],
        }
    )


def _encoders_of(record: RunRecord) -> tuple[EncoderPair, dict[str, list[str]]]:
    """The pair of a run that becomes the default one, and its other encoders by modality.

    Raises:
        ModelError: There are several such pairs.
    """
    pairs = [tuple(map(split_terms, pair)) for pair in record.pairs]
    own = {(text[0], image[0]) for text, image in pairs}
    others = {
        modality: list(dict.fromkeys(name for pair in pairs for name in pair[index][1:]))
        for index, modality in enumerate(MODALITIES)
    }
    if len(own) > 1 or any(DEFAULT_ENCODER in names for names in others.values()):
        raise ModelError(
            "The run averages models of different encoders; an export has one of each modality, "
            "and others whose pools are named.",
            "Export runs of a single study, whose own encoders are the default ones.",
        )
    return own.pop(), others


def _identity(record: RunRecord, model: Predictor, modality: str, name: str) -> EncoderIdentity:
    """The identity of the local encoder; if there is none, that of the training.

    Raises:
        ModelError: The local encoder is a different one.
    """
    trained_on = record.encoders[modality][name]
    if not model.session.online and not _is_local(model.session, modality, name):
        say(
            f"Note: the {modality} encoder {trained_on.label} is not at hand: the export names it, "
            "and predicts where it is."
        )
        return trained_on
    return model.session.encoder(modality, name).identity


def _is_local(session: Session, modality: str, name: str = DEFAULT_ENCODER) -> bool:
    """Whether an encoder's files are on this machine."""
    settings = session.settings.with_encoder(modality, name)
    return resolve_local_encoder(settings, modality, session.path_policy) is not None


def _hub_config(record: RunRecord, model: Predictor) -> JsonObject:
    """Keys of ``config.json`` that the Hugging Face hub reads."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": sorted({type(member).__name__ for member in model.ensemble.members}),
        "mmsa_version": __version__,
        "id2label": {str(code): name for code, name in enumerate(record.classes)},
        "label2id": {name: code for code, name in enumerate(record.classes)},
    }


def _onnx_metadata(record: RunRecord) -> dict[str, str]:
    """Metadata of the graph, for users of the file alone."""
    values = record.as_json()
    return {
        "mmsa_version": __version__,
        "classes": json.dumps(values["classes"]),
        "calibration": json.dumps(values["calibration"]),
        "encoders": json.dumps(values["encoder_fields"]),
        "notes": json.dumps(values["notes"]),
    }


def _check(folder: Path) -> None:
    """Checks that the export can be loaded, and that its local encoders can be resolved."""
    model = load_model(folder, device="cpu")
    for modality, named in model.record.encoders.items():
        for name in named:
            if _is_local(model.session, modality, name):
                model.session.encoder(modality, name)
