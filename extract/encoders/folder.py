"""What is taken of a Hugging Face model folder, which may come from anybody.

transformers itself looks for some thirty names in a folder, follows paths that its JSON files hold,
and unpickles what an index calls weights. So it is never shown the folder: it gets a configuration
that was read here, tensors of safetensors files, and tokenizer files by known names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsa_cache.errors import ModelError
from mmsa_cache.files.untrusted import open_regular, parse_json, read_regular

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
_MAX_TOKENIZER = 256 << 20
"""Bytes of a tokenizer's file; those of the largest vocabularies have some 35 MB."""
_MAX_NUMBER = 1 << 22
"""Of a configuration, rotary bases excepted; the largest vocabularies have a million words."""

_READ_BOTH_WAYS = (
    "albert bert bert-generation big_bird camembert convbert data2vec-text deberta deberta-v2 "
    "distilbert electra ernie esm eurobert flaubert fnet ibert jina_embeddings_v3 layoutlm "
    "longformer luke megatron-bert mobilebert modernbert mpnet mra nomic_bert nystromformer "
    "rembert roberta roberta-prelayernorm roc_bert roformer splinter squeezebert xlm xlm-roberta "
    "xlm-roberta-xl xlnet xmod yoso"
)
_READ_FORWARD = (
    "biogpt bloom codegen cohere cohere2 falcon gemma gemma2 gemma3_text glm glm4 gpt2 "
    "gpt_bigcode gpt_neo gpt_neox gptj granite helium llama ministral mistral modernbert-decoder "
    "nemotron olmo olmo2 olmo3 openai-gpt opt phi phi3 qwen2 qwen3 smollm3 stablelm "
    "starcoder2 xglm"
)
CAUSAL_TYPES = frozenset(_READ_FORWARD.split())
"""Decoders: what they say of a token depends on those before it only."""
PADDING_SENSITIVE_TYPES = frozenset(("convbert", "fnet", "nystromformer", "yoso"))
"""Families that do not mask padding everywhere: it changes their features."""
TEXT_TYPES = frozenset(_READ_BOTH_WAYS.split()) | CAUSAL_TYPES
JOINT_TYPES = frozenset(("altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip"))
_FOREIGN = frozenset(
    (
        "auto_map",
        "quantization_config",
        "fusion_config",
        "distributed_config",
        "transformers_weights",
    )
)
"""Of a configuration: code, and what changes how transformers builds and loads."""
_SIDES = frozenset(f"{name}_{side}_model" for name in JOINT_TYPES for side in ("text", "vision"))
"""What the halves of joint models call themselves."""


def is_causal(config: Mapping[str, object]) -> bool:
    """Whether a text model reads forward only, by its configuration."""
    forward = str(config.get("model_type")) in CAUSAL_TYPES
    return bool(config.get("is_decoder")) or (
        forward and not config.get("use_bidirectional_attention")
    )


