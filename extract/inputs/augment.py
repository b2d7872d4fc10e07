"""The report's augmentation: one text and one image operation at random a variant.

Texts without spaces between words have no synonyms here: of their words, or characters, some are
dropped or two change places, and every variant differs from the text.

Each variant draws from its own generator, seeded by (seed, content, variant, modality): neither
order nor parallelism changes a byte, equal inputs have equal variants, and a row that is renamed
keeps its own.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from .segment import is_unspaced, is_word, segmenter, segments
from .synonyms import synonyms

POLICY = "report-v2"
"""Name of the policy in fingerprints; changes whenever an operation's outcome does."""
_UNSPACED_POLICY = "unspaced-v1"

Pixels = NDArray[np.uint8]

# Links, mentions and hashtags carry their own meaning and are never replaced.
_PLAIN_WORD = re.compile(r"^(\W*)([A-Za-z]+(?:['-][A-Za-z]+)*)(\W*)$")


def variant_rng(seed: int, content_sha256: str, variant: int, modality: str) -> random.Random:
    """The generator of one variant, a function of the four arguments alone.

    Args:
        seed: Seed of augmentation.
        content_sha256: Hash of the text or picture (hex).
        variant: From 1.
        modality: ``text`` or ``image``.
    """
    key = f"{seed}\0{content_sha256}\0{variant}\0{modality}".encode()
    return random.Random(int.from_bytes(hashlib.sha256(key).digest(), "big"))


def _replaceable(words: list[str]) -> list[tuple[int, str, tuple[str, ...], str]]:
    """(place, punctuation before, synonyms, punctuation after) of each word that has synonyms."""
    found = []
    for place, word in enumerate(words):
        match = _PLAIN_WORD.match(word)
        if match is None or match[1].endswith(("#", "@")):
            continue
        others = synonyms(match[2])
        if others:
            found.append((place, match[1], others, match[3]))
    return found


def synonym_replacement(text: str, rng: random.Random) -> str:
    """Replaces one word by a synonym; unchanged where no word has one."""
    words = text.split()
    options = _replaceable(words)
    if not options:
        return text
    place, before, others, after = rng.choice(options)
    words[place] = f"{before}{rng.choice(others)}{after}"
    return " ".join(words)


def random_insertion(text: str, rng: random.Random) -> str:
    """Inserts a synonym of a random word at a random place; unchanged where none has one."""
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
    kept = [word for word in words if rng.random() >= 0.1]
    return " ".join(kept or [rng.choice(words)])


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


def _places(pieces: list[str]) -> list[int]:
    return [place for place, piece in enumerate(pieces) if is_word(piece)]


def segment_deletion(pieces: list[str], rng: random.Random) -> list[str]:
    """Drops each word with probability 0.1; at least one, and not all."""
    places = _places(pieces)
    dropped = {place for place in places if rng.random() < 0.1}
    dropped = dropped or {rng.choice(places)}
    if len(dropped) == len(places):
        dropped.remove(rng.choice(places))
    return [piece for place, piece in enumerate(pieces) if place not in dropped]


def segment_swap(pieces: list[str], rng: random.Random) -> list[str]:
    """Two different words change places; unchanged where all are the same."""
    places = _places(pieces)
    first = rng.choice(places)
    others = [place for place in places if pieces[place] != pieces[first]]
    if not others:
        return pieces
    second, found = rng.choice(others), list(pieces)
    found[first], found[second] = pieces[second], pieces[first]
    return found


SEGMENT_OPERATIONS: dict[str, Callable[[list[str], random.Random], list[str]]] = {
    "segment_deletion": segment_deletion,
    "segment_swap": segment_swap,
}


def augmentation_policy(text: str) -> str | None:
    """The policy of a text's copies; None where no operation would change it."""
    if not is_unspaced(text):
        return POLICY
    return f"{_UNSPACED_POLICY} {segmenter()}" if len(_places(segments(text))) > 1 else None


def augment_words(text: str, rng: random.Random) -> tuple[str, str]:
    """`augment_text` for texts with spaces between words."""
    name = rng.choice(list(TEXT_OPERATIONS))
    return TEXT_OPERATIONS[name](text, rng), name


def augment_text(text: str, rng: random.Random) -> tuple[str, str]:
    """Applies one text operation at random; returns the new text and the operation's name."""
    if not is_unspaced(text):
        return augment_words(text, rng)
    pieces = segments(text)
    if len(_places(pieces)) < 2:
        return text, ""
    name = rng.choice(list(SEGMENT_OPERATIONS))
    found = SEGMENT_OPERATIONS[name](pieces, rng)
    if found == pieces:
        name = "segment_deletion"
        found = segment_deletion(pieces, rng)
    return "".join(found), name


def augment_image(image: Pixels, rng: random.Random) -> tuple[Pixels, str]:
    """Applies one image operation at random.

    Args:
        image: (height, width, 3) uint8 RGB.
        rng: The variant's generator.

    Returns:
        A picture of the same shape, and the operation's name.
    """
    name = rng.choice(list(IMAGE_OPERATIONS))
    return IMAGE_OPERATIONS[name](image, rng), name
