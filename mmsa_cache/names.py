"""Names that every layer knows: splits, modalities, encoders, pools."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence

from .errors import SettingsError
from .validation import near

SPLITS = ("train", "val", "test")
SPLIT_STEMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names that files of a split have."""
MODALITIES = ("text", "image")
DEFAULT_ENCODER = "default"
"""Name of the encoder of a modality that the sections ``[text]``, ``[image]``, ``[joint]`` set."""
VADER = "vader"
"""Name of the sentiment lexicon: as a text model, and as the encoder that is beside the others."""
NGRAMS = "ngrams"
"""The same of hashed character n-grams."""
OF_RULES = (VADER, NGRAMS)
"""Text encoders that are no model, built in under their names."""
EncoderPair = tuple[str, str]
"""Names of the text and of the image encoders that a model reads. Several of a side are joined by
``+``; the first gives the sequences, and the pools that are named without an encoder."""
OWN_PAIR: EncoderPair = (DEFAULT_ENCODER, DEFAULT_ENCODER)


_LONGEST_CLASS = 200


def check_name(what: str, name: str, valid: Iterable[str]) -> None:
    """Raises ValueError, with the valid names, where a name is not among them."""
    if name not in valid:
        raise ValueError(f"unknown {what} {name!r}; valid: {', '.join(valid)}")


def check_split(split: str, valid: Iterable[str] = SPLITS) -> None:
    """Refuses a split that is not there.

    Args:
        split: As a command was given it.
        valid: Those that there are.

    Raises:
        SettingsError: Names the nearest one, and all there are.
    """
    names = tuple(valid)
    if split in names:
        return
    other = next((name for name in names if split.lower() in SPLIT_STEMS.get(name, ())), None)
    hint = f" (near: {other})" if other else near(split, names)
    raise SettingsError(f"There is no split {split!r}{hint}.", f"Valid: {', '.join(names)}.")


def class_problem(name: str) -> str | None:
    """Why a name cannot be one of a class in every file that is written; None where it can."""
    if name != name.strip() or name in ("", "null"):
        return "it is empty, null or begins or ends with a space"
    if len(name) > _LONGEST_CLASS:
        return f"it has more than {_LONGEST_CLASS} characters"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "it holds a line break or a control character"
    return None


def terms_of(joined: str) -> list[str]:
    """``"mean@1+vader.all"`` → ``["mean@1", "vader.all"]``: pools, or names of encoders."""
    return joined.split("+")


def encoders_of(own: str, pools: str) -> str:
    """The encoders of one side whose pools are read: ``default+vader`` of ``mean+vader.all``.

    Args:
        own: Gives the pools that are named without an encoder.
        pools: Terms ``POOL`` or ``ENCODER.POOL``, joined by ``+``; those of `resolve_pools` with
            ``?`` name no encoder that must be there.
    """
    named = (term.rpartition(".")[0] for term in terms_of(pools) if not term.endswith("?"))
    return "+".join(dict.fromkeys((own, *filter(None, named))))


def resolve_pools(pools: str, known: Callable[[str], Sequence[str]]) -> str:
    """Pools without ``?`` and ``*``, for a store.

    Args:
        pools: Terms of `encoders_of`. ``POOL?`` and ``ENCODER.POOL?`` stay where there is that
            pool; ``mean@*`` stands for the means of all inner layers that there are.
        known: The pools of an encoder, which is named by "" where its pools are named alone.

    Returns:
        What is left; empty where nothing is.
    """
    kept: list[str] = []
    for term in terms_of(pools):
        encoder, dot, pool = term.rpartition(".")
        if pool.endswith("*"):
            start = pool.removesuffix("*")
            kept += [encoder + dot + name for name in known(encoder) if name.startswith(start)]
        elif not pool.endswith("?") or pool.removesuffix("?") in known(encoder):
            kept.append(term.removesuffix("?"))
    return "+".join(dict.fromkeys(kept))


def vector_name(modality: str, pool: str) -> str:
    """The name of a pooled vector among a model's inputs: ``text_mean``, ``text_vader:all``.

    Names of torch's modules hold no dots.
    """
    return f"{modality}_{pool}".replace(".", ":")


def pool_of(vector: str) -> str:
    """The pool of a name of `vector_name`."""
    return vector.partition("_")[2].replace(":", ".")
