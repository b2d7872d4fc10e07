"""Features that float16 cannot hold: which row and part of it, and what to change."""

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
"""Of float16; infinities and NaN alone have all of its bits set."""


def check_finite(part: Encoded, guids: Sequence[str], encoder: Encoder) -> None:
    """Refuses a batch with features that are not finite; costs little more than to read it.

    Args:
        part: The batch.
        guids: Its rows' names.
        encoder: What computed it.

    Raises:
        DeviceError: Names the first such row, the position or pool, its layer, and what to set.
    """
    # By NumPy, see `assemble`.
    whole = (part.tokens, part.pooled, *([] if part.shared is None else [part.shared]))
    if all(_finite(values.numpy()) for values in whole):
        return
    guid, values, what, cure = next(
        (guid, *found)
        for guid, row in zip(guids, range(len(guids)), strict=True)
        for found in _parts(part, row, encoder)
        if not _finite(found[0])
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
    raise DeviceError(f"{guid}: {what} of {encoder.label} is not finite in float16.", cure)


def _parts(part: Encoded, row: int, encoder: Encoder) -> Iterator[tuple[NDArray[Any], str, str]]:
    """The values of a row, what they are, and how to do without them; causes before effects."""
    layer = encoder.options.layer
    kept = "the last layer" if layer == "last" else f"layer {layer}", "choose another layer"
    first = sum(part.lengths[:row])
    for place, values in enumerate(part.tokens[first : first + part.lengths[row]].numpy()):
        yield values, f"position {place} ({kept[0]})", kept[1]
    for pool, values in zip(encoder.pools, part.pooled[row].numpy(), strict=True):
        _, inner, number = pool.partition("@")
        own = (f"layer {number}", f"leave {number} out of pool_layers") if inner else kept
        yield values, f"pool {pool} ({own[0]})", own[1]
    if part.shared is not None:
        yield part.shared[row].numpy(), f"pool {SHARED}", "choose another model"


def _finite(values: NDArray[Any]) -> bool:
    """Four times as quick as ``np.isfinite``."""
    return not values.size or int((values.view(np.uint16) & _EXPONENT).max()) < _EXPONENT
