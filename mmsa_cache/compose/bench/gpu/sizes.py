"""Sizes of what is generated and measured, on a GPU and in a rehearsal on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a run. The defaults are those of real encoders and data."""

    posts: int = 4096
    test_posts: int = 511
    """Posts of the split ``test``."""
    large_posts: int = 32
    """Posts with a picture of ``large_picture`` size."""
    distinct_pictures: int = 256
    """Pictures generated; further posts repeat them with another comment."""
    picture: tuple[int, int] = (450, 600)
    """(width, height) in pixels."""
    large_picture: tuple[int, int] = (4000, 3000)
    bert: dict[str, Any] = field(default_factory=dict)
    """Arguments of `transformers.BertConfig`; the defaults are BERT-base."""
    image_model: str = "swinv2_base_window8_256.ms_in1k"
    image_size: int = 256
    image_kwargs: dict[str, Any] = field(default_factory=dict)
    feature_samples: int = 4000
    """Samples with generated features; the report's policy adds variants."""
    text_dim: int = 768
    image_dim: int = 1024
    patches: int = 64
    compared_rows: int = 16
    """Posts whose features are compared between devices."""
    few_posts: int = 200
    """Training posts of the run by the commands."""
    small_samples: int = 512
    """Training samples for the comparison of fusions and losses."""
    textbook_posts: int = 256
    batch_size: int = 32
    """Rows of a small forward pass."""
    large_batch: int = 256
    """Rows of a forward pass, the default of ``[extract] batch_size`` on a GPU."""
    largest_batch: int = 1024
    """Upper limit of the search for the largest batch."""
    rounds: int = 3
    trials: int = 200
    folds: int = 5
    search_seconds: float = 45.0
    """Limit of a search; the rate is that of the trials finished by then."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of the `Setting` for measured steps and epochs."""
    members: int = 5
    """Group size for measured steps and epochs."""
    stack: int = 15
    """Group size for measured memory."""
    compiler: str = "inductor"
    """Backend of `torch.compile`."""

    def image_section(self) -> str:
        """The ``[image]`` section of an ``mmsa.toml``."""
        inner = ", ".join(f"{key} = {value!r}" for key, value in self.image_kwargs.items())
        return (
            f'[image]\nmodel = "{self.image_model}"\nweights = "random"\n'
            f"size = {self.image_size}\nkwargs = {{ {inner} }}\n"
        )


FULL = Sizes()
REHEARSAL = Sizes(
    posts=32,
    test_posts=8,
    large_posts=2,
    picture=(60, 80),
    large_picture=(240, 180),
    bert={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    },
    image_model="swinv2_tiny_window8_256",
    image_size=64,
    image_kwargs={
        "img_size": 64,
        "window_size": 4,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 4],
    },
    feature_samples=90,
    text_dim=32,
    image_dim=48,
    patches=16,
    compared_rows=8,
    few_posts=100,
    small_samples=60,
    textbook_posts=8,
    batch_size=8,
    large_batch=16,
    largest_batch=16,
    rounds=1,
    trials=2,
    folds=2,
    search_seconds=60.0,
    model={"text_dim": 16, "image_dim": 16, "ffn": 32, "head": "16"},
    members=2,
    stack=3,
    compiler="eager",  # traces as the other one does, and builds nothing
)
