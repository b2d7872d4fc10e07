"""``mmsa export``: a run as a self-contained folder in the layout of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fuse.export.onnx_export import describe_inputs, export_onnx
from fuse.figures.study import StudySource
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.files.disk import copy_new, write_new
from mmsa_cache.files.paths import check_target
from mmsa_cache.files.scratch import scratch
from mmsa_cache.json_value import JsonObject
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, EncoderPair, split_terms, unknown_name
from mmsa_cache.runs.folder import MODEL_FILE, RunFolder, write_json
from mmsa_cache.runs.record import RunRecord
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.version import __version__

from ..export_folder import (
    CARD,
    CONFIG,
    ENCODERS,
    METRICS,
    MODEL_TYPE,
    MOST_WEIGHTS,
    ONNX_FILE,
    whole_folder,
)
from ..hub.at_hub import AtHub
from ..hub.model import model_of, push_model
from ..predict.predictor import Predictor, load_model
from ..session.encoders import resolve_local_encoder
from ..session.path_policy import ENCODER_PATHS, NO_OVERRIDES, PathPolicy, RunOverrides
from ..session.session import Session
from .card import CardContent, render_card
from .encoder_files import copy_encoder

FORMATS = ("safetensors", "onnx")
_OWN = {f"{modality}_encoder": DEFAULT_ENCODER for modality in MODALITIES}
_WEIGHTS = ("pretrained", "random")
"""Values of ``image.weights`` that name no file."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and where."""

    run: str
    """Name or folder of a run."""
    to: Path | None = None
    """The folder to make; it appears complete or not at all."""
    push: str | None = None
    """The repository of the hub that it goes to, ``USER/REPO``."""
    private: bool = False
    """Nobody else may see that repository."""
    form: str = "safetensors"
    """``safetensors``; ``onnx`` adds stage two as one graph, checked against PyTorch."""
    force: bool = False
    """Replace an existing export."""
    license: str | None = None
    """Of the model, as the hub names licences."""
    languages: Sequence[str] = ()
    """Of the texts that it learned from, by their ISO 639 codes."""
    overrides: RunOverrides = NO_OVERRIDES
    """``online``: encoders that are not on this machine are fetched by hub names, to be checked."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was written."""

    run: str
    directory: str | None
    """None where it went to the hub alone."""
    repository: str | None
    """Of the hub."""
    revision: str | None
    """Its commit."""
    files: dict[str, int]
    """Bytes by name."""
    onnx_difference: float | None
    """Largest difference of a probability between the ONNX graph and PyTorch."""
    notes: list[str]


