"""A final model as one ONNX graph: members averaged, calibrated, checked against PyTorch.

The graph reads what the cache holds, as float32, and gives calibrated class probabilities. Its
inputs are those that the settings of the model need, by name:

==================  =========================================================================
``text``            (batch, text_tokens, dim): tokens, at the token level
``text_mask``       (batch, text_tokens) bool, True = real token
``image``           (batch, patches, dim): patches, at the token level without a grid
``image_mask``      (batch, patches) bool
``image_grid_G``    (batch, G·G, dim): patches averaged to a G×G grid (`ModalityFeatures.grid`)
``text_POOL``       (batch, dim): a pooled vector, as ``text_mean``; the image's likewise
``text_present``    (batch,) bool: the post has a text; what else it is given of it may be zeros
``image_present``   (batch,) bool
==================  =========================================================================

`onnx_inputs` makes them from a feature bank. Standardisation, averaging over members and settings,
temperature and offsets are part of the graph.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fuse.models.kernel import KERNEL, KernelClassifier
from fuse.models.projection import as_mask
from fuse.setting import Setting
from fuse.training.classifier import gather
from fuse.training.ensemble import Blend, Ensemble
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.features.bank import Dims, FeatureBank, ModalityFeatures, split_pools
from mmsa_cache.store.schema import FEATURE_DTYPE, SHARED, Shard

OUTPUT = "probabilities"
"""The graph's output, (batch, classes) float32."""
TOLERANCE = 1e-5
"""Largest difference of a probability from PyTorch's in float32 that an export may have."""
_CHECKED_ROWS = 12
_LONGEST = 7  # tokens of the longest text that is checked
_SMALLEST = float(np.finfo(np.float64).tiny)
_AXES = {"text": "text_tokens", "image": "patches"}

Inputs = dict[str, NDArray[Any]]


def export_onnx(
    ensemble: Ensemble, dims: Sequence[Dims], path: Path, metadata: Mapping[str, str]
) -> float:
    """Writes the graph and checks it with onnxruntime over whole and half posts.

    Args:
        ensemble: The model, on the CPU.
        dims: Features of the inputs, a setting each.
        path: The file to write.
        metadata: Goes into the file's metadata properties.

    Returns:
        The largest difference of a probability that the check saw.

    Raises:
        SettingsError: The packages for it are not installed.
        ModelError: The graph differs from PyTorch by more than `TOLERANCE`.
    """
    _require_packages()
    bank = check_bank(ensemble, dims)
    settings = [blend.setting for blend in ensemble.blends]
    example = onnx_inputs(bank, np.arange(len(bank)), settings)
    names = list(example)
    axes = _dynamic_axes(names)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Graph(ensemble, names).eval(),
            ([torch.from_numpy(value) for value in example.values()],),
            None,
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=[OUTPUT],
            dynamic_shapes=([axes[name] for name in names],),
        )
        assert program is not None
        program.model.metadata_props.update(
            {"onnx_inputs": json.dumps(names), "tolerance": repr(TOLERANCE), **metadata}
        )
        program.save(str(path), external_data=False)
    worst = difference(path, ensemble, bank)
    if not worst <= TOLERANCE:
        raise ModelError(
            f"The ONNX graph gives other probabilities than PyTorch: they differ by {worst:.1e}, "
            f"{TOLERANCE:.0e} is allowed.",
            "Nothing was exported. Export without --format onnx.",
        )
    return worst


def onnx_inputs(
    bank: FeatureBank, samples: NDArray[np.int64], settings: Sequence[Setting]
) -> Inputs:
    """What the graph of these settings reads, by name.

    Args:
        bank: The features; a post may lack a modality.
        samples: Sample indices.
        settings: Those of the model, in its order.
    """
    items = bank.items(samples, variants=False)
    found: dict[str, Tensor] = {}
    for setting in settings:
        batch = gather(bank, items, setting)
        for modality in _read(setting):
            mask = as_mask(getattr(batch, modality), getattr(batch, f"{modality}_mask"))
            found[f"{modality}_present"] = mask.any(1)
            if _reads_sequences(setting):
                name = _sequence_name(setting, modality)
                found[name] = getattr(batch, modality).float()
                if name == modality:
                    found[f"{modality}_mask"] = mask
            if _reads_vectors(setting):
                found |= {
                    name: vector.float()
                    for name, vector in batch.vectors.items()
                    if name.startswith(f"{modality}_")
                }
    return {name: value.cpu().numpy() for name, value in sorted(found.items())}


