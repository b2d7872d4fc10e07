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
"""Names of a split's files."""
MODALITIES = ("text", "image")
DEFAULT_ENCODER = "default"
"""Name of the encoder that the sections ``[text]``, ``[image]`` and ``[joint]`` set."""
VADER = "vader"
"""Name of the sentiment lexicon, as a text model and as an encoder."""
NGRAMS = "ngrams"
"""Name of the hashed character n-grams, likewise."""
RULE_ENCODERS = (VADER, NGRAMS)
"""Built-in text encoders without a model."""
EncoderPair = tuple[str, str]
"""Names of the text encoders and of the image encoders that a model reads. Several are joined by
``+``; the first gives the sequences, and the pools named without an encoder."""
DEFAULT_PAIR: EncoderPair = (DEFAULT_ENCODER, DEFAULT_ENCODER)


_LONGEST_CLASS = 200
_LONGEST_NAME = 80
"""Characters of an unknown name that are compared and shown."""
_COMPARED = 20_000
"""Most valid names that are compared."""
_LISTED = 16
"""Most names that are listed; the rest are counted."""


def closest_names(name: str, valid: Iterable[str]) -> list[str]:
    """Up to three valid names of similar spelling, best first, else names that contain it.

    Case does not matter.
    """
    names = {each.lower(): each for each in sorted(itertools.islice(valid, _COMPARED))}
    lower = name[:_LONGEST_NAME].lower()
    close = difflib.get_close_matches(lower, names, 3, 0.6)
    close = close or [each for each in names if len(lower) > 2 and lower in each][:3]
    return [names[each] for each in close]


def suggest_or_list(name: str, valid: Iterable[str]) -> str:
    """`` (near: …)`` if valid names have a similar spelling, else `` (valid: …)``."""
    names = sorted(valid)
    return suggest(name, names) or (f" (valid: {join_names(names)})" if names else "")


def suggest(name: str, valid: Iterable[str]) -> str:
    """`` (near: …)`` if valid names have a similar spelling, else empty."""
    close = closest_names(name, valid)
    return f" (near: {', '.join(close)})" if close else ""


def join_names(names: Iterable[str]) -> str:
    """``a, b, c``; of many names the first ones and the number of the others."""
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
    """The error of an unknown name, with similar names and a list of the valid ones.

    Args:
        what: Beginning of the message, as "There is no run".
        name: The unknown name, of any type.
        valid: Valid names.
        hint: Further advice.
        kind: Class of the error.
        known: Beginning of the list of valid names.
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
    """Refuses an argument that is neither a valid name nor None.

    Raises:
        SettingsError: With the valid names.
    """
    names = list(valid)
    if value is not None and not (isinstance(value, str) and value in names):
        raise unknown_name(f"{name} cannot be", str(value), names, known="Valid")


def check_name(what: str, name: str, valid: Iterable[str]) -> None:
    """Raises a ValueError with the valid names if a name is not among them."""
    names = list(valid)
    if name not in names:
        raise ValueError(
            f"unknown {what} {name!r}{suggest(name, names)}; valid: {', '.join(names)}"
        )


def check_split(split: str, valid: Iterable[str] = SPLITS) -> None:
    """Refuses an unknown split.

    Args:
        split: The argument of a command.
        valid: Names of the splits.

    Raises:
        SettingsError: With the most similar split and all others.
    """
    names = tuple(valid)
    if not isinstance(split, str):
        raise unknown_name("There is no split", split, names, known="Valid")
    if split in names:
        return
    other = next((name for name in names if split.lower() in SPLIT_STEMS.get(name, ())), None)
    if other:  # a name in other libraries, whose spelling is not similar
        raise SettingsError(
            f"There is no split {split!r} (near: {other}).", f"Valid: {', '.join(names)}."
        )
    raise unknown_name("There is no split", split, names, known="Valid")


def class_problem(name: str) -> str | None:
    """Why a class cannot have this name; None if it can. All file formats must hold it."""
    if name != name.strip() or name in ("", "null"):
        return "it is empty, null or begins or ends with a space"
    if len(name) > _LONGEST_CLASS:
        return f"it has more than {_LONGEST_CLASS} characters"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "it holds a line break or a control character"
    return None


def split_terms(joined: str) -> list[str]:
    """``"mean@1+vader.all"`` → ``["mean@1", "vader.all"]``."""
    return joined.split("+")


def encoders_of(own: str, pools: str) -> str:
    """The encoders of one modality whose pools are read: ``default+vader`` of ``mean+vader.all``.

    Args:
        own: Encoder of the pools that are named without one.
        pools: Terms ``POOL`` or ``ENCODER.POOL``, joined by ``+``; optional terms, which end with
            ``?``, are left out.
    """
    named = (term.rpartition(".")[0] for term in split_terms(pools) if not term.endswith("?"))
    return "+".join(dict.fromkeys((own, *filter(None, named))))


def resolve_pools(pools: str, known: Callable[[str], Sequence[str]]) -> str:
    """Resolves ``?`` and ``*`` in pools by what an encoder has.

    Args:
        pools: Terms as of `encoders_of`. ``POOL?`` and ``ENCODER.POOL?`` are dropped if there is no
            such pool; ``mean@*`` stands for the means of all inner layers.
        known: Gives the pools of an encoder; "" is the one of terms without an encoder.

    Returns:
        The terms, joined by ``+``; may be empty.
    """
    terms: list[str] = []
    for term in split_terms(pools):
        encoder, dot, pool = term.rpartition(".")
        if pool.endswith("*"):
            start = pool.removesuffix("*")
            terms += [encoder + dot + name for name in known(encoder) if name.startswith(start)]
        elif not pool.endswith("?") or pool.removesuffix("?") in known(encoder):
            terms.append(term.removesuffix("?"))
    return "+".join(dict.fromkeys(terms))


def vector_name(modality: str, pool: str) -> str:
    """Name of a pooled vector as a model's input: ``text_mean``, ``text_vader:all``.

    The colon stands for a dot, which names of torch's modules cannot hold.
    """
    return f"{modality}_{pool}".replace(".", ":")


def pool_of(vector: str) -> str:
    """The pool of a vector's name, see `vector_name`."""
    return vector.partition("_")[2].replace(":", ".")
