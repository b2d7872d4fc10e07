"""What a reading process does: it holds no model and touches no GPU."""

from __future__ import annotations

import contextlib
import pickle
import socket
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.encoders.protocol import Prepare
from extract.plan import Reader, Row, read_rows
from mmsa_cache.native.memory import keep_blocks
from mmsa_cache.native.processes import end_with_parent
from mmsa_cache.native.threads import one_thread

from .wire import receive, send


@dataclass(frozen=True, slots=True)
class InputPipeline:
    """How rows are read, and prepared for the model."""

    reader: Reader
    prepare: Prepare


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Rows to read."""

    number: int
    """Of their source."""
    source: bytes | None
    """The `InputPipeline`, pickled; None where this process had it before."""
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class ReadReply:
    """Rows that were read; see `PreparedRows`."""

    inputs: list[NDArray[Any]]
    operations: list[str]
    problems: list[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """What was raised instead of an answer."""

    error: Exception
    foreign: bool = False
    """Whether the source is not to be had in other processes, as a function of a script."""


def serve(channel: socket.socket) -> None:
    """The process's main function."""
    end_with_parent()
    one_thread()
    keep_blocks()
    sources: dict[int, InputPipeline] = {}
    with contextlib.suppress(EOFError, OSError):
        send(channel, None)  # ready
        while isinstance(order := receive(channel), ReadRequest):
            _reply(channel, _read(order, sources))


def _read(order: ReadRequest, sources: dict[int, InputPipeline]) -> ReadReply | ReadFailure:
    if order.source is not None:
        try:
            sources[order.number] = pickle.loads(order.source)
        except Exception as error:  # whatever its classes raise
            return ReadFailure(error, foreign=True)
    source = sources[order.number]
    try:
        found = read_rows(order.rows, source.reader, source)
        arrays = [np.ascontiguousarray(value.numpy()) for value in found.inputs]
    except Exception as error:  # it is raised where the rows were asked for
        return ReadFailure(error)
    return ReadReply(arrays, found.operations, found.problems, found.seconds)


def _reply(channel: socket.socket, answer: ReadReply | ReadFailure) -> None:
    if isinstance(answer, ReadFailure):
        try:
            pickle.loads(pickle.dumps(answer.error))
        except Exception:  # errors of libraries need not stand it
            said = f"{type(answer.error).__name__}: {answer.error}"
            answer = ReadFailure(RuntimeError(said), answer.foreign)
    send(channel, answer)
