"""Generated posts of realistic sizes, and encoders with random weights."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsa_cache.data.layouts.listing import LABELS, UNLABELLED
from mmsa_cache.data.layouts.tables import HEADER
from mmsa_cache.files.disk import UNSYNCED_DISK, make_folders, write_new

from .sizes import Sizes

NOTE = "generated posts, random-weight encoders"
_WORDS = (1, 5, 6, 9, 13, 17, 20, 22, 29)
"""Words of a post at `_QUANTILES`, of the 4,511 tweets of MVSA-Single."""
_QUANTILES = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1)
_SYLLABLES = [a + b for a in "bcdfghjklmnpqrstvwz" for b in ("a", "e", "i", "o", "u", "an", "er")]
_VOCABULARY_SIZE, _KNOWN_WORDS = 10_000, 4000
"""Words of the posts, and those in the tokenizer's vocabulary; it splits others into syllables."""
_SHARES = (0.6, 0.1, 0.3)
_QUALITY = 71
_BLOCK = 12
"""Pixels of the pattern; with `_NOISE`, a JPEG of 450×600 has about 40 kB."""
_NOISE = 2.5


def make_posts(folder: Path, sizes: Sizes, posts: int, test_posts: int, large_posts: int) -> None:
    """Writes a data folder in the report's layout.

    Args:
        folder: Folder to make.
        sizes: Sizes of the pictures.
        posts: Number of posts.
        test_posts: Number of unlabelled posts, at the end.
        large_posts: Number of posts with large pictures, at the beginning.
    """
    rng = np.random.default_rng(47)
    make_folders(folder / "pairs")
    words = _vocabulary()
    lengths = np.interp(rng.random(posts), _QUANTILES, _WORDS).round().astype(int)
    grain = rng.normal(0, _NOISE, (max(sizes.picture), max(sizes.picture), 1)).astype(np.float32)

    def write(numbers: range) -> None:
        own_rng = np.random.default_rng([47, numbers[0]])
        large = numbers[0] < large_posts
        picture = _picture(sizes.large_picture if large else sizes.picture, grain, own_rng)
        for number in numbers:
            text = " ".join(own_rng.choice(words, lengths[number]))
            write_new(folder / "pairs" / f"{number}.txt", text.encode(), UNSYNCED_DISK)
            write_new(
                folder / "pairs" / f"{number}.jpg", _add_comment(picture, number), UNSYNCED_DISK
            )

    first = range(large_posts, min(posts, large_posts + sizes.distinct_pictures))
    same_picture = [range(number, posts, sizes.distinct_pictures) for number in first]
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, [*(range(i, i + 1) for i in range(large_posts)), *same_picture]))
    labels = rng.choice(LABELS, posts, p=_SHARES)
    first_test = posts - test_posts
    train = [f"{i},{labels[i]}" for i in range(first_test)]
    test = [f"{i},{UNLABELLED}" for i in range(first_test, posts)]
    for name, lines in (("train.txt", train), ("test_without_label.txt", test)):
        write_new(folder / name, ("\n".join([HEADER, *lines]) + "\n").encode(), UNSYNCED_DISK)


def _picture(size: tuple[int, int], grain: NDArray[np.float32], rng: np.random.Generator) -> bytes:
    """A coloured pattern with noise, as JPEG bytes."""
    width, height = size
    coarse = rng.integers(0, 256, (height // _BLOCK + 1, width // _BLOCK + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    tiles = (-(-height // grain.shape[0]), -(-width // grain.shape[1]), 1)
    noise = np.tile(np.roll(grain, int(rng.integers(len(grain))), 0), tiles)[:height, :width]
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()


def _add_comment(picture: bytes, number: int) -> bytes:
    """A JPEG with another comment: other bytes, same pixels."""
    comment = f"{number:08}".encode()
    start, marker = picture[:2], b"\xff\xfe"
    return start + marker + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def _vocabulary() -> list[str]:
    """The words of the posts; the tokenizer has the first `_KNOWN_WORDS`."""
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(_SYLLABLES, rng.integers(2, 5))) for _ in range(_VOCABULARY_SIZE)]


def make_encoders(folder: Path, sizes: Sizes) -> None:
    """Writes the folder of a BERT model without weights, with its own tokenizer."""
    from transformers import BertConfig, BertTokenizerFast

    make_folders(folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = dict.fromkeys([*_SYLLABLES, *_vocabulary()[:_KNOWN_WORDS]])
    pieces = [*special, *known, *(f"##{syllable}" for syllable in _SYLLABLES)]
    vocabulary = folder / "vocab.txt"
    write_new(vocabulary, "\n".join(pieces).encode(), UNSYNCED_DISK)
    BertTokenizerFast(vocab=str(vocabulary)).save_pretrained(folder)
    BertConfig(**sizes.bert).save_pretrained(folder)


def write_config(folder: Path, sizes: Sizes, data: str) -> None:
    """Writes the ``mmsa.toml`` of the posts and the encoders.

    Args:
        folder: Folder of the file.
        sizes: Options of the image encoder.
        data: The data folder, relative to ``folder``.
    """
    make_folders(folder)
    text = (
        f'[data]\nroot = "{data}"\nnote = "{NOTE}"\n'
        f'[text]\nmodel = "../bert"\nweights = "random"\n{sizes.image_section()}'
        '[extract]\nvariants = "none"\n'
    )
    write_new(folder / "mmsa.toml", text.encode(), UNSYNCED_DISK)