def describe_inputs(path: Path) -> dict[str, list[str | int]]:
    """The inputs of a graph by name: their shapes, free axes by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return {value.name: list(value.shape) for value in session.get_inputs()}


def difference(path: Path, ensemble: Ensemble, bank: FeatureBank) -> float:
    """Largest difference of a probability between the file and PyTorch in float32.

    The posts are given one by one, all but one, and all together: batches and lengths of all kinds.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    settings = [blend.setting for blend in ensemble.blends]
    exact = Ensemble(
        [Blend(replace(b.setting, precision="float32"), b.members) for b in ensemble.blends],
        ensemble.calibration,
    )
    every = np.arange(len(bank))
    worst = 0.0
    for samples in (*every[:, None], every[1:], every):
        (found,) = session.run([OUTPUT], onnx_inputs(bank, samples, settings))
        gap = float(np.abs(found - exact.predict(bank, samples)).max())
        worst = gap if math.isnan(gap) else max(worst, gap)
    return worst


def check_bank(ensemble: Ensemble, dims: Sequence[Dims]) -> FeatureBank:
    """Generated features as the model expects them: whole posts, and posts without one half.

    They are drawn around the means with which the model standardises, so that no probability is
    all but 0 or 1.
    """
    rng = np.random.default_rng(0)
    figures = _figures(ensemble)
    guids = [str(number) for number in range(_CHECKED_ROWS)]
    features = {}
    for modality, lacking in (("text", 1), ("image", 2)):
        rows = [guid for place, guid in enumerate(guids) if place % 3 != lacking]
        lengths = rng.integers(2, _LONGEST + 1, len(rows))
        if modality == "image":
            side = max(2, *(blend.setting.grid for blend in ensemble.blends))
            lengths[:] = side * side
        features[modality] = _generated(modality, rows, lengths, dims, figures, rng)
    labels = [-1] * len(guids)
    return FeatureBank(features["text"], features["image"], guids, labels, partial=True)


def _generated(
    modality: str,
    guids: list[str],
    lengths: NDArray[np.int64],
    dims: Sequence[Dims],
    figures: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    rng: np.random.Generator,
) -> ModalityFeatures:
    sizes = {
        name.removeprefix(f"{modality}_"): size
        for part in dims
        for names, size in part.vectors.items()
        for name in split_pools(names)
        if name.startswith(f"{modality}_")
    }
    pools = [name for name in sizes if name != SHARED]
    width = sizes[pools[0]] if pools else getattr(dims[0], modality)

    def draw(name: str, rows: int, size: int) -> NDArray[Any]:
        mean, scale = figures.get(name, (np.float32(0), np.float32(1)))
        return (mean + scale * rng.standard_normal((rows, size))).astype(FEATURE_DTYPE)

    rows = len(guids)
    pooled = [draw(f"{modality}_{name}", rows, width) for name in pools]
    shard = Shard(
        guids,
        np.zeros(rows, np.int32),
        [""] * rows,
        np.concatenate([[0], np.cumsum(lengths)]),
        draw(modality, int(lengths.sum()), width),
        np.stack(pooled, 1) if pools else np.zeros((rows, 0, width), FEATURE_DTYPE),
        tuple(pools),
        draw(f"{modality}_{SHARED}", rows, sizes[SHARED]) if SHARED in sizes else None,
    )
    return ModalityFeatures([shard], f"generated {modality}")


def _figures(ensemble: Ensemble) -> dict[str, tuple[Any, Any]]:
    """Means and scales by the names of `onnx_inputs`, where a member standardises."""
    found: dict[str, tuple[Any, Any]] = {}
    for blend in ensemble.blends:
        member = blend.members[0]
        norms: dict[str, Any] = (
            dict(member.norms.items())
            if isinstance(member, KernelClassifier)
            else {name: part.standardise for name, part in member.projections.items()}
        )
        for name, norm in norms.items():
            if norm is None:
                continue
            mean, scale = norm.mean.cpu().numpy(), norm.scale.cpu().numpy()
            pools = _pools(blend.setting, name) if name in _AXES else []
            if not pools or blend.setting.level == "tokens":
                found[name] = mean, scale
            elif len(mean) % len(pools) == 0:
                parts = zip(np.split(mean, len(pools)), np.split(scale, len(pools)), strict=True)
                found |= {f"{name}_{pool}": both for pool, both in zip(pools, parts, strict=True)}
    return found


