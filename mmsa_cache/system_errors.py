"""What the system or a device refused, as errors of this project."""

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
"""What a name alone is to blame for."""
_CIRCLE = "Symlink loop"
"""Begins what `Path.resolve` raises before Python 3.13."""


def as_mmsa_error(error: Exception) -> MmsaError | None:
    """The error to show for one that something raised; None: it is a fault of the program."""
    if isinstance(error, MmsaError):
        return error
    if isinstance(error, MemoryError):
        hint = "Lower batch_size, --workers, or close other programs."
        return DeviceError("There is not enough memory.", hint)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, RuntimeError) and str(error).startswith(_CIRCLE):
        return _no_path(f"{str(error)[:200]}: links in a circle")
    return _of_the_device(error) if isinstance(error, RuntimeError) else None


def _of_the_system(error: OSError) -> MmsaError:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    where = f"{name[:200]}{'…' if len(name) > 200 else ''}: " if name else ""
    message = f"{where}{error_reason(error)}"
    if error.errno in _NO_PATH:
        return _no_path(message)
    if is_exhausted(error):
        return limit_error(Path(name), error_reason(error))
    hint = "Repair the disk, free space or change the permissions; the same command resumes."
    return DiskError(message, hint)


def _no_path(message: str) -> SettingsError:
    return SettingsError(message, "Name another file or folder.")


def _of_the_device(error: RuntimeError) -> MmsaError | None:
    from mmsa_cache.native.device import is_device_error, is_device_lost

    if not is_device_error(error):
        return None
    what = "The device does nothing more in this process" if is_device_lost(error) else "No memory"
    return DeviceError(
        f"{what}: {str(error).splitlines()[0][:200]}",
        "End what else runs there, take a smaller model, or --device cpu; the same command "
        "resumes.",
    )
