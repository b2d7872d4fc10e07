"""Frozen Hugging Face text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmsa_cache.errors import ModelError
from mmsa_cache.native.device import explain_out_of_memory
from mmsa_cache.store.fingerprint import Fields
from mmsa_cache.store.identity import EncoderIdentity

from .compute import cast_weights, collect_features, launching, precision, to_device
from .families import PADDING_SENSITIVE_TYPES, is_causal
from .folder import CONFIG, TOKENIZER_FILES, read_json
from .joint import JointTextTower, read_text_side
from .layers import inner_pools, quarter_depth_layers
from .model_errors import raise_model_errors
from .options import Options
from .padding import padded_length, padded_rows
from .preparation import TokenIds
from .protocol import Encoded, Size, TextTower
from .text_tower import PlainTower
from .tokenizer import load_tokenizer
from .transformer import load_model, read_depth, resolve_folder
from .weights import files_sha256


@dataclass(frozen=True, slots=True)
class TextSpec:
    """A text encoder, resolved to local files but not loaded."""

    name: str
    folder: Path
    random_seed: int | None
    """Seed of the random weights, or None for pretrained ones."""
    max_tokens: int
    joint: bool
    """Whether it is the text side of a joint image-text model."""
    options: Options
    source: Fields
    """What identifies the model's weights and its tokenizer."""

    @property
    def fields(self) -> Fields:
        """The encoder's part of the fingerprint."""
        return {
            **self.source,
            "modality": "text",
            "max_tokens": self.max_tokens,
            **self.options.fields("text"),
        }

    @property
    def identity(self) -> EncoderIdentity:
        """Everything that changes the encoder's features."""
        return EncoderIdentity.of_fields(self.fields)

    @property
    def label(self) -> str:
        """Name for users; tells random weights."""
        return self.identity.label

    def computed_in(self, compute: str) -> TextSpec:
        """The same encoder in another precision."""
        return replace(self, options=replace(self.options, compute=compute))

    def load(self, device: torch.device) -> TextEncoder:
        """Loads the model."""
        with explain_out_of_memory(f"to load {self.name}"):
            return TextEncoder(self, device)


def resolve_text(
    model: str,
    weights: str,
    max_tokens: int,
    seed: int,
    options: Options = Options(),  # noqa: B008  (frozen)
    *,
    joint: bool = False,
    quarters: bool = False,
) -> TextSpec:
    """Finds a text model's files and what identifies it. Does not load it.

    Args:
        model: Hub name, folder or ``all-MiniLM-L6-v2``.
        weights: ``pretrained`` or ``random``.
        max_tokens: Longest token sequence; longer ones are truncated.
        seed: Seed of random weights.
        options: Layer, positions and precision.
        joint: Take the text side of a joint image-text model.
        quarters: Take the layers at the quarters of the model's depth as pool layers, in place of
            the options' own; none where the configuration names no depth.

    Raises:
        ModelError: The model cannot be found, or has no safetensors weights.
    """
    folder, name, source = resolve_folder(model, weights, seed)
    if joint:
        limit, depth = read_text_side(folder)
        max_tokens = min(max_tokens, limit)
    else:
        depth = read_depth(folder)
        if is_causal(read_json(folder, CONFIG)):
            source["pool"] = "last"
    if quarters:
        options = replace(options, pool_layers=quarter_depth_layers(depth))
    source["tokenizer"] = files_sha256(folder, TOKENIZER_FILES)
    random_seed = seed if weights == "random" else None
    return TextSpec(name, folder, random_seed, max_tokens, joint, options, source)


