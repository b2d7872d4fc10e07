"""Frozen Hugging Face text encoders."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsa_cache.errors import ModelError

from .compat import prepare_torchvision
from .encoder import (
    Encoded,
    Options,
    Size,
    TextOutput,
    TextTower,
    mean_pools,
    pick_states,
    precision,
    to_device,
    to_storage,
)
from .weights import files_sha256, text_folder

NO_CODE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How transformers opens a folder: no network, and never the code that may lie in it. (Left unset,
it would ask on the terminal.)"""
_LONGEST_WORD = 30
"""Characters of a word between spaces."""
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges*",
    "bpe.codes",
    "special_tokens*",
    "added_tokens*",
    "*.model",
)


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
    fields: dict[str, Any]
    """The encoder's part of the fingerprint."""

    @property
    def label(self) -> str:
        """Name for people; says so where the weights are random."""
        return self.name + (" (random weights)" if self.random_seed is not None else "")

    def computed_in(self, compute: str) -> TextSpec:
        """The same in another precision."""
        options = replace(self.options, compute=compute)
        return replace(self, options=options, fields=self.fields | options.fields("text"))

    def load(self, device: torch.device) -> TextEncoder:
        """Loads the model."""
        return TextEncoder(self, device)


def resolve_text(
    model: str,
    weights: str,
    max_tokens: int,
    seed: int,
    options: Options = Options(),  # noqa: B008  (frozen)
    *,
    joint: bool = False,
) -> TextSpec:
    """Finds a text model's files and what identifies it, without loading it.

    Args:
        model: Hub name, folder or ``all-MiniLM-L6-v2``.
        weights: ``pretrained`` or ``random``.
        max_tokens: Longest token sequence; longer ones are truncated.
        seed: Seed of random weights.
        options: Layer, positions and precision.
        joint: It is a joint image-text model, of which the text side is wanted.

    Raises:
        ModelError: It cannot be found, or has no safetensors weights.
    """
    folder, name, fields = resolve_folder(model, weights, seed)
    if joint:
        from .joint import text_limit

        max_tokens = min(max_tokens, text_limit(folder))
    fields |= {
        "modality": "text",
        "tokenizer": files_sha256(folder, TOKENIZER_FILES),
        "max_tokens": max_tokens,
        **options.fields("text"),
    }
    random_seed = seed if weights == "random" else None
    return TextSpec(name, folder, random_seed, max_tokens, joint, options, fields)


def resolve_folder(model: str, weights: str, seed: int) -> tuple[Path, str, dict[str, Any]]:
    """Finds the files of a transformers model.

    Returns:
        Folder, the model's name, and the fingerprint's fields that name it.

    Raises:
        ModelError: It cannot be found, or has no safetensors weights.
    """
    random = weights == "random"
    folder, source = text_folder(model, weights=not random)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json.", "Give a Hugging Face model folder.")
    if not random and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} holds no *.safetensors weights.",
            "Convert the model to safetensors; pickled weights are never loaded.",
        )
    name = Path(model).resolve().name if source == "folder" else model
    identity = (
        f"random:{seed}"
        if random
        else source
        if source.startswith("hub:")
        else files_sha256(folder, ("*.safetensors",))
    )
    config = files_sha256(folder, ("config.json",))
    return folder, name, {"encoder": name, "weights": identity, "config": config}


def words_of(spec: TextSpec, texts: Sequence[str]) -> list[list[tuple[str, list[int]]]]:
    """The words of texts, each with the places of its tokens among those that the encoder gives.

    A word is what stands between spaces; where that is long (writing without spaces), what the
    tokenizer takes for a word. Tokens that stand for no characters, as ``[CLS]``, are no words.

    Args:
        spec: The encoder.
        texts: As they were encoded.

    Raises:
        ModelError: The tokenizer cannot say which characters a token stands for.
    """
    tokenizer = load_tokenizer(spec.folder)
    if not tokenizer.is_fast:
        raise ModelError(f"The tokenizer of {spec.name} does not say which characters it read.")
    found = []
    for text in texts:
        encoded = tokenizer(
            text, truncation=True, max_length=spec.max_tokens, return_offsets_mapping=True
        )
        words: dict[tuple[int, int | None], list[int]] = {}
        spans: dict[tuple[int, int | None], list[int]] = {}
        for place, ((start, end), number) in enumerate(
            zip(encoded["offset_mapping"], encoded.word_ids(), strict=True)
        ):
            if number is None or start == end:
                continue
            # Some tokenizers count the space before a word to its first token.
            start += len(text[start:end]) - len(text[start:end].lstrip())
            between = _chunk(text, start)
            whole = len(between) <= _LONGEST_WORD
            key = (between.start, None) if whole else (between.start, number)
            words.setdefault(key, []).append(place)
            span = spans.setdefault(key, [start, end])
            span[:] = min(span[0], start), max(span[1], end)
        found.append([(text[slice(*spans[key])], places) for key, places in words.items()])
    return found


