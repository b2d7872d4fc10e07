"""Cached features of both modalities, read by index.

No DataLoader, no HDF5 reads, no Python per sample: a batch is a few gather operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsa_cache.errors import SettingsError
from mmsa_cache.names import (
    DEFAULT_PAIR,
    MODALITIES,
    EncoderPair,
    split_terms,
    unknown_name,
    vector_name,
)
from mmsa_cache.native.device import explain_out_of_memory

from .batch import Batch, Dims
from .encoder_group import EncoderGroup
from .html import bank_html
from .items import list_items, pair_variants
from .modality import ModalityFeatures
from .moments import Moments, compute_moments
from .result_cache import ResultsByRows


class FeatureBank:
    """Both modalities of the same samples, with labels.

    Args:
        text: Text rows.
        image: Image rows.
        guids: Names of the samples, in the order of their indices.
        labels: Class codes, −1 where unknown, (samples,).
        partial: Samples may lack a modality, which is then masked out.
        choice: Banks of other encoders of the same samples.
        beside: Features of encoders whose pools are ``ENCODER.POOL``, by modality and name.

    Raises:
        DamagedCacheError: A modality lacks samples, and ``partial`` is not set.
    """

    def __init__(
        self,
        text: ModalityFeatures,
        image: ModalityFeatures,
        guids: Sequence[str],
        labels: Sequence[int],
        *,
        partial: bool = False,
        choice: BankChoice | None = None,
        beside: Mapping[str, Mapping[str, ModalityFeatures]] | None = None,
    ) -> None:
        self.text, self.image = text, image
        self._choice = choice
        self.guids = list(guids)
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.partial = partial
        self._moments: ResultsByRows[Moments] = ResultsByRows()
        self._items: ResultsByRows[Tensor] = ResultsByRows()
        self._groups = {
            modality: EncoderGroup(
                modality, own, (beside or {}).get(modality, {}), self.guids, partial
            )
            for modality, own in zip(MODALITIES, (text, image), strict=True)
        }
        self._tables = [group.table for group in self._groups.values()]

    def __len__(self) -> int:
        return len(self.guids)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether each sample has a text, and a picture, (samples, 2)."""
        return torch.stack([table[:, 0] for table in self._tables], 1).numpy() >= 0

    def to(self, device: torch.device, tokens: bool = True) -> FeatureBank:
        """Moves the features to a device; on the CPU they stay mapped.

        Args:
            device: Target; features of other encoders follow at their first use.
            tokens: Whether to move the tokens now, or at their first use.

        Raises:
            DeviceError: The device has no memory for them.
        """
        if self._choice is not None:
            self._choice.device, self._choice.tokens = device, tokens
        with explain_out_of_memory(f"for the features of {len(self)} samples on {device}"):
            for group in self._groups.values():
                group.to(device, tokens)
            self.labels = self.labels.to(device)
        return self

    def using(self, text: str, image: str) -> FeatureBank:
        """The bank of the same samples with features of other encoders.

        Args:
            text: Name of the text encoder, or several joined by ``+``; see `names.EncoderPair`.
            image: Likewise for images.

        Raises:
            SettingsError: This bank has no choice of encoders.
            MmsaError: Their features cannot be opened.
        """
        if self._choice is not None:
            return self._choice.bank(text, image)
        if (text, image) != DEFAULT_PAIR:
            raise SettingsError(
                f"These features are of one encoder a side; asked for are {text!r} and {image!r}."
            )
        return self

    def dims(self, *, level: str, text_pool: str, image_pool: str) -> Dims:
        """Sizes of the features that `batch` returns for the same arguments.

        Raises:
            SettingsError: Unknown pool.
        """
        pools = {"text": text_pool, "image": image_pool}
        vectors = {
            vector_name(modality, pool): group.dim(pool)
            for modality, group in self._groups.items()
            for pool in split_terms(pools[modality])
        }
        if level == "pooled":
            text, image = (group.dim(pools[modality]) for modality, group in self._groups.items())
            return Dims(text, image, vectors)
        return Dims(self.text.dim, self.image.dim, vectors)

    def items(self, samples: Sequence[int] | np.ndarray, *, variants: bool) -> Tensor:
        """Lists the items of an epoch.

        Args:
            samples: Sample indices.
            variants: Whether to add the augmented copies, text variant i with image variant i; of
                a sample without one modality those of the other.

        Returns:
            (items, 3) int64: sample, row of the text, row of the image; originals first. A row is
            −1 where the sample lacks the modality. The tensor is cached and must not be changed.
        """
        chosen = np.asarray(samples, np.int64)
        return self._items.of(chosen, variants, lambda: list_items(self._tables, chosen, variants))

    def text_order(self, items: Tensor) -> Tensor:
        """Indices that sort items (items, 3) by text length, (items,) on the CPU."""
        return self.text.lengths(items[:, 1].clamp_min(0)).cpu().argsort(stable=True)

    def paired_freely(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """Draws the text and the image variant of every copy independently.

        Text and image variants are cached separately, so K of each make (K + 1)² pairs instead of
        K + 1. Originals are unchanged.

        Args:
            items: From `items`, (items, 3).
            generator: Draws uniformly from variants 0 … K.

        Returns:
            Items of the same samples, (items, 3).
        """
        return pair_variants(self._tables, items, generator)

    def batch(
        self,
        items: Tensor,
        *,
        level: str,
        text_pool: str,
        image_pool: str,
        grid: int = 0,
        whole_length: bool = False,
        text_length: int | None = None,
    ) -> Batch:
        """Gathers one batch.

        Args:
            items: Rows of ``items()``, (batch, 3).
            level: ``pooled`` (sequences of one vector) or ``tokens``.
            text_pool: Pooled vectors of the text, see `fuse.setting.Setting`.
            image_pool: Pooled vectors of the image.
            grid: Cells along each side that patches are averaged to; 0 keeps all patches.
            whole_length: Pad sequences to the longest of the bank, not of the batch: all batches
                have one shape, and nothing is read back from a GPU.
            text_length: Pad texts to this length, at least their own, with any finite numbers.

        Raises:
            SettingsError: Unknown level or pool.
        """
        sequences: list[tuple[Tensor, Tensor | None]] = []
        vectors: dict[str, Tensor] = {}
        pooled, grids, both_rows = (text_pool, image_pool), (0, grid), items[:, 1:].unbind(1)
        for (modality, group), rows, pools, cells in zip(
            self._groups.items(), both_rows, pooled, grids, strict=True
        ):
            features, valid = group.own, rows.clamp_min(0) if self.partial else rows
            own = {vector_name(modality, p): group.vector(valid, p) for p in split_terms(pools)}
            vectors |= own
            if level == "pooled":
                parts = list(own.values())
                sequence = (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).unsqueeze(1)
                mask = None
            elif level == "tokens":
                length = features.longest if whole_length else None
                is_given = modality == "text" and text_length is not None
                length = text_length if is_given else length
                sequence, mask = (
                    features.grid(valid, cells)
                    if cells
                    else features.sequences(valid, length, zeros=not is_given)
                )
            else:
                raise unknown_name("Unknown level", level, ("pooled", "tokens"))
            if self.partial:
                has = (rows >= 0).to(sequence.device)[:, None]
                mask = has.expand(sequence.shape[:2]) if mask is None else mask & has
            sequences.append((sequence, mask))
        labels = self.labels[items[:, 0].to(self.labels.device)]
        return Batch(*sequences[0], *sequences[1], vectors, labels)

    def moments(self, items: Tensor, **read: Any) -> Moments:
        """Means and standard deviations of all features over the real positions of items.

        They are cached for the next model that is trained on the same items.

        Args:
            items: Rows of ``items()``, (items, 3).
            read: Further arguments of `batch`.
        """

        def compute() -> Moments:
            parts = self.text_order(items).split(512)
            return compute_moments(self.batch(items[chosen], **read) for chosen in parts)

        return self._moments.of(items.numpy(), tuple(sorted(read.items())), compute)

    def _repr_html_(self) -> str:
        return bank_html(self._groups, self.labels)


class BankChoice:
    """Banks of the same samples with features of different encoders, opened at their first use.

    Args:
        open_features: Opens the features of a modality and an encoder's name.
        guids, labels, partial: See `FeatureBank`.
    """

    def __init__(
        self,
        open_features: Callable[[str, str], ModalityFeatures],
        guids: Sequence[str],
        labels: Sequence[int],
        *,
        partial: bool = False,
    ) -> None:
        self._open, self._guids, self._labels = open_features, guids, labels
        self._partial = partial
        self._features: dict[tuple[str, str], ModalityFeatures] = {}
        self._banks: dict[EncoderPair, FeatureBank] = {}
        self.device, self.tokens = torch.device("cpu"), True

    def open(self, pairs: Sequence[EncoderPair]) -> FeatureBank:
        """Opens the banks of all pairs, and returns the first."""
        first, *_ = [self.bank(*pair) for pair in pairs]
        return first

    def bank(self, text: str, image: str) -> FeatureBank:
        """The bank of text and image encoders by their names, see `names.EncoderPair`."""
        if (text, image) not in self._banks:
            opened = {
                modality: {name: self._opened(modality, name) for name in split_terms(names)}
                for modality, names in zip(MODALITIES, (text, image), strict=True)
            }
            own = {modality: next(iter(named.values())) for modality, named in opened.items()}
            self._banks[text, image] = FeatureBank(
                own["text"],
                own["image"],
                self._guids,
                self._labels,
                partial=self._partial,
                choice=self,
                beside=opened,
            )
        return self._banks[text, image].to(self.device, self.tokens)

    def _opened(self, modality: str, name: str) -> ModalityFeatures:
        if (modality, name) not in self._features:
            self._features[modality, name] = self._open(modality, name)
        return self._features[modality, name]
