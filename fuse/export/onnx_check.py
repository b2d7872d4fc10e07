"""Comparison of the ONNX graph with PyTorch on generated posts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.training.ensemble import Ensemble
from mmsa_cache.features.bank import BankChoice, FeatureBank
from mmsa_cache.features.batch import Dims, required_pools
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import split_terms, vector_name
from mmsa_cache.store.keys import KEY_BYTES
from mmsa_cache.store.schema import FEATURE_DTYPE, SHARED, Shard

from .onnx_inputs import AXES, onnx_inputs, pool_names

OUTPUT = "probabilities"
"""The graph's output, (batch, classes) float32."""
_CHECKED_ROWS = 12
_LONGEST = 7
"""Tokens of the longest generated text."""


def largest_difference(path: Path, ensemble: Ensemble, bank: FeatureBank) -> float:
    """Largest difference of a probability between the file and PyTorch in float32.

    The posts are predicted one by one, all but one, and all together, so that batch sizes and
    lengths differ.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    settings = [blend.setting for blend in ensemble.blends]
    exact = Ensemble(
        [replace(b, setting=replace(b.setting, precision="float32")) for b in ensemble.blends],
        ensemble.calibration,
    )
    rows = np.arange(len(bank))
    largest = 0.0
    for samples in (*rows[:, None], rows[1:], rows):
        (probabilities,) = session.run([OUTPUT], onnx_inputs(bank, samples, settings))
        difference = float(np.abs(probabilities - exact.predict(bank, samples)).max())
        largest = difference if math.isnan(difference) else max(largest, difference)
    return largest


def generate_bank(ensemble: Ensemble, dims: Sequence[Dims]) -> FeatureBank:
    """Generates features of whole posts, and of posts without text or image.

    They are drawn around the means by which the model standardises, so that no probability is
    almost 0 or 1.
    """
    rng = np.random.default_rng(0)
    moments = _moments(ensemble, dims)
    settings = [blend.setting for blend in ensemble.blends]
    readers = [(setting.encoders, own) for setting, own in zip(settings, dims, strict=True)]
    rows = np.arange(_CHECKED_ROWS)
    present = {"text": rows % 3 != 1, "image": rows % 3 != 2}
    lengths = {m: rng.integers(2, _LONGEST + 1, has.sum()) for m, has in present.items()}
    lengths["image"][:] = max(2, *(setting.grid for setting in settings)) ** 2

    def draw(name: str, rows: int, size: int) -> NDArray[Any]:
        mean, scale = moments.get(name, (np.float32(0), np.float32(1)))
        return (mean + scale * rng.standard_normal((rows, size))).astype(FEATURE_DTYPE)

    def generate(modality: str, encoder: str) -> ModalityFeatures:
        sizes = required_pools(readers, modality, encoder)
        own = any(split_terms(pair[modality == "image"])[0] == encoder for pair, _ in readers)
        names = {p: vector_name(modality, p if own else f"{encoder}.{p}") for p in sizes}
        pools = tuple(pool for pool in sizes if pool != SHARED)
        width = sizes[pools[0]] if pools else getattr(dims[0], modality)
        has, rows = present[modality], len(lengths[modality])
        pooled = [draw(names[pool], rows, width) for pool in pools]
        shard = Shard(
            np.zeros((rows, KEY_BYTES), np.uint8),  # never looked up
            [""] * rows,
            np.concatenate([[0], np.cumsum(lengths[modality])]),
            draw(modality, int(lengths[modality].sum()), width),
            np.stack(pooled, 1) if pools else np.zeros((rows, 0, width), FEATURE_DTYPE),
            pools,
            draw(names[SHARED], rows, sizes[SHARED]) if SHARED in sizes else None,
        )
        table = np.where(has, has.cumsum() - 1, -1)[:, None]
        return ModalityFeatures([shard], f"generated {modality}", table=table)

    guids = [str(row) for row in rows]
    choice = BankChoice(generate, guids, [-1] * len(guids), partial=True)
    return choice.open([pair for pair, _ in readers])


def _moments(ensemble: Ensemble, dims: Sequence[Dims]) -> dict[str, tuple[Any, Any]]:
    """Means and scales of standardised inputs, by the names of `onnx_inputs`."""
    moments: dict[str, tuple[Any, Any]] = {}
    for blend, sizes in zip(ensemble.blends, dims, strict=True):
        member = blend.members[0]
        for name, norm in member.standardisations.items():
            mean, scale = norm.mean.cpu().numpy(), norm.scale.cpu().numpy()
            if name not in AXES or blend.setting.level == "tokens":
                moments[name] = mean, scale
                continue
            vectors = [vector_name(name, pool) for pool in pool_names(blend.setting, name)]
            ends = np.cumsum([sizes.vectors[vector] for vector in vectors])[:-1]
            parts = zip(np.split(mean, ends), np.split(scale, ends), strict=True)
            moments |= dict(zip(vectors, parts, strict=True))
    return moments