def _chunk(text: str, place: int) -> range:
    """The stretch without spaces around a place of a text."""
    start = place
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    end = place
    while end < len(text) and not text[end].isspace():
        end += 1
    return range(start, end)


def load_tokenizer(folder: Path) -> Any:
    """Loads a model's tokenizer.

    Raises:
        ModelError: transformers cannot load it.
    """
    prepare_torchvision()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, **NO_CODE)
    except Exception as error:  # transformers raises many kinds for a bad folder
        raise ModelError(
            f"The tokenizer in {folder} cannot be loaded: {error}",
            "Check that transformers' AutoTokenizer can load this folder.",
        ) from error


def load_model(folder: Path, random_seed: int | None) -> Any:
    """Loads a transformers model in float32, frozen, on the CPU.

    Args:
        folder: Its files.
        random_seed: Seed of random weights, or None for those in the folder.

    Raises:
        ModelError: transformers cannot load it.
    """
    prepare_torchvision()
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, **NO_CODE)
        if "/" in str(config._attn_implementation):  # transformers would fetch it from the hub
            raise ValueError(f"it asks for the foreign kernel {config._attn_implementation}")
        if random_seed is None:
            model = AutoModel.from_pretrained(
                folder, config=config, use_safetensors=True, dtype=torch.float32, **NO_CODE
            )
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(random_seed)
                model = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a bad folder
        raise ModelError(
            f"The model in {folder} cannot be loaded: {error}",
            "Check that transformers' AutoModel can load this folder.",
        ) from error
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class TokenCount:
    """What a tokenizer makes of one text."""

    tokens: int
    """Special ones included, before anything is truncated."""
    unknown: int
    """Tokens that stand for what the vocabulary does not have."""


def count_tokens(
    texts: Sequence[str], model: str, max_tokens: int, *, joint: bool = False
) -> tuple[list[TokenCount], int]:
    """Tokenizes texts with a model's own tokenizer, if it is on this machine; nothing is fetched.

    Args:
        texts: The texts.
        model: As of `resolve_text`.
        max_tokens: Longest token sequence that is wanted.
        joint: It is a joint image-text model.

    Returns:
        A count a text, and the longest sequence that the encoder takes.

    Raises:
        ModelError: The tokenizer is not here or cannot be loaded.
    """
    folder, _ = text_folder(model, weights=False, download=False)
    if joint:
        from .joint import text_limit

        max_tokens = min(max_tokens, text_limit(folder))
    tokenizer = load_tokenizer(folder)
    unknown = tokenizer.unk_token_id
    counts = []
    for first in range(0, len(texts), _PIECE):
        piece = list(texts[first : first + _PIECE])
        for ids in tokenizer(piece, truncation=False, verbose=False)["input_ids"]:
            counts.append(TokenCount(len(ids), ids.count(unknown)))
    return counts, max_tokens


_PIECE = 1024
"""Texts that are counted at a time."""


class PlainTower:
    """A text model of `transformers.AutoModel`; its pooled vector is the first position."""

    full_length = False

    def __init__(self, model: Any, name: str) -> None:
        self._model, self._name = model, name
        self.limit = _position_limit(model.config)

    def __call__(
        self, ids: Tensor, mask: Tensor, layer: str | int, inner: Sequence[int] = ()
    ) -> TextOutput:
        output = self._model(
            input_ids=ids,
            attention_mask=mask.long(),
            output_hidden_states=layer != "last" or bool(inner),
        )
        hidden = output.last_hidden_state
        if layer != "last":
            hidden = pick_states(output.hidden_states, layer, self._name)
        states = [pick_states(output.hidden_states, number, self._name) for number in inner]
        return TextOutput(hidden, {"cls": hidden[:, 0]}, None, states)

    def to(self, device: torch.device) -> object:
        return self._model.to(device)


