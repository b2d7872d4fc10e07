"""One modality of a bank: one encoder's sequences, and pools of several encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmsa_cache.errors import DamagedCacheError, SettingsError
from mmsa_cache.names import split_terms

from .modality import ModalityFeatures


class EncoderGroup:
    """Features of several encoders of one modality for the same inputs.

    Args:
        modality: ``text`` or ``image``.
        own: Gives the sequences, and the pools named without an encoder.
        named: Features by encoder name, with pools ``ENCODER.POOL``.
        guids: Names of the samples.
        partial: Whether samples may lack the modality.

    Attributes:
        own: The argument.
        table: Rows of each sample, the original first, (samples, variants) int64; −1 where an
            encoder has none.

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
        self.table = _checked_table(own, guids, partial)
        self._named = dict(named)
        self._rows_by_name: dict[str, Tensor] = {}
        tables = {
            name: _checked_table(features, guids, partial) for name, features in named.items()
        }
        for name, table in tables.items():
            width = min(self.table.shape[1], table.shape[1])
            exists = (self.table[:, :width] >= 0) & (table[:, :width] >= 0)
            rows = torch.zeros(len(own.pooled), dtype=torch.int64)
            rows[self.table[:, :width][exists]] = table[:, :width][exists]
            self._rows_by_name[name] = rows
            self.table = torch.where(exists, self.table[:, :width], -1)

    @property
    def encoders(self) -> list[ModalityFeatures]:
        """The features of all encoders, `own` first."""
        return [self.own, *(each for each in self._named.values() if each is not self.own)]

    def to(self, device: torch.device, tokens: bool) -> None:
        """See `ModalityFeatures.to`."""
        for features in (self.own, *self._named.values()):
            features.to(device, tokens)
        self._rows_by_name = {name: rows.to(device) for name, rows in self._rows_by_name.items()}

    def dim(self, pools: str) -> int:
        """Total size of pooled vectors joined by ``+``."""
        terms = split_terms(pools)
        return sum(self._encoder_of(pool)[0].vector_dim(pool.rpartition(".")[2]) for pool in terms)

    def vector(self, rows: Tensor, pool: str) -> Tensor:
        """Pooled vectors (batch, dim) float16 of rows (batch,) of `own`.

        Args:
            rows: Row numbers.
            pool: ``POOL``, or ``ENCODER.POOL`` of another encoder.

        Raises:
            SettingsError: There is no such pool.
        """
        features, row_of = self._encoder_of(pool)
        rows = rows.to(features.device)
        if row_of is not None:
            rows = row_of[rows]
        return features.vectors(rows, pool.rpartition(".")[2])

    def _encoder_of(self, pool: str) -> tuple[ModalityFeatures, Tensor | None]:
        """The features that hold a pool, and their rows by those of `own` (None: equal)."""
        name = pool.rpartition(".")[0]
        if not name:
            return self.own, None
        if name not in self._named:
            raise SettingsError(
                f"These features are not of the {self.modality} encoder {name!r}.",
                f"They are of: {', '.join(self._named)}.",
            )
        return self._named[name], self._rows_by_name[name]


def _checked_table(features: ModalityFeatures, guids: Sequence[str], partial: bool) -> Tensor:
    """The table of features, (samples, variants), after a check that no sample is missing."""
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
