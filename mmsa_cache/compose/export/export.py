"""``mmsa export``: a run as a folder in the Hugging Face habit, which needs nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fuse.export.onnx_export import describe_inputs, export_onnx
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES
from mmsa_cache.runs.directory import find_run, read_config, write_json
from mmsa_cache.runs.predictions import read_predictions
from mmsa_cache.version import __version__

from ..encoders import check_encoder, resolve_encoder
from ..predictor import MODEL_FILE, Predictor, load_model
from .card import render_card
from .card_facts import Card

FORMATS = ("safetensors", "onnx")
MODEL_TYPE = "mmsa"
_DEFAULTS = {"text_encoder": DEFAULT_ENCODER, "image_encoder": DEFAULT_ENCODER}
ONNX_FILE = "model.onnx"
_ENCODER_FILES = ("*.json", "*.txt", "*.model", "vocab*", "merges*", "bpe.codes", "tokenizer*")
"""What is taken of an encoder's folder besides its safetensors; never anything pickled."""
_KEPT = (
    *("classes", "models", "calibration", "encoders", "notes", "setting"),
    *("outer", "folds", "seeds", "averaged", "refit", "seed"),
)
"""What of a run's ``config.json`` is no matter of the machine that it was made on."""


def export(run: str, to: Path, *, form: str = "safetensors", force: bool = False) -> dict[str, Any]:
    """Writes a folder that `load_model` and ``mmsa predict --run`` take, wherever it is moved.

    Args:
        run: Name or folder of a run.
        to: The folder to make; it appears whole or not at all.
        form: ``safetensors``; ``onnx`` adds stage two as one graph, checked against PyTorch.
        force: Replace an export that lies there.

    Returns:
        Run, directory, bytes of each file, notes, and the ONNX graph's largest difference.

    Raises:
        SettingsError: Something lies there already, or the packages for ONNX are missing.
        ModelError: The run cannot be loaded, its encoders are not those it was trained on, or the
            ONNX graph differs from PyTorch.
    """
    if form not in FORMATS:
        raise SettingsError(f"Unknown --format {form!r}.", f"Valid: {', '.join(FORMATS)}.")
    source = find_run(run)
    config = read_config(source)
    model = load_model(run, device="cpu")
    difference = None
    with _whole_folder(to, force) as folder:
        shutil.copyfile(source / MODEL_FILE, folder / MODEL_FILE)
        exported = _config(config, model, folder)
        write_json(folder / "config.json", exported)
        metrics = _metrics(source)
        write_json(folder / "metrics.json", metrics)
        inputs: dict[str, list[str | int]] = {}
        if form == "onnx":
            difference = export_onnx(
                model.ensemble, model.dims, folder / ONNX_FILE, _onnx_metadata(exported)
            )
            inputs = describe_inputs(folder / ONNX_FILE)
            say(f"ONNX: largest difference of a probability from PyTorch {difference:.1e}.")
        card = Card.of(
            source.resolve().name,
            config,
            exported,
            metrics,
            read_predictions(source / "predictions.csv", exported["classes"]),
            _packages(source),
            inputs,
            difference,
        )
        (folder / "README.md").write_text(render_card(card), encoding="utf-8")
        _check(folder, exported)
        sizes = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return {
        "run": run,
        "directory": str(to),
        "files": sizes,
        "onnx_difference": difference,
        "notes": model.notes,
    }


def _config(config: Mapping[str, Any], model: Predictor, folder: Path) -> dict[str, Any]:
    """``config.json`` of the export; encoders that lie on this machine are copied beside it."""
    own = _own_encoders(model)
    settings = own.model_dump(mode="json")
    settings["data"]["root"] = None
    settings["cache"]["dir"] = "cache"
    fields = {}
    for modality in MODALITIES:
        spec = resolve_encoder(own, modality)
        check_encoder(modality, spec, config.get("encoder_fields", {}).get(modality))
        fields[modality] = spec.fields
    if own.joint.model is not None:
        settings["joint"]["model"] = _copied(folder, "joint", settings["joint"]["model"])
    else:
        settings["text"]["model"] = _copied(folder, "text", settings["text"]["model"])
        settings["image"]["weights"] = _copied(folder, "image", settings["image"]["weights"])
    classes = config["classes"]
    return {
        "model_type": MODEL_TYPE,
        "architectures": sorted({type(member).__name__ for member in model.ensemble.members}),
        "mmsa_version": __version__,
        "id2label": {str(code): name for code, name in enumerate(classes)},
        "label2id": {name: code for code, name in enumerate(classes)},
        **{key: config[key] for key in _KEPT if key in config},
        "models": [{**kept, "setting": kept["setting"] | _DEFAULTS} for kept in config["models"]],
        "setting": config["setting"] | _DEFAULTS,
        "encoder_fields": fields,
        "studies": [
            {key: study.get(key) for key in ("name", "trial", "score")}
            for study in config.get("studies", [])
        ],
        "settings": settings,
    }


def _own_encoders(model: Predictor) -> Settings:
    """The settings of a model with its encoders as the default ones.

    Raises:
        ModelError: Its members read several encoders of a modality.
    """
    if len(set(model.pairs)) > 1:
        raise ModelError(
            "The run averages models of different encoders; an export has one of each modality.",
            "Export runs of a single study.",
        )
    return model.settings.with_pair(*model.pairs[0])


def _copied(folder: Path, part: str, name: str) -> str:
    """Copies an encoder's file or folder; a name of the hub or of a package stays a name."""
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
        return name
    target.mkdir(parents=True)
    for path in wanted:
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    return found.relative_to(folder).as_posix()


def _metrics(source: Path) -> dict[str, Any]:
    try:
        metrics: dict[str, Any] = json.loads((source / "metrics.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{source / 'metrics.json'} cannot be read: {error}", "Export a run, not an export."
        ) from error
    return metrics


def _packages(source: Path) -> dict[str, str]:
    try:
        packages: dict[str, str] = json.loads((source / "env.json").read_bytes())["packages"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{source / 'env.json'} cannot be read: {error}") from error
    return packages


def _onnx_metadata(exported: Mapping[str, Any]) -> dict[str, str]:
    """What the graph says of itself to whoever gets the file alone."""
    return {
        "mmsa_version": __version__,
        "classes": json.dumps(exported["classes"]),
        "calibration": json.dumps(exported["calibration"]),
        "encoders": json.dumps(exported["encoder_fields"]),
        "notes": json.dumps(exported["notes"]),
    }


def _check(folder: Path, exported: Mapping[str, Any]) -> None:
    """Loads what was written, and finds its encoders, before it gets its name."""
    settings = load_model(folder, device="cpu").settings
    for modality in MODALITIES:
        fields = exported["encoder_fields"][modality]
        check_encoder(modality, resolve_encoder(settings, modality), fields)


@contextmanager
def _whole_folder(target: Path, force: bool) -> Iterator[Path]:
    """Makes a folder under a temporary name; it gets its own in one rename, once it is whole.

    Raises:
        SettingsError: The name is taken, or another process makes the same.
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