def export(request: ExportRequest) -> Export:
    """Writes a folder that `load_model` and ``mmsa predict --run`` take, wherever it is moved.

    Raises:
        SettingsError: Nothing says where to, the folder exists, the repository holds something
            else, or the packages for ONNX are missing.
        ModelError: The run cannot be loaded, its encoders are not those it was trained on, or the
            ONNX graph differs from PyTorch.
        CacheError: The hub cannot be reached, or refuses; a folder was written all the same.
    """
    if request.form not in FORMATS:
        raise unknown_name("Unknown --format", request.form, FORMATS)
    if request.to is None and request.push is None:
        raise SettingsError(
            "Nothing says where the export goes.", "Give --to FOLDER, or --push USER/REPO."
        )
    hub = None if request.push is None else model_of(request.push)
    run = RunFolder.find(request.run)
    model = load_model(run.path, **asdict(replace(request.overrides, device="cpu")))
    with ExitStack() as until_pushed:
        to = request.to or until_pushed.enter_context(scratch()) / run.name
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
    request: ExportRequest, hub: AtHub | None, run: RunFolder, model: Predictor, folder: Path
) -> float | None:
    """Fills an export's folder and checks it; the ONNX graph's difference from PyTorch."""
    copy_new(run.path / MODEL_FILE, folder / MODEL_FILE, MOST_WEIGHTS)
    record = _portable(run.record, model, folder)
    write_json(folder / CONFIG, {**_for_the_hub(record, model), **record.as_json()})
    write_json(folder / METRICS, run.figures.as_json())
    difference: float | None = None
    inputs: dict[str, list[str | int]] = {}
    if request.form == "onnx":
        check_target(folder / ONNX_FILE)
        dims = [kept.dims for kept in record.models]
        difference = export_onnx(model.ensemble, dims, folder / ONNX_FILE, _onnx_metadata(record))
        inputs = describe_inputs(folder / ONNX_FILE)
        say(f"ONNX: largest difference of a probability from PyTorch {difference:.1e}.")
    said = CardContent(
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
    write_new(folder / CARD, render_card(said).encode())
    _check(folder)
    return difference


def _portable(record: RunRecord, model: Predictor, folder: Path) -> RunRecord:
    """The record without paths of this machine; local encoders are copied into the folder.

    Raises:
        ModelError: The members read several encoders of a modality as their own.
    """
    pair, beside = _encoders_of(record)
    settings = model.session.settings
    names = dict.fromkeys(name for of in beside.values() for name in of)
    values = settings.with_pair(*pair).model_dump()
    values["encoders"] = {name: settings.named_encoders[name].model_dump() for name in names}
    values["data"]["root"] = None
    values["cache"]["dir"] = "cache"
    for name, group in [("", values), *values["encoders"].items()]:
        joint = group["joint"] is not None and group["joint"]["model"] is not None
        for section, key in ENCODER_PATHS:
            if group[section] is not None and joint == (section == "joint"):
                place = f"{section}-{name}" if name else section
                found = group[section][key]
                group[section][key] = _copied(folder, place, found, model.session.path_policy)
    encoders = {}
    for modality, own in zip(MODALITIES, pair, strict=True):
        known = {DEFAULT_ENCODER: own} | {name: name for name in beside[modality]}
        encoders[modality] = {
            name: _identity(record, model, modality, of) for name, of in known.items()
        }
    return record.model_copy(
        update={
            "models": [
                kept.model_copy(update={"setting": kept.setting | _OWN}) for kept in record.models
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
    """The encoders of a run that become the default ones, and by modality those beside them.

    Raises:
        ModelError: They cannot be named so.
    """
    sides = [tuple(map(split_terms, pair)) for pair in record.pairs]
    own = {(text[0], image[0]) for text, image in sides}
    beside = {
        modality: list(dict.fromkeys(name for pair in sides for name in pair[place][1:]))
        for place, modality in enumerate(MODALITIES)
    }
    if len(own) > 1 or any(DEFAULT_ENCODER in names for names in beside.values()):
        raise ModelError(
            "The run averages models of different encoders; an export has one of each modality, "
            "and others whose pools are named.",
            "Export runs of a single study, whose own encoders are the default ones.",
        )
    return own.pop(), beside


def _identity(record: RunRecord, model: Predictor, modality: str, name: str) -> EncoderIdentity:
    """The encoder at hand; where there is none, the one that the model was trained on.

    Raises:
        ModelError: The one at hand is another one.
    """
    trained_on = record.encoders[modality][name]
    if not model.session.online and not is_at_hand(model.session, modality, name):
        say(
            f"Note: the {modality} encoder {trained_on.label} is not at hand: the export names it, "
            "and predicts where it is."
        )
        return trained_on
    return model.session.encoder(modality, name).identity


def is_at_hand(session: Session, modality: str, name: str = DEFAULT_ENCODER) -> bool:
    """Whether an encoder's files are on this machine."""
    own = session.settings.with_encoder(modality, name)
    return resolve_local_encoder(own, modality, session.path_policy) is not None


def _for_the_hub(record: RunRecord, model: Predictor) -> JsonObject:
    """What the Hugging Face hub reads of ``config.json``."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": sorted({type(member).__name__ for member in model.ensemble.members}),
        "mmsa_version": __version__,
        "id2label": {str(code): name for code, name in enumerate(record.classes)},
        "label2id": {name: code for code, name in enumerate(record.classes)},
    }


def _copied(folder: Path, section: str, name: str, policy: PathPolicy) -> str:
    """Copies an encoder's file or folder; a name of the hub or of a package stays a name.

    Files that are not at hand are named by the place where they can be put later.

    Raises:
        ModelError: It lies elsewhere than the run may name, or is no encoder.
    """
    source = Path(name)
    if name in _WEIGHTS or not source.exists():
        return f"{ENCODERS}/{section}/{source.name}" if source.is_absolute() else name
    policy.require(source, f"the run's {section} model")
    return copy_encoder(source, folder / ENCODERS / section).relative_to(folder).as_posix()


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
    for modality, named in model.record.encoders.items():
        for name in named:
            if is_at_hand(model.session, modality, name):
                model.session.encoder(modality, name)
