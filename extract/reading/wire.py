"""Messages between processes; arrays are sent as they lie in memory, beside the rest."""

from __future__ import annotations

import pickle
import socket
import struct
from itertools import pairwise

import numpy as np

_SIZES = struct.Struct("<QI")
"""Bytes of the message, and arrays beside it."""


def send(channel: socket.socket, message: object) -> None:
    """Sends a message.

    Raises:
        OSError: Nobody is at the other end.
    """
    arrays: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, 5, buffer_callback=arrays.append)
    parts = [array.raw() for array in arrays]
    sizes = struct.pack(f"<{len(parts)}Q", *(part.nbytes for part in parts))
    channel.sendall(b"".join((_SIZES.pack(len(body), len(parts)), sizes, body)))
    for part in parts:
        channel.sendall(part)


def receive(channel: socket.socket) -> object:
    """Waits for a message. Its arrays share one piece of memory.

    Raises:
        EOFError: Nobody is at the other end.
        OSError: Nor was when it was last heard of.
    """
    length, count = _SIZES.unpack(_taken(channel, _SIZES.size))
    sizes = struct.unpack(f"<{count}Q", _taken(channel, 8 * count))
    body = _taken(channel, length)
    whole = _taken(channel, sum(sizes))
    ends = np.cumsum([0, *sizes], dtype=np.int64).tolist()
    buffers = [whole[first:end] for first, end in pairwise(ends)]
    found: object = pickle.loads(body, buffers=buffers)
    return found


def _taken(channel: socket.socket, count: int) -> memoryview:
    """So many bytes, in memory that nothing has cleared before."""
    taken = np.empty(count, np.uint8).data
    rest = taken
    while rest:
        got = channel.recv_into(rest, 0, socket.MSG_WAITALL)
        if not got:
            raise EOFError
        rest = rest[got:]
    return taken
