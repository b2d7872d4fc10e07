"""The ONNX graph against PyTorch, over generated posts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.training.ensemble import Ensemble
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import pool_of, vector_name
from mmsa_cache.store.keys import KEY_BYTES
from mmsa_cache.store.schema import FEATURE_DTYPE, SHARED, Shard

from .onnx_inputs import AXES, onnx_inputs, pools_of

OUTPUT = "probabilities"
"""The graph's output, (batch, classes) float32."""
_CHECKED_ROWS = 12
_LONGEST = 7  # tokens of the longest text that is checked


def difference(path: Path, ensemble: Ensemble, bank: FeatureBank) -> float:
    """Largest difference of a probability between the file and PyTorch in float32.

    The posts are given one by one, all but one, and all together: batches and lengths of all kinds.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    settings = [blend.setting for blend in ensemble.blends]
    exact = Ensemble(
        [replace(b, setting=replace(b.setting, precision="float32")) for b in ensemble.blends],
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
    figures = _figures(ensemble, dims)
    guids = [str(number) for number in range(_CHECKED_ROWS)]
    features: dict[str, dict[str, ModalityFeatures]] = {}
    for modality, lacking in (("text", 1), ("image", 2)):
        has = np.arange(_CHECKED_ROWS) % 3 != lacking
        lengths = rng.integers(2, _LONGEST + 1, has.sum())
        if modality == "image":
            side = max(2, *(blend.setting.grid for blend in ensemble.blends))
            lengths[:] = side * side
        vectors = {name: size for part in dims for name, size in part.vectors.items()}
        sizes: dict[str, dict[str, int]] = {"": {}}
        for name, size in vectors.items():
            encoder, _, pool = pool_of(name).rpartition(".")
            if name.startswith(f"{modality}_"):
                sizes.setdefault(encoder, {})[pool] = size
        features[modality] = {
            encoder: _generated(modality, encoder, has, lengths, own, dims[0], figures, rng)
            for encoder, own in sizes.items()
        }
    text, image = (features[modality].pop("") for modality in AXES)
    return FeatureBank(text, image, guids, [-1] * len(guids), partial=True, beside=features)


def _generated(
    modality: str,
    encoder: str,
    has: NDArray[np.bool_],
    lengths: NDArray[np.int64],
    sizes: Mapping[str, int],
    dims: Dims,
    figures: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    rng: np.random.Generator,
) -> ModalityFeatures:
    """Features of an encoder with pools of some sizes; its name is empty for the own one."""
    pools = [name for name in sizes if name != SHARED]
    width = sizes[pools[0]] if pools else getattr(dims, modality)
    names = {name: vector_name(modality, f"{encoder}.{name}".lstrip(".")) for name in sizes}

    def draw(name: str, rows: int, size: int) -> NDArray[Any]:
        mean, scale = figures.get(name, (np.float32(0), np.float32(1)))
        return (mean + scale * rng.standard_normal((rows, size))).astype(FEATURE_DTYPE)

    rows = len(lengths)
    pooled = [draw(names[name], rows, width) for name in pools]
    shard = Shard(
        np.zeros((rows, KEY_BYTES), np.uint8),  # nobody looks them up
        [""] * rows,
        np.concatenate([[0], np.cumsum(lengths)]),
        draw(modality, int(lengths.sum()), width),
        np.stack(pooled, 1) if pools else np.zeros((rows, 0, width), FEATURE_DTYPE),
        tuple(pools),
        draw(names[SHARED], rows, sizes[SHARED]) if SHARED in sizes else None,
    )
    table = np.where(has, has.cumsum() - 1, -1)[:, None]
    return ModalityFeatures([shard], f"generated {modality}", table=table)


def _figures(ensemble: Ensemble, dims: Sequence[Dims]) -> dict[str, tuple[Any, Any]]:
    """Means and scales by the names of `onnx_inputs`, where a member standardises."""
    found: dict[str, tuple[Any, Any]] = {}
    for blend, sizes in zip(ensemble.blends, dims, strict=True):
        member = blend.members[0]
        for name, norm in member.standardisations.items():
            mean, scale = norm.mean.cpu().numpy(), norm.scale.cpu().numpy()
            if name not in AXES or blend.setting.level == "tokens":
                found[name] = mean, scale
                continue
            vectors = [vector_name(name, pool) for pool in pools_of(blend.setting, name)]
            ends = np.cumsum([sizes.vectors[vector] for vector in vectors])[:-1]
            parts = zip(np.split(mean, ends), np.split(scale, ends), strict=True)
            found |= dict(zip(vectors, parts, strict=True))
    return found
