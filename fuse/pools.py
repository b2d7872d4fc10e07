"""The pools that a setting names, resolved for a store."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from fuse.figures.study import Value
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.computed_pools import COMPUTED
from mmsa_cache.features.source import DerivedName
from mmsa_cache.names import DEFAULT_ENCODER, resolve_pools, split_terms

StorePools = Callable[[str, str], Sequence[str]]
"""Gives the pools of an encoder in a store, by modality and name; empty if it is unknown."""
POOLS = {"text_pool": "text", "image_pool": "image"}
"""Modality by the field of a setting that names its pools."""


def resolve_value(
    key: str, value: Value, store_pools: StorePools, own: str = DEFAULT_ENCODER
) -> Value:
    """Resolves a value of a setting's field for a store; only values of pools change.

    A pool ``ENCODER.POOL?`` becomes ``ENCODER.POOL`` if the store has it, and is left out if not;
    see `mmsa_cache.names.resolve_pools`.

    Args:
        key: The field.
        value: Its value.
        store_pools: The store's pools.
        own: The encoder whose pools are named without it.

    Raises:
        SettingsError: No pool is left.
    """
    if key not in POOLS:
        return value
    pools = resolve_pools(str(value), lambda name: store_pools(POOLS[key], name or own))
    if not pools:
        raise SettingsError(
            f"{key} = {value}: the store has none of these.",
            "Run mmsa extract --encoders NAME, or name a pool that is there.",
        )
    return pools


def derived_names(
    modality: str, encoders: Iterable[str], pools: Iterable[str], sides: Iterable[int]
) -> list[DerivedName]:
    """Features computed from the positions of a modality that settings read.

    Args:
        modality: One of `MODALITIES`.
        encoders: First ones of the settings; theirs are pools that name no encoder, and grids.
        pools: Terms joined by ``+``.
        sides: Of the patch grids; 0 is none.
    """
    own = list(dict.fromkeys(encoders))
    names: list[DerivedName] = []
    for term in itertools.chain.from_iterable(map(split_terms, pools)):
        encoder, _, pool = term.rpartition(".")
        if pool in COMPUTED:
            names += [(modality, name, pool) for name in ([encoder] if encoder else own)]
    if modality == "image":
        names += [(modality, name, side) for name in own for side in sorted(sides) if side > 0]
    return list(dict.fromkeys(names))
