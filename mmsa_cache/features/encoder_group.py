"""One modality of a bank: the encoder of its sequences, with pools of others beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmsa_cache.errors import DamagedCacheError, SettingsError
from mmsa_cache.names import split_terms

from .modality import ModalityFeatures


class EncoderGroup:
    """The features of several encoders of one modality, row by row the same inputs.

    Args:
        modality: ``text`` or ``image``.
        own: Gives the sequences, and the pools that are named without an encoder.
        named: Features by the name of their encoder, whose pools are ``ENCODER.POOL``.
        guids: Samples.
        partial: Samples may lack the modality.

    Attributes:
        own: As given.
        table: Rows of each sample, the original first, (samples, variants) int64; −1 where one of
            the encoders has none.

    Raises:
        DamagedCacheError: An encoder lacks samples, and `partial` is not set.
    """

    def __init__(
        self,
        modality: str,
        own: ModalityFeatures,
        named: Mapping[str, ModalityFeatures],
        guids: Sequence[str],
        partial: bool,
    ) -> None:
        self.modality, self.own = modality, own
        self.table = _checked(own, guids, partial)
        self._named = dict(named)
        self._places: dict[str, Tensor] = {}
        tables = {name: _checked(features, guids, partial) for name, features in named.items()}
        for name, table in tables.items():
            width = min(self.table.shape[1], table.shape[1])
            there = (self.table[:, :width] >= 0) & (table[:, :width] >= 0)
            places = torch.zeros(len(own.pooled), dtype=torch.int64)
            places[self.table[:, :width][there]] = table[:, :width][there]
            self._places[name] = places
            self.table = torch.where(there, self.table[:, :width], -1)

    @property
    def encoders(self) -> list[ModalityFeatures]:
        """The features of every encoder, the own first."""
        return [self.own, *(of for of in self._named.values() if of is not self.own)]

    def to(self, device: torch.device, tokens: bool) -> None:
        """See `ModalityFeatures.to`."""
        for features in (self.own, *self._named.values()):
            features.to(device, tokens)
        self._places = {name: places.to(device) for name, places in self._places.items()}

    def dim(self, pools: str) -> int:
        """Features of pooled vectors joined by ``+``."""
        terms = split_terms(pools)
        return sum(self._found(pool)[0].vector_dim(pool.rpartition(".")[2]) for pool in terms)

    def vector(self, rows: Tensor, pool: str) -> Tensor:
        """Pooled vectors (batch, dim) float16 of rows (batch,) of the own encoder.

        Args:
            rows: Row numbers.
            pool: ``POOL``, or ``ENCODER.POOL`` of another encoder.

        Raises:
            SettingsError: There is no such pool.
        """
        features, places = self._found(pool)
        rows = rows.to(features.device)
        if places is not None:
            rows = places[rows]
        return features.vectors(rows, pool.rpartition(".")[2])

    def _found(self, pool: str) -> tuple[ModalityFeatures, Tensor | None]:
        """Whose pool it is, and the rows of that encoder by those of the own one."""
        name = pool.rpartition(".")[0]
        if not name:
            return self.own, None
        if name not in self._named:
            raise SettingsError(
                f"These features are not of the {self.modality} encoder {name!r}.",
                f"They are of: {', '.join(self._named)}.",
            )
        return self._named[name], self._places[name]


def _checked(features: ModalityFeatures, guids: Sequence[str], partial: bool) -> Tensor:
    """(samples, variants) row numbers, −1 where a sample has no such variant."""
    table = features.table
    if len(table) != len(guids):
        raise DamagedCacheError(
            f"{features.name} has rows of {len(table)} samples, wanted are {len(guids)}."
        )
    missing = [guids[i] for i in (table[:, 0] < 0).nonzero().squeeze(1).tolist()]
    if missing and not partial:
        raise DamagedCacheError(
            f"{features.name} lacks {len(missing)} samples, e.g. {missing[:3]}."
        )
    return table
