"""``mmsa doctor``: checks what commands need, and says what to do about problems."""

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
"""Purpose of each extra."""
_LOW = 2 << 30
"""Free memory or disk, in bytes, below which a note is given."""
_HUB_TIMEOUT = 5.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check."""

    what: str
    state: State
    found: str
    cure: str = ""
    """What to do; empty if nothing is needed."""
    exit_code: int = 0
    """Exit code of a command that fails for this reason."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Results of all checks."""

    findings: list[Finding]

    @property
    def exit_code(self) -> int:
        """That of the first ``bad`` finding; 0 if there is none."""
        return next((f.exit_code for f in self.findings if f.state == "bad"), 0)

    def as_json(self) -> JsonObject:
        """The findings, and whether none is ``bad``."""
        return {"ok": not self.exit_code, "findings": [asdict(f) for f in self.findings]}


def diagnose(load: Callable[[], Settings] = load_settings) -> Diagnosis:
    """Checks everything that a command may need; downloads and changes nothing.

    Args:
        load: Loads the settings. If that fails, it is a finding, and the defaults are used.
    """
    findings = list(_packages())
    settings = Settings()
    try:
        settings = load()
        path = Path(CONFIG_NAME)
        if path.is_file():
            findings.append(Finding("settings", "ok", str(path.resolve())))
        else:
            message = f"no {CONFIG_NAME} here or above"
            findings.append(Finding("settings", "note", message, "mmsa init DATA writes one."))
    except MmsaError as error:
        findings.append(_bad("settings", error))
    checks: list[tuple[str, Callable[[Settings], Finding]]] = [
        ("device", _device),
        ("memory", _memory),
        ("disk", _disk),
        ("hub", _hub),
        ("data", _data),
        ("store", _store),
        ("studies", _studies),
        ("runs", _runs),
    ]
    for what, check in checks:
        try:
            findings.append(check(settings))
        except MmsaError as error:
            findings.append(_bad(what, error))
    return Diagnosis([*findings, *_encoders(settings), *_extras()])


def _bad(what: str, error: MmsaError) -> Finding:
    message = "; ".join([error.message, *error.problems[:5]])
    return Finding(what, "bad", message, error.hint, error.exit_code)


def _requirements(extra: str = "") -> Iterator[Requirement]:
    """Requirements of mmsa itself, or of one of its extras."""
    for text in metadata("mmsa").get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        marker = requirement.marker
        is_plain = marker is None or marker.evaluate({"extra": ""})
        is_extra = marker is not None and marker.evaluate({"extra": extra})
        if is_extra and not is_plain if extra else is_plain:
            yield requirement


def _unmet(requirements: Iterator[Requirement]) -> list[str]:
    """Messages about packages that are missing or too old."""
    messages = []
    for requirement in requirements:
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            messages.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            messages.append(
                f"{requirement.name} {installed} is here, {requirement.specifier} is needed"
            )
    return messages


def _packages() -> Iterator[Finding]:
    names = ("mmsa", "torch", "transformers", "timm", "optuna", "h5py")
    versions = [f"{name} {version(name)}" for name in names]
    yield Finding("versions", "ok", f"Python {platform.python_version()}, {', '.join(versions)}")
    if unmet := _unmet(_requirements()):
        cure = "pip install -U mmsa, in a clone: make venv"
        yield Finding("packages", "bad", join_names(unmet), cure, MmsaError.exit_code)


def _extras() -> Iterator[Finding]:
    for extra in metadata("mmsa").get_all("Provides-Extra") or []:
        if extra in PURPOSE:
            if _unmet(_requirements(extra)):
                cure = f"pip install 'mmsa[{extra}]'"
                yield Finding(f"extra {extra}", "note", f"not installed: {PURPOSE[extra]}", cure)
            else:
                yield Finding(f"extra {extra}", "ok", f"installed: {PURPOSE[extra]}")


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
    message = f"{decimal(memory.available)} of {decimal(memory.total)} free"
    if memory.available < _LOW:
        return Finding("memory", "note", message, "Close other programs, or lower --workers.")
    return Finding("memory", "ok", message)


def _disk(settings: Settings) -> Finding:
    folder = settings.cache.dir if settings.cache.dir.is_dir() else Path.cwd()
    usage = shutil.disk_usage(folder)
    message = f"{decimal(usage.free)} of {decimal(usage.total)} free at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "bad", f"{folder} cannot be written to", "Change its rights.", 5)
    if usage.free < _LOW:
        return Finding("disk", "note", message, "mmsa cache prune --unused, mmsa runs rm")
    return Finding("disk", "ok", message)


def _hub(settings: Settings) -> Finding:
    from huggingface_hub import constants, get_session, get_token

    token = "a token is set" if get_token() else "no token"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "note", "HF_HUB_OFFLINE is set: nothing is asked of it", "Unset it.")
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
    except Exception as error:  # the client raises many kinds
        message = f"{constants.ENDPOINT} does not answer ({type(error).__name__})"
        cure = (
            "Check the network, HTTPS_PROXY and HF_ENDPOINT; what is on this machine needs no hub."
        )
        return Finding("hub", "note", message, cure)
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
    complete = [
        s
        for s in SPLITS
        if any(s in c.complete for c in caches) and all(c.complete.get(s, 1) == 1 for c in caches)
    ]
    size = decimal(sum(c.bytes for c in caches))
    message = f"{settings.cache.dir}: {len(caches)} encoder(s), {size}"
    if complete:
        return Finding("store", "ok", f"{message}, complete: {', '.join(complete)}")
    return Finding("store", "note", f"{message}, no split is complete", "mmsa extract goes on.")


def _studies(settings: Settings) -> Finding:
    searched = [study for study in list_studies(settings) if study.finished]
    return Finding("studies", "ok", join_names([s.study for s in searched]) or "none was searched")


def _runs(settings: Settings) -> Finding:
    return Finding("runs", "ok", f"{len(RunFolder.all())} (mmsa runs ls)")


def _encoders(settings: Settings) -> Iterator[Finding]:
    """Encoders that the settings name; extraction would fetch missing ones."""
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
