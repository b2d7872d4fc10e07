"""Frozen Hugging Face text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsa_cache.errors import ModelError
from mmsa_cache.schema import TEXT_POOLS

from .compat import prepare_torchvision
from .weights import files_sha256, text_folder

_TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges*",
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
    fields: dict[str, Any]
    """The encoder's part of the fingerprint."""

    @property
    def label(self) -> str:
        """Name for people; says so where the weights are random."""
        return self.name + (" (random weights)" if self.random_seed is not None else "")


def resolve_text(model: str, weights: str, max_tokens: int, seed: int) -> TextSpec:
    """Finds a text model's files and what identifies it, without loading it.

    Args:
        model: Hub name, folder or ``all-MiniLM-L6-v2``.
        weights: ``pretrained`` or ``random``.
        max_tokens: Longest token sequence; longer ones are truncated.
        seed: Seed of random weights.

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
    fields = {
        "modality": "text",
        "encoder": name,
        "weights": f"random:{seed}"
        if random
        else source
        if source.startswith("hub:")
        else files_sha256(folder, ("*.safetensors",)),
        "config": files_sha256(folder, ("config.json",)),
        "tokenizer": files_sha256(folder, _TOKENIZER_FILES),
        "max_tokens": max_tokens,
        "layer": "last",
        "compute": "float32",
        "storage": "float16",
    }
    return TextSpec(name, folder, seed if random else None, max_tokens, fields)


class TextEncoder:
    """Token features of texts from one frozen model.

    Args:
        spec: The resolved model.
        device: Where it runs.

    Raises:
        ModelError: transformers cannot load it.
    """

    pools = TEXT_POOLS

    def __init__(self, spec: TextSpec, device: torch.device) -> None:
        prepare_torchvision()
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.label = spec.label
        self._max_tokens = spec.max_tokens
        self._device = device
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(spec.folder, local_files_only=True)
            if spec.random_seed is None:
                model = AutoModel.from_pretrained(
                    spec.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
                )
            else:
                config = AutoConfig.from_pretrained(spec.folder, local_files_only=True)
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(spec.random_seed)
                    model = AutoModel.from_config(config, dtype=torch.float32)
        except Exception as error:  # transformers raises many kinds for a bad folder
            raise ModelError(
                f"The text model in {spec.folder} cannot be loaded: {error}",
                "Check that transformers' AutoModel can load this folder.",
            ) from error
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit is not None and spec.max_tokens > limit:
            raise ModelError(
                f"{spec.name} takes at most {limit} tokens, max_tokens is {spec.max_tokens}.",
                "Lower max_tokens in [text].",
            )
        self._model = model.eval().requires_grad_(False).to(device)
        self.dim = int(model.config.hidden_size)

    def prepare(self, text: str) -> Tensor:
        """Token ids of one text, (tokens,) int64, special tokens included."""
        ids = self._tokenizer(text, truncation=True, max_length=self._max_tokens)["input_ids"]
        return torch.tensor(ids)

    def encode(self, batch: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Runs the model on one batch.

        Args:
            batch: Token ids, each (tokens,).

        Returns:
            Token features, each (tokens, dim) without padding, and pooled vectors
            (batch, pools, dim): the first position (``cls``) and the mean of all (``mean``).
            float32, on the CPU.
        """
        lengths = torch.tensor([len(ids) for ids in batch])
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.nn.utils.rnn.pad_sequence(list(batch), batch_first=True, padding_value=pad)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        with torch.inference_mode():
            hidden = self._model(
                input_ids=ids.to(self._device), attention_mask=mask.long().to(self._device)
            ).last_hidden_state
        hidden = hidden.float().cpu()
        mean = (hidden * mask[..., None]).sum(1) / lengths[:, None]
        pooled = torch.stack([hidden[:, 0], mean], 1)
        return [row[:n] for row, n in zip(hidden, lengths.tolist(), strict=True)], pooled
