"""The report's augmentation: one random operation a variant of a text or picture.

Texts without spaces between words have no synonyms here. Some of their words or characters are
dropped, or two are swapped, and every variant differs from the text.

Each variant has its own generator, seeded by (seed, content, variant, modality). So neither order
nor parallelism changes a byte, equal inputs have equal variants, and renamed rows keep theirs.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from .segment import is_unspaced, is_word, segmenter_version, split_segments
from .synonyms import synonyms

POLICY = "report-v2"
"""Name of the policy in fingerprints; changed whenever the outcome of an operation changes."""
_UNSPACED_POLICY = "unspaced-v1"

Pixels = NDArray[np.uint8]

# Links, mentions and hashtags are never replaced.
_PLAIN_WORD = re.compile(r"^(\W*)([A-Za-z]+(?:['-][A-Za-z]+)*)(\W*)$")


def variant_rng(seed: int, content_sha256: str, variant: int, modality: str) -> random.Random:
    """The random generator of one variant; it depends on the arguments alone.

    Args:
        seed: Seed of augmentation.
        content_sha256: Hash of the text or picture (hex).
        variant: From 1.
        modality: ``text`` or ``image``.
    """
    key = f"{seed}\0{content_sha256}\0{variant}\0{modality}".encode()
    return random.Random(int.from_bytes(hashlib.sha256(key).digest(), "big"))


def _replaceable(words: list[str]) -> list[tuple[int, str, tuple[str, ...], str]]:
    """(index, punctuation before, synonyms, punctuation after) of each word that has synonyms."""
    replaceable = []
    for index, word in enumerate(words):
        match = _PLAIN_WORD.match(word)
        if match is None or match[1].endswith(("#", "@")):
            continue
        others = synonyms(match[2])
        if others:
            replaceable.append((index, match[1], others, match[3]))
    return replaceable


def synonym_replacement(text: str, rng: random.Random) -> str:
    """Replaces one word by a synonym. The text stays as it is where no word has one."""
    words = text.split()
    options = _replaceable(words)
    if not options:
        return text
    index, before, others, after = rng.choice(options)
    words[index] = f"{before}{rng.choice(others)}{after}"
    return " ".join(words)


def random_insertion(text: str, rng: random.Random) -> str:
    """Inserts a synonym of a random word anywhere. The text stays as it is where none has one."""
    words = text.split()
    options = _replaceable(words)
    if not options:
        return text
    _, _, others, _ = rng.choice(options)
    words.insert(rng.randint(0, len(words)), rng.choice(others))
    return " ".join(words)


def random_deletion(text: str, rng: random.Random) -> str:
    """Drops each word with probability 0.1; at least one is kept."""
    words = text.split()
    if len(words) < 2:
        return text
    remaining = [word for word in words if rng.random() >= 0.1]
    return " ".join(remaining or [rng.choice(words)])


def _with_pillow(
    change: Callable[[Image.Image, random.Random], Image.Image],
) -> Callable[[Pixels, random.Random], Pixels]:
    return lambda image, rng: np.array(change(Image.fromarray(image), rng))


TEXT_OPERATIONS: dict[str, Callable[[str, random.Random], str]] = {
    "synonym_replacement": synonym_replacement,
    "random_insertion": random_insertion,
    "random_deletion": random_deletion,
}

IMAGE_OPERATIONS: dict[str, Callable[[Pixels, random.Random], Pixels]] = {
    "autocontrast": _with_pillow(lambda image, rng: ImageOps.autocontrast(image)),
    "brightness": _with_pillow(
        lambda image, rng: ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))
    ),
    "contrast": _with_pillow(
        lambda image, rng: ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.2))
    ),
    "rotation": _with_pillow(
        lambda image, rng: image.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
    ),
    "equalize": _with_pillow(lambda image, rng: ImageOps.equalize(image)),
}


def _word_indices(segments: list[str]) -> list[int]:
    return [index for index, segment in enumerate(segments) if is_word(segment)]


def segment_deletion(segments: list[str], rng: random.Random) -> list[str]:
    """Drops each word with probability 0.1; at least one, and not all."""
    words = _word_indices(segments)
    dropped = {index for index in words if rng.random() < 0.1}
    dropped = dropped or {rng.choice(words)}
    if len(dropped) == len(words):
        dropped.remove(rng.choice(words))
    return [segment for index, segment in enumerate(segments) if index not in dropped]


def segment_swap(segments: list[str], rng: random.Random) -> list[str]:
    """Swaps two different words. The text stays as it is where all are the same."""
    words = _word_indices(segments)
    first = rng.choice(words)
    others = [index for index in words if segments[index] != segments[first]]
    if not others:
        return segments
    second, swapped = rng.choice(others), list(segments)
    swapped[first], swapped[second] = segments[second], segments[first]
    return swapped


SEGMENT_OPERATIONS: dict[str, Callable[[list[str], random.Random], list[str]]] = {
    "segment_deletion": segment_deletion,
    "segment_swap": segment_swap,
}


def augmentation_policy(text: str) -> str | None:
    """The policy of a text's variants; None where no operation would change the text."""
    if not is_unspaced(text):
        return POLICY
    if len(_word_indices(split_segments(text))) < 2:
        return None
    return f"{_UNSPACED_POLICY} {segmenter_version()}"


def augment_words(text: str, rng: random.Random) -> tuple[str, str]:
    """Applies one random operation to a text with spaces between words; see `augment_text`."""
    name = rng.choice(list(TEXT_OPERATIONS))
    return TEXT_OPERATIONS[name](text, rng), name


def augment_text(text: str, rng: random.Random) -> tuple[str, str]:
    """Applies one random operation to a text; returns the new text and the operation's name."""
    if not is_unspaced(text):
        return augment_words(text, rng)
    segments = split_segments(text)
    if len(_word_indices(segments)) < 2:
        return text, ""
    name = rng.choice(list(SEGMENT_OPERATIONS))
    augmented = SEGMENT_OPERATIONS[name](segments, rng)
    if augmented == segments:
        name = "segment_deletion"
        augmented = segment_deletion(segments, rng)
    return "".join(augmented), name


def augment_image(image: Pixels, rng: random.Random) -> tuple[Pixels, str]:
    """Applies one random operation to a picture.

    Args:
        image: (height, width, 3) uint8 RGB.
        rng: The variant's generator.

    Returns:
        A picture of the same shape, and the operation's name.
    """
    name = rng.choice(list(IMAGE_OPERATIONS))
    return IMAGE_OPERATIONS[name](image, rng), name
