"""Noise of a step whose texts are padded to less than the longest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from .noise import Tape


class CroppedTape(Tape):
    """Gives each real position the noise that it has where all texts are padded to the longest.

    So neither the padding of a step nor the parts that its rows come in change what is learned.
    Rows lie along the first axis of what is asked for; along the others text positions come first.

    Args:
        noise: Of a step that pads all texts to the longest, in one part; see `Tape`.
        shapes: Of that step, see `noise_shapes`.
        longest: Positions that it pads to.
    """

    def __init__(self, noise: Tensor, shapes: Sequence[tuple[int, ...]], longest: int) -> None:
        super().__init__(noise)
        self._whole, self._longest = shapes, longest
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
        if call == len(self._whole) or len(shape) != len(self._whole[call]):
            raise RuntimeError(f"noise: call {call} asks for {shape}, known are {self._whole}")
        self._call, self.position, self._rows = call + 1, self._starts[call + 1], shape[0]
        return self._starts[call], self.position

    def _shaped(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        whole = self._whole[self._call - 1]
        found = values.view(whole).narrow(0, self._first, shape[0])
        for axis, (full, wanted) in enumerate(zip(whole[1:], shape[1:], strict=True), start=1):
            if full > wanted:
                length = self._longest - (full - wanted)
                texts, others = found.narrow(axis, 0, length), full - self._longest
                if others:
                    texts = torch.cat([texts, found.narrow(axis, self._longest, others)], axis)
                found = texts
        return found
