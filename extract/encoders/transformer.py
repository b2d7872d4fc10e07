"""Models of transformers: their files, and how they are loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmsa_cache.errors import ModelError
from mmsa_cache.files.hashing import digest
from mmsa_cache.native.device import is_device_error
from mmsa_cache.store.fingerprint import Fields

from .compat import prepare_torchvision
from .folder import (
    CONFIG,
    JOINT_TYPES,
    WEIGHTS,
    WEIGHTS_INDEX,
    read_config,
    read_json,
    weight_files,
)
from .limits import MAX_RANDOM, MAX_TENSOR, AllocationLimit, check_side
from .masks import build_masks_on_device
from .weights import files_sha256, text_folder, weights_sha256


def resolve_folder(model: str, weights: str, seed: int) -> tuple[Path, str, Fields]:
    """Finds the files of a transformers model.

    Returns:
        Folder, the model's name, and the fingerprint's fields that name it.

    Raises:
        ModelError: It cannot be found, or has no safetensors weights.
    """
    random = weights == "random"
    folder, source = text_folder(model, weights=not random)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} holds no {CONFIG}.", "Give a Hugging Face model folder.")
    files = [] if random else weight_files(folder)
    name = Path(model).resolve().name if source == "folder" else model
    if random:
        identity = f"random:{seed}"
    elif source.startswith("hub:"):
        identity = source
    else:
        identity = files_sha256(folder, ("*.safetensors",))
        if files[0].name != WEIGHTS:  # what is loaded of them is what the index names
            index = weights_sha256(folder / WEIGHTS_INDEX)
            identity = digest({"files": identity, "index": index})
    config = files_sha256(folder, (CONFIG,))
    return folder, name, {"encoder": name, "weights": identity, "config": config}


_DEPTH = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
"""What families call their number of layers."""


def depth_of(folder: Path) -> int:
    """Layers of a text model by its configuration; 0 where it does not say.

    Raises:
        ModelError: The configuration is not a JSON object.
    """
    config = read_json(folder, CONFIG)
    found = next((config[name] for name in _DEPTH if name in config), 0)
    return found if isinstance(found, int) else 0


def load_config(folder: Path) -> Any:
    """A model's configuration as transformers has it; see `read_config`.

    Raises:
        ValueError: It is not supported, or transformers raised another kind of error.
    """
    prepare_torchvision()
    from transformers import AutoConfig

    config = read_config(folder)
    return AutoConfig.for_model(config.pop("model_type"), **config)


def load_model(folder: Path, random_seed: int | None) -> Any:
    """Loads a transformers model in float32, frozen, on the CPU.

    It is built without memory first, to learn its size.

    Args:
        folder: Its files.
        random_seed: Seed of random weights, or None for those in the folder.

    Raises:
        ModelError: It is not supported, asks for too much memory, its weights do not fit, or
            transformers cannot load it.
    """
    try:
        config = load_config(folder)
        from transformers import AutoModel
        from transformers.utils import logging

        build_masks_on_device()
        logging.disable_progress_bar()
        state = {} if random_seed is not None else _read_weights(weight_files(folder))
        paid = 8 * sum(tensor.numel() for tensor in state.values()) + (64 << 20)
        limit = paid if random_seed is None else MAX_RANDOM
        with AllocationLimit(str(folder), limit, limit), torch.device("meta"):
            shape = AutoModel.from_config(config, dtype=torch.float32)
        _check_pictures(shape.eval(), folder)
        if random_seed is None:
            model, found = type(shape).from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
            )
            _check_weights(found, joint=config.model_type in JOINT_TYPES)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(random_seed)
                model = AutoModel.from_config(config, dtype=torch.float32)
    except ModelError:
        raise
    except Exception as error:  # transformers raises many kinds for a bad folder
        if is_device_error(error):
            raise
        raise ModelError(
            f"The model in {folder} cannot be loaded: {error}",
            "Give the folder of a text model or of a CLIP-like one, with all of its weights.",
        ) from error
    return model.eval().requires_grad_(False)


def _read_weights(files: Iterable[Path]) -> dict[str, Tensor]:
    """The tensors of safetensors files, by name.

    Raises:
        ValueError: A tensor is in two files.
    """
    found: dict[str, Tensor] = {}
    for path in files:
        state = load_file(path)
        for name in state.keys() & found.keys():
            raise ValueError(f"{path.name} holds {name}, which another file holds too")
        found |= state
    return found


def _check_pictures(model: Any, folder: Path) -> None:
    """Bounds what one picture takes in a joint model's image side, on the ``meta`` device."""
    vision = getattr(model.config, "vision_config", None)
    if vision is not None:
        side = check_side(vision.image_size, str(folder))
        with AllocationLimit(str(folder), MAX_TENSOR), torch.inference_mode():
            model.get_image_features(pixel_values=torch.zeros(1, 3, side, side, device="meta"))


def _check_weights(found: dict[str, Any], *, joint: bool) -> None:
    """Refuses weights that leave a part of the model random, but for parts that are not read.

    Raises:
        ValueError: Some are missing or of another shape.
    """
    spare = ("position_ids", "token_type_ids") + (() if joint else ("pooler.",))
    missing = [name for name in found["missing_keys"] if not any(part in name for part in spare)]
    wrong = sorted({*missing, *(str(entry[0]) for entry in found["mismatched_keys"])})
    if wrong:
        raise ValueError(
            f"{len(wrong)} of its weights are missing or of another shape: "
            f"{', '.join(wrong[:4])}{', …' if len(wrong) > 4 else ''}"
        )