def _position_limit(config: Any) -> int | None:
    """Longest sequence a model takes. RoBERTa's family counts positions from pad_token_id + 1."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None or limit < 1:  # DeBERTa writes −1 where only relative positions count
        return None
    counts_from_padding = config.model_type in {"roberta", "xlm-roberta", "camembert", "xmod"}
    return int(limit) - (config.pad_token_id + 1 if counts_from_padding else 0)


class TextEncoder:
    """Token features of texts from one frozen model.

    Args:
        spec: The resolved model.
        device: Where it runs.

    Attributes:
        tokenizer: The model's own, of transformers.
        tower: The model.
        max_tokens: Longest sequence, special tokens included.

    Raises:
        ModelError: transformers cannot load or run it.
    """

    equal_inputs = False

    def __init__(self, spec: TextSpec, device: torch.device) -> None:
        self.label = spec.label
        self._options = spec.options
        self._device = device
        self.tokenizer = load_tokenizer(spec.folder)
        self._lock = threading.Lock()  # a tokenizer keeps its truncation between calls
        model = load_model(spec.folder, spec.random_seed)
        if spec.joint:
            from .joint import JointTextTower

            self.tower: TextTower = JointTextTower(model, spec.name)
        else:
            self.tower = PlainTower(model, spec.name)
        limit = self.tower.limit
        if limit is not None and spec.max_tokens > limit:
            raise ModelError(
                f"{spec.name} takes at most {limit} tokens, max_tokens is {spec.max_tokens}.",
                "Lower max_tokens in [text].",
            )
        self.max_tokens = spec.max_tokens
        self.tower.to(device)
        self.pools: tuple[str, ...] = ()
        try:
            probe = self.encode(self.prepare(["a"]))
        except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"{spec.name} does not run on token ids and a mask alone: {error}",
                "Give the encoder of a text model, or --joint-model for an image-text one.",
            ) from error
        keep = spec.options.tokens != "none"
        self.size = Size.of(probe, spec.max_tokens if keep else 0, ragged=keep)

    def prepare(self, values: Iterable[str]) -> list[Tensor]:
        """Token ids of texts, (tokens,) int64 each, special tokens included."""
        texts = list(values)
        if not texts:
            return []
        with self._lock:
            rows = self.tokenizer(texts, truncation=True, max_length=self.max_tokens)
        return [torch.tensor(ids) for ids in rows["input_ids"]]

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Runs the model on one batch.

        Args:
            batch: Token ids, each (tokens,).

        Returns:
            Features of the real tokens, and pooled vectors: the model's own (``cls``, the first
            position; ``pooled`` of a joint model), the mean over real tokens (``mean``), and that
            of each inner layer asked for (``mean@N``).
        """
        lengths = torch.tensor([len(ids) for ids in batch])
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.nn.utils.rnn.pad_sequence(list(batch), batch_first=True, padding_value=pad)
        if self.tower.full_length and self.tower.limit is not None:
            ids = torch.nn.functional.pad(ids, (0, self.tower.limit - ids.shape[1]), value=pad)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        ids, mask = to_device(ids, self._device), to_device(mask, self._device)
        with torch.inference_mode(), precision(self._device, self._options.compute):
            hidden, vectors, shared, inner = self.tower(
                ids, mask, self._options.layer, self._options.pool_layers
            )
        hidden = hidden.float()
        means = [_mean(state, mask) for state in inner]
        pools = {
            **vectors,
            "mean": _mean(hidden, mask),
            **mean_pools(means, self._options.pool_layers, hidden.shape[2], self.label),
        }
        self.pools = tuple(pools)
        keep = self._options.tokens != "none"
        return Encoded(
            to_storage(hidden[mask] if keep else hidden[:0, 0]),
            lengths.tolist() if keep else [0] * len(batch),
            to_storage(torch.stack([pool.float() for pool in pools.values()], 1)),
            None if shared is None else to_storage(shared),
        )


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, (batch, dim)."""
    return (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