class _Graph(nn.Module):
    """The ensemble as one module.

    Args:
        ensemble: The model.
        names: Of the inputs, in the order in which `forward` gets them.
    """

    offsets: Tensor

    def __init__(self, ensemble: Ensemble, names: Sequence[str]) -> None:
        super().__init__()
        self.members = nn.ModuleList(ensemble.members)
        self._settings = [blend.setting for blend in ensemble.blends]
        self._counts = [len(blend.members) for blend in ensemble.blends]
        self._names = tuple(names)
        self._temperature = ensemble.calibration.temperature
        self.register_buffer(
            "offsets", torch.tensor(ensemble.calibration.offsets, dtype=torch.float64)
        )

    def forward(self, tensors: list[Tensor]) -> Tensor:
        """The inputs to calibrated probabilities, (batch, classes) float32."""
        given = dict(zip(self._names, tensors, strict=True))
        blends, first = [], 0
        for setting, count in zip(self._settings, self._counts, strict=True):
            inputs = _model_inputs(setting, given)
            members = list(self.members)[first : first + count]
            logits = torch.stack([member(**inputs)[0] for member in members])
            blends.append(logits.double().softmax(2).mean(0))
            first += count
        mean = torch.stack(blends).mean(0)
        # What `Calibration` does: temper, shift by the offsets, normalise.
        tempered = mean.clamp_min(_SMALLEST).log() / self._temperature
        return (tempered + self.offsets).softmax(1).float()


def _model_inputs(setting: Setting, given: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of a member's `forward`, as `FeatureBank.batch` would make them."""
    inputs: dict[str, Any] = {
        f"{modality}{end}": None for modality in _AXES for end in ("", "_mask")
    }
    vectors: dict[str, Tensor] = {}
    for modality in _read(setting):
        present = given[f"{modality}_present"].unsqueeze(1)
        own = {f"{modality}_{pool}": None for pool in _pools(setting, modality)}
        if _reads_vectors(setting):
            vectors |= {name: given[name] for name in own}
        if not _reads_sequences(setting):
            pooled = [given[name] for name in own]
            inputs[modality] = torch.cat(pooled, 1).unsqueeze(1)
            inputs[f"{modality}_mask"] = present
            continue
        name = _sequence_name(setting, modality)
        sequence = given[name]
        mask = given[f"{modality}_mask"] if name == modality else None
        inputs[modality] = sequence
        inputs[f"{modality}_mask"] = (
            present.expand(sequence.shape[:2]) if mask is None else mask & present
        )
    return {**inputs, "vectors": vectors}


def _read(setting: Setting) -> list[str]:
    return list(_AXES) if setting.modality == "both" else [setting.modality]


def _pools(setting: Setting, modality: str) -> list[str]:
    return split_pools(getattr(setting, f"{modality}_pool"))


def _reads_sequences(setting: Setting) -> bool:
    return setting.level == "tokens" and setting.fusion != KERNEL


def _reads_vectors(setting: Setting) -> bool:
    return not _reads_sequences(setting) or setting.beside


def _sequence_name(setting: Setting, modality: str) -> str:
    return f"image_grid_{setting.grid}" if modality == "image" and setting.grid else modality


def _dynamic_axes(names: Sequence[str]) -> dict[str, dict[int, Any]]:
    batch = torch.export.Dim("batch")
    lengths = {modality: torch.export.Dim(axis) for modality, axis in _AXES.items()}
    return {
        name: {0: batch}
        | ({1: lengths[name.removesuffix("_mask")]} if name.removesuffix("_mask") in _AXES else {})
        for name in names
    }


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"--format onnx needs the package {error.name}.", "pip install 'mmsa[onnx]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own deprecated calls and of axis names that it merges."""
    names = ("onnxscript", "onnx_ir", "torch.onnx", "torch.__trace")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
