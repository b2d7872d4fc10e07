"""Tiny models of every family of encoders."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from extract.encoders.compat import prepare_torchvision
from tests.support.clip import clip_tokenizer

TEXTS = ["a good day", "good", "a a good good day day good"]
# Families have their real depth; large ones of their real width too are in the longer series.
NARROW = {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 192}
BPE = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "Ġ": 5, "g": 6, "o": 7, "d": 8, "y": 9}
UNIGRAM = [("▁a", -1.0), ("▁good", -2.0), ("▁day", -2.0), ("▁", -3.0), ("<mask>", 0.0)]


def bert(folder: Path, width: dict[str, int] = NARROW) -> tuple[Any, Any]:
    from transformers import BertConfig, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "day"]
    return BertTokenizer({w: i for i, w in enumerate(words)}), BertConfig(vocab_size=8, **width)


def minilm(folder: Path) -> tuple[Any, Any]:
    tokenizer, config = bert(folder)
    config.update(
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
        | {"intermediate_size": 1536}
    )
    return tokenizer, config


def roberta(folder: Path) -> tuple[Any, Any]:
    from transformers import RobertaConfig, RobertaTokenizer

    config = RobertaConfig(vocab_size=12, max_position_embeddings=514, type_vocab_size=1, **NARROW)
    return RobertaTokenizer({**BPE, "<mask>": 10, "go": 11}, [("g", "o")]), config


def bertweet(folder: Path) -> tuple[Any, Any]:
    from transformers import BertweetTokenizer, RobertaConfig

    (folder / "vocab.txt").write_text("a 10\ngood 9\nday 8\n")
    (folder / "bpe.codes").write_text("g o 10\ngo od</w> 9\no d</w> 8\nd a 5\nda y</w> 4\n")
    tokenizer = BertweetTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"))
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=130, **NARROW)
    config.tokenizer_class = "BertweetTokenizer"
    return tokenizer, config


def deberta(folder: Path) -> tuple[Any, Any]:
    from transformers import DebertaV2Config, DebertaV2Tokenizer

    special = [(name, 0.0) for name in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    vocabulary = [*special, *UNIGRAM[:-1], ("[MASK]", 0.0)]
    config = DebertaV2Config(  # deberta-v3-base
        vocab_size=len(vocabulary),
        num_hidden_layers=12,
        **NARROW,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    )
    return DebertaV2Tokenizer(vocabulary, unk_id=3), config


def multilingual(folder: Path) -> tuple[Any, Any]:
    from transformers import XLMRobertaConfig, XLMRobertaTokenizer

    special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary = [*special, *UNIGRAM]
    config = XLMRobertaConfig(vocab_size=len(vocabulary), max_position_embeddings=514, **NARROW)
    return XLMRobertaTokenizer(vocabulary), config


TEXT_FAMILIES = {
    "bert": (bert, 512),
    "bert-base": (partial(bert, width={}), 512),
    "minilm": (minilm, 512),
    "roberta": (roberta, 512),
    "bertweet": (bertweet, 128),
    "deberta": (deberta, 512),
    "multilingual": (multilingual, 512),
}


def clip(folder: Path, width: dict[str, int] = NARROW) -> tuple[Any, Any]:
    from transformers import CLIPConfig

    tokenizer = clip_tokenizer()
    text = {"vocab_size": len(tokenizer), "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1}
    # The other defaults are ViT-B/32's.
    return tokenizer, CLIPConfig(text_config=text | width, vision_config=width)


def save(folder: Path, make: Any) -> Path:
    prepare_torchvision()
    work = folder / "parts"
    work.mkdir()
    tokenizer, config = make(work)
    target = folder / "model"
    tokenizer.save_pretrained(target)
    config.save_pretrained(target)
    return target


def chinese_clip(folder: Path) -> tuple[Any, Any]:
    from transformers import ChineseCLIPConfig

    tokenizer, _ = bert(folder)
    config = ChineseCLIPConfig(text_config={"vocab_size": 8, **NARROW}, vision_config=NARROW)
    return tokenizer, config
