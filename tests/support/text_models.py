"""Tiny text models of every kind that is taken, and a tokenizer of letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extract.encoders.compat import prepare_torchvision
from extract.encoders.families import TEXT_TYPES
from extract.encoders.text_tower import PlainTower
from extract.encoders.transformer import load_model

POSITIONS = 24
SIZES = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40},
    **{"intermediate_size": 32, "max_position_embeddings": POSITIONS, "embedding_size": 16},
    **{"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS, "n_inner": 32},
    **{"d_model": 16, "num_layers": 2, "ffn_dim": 32, "attention_heads": 4, "emb_dim": 16},
    **{"word_embed_proj_dim": 16, "n_layers": 2, "n_heads": 4, "dim": 16, "hidden_dim": 32},
    **{"num_key_value_heads": 4, "head_dim": 4, "rotary_dim": 4, "d_inner": 32, "d_head": 4},
    **{"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "attention_window": 4},
    **{"entity_vocab_size": 8, "entity_emb_size": 8, "true_hidden_size": 16, "num_heads": 4},
    **{"input_embedding_size": 16, "output_embedding_size": 16, "intra_bottleneck_size": 16},
    **{"num_landmarks": 4, "segment_means_seq_len": 4, "mask_token_id": 3, "n_special": 0},
    **{"attention_types": [[["global"], 2]], "default_language": "en_XX", "ffn_hidden_size": 32},
}
LEFT_OUT = {"xlnet": {"max_position_embeddings"}, "falcon": {"head_dim"}}
USUAL = (
    "bert camembert data2vec-text deberta-v2 distilbert electra esm gemma gpt2 ibert llama "
    "longformer luke mistral mpnet opt phi qwen2 qwen3 roberta xlm-roberta xlm-roberta-xl"
)
FAMILIES = [
    pytest.param(name, marks=() if name in USUAL.split() else pytest.mark.faults)
    for name in sorted(TEXT_TYPES)
]


def tower(name: str, folder: Path) -> PlainTower:
    prepare_torchvision()
    from transformers import AutoConfig

    own = AutoConfig.for_model(name)
    known = (own.to_dict().keys() | own.attribute_map.keys()) - LEFT_OUT.get(name, set())
    config = AutoConfig.for_model(name, **{key: SIZES[key] for key in SIZES.keys() & known})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return PlainTower(load_model(folder, 3), name)


def joint_model(name: str, folder: Path) -> Any:
    prepare_torchvision()
    from transformers import AutoConfig

    narrow = {key: SIZES[key] for key in ("hidden_size", "num_hidden_layers", "intermediate_size")}
    narrow["num_attention_heads"] = 2
    text = narrow | {"vocab_size": 40, "max_position_embeddings": POSITIONS, "project_dim": 16}
    text |= {"projection_size": 16, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    vision = narrow | {"image_size": 32, "patch_size": 8}
    config = AutoConfig.for_model(name, text_config=text, vision_config=vision, projection_dim=16)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return load_model(folder, 3)


def gpt2(folder: Path, **settings: Any) -> Path:
    """A tokenizer of single letters that adds no token of its own, and has none to pad with."""
    prepare_torchvision()
    from transformers import GPT2Config, GPT2Tokenizer

    letters = ["<|endoftext|>", *(chr(number) for number in range(ord("!"), ord("~") + 1)), "Ġ"]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    GPT2Tokenizer(vocabulary, [], **settings).save_pretrained(folder)
    GPT2Config(
        vocab_size=len(letters), n_embd=16, n_layer=2, n_head=2, n_positions=32
    ).save_pretrained(folder)
    return folder
