"""``mmsa.toml`` of encoders that are tiny and of random weights."""

from __future__ import annotations

from pathlib import Path

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
