"""Reads Thrift's compact protocol, the format of Parquet's metadata.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import struct
from typing import Any

ThriftStruct = dict[int, Any]
"""Field number → value."""

_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE = 1, 2, 3, (4, 5, 6), 7
_BINARY, _LISTS, _STRUCT = 8, (9, 10), 12
_DEEPEST = 16


def typed(value: Any, kind: type[Any]) -> Any:
    """Returns a value after checking its type.

    Raises:
        ValueError: It is of another type.
    """
    if type(value) is not kind:
        raise ValueError("its description is not that of a table")
    return value


class ThriftReader:
    """Reads value after value.

    Args:
        data: The bytes.
        offset: Offset of the first value.

    Attributes:
        offset: Offset of the next value.
    """

    def __init__(self, data: memoryview, offset: int = 0) -> None:
        self._data = data
        self.offset = offset

    def read_struct(self, depth: int = 0) -> ThriftStruct:
        """Reads a struct.

        Raises:
            ValueError: It is no struct, or holds a type that Parquet does not use.
        """
        if depth > _DEEPEST:
            raise ValueError("its description is nested too deeply")
        fields: ThriftStruct = {}
        number = 0
        while (head := self._byte()) != 0:
            step, kind = head >> 4, head & 15
            following = number + step if step else self._integer()
            if following <= number:
                raise ValueError("the fields of its description are out of order")
            number = following
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _BYTE:
            return self._byte()
        if kind in _INTEGERS:
            return self._integer()
        if kind == _DOUBLE:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.read_struct(depth + 1)
        if kind in _LISTS and depth <= _DEEPEST:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > len(self._data) - self.offset:  # each takes at least a byte
                raise ValueError("its description is cut off")
            kind_of_items = head & 15
            if kind_of_items in (_TRUE, _FALSE):
                return [self._byte() == _TRUE for _ in range(count)]
            return [self._value(kind_of_items, depth + 1) for _ in range(count)]
        raise ValueError("its description holds an unknown type")

    def _byte(self) -> int:
        if self.offset >= len(self._data):
            raise ValueError("its description is cut off")
        self.offset += 1
        return self._data[self.offset - 1]

    def _bytes(self, count: int) -> bytes:
        data = bytes(self._data[self.offset : self.offset + count])
        if len(data) < count:
            raise ValueError("its description is cut off")
        self.offset += count
        return data

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("its description holds a number of more than 64 bits")

    def _integer(self) -> int:
        """Reads a zigzag integer: 0, −1, 1, −2, … are written as 0, 1, 2, 3, …"""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
