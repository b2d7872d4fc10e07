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
from mmsa_cache.features.modality import ModalityFeatures, split_pools
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
    figures = _figures(ensemble)
    guids = [str(number) for number in range(_CHECKED_ROWS)]
    features = {}
    for modality, lacking in (("text", 1), ("image", 2)):
        has = np.arange(_CHECKED_ROWS) % 3 != lacking
        lengths = rng.integers(2, _LONGEST + 1, has.sum())
        if modality == "image":
            side = max(2, *(blend.setting.grid for blend in ensemble.blends))
            lengths[:] = side * side
        features[modality] = _generated(modality, has, lengths, dims, figures, rng)
    labels = [-1] * len(guids)
    return FeatureBank(features["text"], features["image"], guids, labels, partial=True)


def _generated(
    modality: str,
    has: NDArray[np.bool_],
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

    rows = len(lengths)
    pooled = [draw(f"{modality}_{name}", rows, width) for name in pools]
    shard = Shard(
        np.zeros((rows, KEY_BYTES), np.uint8),  # nobody looks them up
        [""] * rows,
        np.concatenate([[0], np.cumsum(lengths)]),
        draw(modality, int(lengths.sum()), width),
        np.stack(pooled, 1) if pools else np.zeros((rows, 0, width), FEATURE_DTYPE),
        tuple(pools),
        draw(f"{modality}_{SHARED}", rows, sizes[SHARED]) if SHARED in sizes else None,
    )
    table = np.where(has, has.cumsum() - 1, -1)[:, None]
    return ModalityFeatures([shard], f"generated {modality}", table=table)


def _figures(ensemble: Ensemble) -> dict[str, tuple[Any, Any]]:
    """Means and scales by the names of `onnx_inputs`, where a member standardises."""
    found: dict[str, tuple[Any, Any]] = {}
    for blend in ensemble.blends:
        member = blend.members[0]
        for name, norm in member.standardisations.items():
            mean, scale = norm.mean.cpu().numpy(), norm.scale.cpu().numpy()
            pools = pools_of(blend.setting, name) if name in AXES else []
            if not pools or blend.setting.level == "tokens":
                found[name] = mean, scale
            elif len(mean) % len(pools) == 0:
                parts = zip(np.split(mean, len(pools)), np.split(scale, len(pools)), strict=True)
                found |= {f"{name}_{pool}": both for pool, both in zip(pools, parts, strict=True)}
    return found