class TextEncoder:
    """Token features of texts from one frozen model.

    Args:
        spec: The resolved model.
        device: Where it runs.
        few_shapes: Whether batches are padded to few shapes, see `padding`. Default: on all
            devices but the CPU, where padding costs more than a new shape. Families whose features
            depend on padding are never padded.

    Attributes:
        tokenizer: The model's own, of transformers.
        prepare: Texts → token ids.
        tower: The model.
        max_tokens: Longest sequence, special tokens included.

    Raises:
        ModelError: transformers cannot load or run the model.
    """

    equal_inputs = False

    def __init__(
        self, spec: TextSpec, device: torch.device, *, few_shapes: bool | None = None
    ) -> None:
        self.label = spec.label
        self.options = spec.options
        self._device = device
        self.tokenizer = load_tokenizer(spec.folder)
        model = load_model(spec.folder, spec.random_seed)
        few_shapes = device.type != "cpu" if few_shapes is None else few_shapes
        self._few_shapes = few_shapes and model.config.model_type not in PADDING_SENSITIVE_TYPES
        vocabulary: int = model.config.get_text_config().vocab_size
        pad: int = self.tokenizer.pad_token_id or 0
        self._pad_id = pad if pad < vocabulary else 0  # it is masked
        self.max_tokens = spec.max_tokens
        self.prepare = TokenIds(self.tokenizer, spec.max_tokens, vocabulary, self.label)
        self.pools: tuple[str, ...] = ()
        with raise_model_errors(
            f"{spec.name} does not run on token ids and a mask alone",
            "Give the encoder of a text model, or --joint-model for an image-text one.",
        ):
            self.tower = _build_tower(model, spec)
            cast_weights(self.tower.to(device), spec.options.compute)
            probe = self.encode(self.prepare(["a"]))
        keeps_tokens = spec.options.tokens != "none"
        self.size = Size.of(probe, spec.max_tokens if keeps_tokens else 0, ragged=keeps_tokens)

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Runs the model on one batch.

        Args:
            batch: Token ids, each (tokens,).

        Returns:
            Features of the real tokens, and pooled vectors: the model's own (``cls``, ``last`` or
            ``pooled``), the mean over real tokens (``mean``), and that of each inner layer asked
            for (``mean@N``).
        """
        lengths = [len(ids) for ids in batch]
        ids, mask = self._pad(batch, lengths)
        # Indices of the real tokens are computed on the CPU: a GPU would have to be waited for.
        token_indices = mask[: len(batch)].flatten().nonzero().squeeze(1)
        keeps_tokens = self.options.tokens != "none"
        with launching(self._device):
            hidden, pools, shared = self._launch(
                to_device(ids, self._device), to_device(mask, self._device)
            )
            positions = hidden.flatten(0, 1)
            tokens = (
                positions.index_select(0, to_device(token_indices, self._device))
                if keeps_tokens
                else positions[:0]
            )
            return collect_features(
                tokens,
                lengths if keeps_tokens else [0] * len(batch),
                [pool[: len(batch)] for pool in pools.values()],
                None if shared is None else shared[: len(batch)],
            )

    def _pad(self, batch: Sequence[Tensor], lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Token ids and their mask, (rows, tokens) each; rows of padding come last."""
        longest = max(lengths)
        rows, length = len(batch), longest
        if self._few_shapes:
            rows = padded_rows(rows)
            length = max(longest, min(padded_length(longest), self.max_tokens))
        if self.tower.full_length and self.tower.limit is not None:
            length = self.tower.limit
        more_rows = rows - len(batch)
        ids = pad_sequence(list(batch), batch_first=True, padding_value=self._pad_id)
        ids = F.pad(ids, (0, length - longest, 0, more_rows), value=self._pad_id)
        # Rows of padding have one token: the mean of none is no number.
        mask = torch.arange(length) < torch.tensor(lengths + [1] * more_rows)[:, None]
        return ids, mask

    def _launch(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Runs the model on the device: (batch, tokens, dim), pools by name, shared embedding."""
        with torch.inference_mode(), precision(self._device, self.options.compute):
            hidden, vectors, shared, inner = self.tower(
                ids, mask, self.options.layer, self.options.pool_layers
            )
        hidden = hidden.float()
        means = [_mean(state, mask) for state in inner]
        pools = {
            **vectors,
            "mean": _mean(hidden, mask),
            **inner_pools({"mean": means}, self.options.pool_layers, hidden.shape[2], self.label),
        }
        self.pools = tuple(pools)
        return hidden, pools, shared


def _build_tower(model: Any, spec: TextSpec) -> TextTower:
    """Builds the part of a model that encodes texts.

    Raises:
        ModelError: The model takes fewer tokens than are asked for.
    """
    tower = JointTextTower(model, spec.name) if spec.joint else PlainTower(model, spec.name)
    if tower.limit is not None and spec.max_tokens > tower.limit:
        raise ModelError(
            f"{spec.name} takes at most {tower.limit} tokens, max_tokens is {spec.max_tokens}.",
            "Lower max_tokens in [text].",
        )
    return tower


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, (batch, dim)."""
    return (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
