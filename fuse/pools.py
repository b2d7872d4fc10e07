"""The pools that a setting names, for a store."""

from __future__ import annotations

from collections.abc import Callable

from fuse.figures.study import Value
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import resolve_pools

Has = Callable[[str, str], bool]
"""Whether a store has an encoder, by modality and name."""
POOLS = {"text_pool": "text", "image_pool": "image"}
"""Modality by the field of a setting that names its pools."""


def resolve_value(key: str, value: Value, has: Has) -> Value:
    """A value of a setting's field for a store; only those of pools change.

    A pool ``ENCODER.POOL?`` becomes ``ENCODER.POOL`` where the store has the encoder, and is left
    out where it has not.

    Raises:
        SettingsError: No pool is left.
    """
    if key not in POOLS:
        return value
    pools = resolve_pools(str(value), lambda name: has(POOLS[key], name))
    if not pools:
        raise SettingsError(
            f"{key} = {value}: the store has none of these encoders.",
            "Run mmsa extract --encoders NAME, or name a pool that is there.",
        )
    return pools
