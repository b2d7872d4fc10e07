"""Refuses features that float16 cannot hold; says which ones, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.compute import HALF
from extract.encoders.protocol import Encoded, Encoder
from mmsa_cache.errors import DeviceError
from mmsa_cache.store.schema import SHARED

_EXPONENT = 0x7C00
"""Exponent bits of float16; only infinities and NaN have all of them set."""


def check_finite(part: Encoded, guids: Sequence[str], encoder: Encoder) -> None:
    """Refuses a batch with features that are not finite; about as fast as reading them.

    Args:
        part: The batch.
        guids: Of its rows.
        encoder: Computed it.

    Raises:
        DeviceError: Names the first such row, its position or pool, the layer, and what to set.
    """
    # By NumPy, see `assemble`.
    features = (part.tokens, part.pooled, *([] if part.shared is None else [part.shared]))
    if all(_is_finite(values.numpy()) for values in features):
        return
    guid, values, name, cure = next(
        (guid, values, name, cure)
        for row, guid in enumerate(guids)
        for values, name, cure in _vectors(part, row, encoder)
        if not _is_finite(values)
    )
    compute = encoder.options.compute
    if compute == HALF:
        cure = "Set compute = 'float16' or 'float32' in [extract]: half overflows in the model."
    elif compute == "float16":
        cure = "Set compute = 'bfloat16' or 'float32' in [extract]: float16 overflows in the model."
    elif np.isnan(values).any():
        cure = f"The model gives NaN in {compute}: check its weights."
    else:
        cure = f"float16 stores no value beyond 65504, whatever computes it: {cure}."
    raise DeviceError(f"{guid}: {name} of {encoder.label} is not finite in float16.", cure)


def _vectors(part: Encoded, row: int, encoder: Encoder) -> Iterator[tuple[NDArray[Any], str, str]]:
    """The vectors of a row, their names, and how to do without them; causes before effects."""
    layer = encoder.options.layer
    output = "the last layer" if layer == "last" else f"layer {layer}", "choose another layer"
    first = sum(part.lengths[:row])
    for position, values in enumerate(part.tokens[first : first + part.lengths[row]].numpy()):
        yield values, f"position {position} ({output[0]})", output[1]
    for pool, values in zip(encoder.pools, part.pooled[row].numpy(), strict=True):
        _, inner, number = pool.partition("@")
        source = (f"layer {number}", f"leave {number} out of pool_layers") if inner else output
        yield values, f"pool {pool} ({source[0]})", source[1]
    if part.shared is not None:
        yield part.shared[row].numpy(), f"pool {SHARED}", "choose another model"


def _is_finite(values: NDArray[Any]) -> bool:
    """Four times as quick as ``np.isfinite``."""
    return not values.size or int((values.view(np.uint16) & _EXPONENT).max()) < _EXPONENT
