"""Noise of a step whose texts are padded to less than the longest text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from .noise import Tape


class CroppedTape(Tape):
    """Gives real positions the noise that they would have if all texts were padded to the longest.

    So neither the padding of a step nor the split of its rows into parts changes what is learned.
    The first axis of requested noise is that of rows; along the others text positions come first.

    Args:
        noise: Noise of a step in one part that pads all texts to the longest; see `Tape`.
        shapes: Shapes of the noise of that step, see `noise_shapes`.
        longest: Length that it pads to.
    """

    def __init__(self, noise: Tensor, shapes: Sequence[tuple[int, ...]], longest: int) -> None:
        super().__init__(noise)
        self._full_shapes, self._longest = shapes, longest
        self._starts = list(accumulate(map(math.prod, shapes), initial=0))
        self._first = self._rows = self._call = 0

    def begin_part(self) -> None:
        """See `Tape`."""
        self._first, self._rows, self._call = self._first + self._rows, 0, 0

    def end_parts(self) -> None:
        """See `Tape`."""
        self._first = self._rows = 0

    def _advance(self, shape: tuple[int, ...]) -> tuple[int, int]:
        call = self._call
        full = self._full_shapes
        if call == len(full) or len(shape) != len(full[call]):
            raise RuntimeError(f"noise: call {call} asks for {shape}, known are {full}")
        self._call, self.position, self._rows = call + 1, self._starts[call + 1], shape[0]
        return self._starts[call], self.position

    def _shaped(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        full_shape = self._full_shapes[self._call - 1]
        noise = values.view(full_shape).narrow(0, self._first, shape[0])
        for axis, (full, size) in enumerate(zip(full_shape[1:], shape[1:], strict=True), start=1):
            if full > size:
                length = self._longest - (full - size)
                cropped, others = noise.narrow(axis, 0, length), full - self._longest
                if others:
                    cropped = torch.cat([cropped, noise.narrow(axis, self._longest, others)], axis)
                noise = cropped
        return noise
