"""Names that every layer knows: splits, modalities, encoders, pools."""

from __future__ import annotations

import difflib
import itertools
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from mmsa_cache.errors import MmsaError, SettingsError

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
RULE_ENCODERS = (VADER, NGRAMS)
"""Text encoders that are no model, built in under their names."""
EncoderPair = tuple[str, str]
"""Names of the text and of the image encoders that a model reads. Several of a side are joined by
``+``; the first gives the sequences, and the pools that are named without an encoder."""
DEFAULT_PAIR: EncoderPair = (DEFAULT_ENCODER, DEFAULT_ENCODER)


_LONGEST_CLASS = 200
_LONGEST_NAME = 80
"""Characters of a name that is not there which are compared and shown."""
_COMPARED = 20_000
"""Valid names that are looked through."""
_LISTED = 16
"""Names that are shown; of more the rest is counted."""


def closest_names(name: str, valid: Iterable[str]) -> list[str]:
    """Up to three valid names that are spelled alike, the likest first, else those that it is part
    of; case counts for nothing."""
    names = {known.lower(): known for known in sorted(itertools.islice(valid, _COMPARED))}
    given = name[:_LONGEST_NAME].lower()
    close = difflib.get_close_matches(given, names, 3, 0.6)
    return [
        names[found] for found in close or [n for n in names if len(given) > 2 and given in n][:3]
    ]


def suggest_or_list(name: str, valid: Iterable[str]) -> str:
    """`` (near: …)`` where valid names are spelled alike, or all of a short list."""
    names = sorted(valid)
    return suggest(name, names) or (f" (valid: {join_names(names)})" if names else "")


def suggest(name: str, valid: Iterable[str]) -> str:
    """`` (near: …)`` where valid names are spelled alike."""
    close = closest_names(name, valid)
    return f" (near: {', '.join(close)})" if close else ""


def join_names(names: Iterable[str]) -> str:
    """``a, b, c``; of many the first ones and how many more there are."""
    every = list(names)
    rest = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + rest


def unknown_name(
    what: str,
    name: object,
    valid: Iterable[str],
    hint: str = "",
    kind: type[MmsaError] = SettingsError,
    known: str = "Known",
) -> MmsaError:
    """The error of a name that is not there: it says which ones are near, and which there are.

    Args:
        what: Up to the name, as "There is no run".
        name: As it was given, which may be no text.
        valid: The names there are.
        hint: What else to do.
        kind: Of the error.
        known: Begins the list of names.
    """
    names = list(dict.fromkeys(valid))
    name = name if isinstance(name, str) else repr(name)
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    close = suggest(name, names)
    there = (
        "" if not names or (close and len(names) > _LISTED) else f"{known}: {join_names(names)}."
    )
    return kind(f"{what} {shown!r}{close}.", " ".join(filter(None, (there, hint))))


def check_choice(name: str, value: object, valid: Iterable[str]) -> None:
    """Refuses an argument that is none of some names; None is as by default.

    Raises:
        SettingsError: It names those that are valid.
    """
    names = list(valid)
    if value is not None and not (isinstance(value, str) and value in names):
        raise unknown_name(f"{name} cannot be", str(value), names, known="Valid")


def check_name(what: str, name: str, valid: Iterable[str]) -> None:
    """Raises ValueError, with the valid names, where a name is not among them."""
    names = list(valid)
    if name not in names:
        raise ValueError(
            f"unknown {what} {name!r}{suggest(name, names)}; valid: {', '.join(names)}"
        )


def check_split(split: str, valid: Iterable[str] = SPLITS) -> None:
    """Refuses a split that is not there.

    Args:
        split: As a command was given it.
        valid: Those that there are.

    Raises:
        SettingsError: Names the nearest one, and all there are.
    """
    names = tuple(valid)
    if not isinstance(split, str):
        raise unknown_name("There is no split", split, names, known="Valid")
    if split in names:
        return
    other = next((name for name in names if split.lower() in SPLIT_STEMS.get(name, ())), None)
    if other:  # a name of other libraries, which is not spelled alike
        raise SettingsError(
            f"There is no split {split!r} (near: {other}).", f"Valid: {', '.join(names)}."
        )
    raise unknown_name("There is no split", split, names, known="Valid")


def class_problem(name: str) -> str | None:
    """Why a name cannot be one of a class in every file that is written; None where it can."""
    if name != name.strip() or name in ("", "null"):
        return "it is empty, null or begins or ends with a space"
    if len(name) > _LONGEST_CLASS:
        return f"it has more than {_LONGEST_CLASS} characters"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "it holds a line break or a control character"
    return None


def split_terms(joined: str) -> list[str]:
    """``"mean@1+vader.all"`` → ``["mean@1", "vader.all"]``: pools, or names of encoders."""
    return joined.split("+")


def encoders_of(own: str, pools: str) -> str:
    """The encoders of one side whose pools are read: ``default+vader`` of ``mean+vader.all``.

    Args:
        own: Gives the pools that are named without an encoder.
        pools: Terms ``POOL`` or ``ENCODER.POOL``, joined by ``+``; those of `resolve_pools` with
            ``?`` name no encoder that must be there.
    """
    named = (term.rpartition(".")[0] for term in split_terms(pools) if not term.endswith("?"))
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
    for term in split_terms(pools):
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
