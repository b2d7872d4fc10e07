"""Reading an untrusted Hugging Face model folder.

transformers itself looks for some thirty names in a folder, follows paths in its JSON files and
unpickles what an index calls weights. So it never gets the folder: it gets a configuration that is
read here, tensors of safetensors files, and tokenizer files by known names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsa_cache.errors import ModelError
from mmsa_cache.files.untrusted import open_regular, parse_json, read_regular

from .families import JOINT_SIDES, JOINT_TYPES, TEXT_TYPES

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges*",
    "bpe.codes",
    "special_tokens*",
    "added_tokens*",
    "*.model",
)
_MAX_JSON = 32 << 20
"""Bytes."""
_MAX_TOKENIZER = 256 << 20
"""Bytes of a tokenizer's file; those of the largest vocabularies have some 35 MB."""
_MAX_NUMBER = 1 << 22
"""Largest number in a configuration, rotary bases excepted; the largest vocabularies have a million
words."""

_FOREIGN = frozenset(
    (
        "auto_map",
        "quantization_config",
        "fusion_config",
        "distributed_config",
        "transformers_weights",
    )
)
"""Keys of a configuration that name code or change how transformers builds and loads a model."""


def find_file(folder: Path, name: str) -> Path | None:
    """Finds a file of a model folder; None where there is none of that name.

    Raises:
        ModelError: It is not a regular file, or a link that leads out of the folder.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    # The hub's cache keeps a model's files in `blobs`, beside its `snapshots/REVISION`.
    allowed = [folder.resolve()]
    model = folder.parent.parent
    if folder.parent.name == "snapshots" and model.name.startswith("models--"):
        allowed.append((model / "blobs").resolve())
    if path.is_symlink() and path.resolve().parent not in allowed:
        raise ModelError(
            f"{path} is a link that leads out of the model folder.",
            "Put the file itself into the folder.",
        )
    try:
        open_regular(path).close()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}", "Give a Hugging Face model folder."
        ) from error
    return path


def find_files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Finds the files of a model folder that match, sorted by name; see `find_file`."""
    names = sorted({path.name for pattern in patterns for path in folder.glob(pattern)})
    return [path for name in names if (path := find_file(folder, name)) is not None]


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object of a model folder; empty where there is no such file.

    Raises:
        ModelError: The file cannot be read, or holds no JSON object.
    """
    path = find_file(folder, name)
    if path is None:
        return {}
    try:
        value = parse_json(read_regular(path, _MAX_JSON))
        if not isinstance(value, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}", "Give a Hugging Face model folder."
        ) from error
    return value


def find_weight_files(folder: Path) -> list[Path]:
    """Finds the safetensors files of a model's weights: one, or those that its index names.

    Raises:
        ModelError: There are none, or the index names something else.
    """
    path = find_file(folder, WEIGHTS)
    if path is not None:
        return [path]
    weight_map = read_json(folder, WEIGHTS_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{folder} holds no {WEIGHTS}.", _conversion_hint(folder))
    paths = []
    for name in sorted({str(name) for name in weight_map.values()}):
        is_plain = re.fullmatch(r"[\w.-]+\.safetensors", name)
        path = find_file(folder, name) if is_plain else None
        if path is None:
            raise ModelError(
                f"{folder / WEIGHTS_INDEX} names weights that are no safetensors file of the "
                f"folder: {name[:80]}",
                _conversion_hint(folder),
            )
        paths.append(path)
    return paths


_CONVERT = (
    "import glob, sys, torch; from safetensors.torch import save_file; "
    "files = sorted(glob.glob(sys.argv[1] + '/pytorch_model*.bin')); "
    "parts = [torch.load(f, map_location='cpu', weights_only=True) for f in files]; "
    "save_file({n: t.contiguous().clone() for p in parts for n, t in p.items()}, "
    "sys.argv[1] + '/model.safetensors', {'format': 'pt'})"
)
"""A program that converts pickled weights to safetensors, without running code in them."""


def convert_command(folder: str) -> str:
    """Command line that converts the pickled weights of a model folder."""
    return f'python -c "{_CONVERT}" {shlex.quote(folder)}'


def _conversion_hint(folder: Path) -> str:
    if any(folder.glob("pytorch_model*.bin")):
        command = convert_command(str(folder))
        return f"Convert it to safetensors (pickled weights are never loaded): {command}"
    return "Convert it to safetensors (pickled weights are never loaded)."


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a model's configuration, without keys that do not affect its features.

    Raises:
        ValueError: It asks for an unsupported model, for code or for unlikely sizes.
        ModelError: It cannot be read.
    """
    config = {
        name: value
        for name, value in read_json(folder, CONFIG).items()
        if name not in ("num_labels", "id2label", "label2id", "torch_dtype", "dtype")
    }
    model_type = str(config.get("model_type"))
    if model_type not in TEXT_TYPES | JOINT_TYPES:
        raise ValueError(
            f"its model_type is {model_type[:80]!r}; supported are "
            f"{', '.join(sorted(TEXT_TYPES | JOINT_TYPES))}"
        )
    _check_tokenizer_class(config)
    for parent, name, value in _nested_items(config):
        if name == "model_type" and parent and str(value) not in JOINT_SIDES | TEXT_TYPES:
            raise ValueError(f"its {parent} asks for a {str(value)[:80]!r}")
        if name in _FOREIGN and value:
            raise ValueError(f"it asks for {name}, which is not supported")
        if "_implementation" in f"{parent}.{name}" and value not in (None, "eager", "sdpa"):
            if not isinstance(value, dict):
                raise ValueError(f"it asks for the foreign kernel {str(value)[:80]}")
        elif isinstance(value, int) and abs(value) > _MAX_NUMBER and "theta" not in name:
            raise ValueError(f"its {name} is {str(value)[:80]}, more than {_MAX_NUMBER}")
    return config


