"""Nearest labelled posts of a store, by their features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fuse.training.ensemble import Ensemble
from mmsa_cache.data.table import SampleTable
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.computed_pools import COMPUTED
from mmsa_cache.names import split_terms

NEAREST = 6
"""Neighbours of a post."""
_CHUNK_ROWS = 4096
"""Rows compared at a time, since a store may be larger than memory."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A labelled post."""

    guid: str
    label: str
    text: str | None
    """None if the store has no texts."""
    image: Path | None
    """None if the picture is missing."""
    similarity: float
    """Cosine, −1 to 1: mean over the modalities that both posts have."""


class NearestPosts:
    """Finds labelled rows of a split by the cosine of their pooled vectors.

    The vectors are those of the main encoders of the setting with the largest weight, see
    `own_pools`.

    Args:
        bank: Features of the split.
        samples: The rows of the split.
        classes: Class names in the order of their codes.
        ensemble: The model.
    """

    def __init__(
        self, bank: FeatureBank, samples: SampleTable, classes: list[str], ensemble: Ensemble
    ) -> None:
        setting = max(ensemble.blends, key=lambda blend: blend.weight).setting
        self._setting, self._samples, self._classes = setting, samples, classes
        self._bank = bank.using(*setting.encoders)
        self._labelled = np.flatnonzero(samples.labels >= 0)

    def find(self, post: FeatureBank) -> list[Neighbour]:
        """The rows nearest to the only row of a bank, the nearest first."""
        query = self._vectors(post.using(*self._setting.encoders), np.zeros(1, np.int64))
        similarities = [
            self._similarity(self._vectors(self._bank, rows), query)
            for rows in np.split(
                self._labelled, range(_CHUNK_ROWS, len(self._labelled), _CHUNK_ROWS)
            )
        ]
        best = torch.cat(similarities).topk(min(NEAREST, len(self._labelled)))
        return [
            self._neighbour(int(self._labelled[index]), similarity)
            for similarity, index in zip(*(part.tolist() for part in best), strict=True)
            if similarity > -1
        ]

    def _vectors(self, bank: FeatureBank, rows: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        """By modality: unit vectors (rows, dim), and whether each row has one (rows,)."""
        batch = bank.batch(
            bank.items(rows, variants=False),
            level="pooled",
            text_pool=own_pools(self._setting.text_pool),
            image_pool=own_pools(self._setting.image_pool),
        )
        modalities = ((batch.text, batch.text_mask), (batch.image, batch.image_mask))
        return [
            (
                F.normalize(vectors[:, 0].float(), dim=1).cpu(),
                torch.ones(len(rows)) if mask is None else mask[:, 0].float().cpu(),
            )
            for vectors, mask in modalities
        ]

    @staticmethod
    def _similarity(
        rows: list[tuple[Tensor, Tensor]], query: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Mean cosine over the modalities that both have, (rows,); −1 where there is none."""
        total, count = torch.zeros(()), torch.zeros(())
        for (vectors, present), (vector, query_present) in zip(rows, query, strict=True):
            both = present * query_present
            if both.any():
                total = total + both * (vectors @ vector[0])
                count = count + both
        return torch.where(count > 0, total / count.clamp_min(1), -torch.ones(len(rows[0][1])))

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        post = self._samples[row]
        assert post.label is not None
        label = self._classes[post.label]
        return Neighbour(post.guid, label, post.text, post.image_path, similarity)


def own_pools(pools: str) -> str:
    """Of joined pools, those of the main encoder's last layer; the first pool if there is none.

    Inner layers, lexicons and the extremes and spreads of tokens are excluded: with the latter,
    55 % of the six nearest posts of MVSA-Single have the post's label, without them 60 %.
    """
    terms = split_terms(pools)
    own = (term for term in terms if not {".", "@"} & set(term) and term not in COMPUTED)
    return "+".join(own) or terms[0]
