"""Noise of training as context of a call: dropout that the trainer controls.

Several models of one shape can be trained as one stacked program (`torch.func.functional_call`
under `torch.func.vmap`). To equal training them one by one, no module may draw random numbers
itself. The noise of a step comes from the context of the call, in the order in which the modules
request it::

    with noise_from(stream):
        logits, _ = model(*inputs)

Under `vmap` nothing can be drawn, so a step's noise is drawn before, one flat tensor a model, and
the mapped function passes it to `noise_from`::

    noise = stream(count_noise(model, *inputs))

Outside of `noise_from` the modules use PyTorch's generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cloning import clone

NOISE_VALUES = 65_536
"""Number of values of the noise, all of int16; probabilities are multiples of its inverse."""

LOWEST = -NOISE_VALUES // 2
"""The smallest value of the noise."""

_AHEAD, _AHEAD_CUDA = 1 << 18, 1 << 20
"""Numbers that are drawn at once; on a GPU each draw is a launch."""

_FACTORS = 1 << 22
"""Most noise values of a call for which the factors of dropout are computed all at once."""

NoiseSource = Callable[[int], Tensor]
"""Draws so many numbers, int16, uniform over all 65,536 values."""


class NoiseStream:
    """Draws noise; the numbers do not depend on how many are drawn at a time.

    Args:
        seed: seed of the numbers.
        device: device of the numbers.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._block = _AHEAD_CUDA if device.type == "cuda" else _AHEAD
        # NumPy's raw bits cost a twentieth of torch's numbers on the CPU.
        self._words = np.random.SFC64(seed) if device.type == "cpu" else None
        self._generator = torch.Generator(device).manual_seed(seed)
        self._ahead = torch.empty(0, dtype=torch.int16, device=device)

    def __call__(self, count: int) -> Tensor:
        """The next ``(count,)``, int16, uniform over all 65,536 values."""
        missing = count - len(self._ahead)
        if missing > 0:
            # Always whole blocks, so that the numbers are the same.
            blocks = [self._draw_block() for _ in range(-(-missing // self._block))]
            self._ahead = torch.cat([self._ahead, *blocks])
        drawn, self._ahead = self._ahead[:count], self._ahead[count:]
        return drawn

    def _draw_block(self) -> Tensor:
        if self._words is not None:
            return torch.from_numpy(self._words.random_raw(self._block // 4).view(np.int16))
        empty = torch.empty(self._block, dtype=torch.int16, device=self._device)
        return empty.random_(LOWEST, -LOWEST, generator=self._generator)


class Tape:
    """Noise of one call, consumed from front to back.

    Args:
        noise: ``(n,)``, int16, uniform over all 65,536 values; or a function that draws as many
            numbers as a module requests. Other tensors raise ValueError.
    """

    def __init__(self, noise: Tensor | NoiseSource) -> None:
        if isinstance(noise, Tensor) and (noise.dtype != torch.int16 or noise.ndim != 1):
            raise ValueError(
                f"noise: expected int16 (n,), received {noise.dtype} {tuple(noise.shape)}"
            )
        self._noise = noise
        self._factors: dict[tuple[int, torch.dtype], tuple[int, Tensor]] = {}
        self.position = 0
        """Number of values consumed."""
        self.shapes: list[tuple[int, ...]] = []
        """Shapes of all requests."""

    def begin_part(self) -> None:
        """Called before each part of the rows that a model fuses separately."""

    def end_parts(self) -> None:
        """Called when all parts are fused."""

    def take(self, shape: Sequence[int]) -> Tensor:
        """The next noise, in `shape`; raises RuntimeError if not enough is left."""
        start, stop = self._advance(tuple(shape))
        if not isinstance(self._noise, Tensor):
            return self._noise(stop - start).view(shape)
        return self._shaped(self._noise[start:stop], shape)

    def factors(self, shape: Sequence[int], dropped: int, dtype: torch.dtype) -> Tensor:
        """Factors of dropout by the next noise.

        Args:
            shape: Shape of the factors.
            dropped: How many of the 65,536 values give 0; the others give the inverse of their
                share.
            dtype: Type of the factors.
        """
        noise = self._noise
        if not isinstance(noise, Tensor):
            # Arithmetic, because a comparison takes six times as long on a CPU; integers below 2^17
            # are exact in float32.
            mask = self.take(shape).float().add_(1 - LOWEST - dropped).clamp(0.0, 1.0)
            return _scaled(mask, dropped, dtype)
        if noise.shape[0] > _FACTORS:
            return _scaled(self.take(shape) >= LOWEST + dropped, dropped, dtype)
        # At once for all following requests: on a GPU a launch costs more than its work.
        start, stop = self._advance(tuple(shape))
        first, factors = self._factors.get((dropped, dtype), (start + 1, noise))
        if start < first:
            mask = noise[start:] >= LOWEST + dropped
            first, factors = start, _scaled(mask, dropped, dtype)
            self._factors[dropped, dtype] = first, factors
        return self._shaped(factors[start - first : stop - first], shape)

    def _advance(self, shape: tuple[int, ...]) -> tuple[int, int]:
        start, noise = self.position, self._noise
        self.shapes.append(shape)
        self.position = start + math.prod(shape)
        if isinstance(noise, Tensor) and self.position > noise.shape[0]:
            raise RuntimeError(
                f"noise: {math.prod(shape)} values asked for at position {start} of "
                f"{noise.shape[0]}: draw count_noise(model, *inputs) values a step"
            )
        return start, self.position

    def _shaped(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        return values.view(shape)


def _scaled(mask: Tensor, dropped: int, dtype: torch.dtype) -> Tensor:
    scale = NOISE_VALUES / (NOISE_VALUES - dropped)
    if mask.dtype == torch.bool and dtype == torch.get_default_dtype():
        return mask * scale  # in one pass
    return mask.to(dtype).mul_(scale)


_TAPE: ContextVar[Tape | None] = ContextVar("_TAPE", default=None)


@contextmanager
def noise_from(noise: Tensor | NoiseSource | Tape) -> Iterator[Tape]:
    """Modules called within the context use this noise; see `Tape`."""
    tape = noise if isinstance(noise, Tape) else Tape(noise)
    token = _TAPE.set(tape)
    try:
        yield tape
    finally:
        _TAPE.reset(token)


class Dropout(nn.Module):
    """Zeroes elements with probability `p` in training, scales the others by 1 / (1 − p).

    Within `noise_from` an element is kept where its noise is at or above a threshold. So p is
    rounded to a multiple of 1/65,536, and the scale is the exact inverse of the rounded keep
    probability. Outside it is PyTorch's own dropout.

    Args:
        p: probability, in [0, 1).

    Raises:
        ValueError: `p` is out of range.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout: expected a probability in [0, 1), received {p}")
        self.p = p
        self.dropped = min(round(p * NOISE_VALUES), NOISE_VALUES - 1)

    @property
    def active(self) -> bool:
        """Whether a call changes its input."""
        return self.training and self.dropped > 0

    def forward(self, x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Drops elements.

        Args:
            x: any shape.
            shape: shape of the mask, which broadcasts to that of `x`: the mask is shared along
                some axes. None: each element is dropped by itself.
        """
        if not self.active:
            return x
        tape = _TAPE.get()
        if tape is not None:
            mask_shape = x.shape if shape is None else shape
            # In float32 at least, so that the scale is not rounded to three digits.
            dtype = torch.promote_types(x.dtype, torch.float32)
            return (x * tape.factors(mask_shape, self.dropped, dtype)).to(x.dtype)
        if shape is None:
            return F.dropout(x, self.p)
        return x * F.dropout(x.new_ones(tuple(shape)), self.p)

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"p={self.p}"


class ModalityDropout(nn.Module):
    """In training, makes one modality of a row all padding.

    With probability `p`, rounded to a multiple of 1/32,768, a row loses its text or its image, both
    equally likely. A row with only one of them keeps it.

    Args:
        p: probability, in [0, 1].

    Raises:
        ValueError: `p` is out of range.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"modality dropout: expected a probability in [0, 1], received {p}")
        self.p = p
        self.each = round(p * NOISE_VALUES / 2)

    @property
    def active(self) -> bool:
        """Whether a call changes its input."""
        return self.training and self.each > 0

    def forward(self, text_mask: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Masks ``(batch, text_tokens)`` and ``(batch, patches)``, True = real, to such masks."""
        if not self.active:
            return text_mask, image_mask
        rows = text_mask.shape[:1]
        tape = _TAPE.get()
        if tape is None:
            noise = torch.randint(LOWEST, -LOWEST, rows, device=text_mask.device)
        else:
            noise = tape.take(rows)
        # In int32, because the upper limit at p = 1 exceeds int16.
        noise = noise.int() - LOWEST
        complete = text_mask.any(dim=1) & image_mask.any(dim=1)
        no_text = complete & (noise < self.each)
        no_image = complete & (noise >= self.each) & (noise < 2 * self.each)
        return text_mask & ~no_text.unsqueeze(1), image_mask & ~no_image.unsqueeze(1)

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"p={self.p}"


@torch.no_grad()
def noise_shapes(model: nn.Module, *inputs: Any) -> list[tuple[int, ...]]:
    """Shapes of the noise that a training step of a model requests, in order.

    A copy of the model is called with the step's inputs; PyTorch's generators are not used.

    Args:
        model: a model in any mode and on any device.
        inputs: arguments of its `forward`.
    """
    twin = clone(model).train()
    device = next(twin.parameters()).device

    def zeros(count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.int16, device=device)

    with noise_from(zeros) as tape:
        twin(*inputs)
    return tape.shapes


def count_noise(model: nn.Module, *inputs: Any) -> int:
    """Number of noise values of a training step of a model; see `noise_shapes`."""
    return sum(map(math.prod, noise_shapes(model, *inputs)))
