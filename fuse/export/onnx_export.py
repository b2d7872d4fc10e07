"""Export of a final model as one ONNX graph: members averaged, calibrated, checked."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fuse.models.classifier import Inputs
from fuse.setting import Setting
from fuse.training.ensemble import Ensemble
from mmsa_cache.errors import ModelError, require_extra
from mmsa_cache.features.batch import Dims
from mmsa_cache.names import vector_name

from .onnx_check import OUTPUT, generate_bank, largest_difference
from .onnx_inputs import (
    AXES,
    onnx_inputs,
    pool_names,
    read_modalities,
    reads_sequences,
    reads_vectors,
    sequence_name,
)

TOLERANCE = 1e-5
"""Largest difference of a probability from PyTorch's in float32 that is accepted."""
_SMALLEST = float(np.finfo(np.float64).tiny)


def export_onnx(
    ensemble: Ensemble, dims: Sequence[Dims], path: Path, metadata: Mapping[str, str]
) -> float:
    """Writes the graph and checks it with onnxruntime on whole posts and posts without a half.

    Args:
        ensemble: The model, on the CPU.
        dims: Features of the inputs of each setting.
        path: The file to write.
        metadata: Metadata properties of the file.

    Returns:
        The largest difference of a probability in the check.

    Raises:
        SettingsError: The packages of the export are not installed.
        ModelError: The graph differs from PyTorch by more than `TOLERANCE`.
    """
    _require_packages()
    bank = generate_bank(ensemble, dims)
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
    difference = largest_difference(path, ensemble, bank)
    if not difference <= TOLERANCE:  # also NaN
        raise ModelError(
            f"The ONNX graph gives other probabilities than PyTorch: they differ by "
            f"{difference:.1e}, {TOLERANCE:.0e} is allowed.",
            "Nothing was exported. Export without --format onnx.",
        )
    return difference


def describe_inputs(path: Path) -> dict[str, list[str | int]]:
    """Shapes of the inputs of a graph by name; free axes are names."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return {value.name: list(value.shape) for value in session.get_inputs()}


class _Graph(nn.Module):
    """The ensemble as one module.

    Args:
        ensemble: The model.
        names: Names of the inputs, in the order of `forward`.
    """

    biases: Tensor

    def __init__(self, ensemble: Ensemble, names: Sequence[str]) -> None:
        super().__init__()
        self.members = nn.ModuleList(ensemble.members)
        self._settings = [blend.setting for blend in ensemble.blends]
        self._counts = [len(blend.members) for blend in ensemble.blends]
        self._weights = [blend.weight for blend in ensemble.blends]
        self._names = tuple(names)
        self._temperature = ensemble.calibration.temperature
        self.register_buffer(
            "biases", torch.tensor(ensemble.calibration.biases, dtype=torch.float64)
        )

    def forward(self, tensors: list[Tensor]) -> Tensor:
        """Calibrated probabilities, (batch, classes) float32."""
        by_name = dict(zip(self._names, tensors, strict=True))
        blends, first = [], 0
        for setting, count, weight in zip(self._settings, self._counts, self._weights, strict=True):
            inputs = _model_inputs(setting, by_name)
            members = list(self.members)[first : first + count]
            logits = torch.stack([member(*inputs)[0] for member in members])
            blends.append(weight * logits.double().softmax(2).mean(0))
            first += count
        mean = torch.stack(blends).sum(0)
        # As in `Calibration`: temper, shift by the biases, normalise.
        tempered = mean.clamp_min(_SMALLEST).log() / self._temperature
        return (tempered + self.biases).softmax(1).float()


def _model_inputs(setting: Setting, tensors: Mapping[str, Tensor]) -> Inputs:
    """The inputs of a member, as `FeatureBank.batch` would make them."""
    inputs: dict[str, Tensor] = {}
    vectors: dict[str, Tensor] = {}
    for modality in read_modalities(setting):
        present = tensors[f"{modality}_present"].unsqueeze(1)
        own = [vector_name(modality, pool) for pool in pool_names(setting, modality)]
        if reads_vectors(setting):
            vectors |= {name: tensors[name] for name in own}
        if not reads_sequences(setting):
            pooled = [tensors[name] for name in own]
            inputs[modality] = torch.cat(pooled, 1).unsqueeze(1)
            inputs[f"{modality}_mask"] = present
            continue
        name = sequence_name(setting, modality)
        sequence = tensors[name]
        mask = tensors[f"{modality}_mask"] if name == modality else None
        inputs[modality] = sequence
        inputs[f"{modality}_mask"] = (
            present.expand(sequence.shape[:2]) if mask is None else mask & present
        )
    return Inputs.of(inputs, vectors)


def _dynamic_axes(names: Sequence[str]) -> dict[str, dict[int, Any]]:
    batch = torch.export.Dim("batch")
    lengths = {modality: torch.export.Dim(axis) for modality, axis in AXES.items()}
    return {
        name: {0: batch}
        | ({1: lengths[name.removesuffix("_mask")]} if name.removesuffix("_mask") in AXES else {})
        for name in names
    }


def _require_packages() -> None:
    with require_extra("--format onnx", "onnx"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's warnings of its own deprecated calls and of merged axis names."""
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
