"""Errors of the model libraries as errors of this project."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mmsa_cache.errors import MmsaError, ModelError
from mmsa_cache.native.device import is_device_error


@contextlib.contextmanager
def raise_model_errors(message: str, hint: str) -> Iterator[None]:
    """Raises `ModelError` for whatever a library raises: timm and transformers raise many kinds.

    Errors of this project and of the device, such as lack of memory, are raised as they are.

    Args:
        message: What failed; the library's own message follows it.
        hint: What to do.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MmsaError) or is_device_error(error):
            raise
        raise ModelError(f"{message}: {error}", hint) from error
