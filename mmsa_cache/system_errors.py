"""Errors of the system and of devices as errors of this project."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mmsa_cache.errors import (
    DeviceError,
    DiskError,
    MmsaError,
    SettingsError,
    error_reason,
    is_exhausted,
    limit_error,
)

_NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP}
"""Errors that a path's name alone causes."""
_CIRCLE = "Symlink loop"
"""Beginning of the message of `Path.resolve` before Python 3.13."""


def as_mmsa_error(error: Exception) -> MmsaError | None:
    """The error to show in place of another; None: it is a fault of the program."""
    if isinstance(error, MmsaError):
        return error
    if isinstance(error, MemoryError):
        hint = "Lower batch_size, --workers, or close other programs."
        return DeviceError("There is not enough memory.", hint)
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, RuntimeError) and str(error).startswith(_CIRCLE):
        return _path_error(f"{str(error)[:200]}: links in a circle")
    return _device_error(error) if isinstance(error, RuntimeError) else None


def _system_error(error: OSError) -> MmsaError:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    where = f"{name[:200]}{'…' if len(name) > 200 else ''}: " if name else ""
    message = f"{where}{error_reason(error)}"
    if error.errno in _NO_PATH:
        return _path_error(message)
    if is_exhausted(error):
        return limit_error(Path(name), error_reason(error))
    hint = "Repair the disk, free space or change the permissions; the same command resumes."
    return DiskError(message, hint)


def _path_error(message: str) -> SettingsError:
    return SettingsError(message, "Name another file or folder.")


def _device_error(error: RuntimeError) -> MmsaError | None:
    from mmsa_cache.native.device import is_device_error, is_device_lost

    if not is_device_error(error):
        return None
    what = "The device does nothing more in this process" if is_device_lost(error) else "No memory"
    return DeviceError(
        f"{what}: {str(error).splitlines()[0][:200]}",
        "End what else runs there, take a smaller model, or --device cpu; the same command "
        "resumes.",
    )
