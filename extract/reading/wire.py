"""Messages between processes: pickled, with the bytes of arrays beside the pickle."""

from __future__ import annotations

import pickle
import socket
import struct
from itertools import pairwise

import numpy as np

_HEADER = struct.Struct("<QI")
"""Bytes of the pickle, and the number of arrays beside it."""


def send(channel: socket.socket, message: object) -> None:
    """Sends a message.

    Raises:
        OSError: The other end is closed.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, 5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    sizes = struct.pack(f"<{len(arrays)}Q", *(array.nbytes for array in arrays))
    channel.sendall(b"".join((_HEADER.pack(len(body), len(arrays)), sizes, body)))
    for array in arrays:
        channel.sendall(array)


def receive(channel: socket.socket) -> object:
    """Waits for a message; its arrays share one block of memory.

    Raises:
        EOFError: The other end is closed.
        OSError: The connection is broken.
    """
    length, count = _HEADER.unpack(_receive_bytes(channel, _HEADER.size))
    sizes = struct.unpack(f"<{count}Q", _receive_bytes(channel, 8 * count))
    body = _receive_bytes(channel, length)
    block = _receive_bytes(channel, sum(sizes))
    bounds = np.cumsum([0, *sizes], dtype=np.int64).tolist()
    message: object = pickle.loads(body, buffers=[block[i:j] for i, j in pairwise(bounds)])
    return message


def _receive_bytes(channel: socket.socket, count: int) -> memoryview:
    """The next bytes, in memory that was not cleared first."""
    block = np.empty(count, np.uint8).data
    rest = block
    while rest:
        received = channel.recv_into(rest, 0, socket.MSG_WAITALL)
        if not received:
            raise EOFError
        rest = rest[received:]
    return block
