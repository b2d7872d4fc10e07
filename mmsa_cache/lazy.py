"""Public names of a package whose modules are imported at first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], list[str]]:
    """Makes a package's ``__getattr__`` (PEP 562) and ``__all__``, and sets its ``__dir__``.

    Args:
        package: Name of the package.
        home: Module of each public name, relative to the package.
    """

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    module = sys.modules[package]
    setattr(module, "__dir__", lambda: sorted({*vars(module), *home}))  # noqa: B010  (for mypy)
    return load, sorted(home)
