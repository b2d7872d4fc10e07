"""Rows of a model that trains its classifier only, fused once instead of in each epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from fuse.models.classifier import FUSED, Classifier
from fuse.setting import Setting
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Batch

from .classifier import gather_batch, matmul_precision
from .member import model_inputs

_MOST_BYTES = 1 << 29
_ROWS_AT_ONCE = 512


class FusedRows:
    """The fused vectors of all items, in memory.

    Args:
        model: The model; training does not change its `fuse`.
        bank: The features.
        setting: The setting of the model.
        items: Items of `FeatureBank.items`, (items, 3).
    """

    def __init__(self, model: Classifier, bank: FeatureBank, setting: Setting, items: Tensor):
        self._bank, self._images = bank, int(items[:, 2].max()) + 2
        self._sorted_keys, indices = _unique_with_index(self._keys(items))
        items = items[indices]
        with torch.no_grad(), matmul_precision(setting):
            parts = [
                model.fuse(model_inputs(gather_batch(bank, some, setting)))[0]
                for some in items.split(_ROWS_AT_ONCE)
            ]
        self._rows = torch.cat(parts)

    @classmethod
    def of(
        cls, model: Classifier, bank: FeatureBank, setting: Setting, items: Tensor
    ) -> FusedRows | None:
        """The fused rows, or None where they do not help.

        That is if the model trains its fusion, copies are paired anew in each epoch, there are too
        many rows, or a GPU repeats whole steps.
        """
        paired_anew = setting.variants and setting.pairing == "free"
        large = 4 * len(items) * model.landmarks > _MOST_BYTES
        if model.trains_fusion or paired_anew or large or bank.labels.device.type != "cpu":
            return None
        return cls(model, bank, setting, items)

    def batch(self, items: Tensor) -> Batch:
        """The batch of some of the items, (rows, 3)."""
        indices = torch.searchsorted(self._sorted_keys, self._keys(items)).to(self._rows.device)
        rows = self._rows.index_select(0, indices)
        labels = self._bank.labels[items[:, 0].to(self._bank.labels.device)]
        return Batch(rows[:, None], None, rows[:, None], None, {FUSED: rows}, labels)

    def _keys(self, items: Tensor) -> Tensor:
        """A number for each pair of a text row and an image row, of which −1 is a missing one."""
        return ((items[:, 1] + 1) * self._images + items[:, 2] + 1).cpu()


def _unique_with_index(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The sorted distinct keys, and an index of each in `keys`."""
    distinct, inverse = keys.unique(return_inverse=True)
    indices = torch.empty_like(distinct)
    indices[inverse] = torch.arange(len(keys))
    return distinct, indices