def _nested_items(config: Any, parent: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every value of nested JSON: its parent's key, its own key (or its list's), itself."""
    pairs = config.items() if isinstance(config, dict) else ((parent, item) for item in config)
    for name, value in pairs:
        yield parent, name, value
        if isinstance(value, dict | list):
            yield from _nested_items(value, name)


_KEYS = (
    "additional_special_tokens added_tokens_decoder errors extra_special_tokens model_input_names "
    "model_max_length never_split padding_side truncation_side tokenizer_class vocab_type "
    "fast_tokenizer_files"
)
_TOKENIZER_KEYS = frozenset(_KEYS.split())
"""Keys that are kept of a tokenizer's settings."""


def read_tokenizer_settings(folder: Path, name: str) -> dict[str, Any] | None:
    """Reads switches, numbers and special tokens from a file of tokenizer settings.

    Leaves out paths, code, templates and arguments of other libraries.

    Args:
        folder: The model's files.
        name: ``tokenizer_config.json`` or ``special_tokens_map.json``.

    Returns:
        None where there is no such file.

    Raises:
        ValueError: It asks for an unsupported tokenizer, or for files outside the folder.
        ModelError: It cannot be read.
    """
    if find_file(folder, name) is None:
        return None
    settings = read_json(folder, name)
    versions = settings.get("fast_tokenizer_files") or []
    if any(not re.fullmatch(r"tokenizer[\w.-]*\.json", str(version)) for version in versions):
        raise ValueError(f"{name} names files outside the folder: {str(versions)[:80]}")
    _check_tokenizer_class(settings)
    return {
        key: value
        for key, value in settings.items()
        if key in _TOKENIZER_KEYS
        or key.endswith("_token")
        or value is None
        or isinstance(value, bool | int | float)
    }


_CLASSES = (
    "AlbertTokenizer BartTokenizer BarthezTokenizer BertGenerationTokenizer BertTokenizer "
    "BertweetTokenizer BigBirdTokenizer BioGptTokenizer BloomTokenizer CLIPTokenizer "
    "CamembertTokenizer CodeGenTokenizer CohereTokenizer ConvBertTokenizer DebertaTokenizer "
    "DebertaV2Tokenizer DistilBertTokenizer ElectraTokenizer EsmTokenizer FNetTokenizer "
    "FlaubertTokenizer GPT2Tokenizer GPTNeoXTokenizer GemmaTokenizer HerbertTokenizer "
    "LayoutLMTokenizer LlamaTokenizer LongformerTokenizer LukeTokenizer MBartTokenizer "
    "MPNetTokenizer MobileBertTokenizer NystromformerTokenizer OpenAIGPTTokenizer "
    "PhobertTokenizer PreTrainedTokenizer Qwen2Tokenizer RemBertTokenizer RetriBertTokenizer "
    "RoCBertTokenizer RoFormerTokenizer RobertaTokenizer SiglipTokenizer SplinterTokenizer "
    "SqueezeBertTokenizer T5Tokenizer TokenizersBackend XGLMTokenizer XLMRobertaTokenizer "
    "XLMTokenizer XLNetTokenizer"
)
_TOKENIZER_CLASSES = frozenset(_CLASSES.split())


def _check_tokenizer_class(settings: Mapping[str, object]) -> None:
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    if name and name not in _TOKENIZER_CLASSES:
        raise ValueError(f"its tokenizer_class is {name[:80]!r}, which is not supported")


def find_tokenizer_files(folder: Path) -> list[Path]:
    """Finds the files of a model's tokenizer.

    Raises:
        ModelError: One lies outside the folder, or is too large.
    """
    paths = find_files(folder, TOKENIZER_FILES)
    for path in paths:
        if path.stat().st_size > _MAX_TOKENIZER:
            raise ModelError(
                f"{path} is larger than {_MAX_TOKENIZER >> 20} MB.",
                "Give a Hugging Face model folder.",
            )
    return paths
