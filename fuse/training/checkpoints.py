"""Checkpoints of members at the end of an epoch, as safetensors: nothing is pickled."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from fuse.figures.records import EpochRecord
from mmsa_cache.errors import MmsaError, ModelError
from mmsa_cache.files.disk import make_folders, write_atomically
from mmsa_cache.files.untrusted import open_tensors
from mmsa_cache.native.device import is_of_the_device

from .task import Checkpoint, State

SECONDS_BETWEEN = 10.0
"""Shortest time between two checkpoints of a member, its last epoch aside; a kill loses as much.

Pooled models take a fraction of a second an epoch: writing each would cost more than training."""

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError)


class FolderCheckpoint(Checkpoint):
    """One file a member, replaced whole.

    Args:
        folder: Made when there is something to keep.
        seconds: Shortest time between two writes of a member.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS_BETWEEN) -> None:
        self._folder, self._seconds = folder, seconds
        self._written: dict[int, float] = {}
        self._was_read = False

    def load(self, place: int) -> State | None:
        """See `Checkpoint`.

        Raises:
            ModelError: The file is damaged.
        """
        path = self._path(place)
        if not path.is_file():
            return None
        with _reading(path, self._folder), open_tensors(path, links=False) as file:
            skeleton = json.loads(file.metadata()["state"])
            state: State = _restored(skeleton, file)
        self._was_read = True
        return state

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """See `Checkpoint`.

        Raises:
            ModelError: What was read does not fit.
        """
        try:
            yield
        except (AttributeError, *_UNREADABLE) as error:
            of_another = isinstance(error, MmsaError | OSError) or is_of_the_device(error)
            if not self._was_read or of_another:
                raise
            raise _refused(self._folder, self._folder, error) from error

    def wants(self, place: int, last: bool) -> bool:
        """See `Checkpoint`."""
        now = time.monotonic()
        return last or now - self._written.setdefault(place, now) >= self._seconds

    def save(self, place: int, state: State) -> None:
        """See `Checkpoint`."""
        self._written[place] = time.monotonic()
        tensors: dict[str, Tensor] = {}
        skeleton = _flattened(state, tensors)
        make_folders(self._folder)
        write_atomically(self._path(place), save(tensors, {"state": json.dumps(skeleton)}))

    def records(self) -> list[EpochRecord]:
        """The epochs of all members that are kept, by member; no tensor is read."""
        found: list[EpochRecord] = []
        for path in sorted(self._folder.glob("member-*.safetensors")):
            with _reading(path, self._folder), open_tensors(path, links=False) as file:
                state = dict(json.loads(file.metadata()["state"])["dict"])
                found += map(EpochRecord.model_validate, _restored(state["history"], file))
        return found

    def _path(self, place: int) -> Path:
        return self._folder / f"member-{place:04d}.safetensors"


@contextmanager
def _reading(path: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        if is_of_the_device(error):
            raise
        raise _refused(path, folder, error) from error


def _refused(path: Path, folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path} cannot be read: {str(error)[:300]}",
        f"Delete {folder.parent} to train from the beginning.",
    )


def _flattened(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON in which tensors are numbers of `tensors`, and keys keep their type."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _flattened(part, tensors)] for key, part in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_flattened(part, tensors) for part in value]}
    return value


def _restored(value: Any, file: Any) -> Any:
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "tensor":
            return file.get_tensor(content)
        if kind == "dict":
            return {key: _restored(part, file) for key, part in content}
        return [_restored(part, file) for part in content]
    return value
