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

from mmsa_cache.errors import MmsaError, ModelError
from mmsa_cache.native.device import explain_out_of_memory, is_device_error
from mmsa_cache.store.fingerprint import Fields
from mmsa_cache.store.identity import EncoderIdentity

from .compute import cast_weights, collect_features, launching, precision, to_device
from .folder import CONFIG, PADDING_SENSITIVE_TYPES, TOKENIZER_FILES, is_causal, read_json
from .joint import JointTextTower, read_text_side
from .layers import mean_pools, quarter_depth_layers, select_layers
from .options import Options
from .padding import padded_length, padded_rows
from .preparation import TokenIds
from .protocol import Encoded, Size, TextOutput, TextTower
from .tokenizer import load_tokenizer
from .transformer import depth_of, load_model, resolve_folder
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
        own: Fields = {"modality": "text", "max_tokens": self.max_tokens}
        return {**self.source, **own, **self.options.fields("text")}

    @property
    def identity(self) -> EncoderIdentity:
        """What changes its features."""
        return EncoderIdentity(
            modality="text",
            name=self.name,
            random_weights=self.random_seed is not None,
            fields=self.fields,
        )

    @property
    def label(self) -> str:
        """Name for people; says so where the weights are random."""
        return self.identity.label

    def computed_in(self, compute: str) -> TextSpec:
        """The same in another precision."""
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
    """Finds a text model's files and what identifies it, without loading it.

    Args:
        model: Hub name, folder or ``all-MiniLM-L6-v2``.
        weights: ``pretrained`` or ``random``.
        max_tokens: Longest token sequence; longer ones are truncated.
        seed: Seed of random weights.
        options: Layer, positions and precision.
        joint: It is a joint image-text model, of which the text side is wanted.
        quarters: Whether the pool layers are those at the quarters of the model's depth, in place
            of the options' own; none where its configuration names no depth.

    Raises:
        ModelError: It cannot be found, or has no safetensors weights.
    """
    folder, name, source = resolve_folder(model, weights, seed)
    if joint:
        limit, depth = read_text_side(folder)
        max_tokens = min(max_tokens, limit)
    else:
        depth = depth_of(folder)
        if is_causal(read_json(folder, CONFIG)):
            source["pool"] = "last"
    if quarters:
        options = replace(options, pool_layers=quarter_depth_layers(depth))
    source["tokenizer"] = files_sha256(folder, TOKENIZER_FILES)
    random_seed = seed if weights == "random" else None
    return TextSpec(name, folder, random_seed, max_tokens, joint, options, source)


class PlainTower:
    """A text model of `transformers.AutoModel`.

    Its pooled vector is the first position (``cls``); of a model that reads forward only the last
    one (``last``), since there the first is the same for all texts that begin alike.
    """

    full_length = False

    def __init__(self, model: Any, name: str) -> None:
        self._model, self._name = model, name
        self._causal = is_causal(model.config.to_dict())
        self.limit = _position_limit(model)

    def __call__(
        self, ids: Tensor, mask: Tensor, layer: str | int, inner: Sequence[int] = ()
    ) -> TextOutput:
        output = self._model(
            input_ids=ids,
            attention_mask=mask.long(),
            output_hidden_states=layer != "last" or bool(inner),
        )
        hidden, states = select_layers(output, layer, inner, self._name)
        if self._causal:
            places = mask.sum(1)[:, None, None] - 1
            last = hidden.take_along_dim(places, 1).squeeze(1)
            return TextOutput(hidden, {"last": last}, None, states)
        return TextOutput(hidden, {"cls": hidden[:, 0]}, None, states)

    def to(self, device: torch.device) -> object:
        return self._model.to(device)


def _position_limit(model: torch.nn.Module) -> int | None:
    """Longest sequence a model takes. RoBERTa's kin count positions from the padding's number
    + 1, which is what their table of positions has a padding for."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None or limit < 1:  # DeBERTa writes −1 where only relative positions count
        return None
    paddings = [
        part.padding_idx
        for name, part in model.named_modules()
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None
    ]
    return int(limit) - max((int(padding) + 1 for padding in paddings), default=0)


class TextEncoder:
    """Token features of texts from one frozen model.

    Args:
        spec: The resolved model.
        device: Where it runs.
        few_shapes: Whether batches are padded to few shapes, see `padding`; default: on devices
            other than the CPU, where padding costs more than a new shape. Never done for families
            whose features it would change.

    Attributes:
        tokenizer: The model's own, of transformers.
        prepare: Texts → token ids.
        tower: The model.
        max_tokens: Longest sequence, special tokens included.

    Raises:
        ModelError: transformers cannot load or run it.
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
        try:
            self.tower = _tower(model, spec)
            cast_weights(self.tower.to(device), spec.options.compute)
            probe = self.encode(self.prepare(["a"]))
        except Exception as error:  # models raise many kinds for settings that do not fit
            if isinstance(error, MmsaError) or is_device_error(error):
                raise
            raise ModelError(
                f"{spec.name} does not run on token ids and a mask alone: {error}",
                "Give the encoder of a text model, or --joint-model for an image-text one.",
            ) from error
        keep = spec.options.tokens != "none"
        self.size = Size.of(probe, spec.max_tokens if keep else 0, ragged=keep)

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Runs the model on one batch.

        Args:
            batch: Token ids, each (tokens,).

        Returns:
            Features of the real tokens, and pooled vectors: the model's own (``cls``, the first
            position, or ``last``; ``pooled`` of a joint model), the mean over real tokens
            (``mean``), and that of each inner layer asked for (``mean@N``).
        """
        lengths = [len(ids) for ids in batch]
        ids, mask = self._pad(batch, lengths)
        # Places of the real tokens, found here: on a GPU to count them would wait for it.
        places = mask[: len(batch)].flatten().nonzero().squeeze(1)
        keep = self.options.tokens != "none"
        with launching(self._device):
            hidden, pools, shared = self._launch(
                to_device(ids, self._device), to_device(mask, self._device)
            )
            flat = hidden.flatten(0, 1)
            return collect_features(
                flat.index_select(0, to_device(places, self._device)) if keep else flat[:0],
                lengths if keep else [0] * len(batch),
                [pool[: len(batch)] for pool in pools.values()],
                None if shared is None else shared[: len(batch)],
            )

    def _pad(self, batch: Sequence[Tensor], lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Token ids and their mask, (rows, tokens) each, rows of padding below the batch's own."""
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
            **mean_pools(means, self.options.pool_layers, hidden.shape[2], self.label),
        }
        self.pools = tuple(pools)
        return hidden, pools, shared


def _tower(model: Any, spec: TextSpec) -> TextTower:
    """The part of a model that encodes texts.

    Raises:
        ModelError: It takes fewer tokens than are wanted.
    """
    found = JointTextTower(model, spec.name) if spec.joint else PlainTower(model, spec.name)
    if found.limit is not None and spec.max_tokens > found.limit:
        raise ModelError(
            f"{spec.name} takes at most {found.limit} tokens, max_tokens is {spec.max_tokens}.",
            "Lower max_tokens in [text].",
        )
    return found


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, (batch, dim)."""
    return (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
