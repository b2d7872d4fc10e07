"""``mmsa doctor``: what is here, what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Literal

import psutil
import torch
from packaging.requirements import Requirement
from rich.filesize import decimal

from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.settings import CONFIG_NAME, Settings
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.errors import CacheNotFoundError, MmsaError
from mmsa_cache.json_value import JsonObject
from mmsa_cache.names import MODALITIES, SPLITS, join_names
from mmsa_cache.native.cores import usable_cores
from mmsa_cache.native.device import device_name, pick_device
from mmsa_cache.runs.folder import RunFolder

from .cache.caches import existing_caches
from .search.search import list_studies
from .session.encoders import resolve_local_encoder
from .session.path_policy import PathPolicy

State = Literal["ok", "note", "bad"]
PURPOSE = {
    "demo": "all-MiniLM-L6-v2 as a package, for mmsa demo and a first try",
    "postgres": "studies in a PostgreSQL database, for searches on several machines",
    "tensorboard": "--track tensorboard",
    "mlflow": "--track mlflow",
    "wandb": "--track wandb",
    "onnx": "mmsa export --format onnx",
    "pictures": "HEIC and AVIF pictures",
    "chinese": "words in Chinese texts for augmentation",
    "ray": "--engine ray: extraction and searches on a cluster",
    "s3": "stores on S3 and other object stores",
    "dashboard": "mmsa search --dashboard",
    "page": "mmsa serve",
    "plots": "run.plot_confusion() and other plots in Python",
}
"""What each extra is for."""
_LITTLE = 2 << 30
"""Bytes of memory or disk below which it is said."""
_PATIENCE = 5.0
"""Seconds that the hub has to answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    found: str
    cure: str = ""
    """What to do; empty where nothing is."""
    exit_code: int = 0
    """That a command would end with for it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was looked at."""

    findings: list[Finding]

    @property
    def exit_code(self) -> int:
        """Of the first thing that stops a command; 0 where nothing does."""
        return next((f.exit_code for f in self.findings if f.state == "bad"), 0)

    def as_json(self) -> JsonObject:
        """The findings, and whether all is well."""
        return {"ok": not self.exit_code, "findings": [asdict(f) for f in self.findings]}


def diagnose(load: Callable[[], Settings] = load_settings) -> Diagnosis:
    """Looks at everything that a command may need; nothing is downloaded or changed.

    Args:
        load: Gives the settings; what is wrong with them is a finding, and the default ones are
            looked at.
    """
    found = list(_packages())
    settings = Settings()
    try:
        settings = load()
        where = Path(CONFIG_NAME)
        state = str(where.resolve()) if where.is_file() else f"no {CONFIG_NAME} here or above"
        cure = "" if where.is_file() else "mmsa init DATA writes one."
        found.append(Finding("settings", "ok" if where.is_file() else "note", state, cure))
    except MmsaError as error:
        found.append(_bad("settings", error))
    looks: list[tuple[str, Callable[[Settings], Finding]]] = [
        ("device", _device),
        ("memory", _memory),
        ("disk", _disk),
        ("hub", _hub),
        ("data", _data),
        ("store", _store),
        ("studies", _studies),
        ("runs", _runs),
    ]
    for what, look in looks:
        try:
            found.append(look(settings))
        except MmsaError as error:
            found.append(_bad(what, error))
    return Diagnosis([*found, *_encoders(settings), *_extras()])


def _bad(what: str, error: MmsaError) -> Finding:
    said = "; ".join([error.message, *error.problems[:5]])
    return Finding(what, "bad", said, error.hint, error.exit_code)


def _requirements(extra: str = "") -> Iterator[Requirement]:
    """Of mmsa itself, or of one of its extras."""
    for text in metadata("mmsa").get_all("Requires-Dist") or []:
        need = Requirement(text)
        is_plain = need.marker is None or need.marker.evaluate({"extra": ""})
        is_extra = need.marker is not None and need.marker.evaluate({"extra": extra})
        if is_extra and not is_plain if extra else is_plain:
            yield need


def _lacking(needs: Iterator[Requirement]) -> list[str]:
    """Packages that are not there, or too old."""
    lacking = []
    for need in needs:
        try:
            there = version(need.name)
        except PackageNotFoundError:
            lacking.append(f"{need.name} is not installed")
            continue
        if not need.specifier.contains(there, prereleases=True):
            lacking.append(f"{need.name} {there} is here, {need.specifier} is needed")
    return lacking


def _packages() -> Iterator[Finding]:
    names = ("mmsa", "torch", "transformers", "timm", "optuna", "h5py")
    shown = [f"{name} {version(name)}" for name in names]
    yield Finding("versions", "ok", f"Python {platform.python_version()}, {', '.join(shown)}")
    if lacking := _lacking(_requirements()):
        cure = "pip install -U mmsa, in a clone: make venv"
        yield Finding("packages", "bad", join_names(lacking), cure, MmsaError.exit_code)


