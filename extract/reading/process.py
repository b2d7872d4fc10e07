"""The main function of a reading process, which holds no model and touches no GPU."""

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
    """How rows are read and prepared for the model."""

    reader: Reader
    prepare: Prepare


@dataclass(slots=True)
class RegisteredPipeline:
    """An input pipeline, here and as it is sent to processes."""

    number: int
    pipeline: InputPipeline
    pickled: bytes | None
    """None if it cannot be pickled."""
    local_only: bool = False
    """Whether it turned out that other processes cannot load it, or its rows."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Rows to read."""

    number: int
    """Of the pipeline."""
    pipeline: bytes | None
    """The pickled `InputPipeline`; None if the process already has it."""
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
    """The exception that was raised instead of a reply."""

    error: Exception
    local_only: bool = False
    """Whether the pipeline cannot be loaded in other processes, as a function of a script."""


def serve(channel: socket.socket) -> None:
    """The process's main function."""
    end_with_parent()
    one_thread()
    keep_blocks()
    pipelines: dict[int, InputPipeline] = {}
    with contextlib.suppress(EOFError, OSError):
        send(channel, None)  # ready
        while isinstance(request := receive(channel), ReadRequest):
            _send_reply(channel, _read(request, pipelines))


def _read(request: ReadRequest, pipelines: dict[int, InputPipeline]) -> ReadReply | ReadFailure:
    if request.pipeline is not None:
        try:
            pipelines[request.number] = pickle.loads(request.pipeline)
        except Exception as error:  # its classes may raise anything
            return ReadFailure(error, local_only=True)
    pipeline = pipelines[request.number]
    try:
        prepared = read_rows(request.rows, pipeline.reader, pipeline)
        inputs = [np.ascontiguousarray(tensor.numpy()) for tensor in prepared.inputs]
    except Exception as error:  # raised again where the rows were asked for
        return ReadFailure(error)
    return ReadReply(inputs, prepared.operations, prepared.problems, prepared.seconds)


def _send_reply(channel: socket.socket, reply: ReadReply | ReadFailure) -> None:
    if isinstance(reply, ReadFailure):
        try:
            pickle.loads(pickle.dumps(reply.error))
        except Exception:  # not every library's errors can be pickled
            text = f"{type(reply.error).__name__}: {reply.error}"
            reply = ReadFailure(RuntimeError(text), reply.local_only)
    send(channel, reply)
