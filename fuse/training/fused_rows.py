"""Rows of a model that trains its classifier alone, fused once instead of in every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from fuse.models.classifier import FUSED, Classifier
from fuse.setting import Setting
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Batch

from .classifier import gather_batch, matmul_precision
from .programs import model_inputs

_MOST_BYTES = 1 << 29
_ROWS_AT_ONCE = 512


class FusedRows:
    """What a model's `fuse` gives for every item, in memory.

    Args:
        model: Its `fuse` stays as it is.
        bank: The features.
        setting: What the model was made of.
        items: Rows of `FeatureBank.items`, (items, 3).
    """

    def __init__(self, model: Classifier, bank: FeatureBank, setting: Setting, items: Tensor):
        self._bank, self._images = bank, int(items[:, 2].max()) + 2
        keys, first = _first_of_each(self._keys(items))
        self._sorted = keys
        items = items[first]
        with torch.no_grad(), matmul_precision(setting):
            parts = [
                model.fuse(model_inputs(gather_batch(bank, of, setting)))[0]
                for of in items.split(_ROWS_AT_ONCE)
            ]
        self._rows = torch.cat(parts)

    @classmethod
    def of(
        cls, model: Classifier, bank: FeatureBank, setting: Setting, items: Tensor
    ) -> FusedRows | None:
        """None where that would not help: the model trains its fusion, copies are paired anew in
        every epoch, the rows are too many, or a GPU repeats whole steps as they are.
        """
        drawn = setting.variants and setting.pairing == "free"
        large = 4 * len(items) * model.landmarks > _MOST_BYTES
        if model.trains_fusion or drawn or large or bank.labels.device.type != "cpu":
            return None
        return cls(model, bank, setting, items)

    def batch(self, items: Tensor) -> Batch:
        """The batch of items, (rows, 3), that are among those given."""
        places = torch.searchsorted(self._sorted, self._keys(items)).to(self._rows.device)
        rows = self._rows.index_select(0, places)
        labels = self._bank.labels[items[:, 0].to(self._bank.labels.device)]
        return Batch(rows[:, None], None, rows[:, None], None, {FUSED: rows}, labels)

    def _keys(self, items: Tensor) -> Tensor:
        """A number for each pair of a text and an image row; −1 is that of a missing one."""
        return ((items[:, 1] + 1) * self._images + items[:, 2] + 1).cpu()


def _first_of_each(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted different keys, and a place of each."""
    found, inverse = keys.unique(return_inverse=True)
    places = torch.empty_like(found)
    places[inverse] = torch.arange(len(keys))
    return found, places
