"""Messages of the command line in the words of Python: ``folds=`` for ``--folds``."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping

from mmsa_cache.config.loading import setting_keys

_VALUE = r"(?!-)[\w./:-]*\w"
_PAIR = re.compile(rf"--([a-z-]+)(?: ({_VALUE}))?")
_COMMAND = re.compile(rf"\bmmsa (extract|search|train)((?: --[a-z-]+(?: {_VALUE})?)*)")
_FLAG = re.compile(
    r"--([a-z-]+)(?: ([A-Z][A-Z./:_]*\b|\d+|ray|local|auto|cpu|cuda|val|one-se)(?!\w))?"
)
_ASSIGNMENT = re.compile(r"--set (?=\w+=)")


@functools.cache
def _arguments() -> Mapping[str, frozenset[str]]:
    """Argument names by function; under "" those of all functions."""
    import mmsa_cache as mmsa

    settings = frozenset(setting_keys())
    functions = (mmsa.extract, mmsa.search, mmsa.train, mmsa.load_model, mmsa.Run.predict)
    own = {of.__name__: frozenset(inspect.signature(of).parameters) for of in functions}
    return own | {"extract": own["extract"] | settings, "": settings.union(*own.values())}


def in_python_terms(text: str) -> str:
    """A message with arguments in place of flags, and calls in place of commands.

    Flags without an argument of the same name stay as they are.
    """

    def call(match: re.Match[str]) -> str:
        values = {name.replace("-", "_"): value for name, value in _PAIR.findall(match[2])}
        if not values.keys() <= _arguments()[match[1]]:
            return match[0]
        return f"mmsa.{match[1]}({', '.join(f'{k}={_literal(v)}' for k, v in values.items())})"

    def argument(match: re.Match[str]) -> str:
        name, value = match[1].replace("-", "_"), match[2]
        if name not in _arguments()[""]:
            return match[0]
        return f"{name}={_literal(value) if value else ''}"

    return _FLAG.sub(argument, _ASSIGNMENT.sub("", _COMMAND.sub(call, text)))


def _literal(value: str) -> str:
    """A value as Python writes it; capitals are placeholders and stay."""
    if not value:
        return "True"
    return value if value.isupper() or value.isdecimal() else repr(value)
