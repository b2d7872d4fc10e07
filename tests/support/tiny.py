"""``mmsa.toml`` of encoders that are tiny and of random weights."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.support.pairs import WORDS

IMAGE_MODELS = {
    "resnet10t": "size = 32\nkwargs = { channels = [8, 8, 8, 8] }",
    "vit_tiny_patch16_224": (
        "size = 32\nkwargs = { img_size = 32, embed_dim = 16, depth = 1, num_heads = 1 }"
    ),
    "swinv2_tiny_window8_256": (
        "size = 64\nkwargs = { img_size = 64, window_size = 4, embed_dim = 16, "
        "depths = [1, 1], num_heads = [1, 2] }"
    ),
    "mobilenetv2_035": "size = 32",
}
"""timm name → what makes it tiny."""


def tiny_toml(
    text_model: Path | str, image_model: str, more: str = "", *, data: str = 'root = "posts"'
) -> str:
    """The settings of a folder of posts.

    Args:
        text_model: Of the fixture of that name.
        image_model: One of `IMAGE_MODELS`.
        more: Further sections.
        data: Keys of ``[data]``.
    """
    return f"""[data]
{data}
[text]
model = "{text_model}"
weights = "random"
max_tokens = 16
[image]
model = "{image_model}"
weights = "random"
{IMAGE_MODELS[image_model]}
{more}"""


def make_text_model(folder: Path) -> Path:
    """Writes a one-layer BERT's configuration and a word-level tokenizer; weights are random."""
    from extract.encoders.compat import prepare_torchvision

    prepare_torchvision()
    from transformers import BertConfig, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]"
    ).save_pretrained(folder)
    BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    ).save_pretrained(folder)
    return folder