def _extras() -> Iterator[Finding]:
    for extra in metadata("mmsa").get_all("Provides-Extra") or []:
        if extra in PURPOSE:
            lacking = _lacking(_requirements(extra))
            cure = f"pip install 'mmsa[{extra}]'" if lacking else ""
            state: State = "note" if lacking else "ok"
            said = "not installed" if lacking else "installed"
            yield Finding(f"extra {extra}", state, f"{said}: {PURPOSE[extra]}", cure)


def _device(settings: Settings) -> Finding:
    device = pick_device(settings.device)
    name = f"{device} ({device_name(device)}), {usable_cores()} core(s)"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Finding("device", "ok", f"{name}, {decimal(free)} of {decimal(total)} free")
    if shutil.which("nvidia-smi"):
        cure = "Install a torch with CUDA, see https://pytorch.org/get-started"
        return Finding("device", "note", f"{name}; a GPU that torch does not find", cure)
    return Finding("device", "ok", name)


def _memory(settings: Settings) -> Finding:
    memory = psutil.virtual_memory()
    said = f"{decimal(memory.available)} of {decimal(memory.total)} free"
    if memory.available < _LITTLE:
        return Finding("memory", "note", said, "Close other programs, or lower --workers.")
    return Finding("memory", "ok", said)


def _disk(settings: Settings) -> Finding:
    folder = settings.cache.dir if settings.cache.dir.is_dir() else Path.cwd()
    usage = shutil.disk_usage(folder)
    said = f"{decimal(usage.free)} of {decimal(usage.total)} free at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "bad", f"{folder} cannot be written to", "Change its rights.", 5)
    if usage.free < _LITTLE:
        return Finding("disk", "note", said, "mmsa cache prune --unused, mmsa runs rm")
    return Finding("disk", "ok", said)


def _hub(settings: Settings) -> Finding:
    from huggingface_hub import constants, get_session, get_token

    token = "a token is set" if get_token() else "no token"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "note", "HF_HUB_OFFLINE is set: nothing is asked of it", "Unset it.")
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # the client raises many kinds
        said = f"{constants.ENDPOINT} does not answer ({type(error).__name__})"
        cure = (
            "Check the network, HTTPS_PROXY and HF_ENDPOINT; what is on this machine needs no hub."
        )
        return Finding("hub", "note", said, cure)
    return Finding("hub", "ok", f"{constants.ENDPOINT} answers, {token}")


def _data(settings: Settings) -> Finding:
    if settings.data.root is None:
        return Finding(
            "data", "note", "no folder is set", "Give --data DIR, or run mmsa init DATA."
        )
    layout = find_layout(settings.data)
    splits = ", ".join(layout.splits) or "no split"
    return Finding("data", "ok", f"{settings.data.root}: layout {layout.name}, {splits}")


def _store(settings: Settings) -> Finding:
    try:
        caches = existing_caches(settings)
    except CacheNotFoundError as error:
        return Finding("store", "note", error.message, error.hint)
    if problems := [f"{c.encoder}: {c.problem}" for c in caches if c.problem]:
        return Finding("store", "bad", join_names(problems), "mmsa cache verify", 4)
    whole = [s for s in SPLITS if all(c.complete.get(s, 1) == 1 for c in caches)]
    there = [s for s in whole if any(s in c.complete for c in caches)]
    size = decimal(sum(c.bytes for c in caches))
    said = f"{settings.cache.dir}: {len(caches)} encoder(s), {size}"
    if there:
        return Finding("store", "ok", f"{said}, complete: {', '.join(there)}")
    return Finding("store", "note", f"{said}, no split is complete", "mmsa extract goes on.")


def _studies(settings: Settings) -> Finding:
    searched = [study for study in list_studies(settings) if study.finished]
    return Finding("studies", "ok", join_names([s.study for s in searched]) or "none was searched")


def _runs(settings: Settings) -> Finding:
    return Finding("runs", "ok", f"{len(RunFolder.all())} (mmsa runs ls)")


def _encoders(settings: Settings) -> Iterator[Finding]:
    """Encoders that the settings name, of whom extraction would fetch those that are not here."""
    policy = PathPolicy(settings, settings.cache.dir)
    for modality in MODALITIES:
        for name in settings.encoder_names(modality):
            what = f"{modality} encoder" + (f" {name}" if name != "default" else "")
            try:
                own = settings.with_encoder(modality, name)
                spec = resolve_local_encoder(own, modality, policy)
            except MmsaError as error:
                yield _bad(what, error)
                continue
            if spec is not None:
                yield Finding(what, "ok", spec.label)
                continue
            model = own.joint.model or getattr(own, modality).model
            cure = "mmsa extract fetches it, if the hub has it."
            yield Finding(what, "note", f"{model} is not on this machine", cure)
