"""Models of transformers: their files, and how they are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mmsa_cache.errors import ModelError
from mmsa_cache.store.fingerprint import Fields

from .compat import prepare_torchvision
from .weights import files_sha256, text_folder

NO_CODE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How transformers opens a folder: no network, and no code from it. (Left unset,
it would ask on the terminal.)"""


def resolve_folder(model: str, weights: str, seed: int) -> tuple[Path, str, Fields]:
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


_DEPTH = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
"""What families call their number of layers."""


def depth_of(folder: Path) -> int:
    """Layers of a text model by its configuration; 0 where it does not say.

    Raises:
        ModelError: The configuration is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        found = next((config[name] for name in _DEPTH if name in config), 0)
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}", "Give a Hugging Face model folder."
        ) from error
    return found if isinstance(found, int) else 0


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
