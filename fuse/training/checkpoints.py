"""Checkpoints of members as safetensors files; nothing is pickled."""

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
from mmsa_cache.native.device import is_device_error

from .task import Checkpoint, State

SECONDS_BETWEEN = 10.0
"""Shortest time between two checkpoints of a member, except after its last epoch.

A kill loses as much. Pooled models take a fraction of a second an epoch: writing each epoch would
cost more than training it."""

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError)


class FolderCheckpoint(Checkpoint):
    """One file a member, replaced as a whole.

    Args:
        folder: Created by the first `save`.
        seconds: Shortest time between two writes of a member.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS_BETWEEN) -> None:
        self._folder, self._seconds = folder, seconds
        self._written: dict[int, float] = {}
        self._resumed = False

    def load(self, index: int) -> State | None:
        """See `Checkpoint`.

        Raises:
            ModelError: The file is damaged.
        """
        path = self._path(index)
        if not path.is_file():
            return None
        with _reading(path, self._folder), open_tensors(path, links=False) as file:
            skeleton = json.loads(file.metadata()["state"])
            state: State = _from_json(skeleton, file)
        self._resumed = True
        return state

    @contextmanager
    def resuming(self) -> Iterator[None]:
        """See `Checkpoint`.

        Raises:
            ModelError: A loaded state does not fit.
        """
        try:
            yield
        except (AttributeError, *_UNREADABLE) as error:
            unrelated = isinstance(error, MmsaError | OSError) or is_device_error(error)
            if not self._resumed or unrelated:
                raise
            raise _unreadable(self._folder, self._folder, error) from error

    def is_due(self, index: int, last: bool) -> bool:
        """See `Checkpoint`."""
        now = time.monotonic()
        return last or now - self._written.setdefault(index, now) >= self._seconds

    def save(self, index: int, state: State) -> None:
        """See `Checkpoint`."""
        self._written[index] = time.monotonic()
        tensors: dict[str, Tensor] = {}
        skeleton = _to_json(state, tensors)
        make_folders(self._folder)
        write_atomically(self._path(index), save(tensors, {"state": json.dumps(skeleton)}))

    def records(self) -> list[EpochRecord]:
        """The epochs of all stored members, member by member; reads no tensor."""
        records: list[EpochRecord] = []
        for path in sorted(self._folder.glob("member-*.safetensors")):
            with _reading(path, self._folder), open_tensors(path, links=False) as file:
                state = dict(json.loads(file.metadata()["state"])["dict"])
                records += map(EpochRecord.model_validate, _from_json(state["history"], file))
        return records

    def _path(self, index: int) -> Path:
        return self._folder / f"member-{index:04d}.safetensors"


@contextmanager
def _reading(path: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        if is_device_error(error):
            raise
        raise _unreadable(path, folder, error) from error


def _unreadable(path: Path, folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path} cannot be read: {str(error)[:300]}",
        f"Delete {folder.parent} to train from the beginning.",
    )


def _to_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON of a state, in which keys keep their type; its tensors are added to `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _to_json(part, tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_to_json(part, tensors) for part in value]}
    return value


def _from_json(value: Any, file: Any) -> Any:
    """The state of `_to_json`; tensors are read from the file."""
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "tensor":
            return file.get_tensor(content)
        if kind == "dict":
            return {key: _from_json(part, file) for key, part in content}
        return [_from_json(part, file) for part in content]
    return value
