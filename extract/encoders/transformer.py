"""Loading models of transformers from local files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmsa_cache.errors import ModelError
from mmsa_cache.files.hashing import digest
from mmsa_cache.store.fingerprint import Fields

from .compat import prepare_torchvision
from .families import JOINT_TYPES
from .folder import (
    CONFIG,
    WEIGHTS,
    WEIGHTS_INDEX,
    find_weight_files,
    read_config,
    read_json,
)
from .limits import MAX_TENSOR, AllocationLimit, check_side, model_limit
from .masks import build_masks_on_device
from .model_errors import raise_model_errors
from .weights import files_sha256, find_text_folder, weights_sha256


def resolve_folder(model: str, weights: str, seed: int) -> tuple[Path, str, Fields]:
    """Finds the files of a transformers model.

    Args:
        model: Hub name or folder.
        weights: ``pretrained`` or ``random``.
        seed: Seed of random weights.

    Returns:
        Folder, the model's name, and its fields of the fingerprint.

    Raises:
        ModelError: The model cannot be found, or has no safetensors weights.
    """
    random = weights == "random"
    folder, source = find_text_folder(model, weights=not random)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} holds no {CONFIG}.", "Give a Hugging Face model folder.")
    files = [] if random else find_weight_files(folder)
    name = Path(model).resolve().name if source == "folder" else model
    if random:
        identity = f"random:{seed}"
    elif source.startswith("hub:"):
        identity = source
    else:
        identity = files_sha256(folder, ("*.safetensors",))
        if files[0].name != WEIGHTS:  # the index says what is loaded of them
            index = weights_sha256(folder / WEIGHTS_INDEX)
            identity = digest({"files": identity, "index": index})
    config = files_sha256(folder, (CONFIG,))
    return folder, name, {"encoder": name, "weights": identity, "config": config}


_DEPTH_KEYS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
"""Names of the number of layers in the configurations of all families."""


def read_depth(folder: Path) -> int:
    """Number of layers of a text model by its configuration; 0 where it is not stated.

    Raises:
        ModelError: The configuration is not a JSON object.
    """
    config = read_json(folder, CONFIG)
    depth = next((config[key] for key in _DEPTH_KEYS if key in config), 0)
    return depth if isinstance(depth, int) else 0


def load_config(folder: Path) -> Any:
    """Reads a model's configuration as an object of transformers; see `read_config`.

    Raises:
        ValueError: It is not supported. transformers may raise other kinds of errors.
    """
    prepare_torchvision()
    from transformers import AutoConfig

    config = read_config(folder)
    return AutoConfig.for_model(config.pop("model_type"), **config)


def load_model(folder: Path, random_seed: int | None) -> Any:
    """Loads a transformers model in float32, frozen, on the CPU.

    It is first built without allocating memory, to learn its size.

    Args:
        folder: The model's files.
        random_seed: Seed of random weights, or None for those in the folder.

    Raises:
        ModelError: The model is not supported or too large, its weights do not fit, or transformers
            cannot load it.
    """
    with raise_model_errors(
        f"The model in {folder} cannot be loaded",
        "Give the folder of a text model or of a CLIP-like one, with all of its weights.",
    ):
        config = load_config(folder)
        from transformers import AutoModel
        from transformers.utils import logging

        build_masks_on_device()
        logging.disable_progress_bar()
        weights = None if random_seed is not None else _read_weights(find_weight_files(folder))
        limit = model_limit(weights)
        with AllocationLimit(str(folder), limit, limit), torch.device("meta"):
            empty_model = AutoModel.from_config(config, dtype=torch.float32)
        _check_picture_memory(empty_model.eval(), folder)
        if random_seed is None:
            model, loading_info = type(empty_model).from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # `_check_weights` names them
                output_loading_info=True,
            )
            _check_weights(loading_info, joint=config.model_type in JOINT_TYPES)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(random_seed)
                model = AutoModel.from_config(config, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def _read_weights(files: Iterable[Path]) -> dict[str, Tensor]:
    """The tensors of safetensors files, by name.

    Raises:
        ValueError: A tensor is in two files.
    """
    weights: dict[str, Tensor] = {}
    for path in files:
        part = load_file(path)
        for name in part.keys() & weights.keys():
            raise ValueError(f"{path.name} holds {name}, which another file holds too")
        weights |= part
    return weights


def _check_picture_memory(model: Any, folder: Path) -> None:
    """Checks what one picture takes in a joint model's image side, on the ``meta`` device."""
    vision = getattr(model.config, "vision_config", None)
    if vision is not None:
        side = check_side(vision.image_size, str(folder))
        with AllocationLimit(str(folder), MAX_TENSOR), torch.inference_mode():
            model.get_image_features(pixel_values=torch.zeros(1, 3, side, side, device="meta"))


def _check_weights(loading_info: dict[str, Any], *, joint: bool) -> None:
    """Refuses weights that leave a part of the model random, unless that part is never used.

    Raises:
        ValueError: Some are missing or of another shape.
    """
    unused = ("position_ids", "token_type_ids") + (() if joint else ("pooler.",))
    missing = [
        name for name in loading_info["missing_keys"] if not any(part in name for part in unused)
    ]
    wrong = sorted({*missing, *(str(entry[0]) for entry in loading_info["mismatched_keys"])})
    if wrong:
        raise ValueError(
            f"{len(wrong)} of its weights are missing or of another shape: "
            f"{', '.join(wrong[:4])}{', …' if len(wrong) > 4 else ''}"
        )