def file_of(folder: Path, name: str) -> Path | None:
    """A file of a model folder; None where there is none of that name.

    Raises:
        ModelError: It is no regular file, or a link that leads out of the folder.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    # The hub's cache keeps a model's files in `blobs`, beside its `snapshots/REVISION`.
    model = folder.parent.parent
    cached = folder.parent.name == "snapshots" and model.name.startswith("models--")
    homes = (folder.resolve(), *((model / "blobs").resolve() for _ in range(cached)))
    if path.is_symlink() and path.resolve().parent not in homes:
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


def files_of(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files of a model folder that match, each once and sorted by name; see `file_of`."""
    names = sorted({path.name for pattern in patterns for path in folder.glob(pattern)})
    return [path for name in names if (path := file_of(folder, name)) is not None]


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object of a model folder; empty where there is no such file.

    Raises:
        ModelError: It is none.
    """
    path = file_of(folder, name)
    if path is None:
        return {}
    try:
        found = parse_json(read_regular(path, _MAX_JSON))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}", "Give a Hugging Face model folder."
        ) from error
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights: one, or those that its index names.

    Raises:
        ModelError: There are none, or the index names something else.
    """
    path = file_of(folder, WEIGHTS)
    if path is not None:
        return [path]
    names = read_json(folder, WEIGHTS_INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{folder} holds no {WEIGHTS}.", _conversion(folder))
    found = []
    for name in sorted({str(name) for name in names.values()}):
        plain = re.fullmatch(r"[\w.-]+\.safetensors", name)
        path = file_of(folder, name) if plain else None
        if path is None:
            raise ModelError(
                f"{folder / WEIGHTS_INDEX} names weights that are no safetensors file of the "
                f"folder: {name[:80]}",
                _conversion(folder),
            )
        found.append(path)
    return found


_CONVERT = (
    "import glob, sys, torch; from safetensors.torch import save_file; "
    "files = sorted(glob.glob(sys.argv[1] + '/pytorch_model*.bin')); "
    "parts = [torch.load(f, map_location='cpu', weights_only=True) for f in files]; "
    "save_file({n: t.contiguous().clone() for p in parts for n, t in p.items()}, "
    "sys.argv[1] + '/model.safetensors', {'format': 'pt'})"
)
"""A program that makes safetensors of pickled weights, without running what they may hold."""


def convert_command(folder: str) -> str:
    """The command line that converts the pickled weights of a model folder."""
    return f'python -c "{_CONVERT}" {shlex.quote(folder)}'


def _conversion(folder: Path) -> str:
    if any(folder.glob("pytorch_model*.bin")):
        command = convert_command(str(folder))
        return f"Convert it to safetensors (pickled weights are never loaded): {command}"
    return "Convert it to safetensors (pickled weights are never loaded)."


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a model's configuration, without what has no part in its features.

    Raises:
        ValueError: It asks for a model that is not supported, for code or for unlikely sizes.
        ModelError: It cannot be read.
    """
    config = {
        name: value
        for name, value in read_json(folder, CONFIG).items()
        if name not in ("num_labels", "id2label", "label2id", "torch_dtype", "dtype")
    }
    kind = str(config.get("model_type"))
    if kind not in TEXT_TYPES | JOINT_TYPES:
        raise ValueError(
            f"its model_type is {kind[:80]!r}; supported are "
            f"{', '.join(sorted(TEXT_TYPES | JOINT_TYPES))}"
        )
    _check_class(config)
    for place, name, value in _items(config):
        if name == "model_type" and place and str(value) not in _SIDES | TEXT_TYPES:
            raise ValueError(f"its {place} asks for a {str(value)[:80]!r}")
        if name in _FOREIGN and value:
            raise ValueError(f"it asks for {name}, which is not supported")
        if "_implementation" in f"{place}.{name}" and value not in (None, "eager", "sdpa"):
            if not isinstance(value, dict):
                raise ValueError(f"it asks for the foreign kernel {str(value)[:80]}")
        elif isinstance(value, int) and abs(value) > _MAX_NUMBER and "theta" not in name:
            raise ValueError(f"its {name} is {str(value)[:80]}, more than {_MAX_NUMBER}")
    return config


def _items(config: Any, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every value of nested JSON: where it is, its own name (that of its list), and itself."""
    pairs = config.items() if isinstance(config, dict) else ((place, item) for item in config)
    for name, value in pairs:
        yield place, name, value
        if isinstance(value, dict | list):
            yield from _items(value, name)


_SETTINGS_KEPT = (
    "additional_special_tokens added_tokens_decoder errors extra_special_tokens model_input_names "
    "model_max_length never_split padding_side truncation_side tokenizer_class vocab_type "
    "fast_tokenizer_files"
)
_KEPT = frozenset(_SETTINGS_KEPT.split())


def tokenizer_settings(folder: Path, name: str) -> dict[str, Any] | None:
    """Reads what a file of settings says of the tokens: switches, numbers and special tokens.

    Paths, code, templates and arguments of other libraries are left out.

    Args:
        folder: The model's files.
        name: ``tokenizer_config.json`` or ``special_tokens_map.json``.

    Returns:
        None where there is no such file.

    Raises:
        ValueError: It asks for a tokenizer of another kind, or for files outside the folder.
        ModelError: It cannot be read.
    """
    if file_of(folder, name) is None:
        return None
    found = read_json(folder, name)
    versions = found.get("fast_tokenizer_files") or []
    if any(not re.fullmatch(r"tokenizer[\w.-]*\.json", str(version)) for version in versions):
        raise ValueError(f"{name} names files outside the folder: {str(versions)[:80]}")
    _check_class(found)
    return {
        key: value
        for key, value in found.items()
        if key in _KEPT
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
_TOKENIZERS = frozenset(_CLASSES.split())


def _check_class(settings: Mapping[str, object]) -> None:
    kind = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    if kind and kind not in _TOKENIZERS:
        raise ValueError(f"its tokenizer_class is {kind[:80]!r}, which is not supported")


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a model's tokenizer, each of bounded size.

    Raises:
        ModelError: One is not in the folder, or too large.
    """
    found = files_of(folder, TOKENIZER_FILES)
    for path in found:
        if path.stat().st_size > _MAX_TOKENIZER:
            raise ModelError(
                f"{path} is larger than {_MAX_TOKENIZER >> 20} MB.",
                "Give a Hugging Face model folder.",
            )
    return found
