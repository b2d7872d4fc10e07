"""Noise of training from one tape: dropout that a trainer controls.

Several models of one shape can be trained as one stacked program (`torch.func.functional_call`
under `torch.func.vmap`). For that to equal training them one by one, no module may draw random
numbers itself: all noise of a model comes from the model's own `NoiseStream`, in the order of its
modules' calls. Where models run one by one it is drawn as they ask for it::

    model.tape.rewind(stream)
    logits, _ = model(*inputs)

Under `vmap` nothing can be drawn, so a step's noise is drawn ahead, one flat tensor a model::

    noise = stream(noise_needed(model, *inputs))
    model.tape.rewind(noise)  # inside the mapped function: the tape holds that model's noise
    logits, _ = model(*inputs)

A tape that nobody filled leaves the modules to PyTorch's generator: a model trained by hand needs
nothing of this.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

NOISE_VALUES = 65_536
"""Number of values that the noise takes, all of int16; probabilities are multiples of its
inverse."""

LOWEST = -NOISE_VALUES // 2
"""The smallest value of the noise."""


_AHEAD = 1 << 18
"""Numbers that are drawn at once: on a GPU every draw is a launch."""

Draw = Callable[[int], Tensor]
"""Draws so many numbers, int16, uniform over all 65,536 values."""


class NoiseStream:
    """Draws noise; which numbers come does not depend on how many are drawn at a time.

    Args:
        seed: of the numbers.
        device: where they lie.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        # NumPy's raw bits cost a twentieth of torch's numbers on the CPU.
        self._words = np.random.SFC64(seed) if device.type == "cpu" else None
        self._generator = torch.Generator(device).manual_seed(seed)
        self._ahead = torch.empty(0, dtype=torch.int16, device=device)

    def __call__(self, count: int) -> Tensor:
        """The next ``(count,)``, int16, uniform over all 65,536 values."""
        missing = count - len(self._ahead)
        if missing > 0:
            # Always whole blocks, so that the numbers are the same.
            fresh = [self._block() for _ in range(-(-missing // _AHEAD))]
            self._ahead = torch.cat([self._ahead, *fresh])
        drawn, self._ahead = self._ahead[:count], self._ahead[count:]
        return drawn

    def _block(self) -> Tensor:
        if self._words is not None:
            return torch.from_numpy(self._words.random_raw(_AHEAD // 4).view(np.int16))
        empty = torch.empty(_AHEAD, dtype=torch.int16, device=self._device)
        return empty.random_(LOWEST, -LOWEST, generator=self._generator)


class NoiseTape:
    """Noise of one training step, consumed front to back.

    All modules of a model share one tape; a deep copy of the model has a tape of its own, shared
    by the copied modules.

    Attributes:
        noise: what `rewind` was given.
        position: number of values consumed since `rewind` or `count`.
        counting: the next calls of `take` only add up what they ask for.
    """

    def __init__(self) -> None:
        self.noise: Tensor | Draw | None = None
        self.position = 0
        self.counting = False

    @property
    def empty(self) -> bool:
        """There is no noise to take: modules turn to PyTorch's generator."""
        return self.noise is None and not self.counting

    def rewind(self, noise: Tensor | Draw | None) -> None:
        """Puts in the noise of the next step.

        Args:
            noise: ``(n,)``, int16, uniform over all 65,536 values; or a function that draws what
                a module asks for; None empties the tape.

        Raises:
            ValueError: the noise is not a flat int16 tensor.
        """
        if isinstance(noise, Tensor) and (noise.dtype != torch.int16 or noise.ndim != 1):
            raise ValueError(
                f"noise tape: expected int16 (n,), received {noise.dtype} {tuple(noise.shape)}"
            )
        self.noise = noise
        self.position = 0
        self.counting = False

    def count(self) -> None:
        """Starts counting: `position` adds up what is asked for; `take` answers on ``meta``."""
        self.rewind(None)
        self.counting = True

    def take(self, shape: Sequence[int]) -> Tensor:
        """The next noise, in `shape`.

        Raises:
            RuntimeError: the tape is empty or holds less than is asked for.
        """
        count = math.prod(shape)
        start = self.position
        self.position = start + count
        if self.counting:
            return torch.empty(shape, dtype=torch.int16, device="meta")
        if callable(self.noise) and not isinstance(self.noise, Tensor):
            return self.noise(count).view(shape)
        held = 0 if self.noise is None else self.noise.shape[0]
        if self.noise is None or self.position > held:
            raise RuntimeError(
                f"noise tape: {count} values asked for at position {start}, it holds {held}: draw "
                "noise_needed(model, *inputs) values a step and rewind before each"
            )
        return self.noise[start : self.position].view(shape)


class Dropout(nn.Module):
    """Zeroes elements with probability `p` in training, scales the others by 1 / (1 − p).

    From the tape an element is kept where its noise is at or above a threshold. So p is rounded to
    a multiple of 1/65,536, and the scale is the exact inverse of the rounded keep probability.
    With an empty tape it is PyTorch's own dropout.

    Args:
        p: probability, in [0, 1).
        tape: the model's noise.

    Raises:
        ValueError: `p` is out of range.
    """

    def __init__(self, p: float, tape: NoiseTape) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout: expected a probability in [0, 1), received {p}")
        self.p = p
        self.tape = tape
        self.dropped = min(round(p * NOISE_VALUES), NOISE_VALUES - 1)

    @property
    def active(self) -> bool:
        """A call would change its input."""
        return self.training and self.dropped > 0

    def forward(self, x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Drops.

        Args:
            x: any shape.
            shape: that of the mask, where one mask is to be shared along some axes; it broadcasts
                to that of `x`. None: every element has its own.
        """
        if not self.active:
            return x
        if not self.tape.empty:
            noise = self.tape.take(x.shape if shape is None else shape)
            # Arithmetic in place of a comparison and a masked fill, which take six times as long
            # on a CPU; integers below 2^17 are exact in float32.
            kept = noise.float().add_(1 - LOWEST - self.dropped).clamp(0.0, 1.0)
            return x * kept.to(x.dtype).mul_(NOISE_VALUES / (NOISE_VALUES - self.dropped))
        if shape is None:
            return F.dropout(x, self.p)
        return x * F.dropout(x.new_ones(tuple(shape)), self.p)

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"p={self.p}"


class ModalityDropout(nn.Module):
    """In training, rows lose one of their two modalities: its mask becomes all padding.

    With probability `p`, rounded to a multiple of 1/32,768, a row loses its text or its image, both
    equally likely. A row that has only one of them keeps it.

    Args:
        p: probability, in [0, 1].
        tape: the model's noise.

    Raises:
        ValueError: `p` is out of range.
    """

    def __init__(self, p: float, tape: NoiseTape) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"modality dropout: expected a probability in [0, 1], received {p}")
        self.p = p
        self.tape = tape
        self.each = round(p * NOISE_VALUES / 2)

    @property
    def active(self) -> bool:
        """A call would change its input."""
        return self.training and self.each > 0

    def forward(self, text_mask: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Masks ``(batch, text_tokens)`` and ``(batch, patches)``, True = real, to such masks."""
        if not self.active:
            return text_mask, image_mask
        rows = text_mask.shape[:1]
        if self.tape.empty:
            device = text_mask.device
            noise = torch.randint(LOWEST, -LOWEST, rows, dtype=torch.int16, device=device)
        else:
            noise = self.tape.take(rows)
        # In int32, because the upper limit at p = 1 is no int16.
        noise = noise.int() - LOWEST
        complete = text_mask.any(dim=1) & image_mask.any(dim=1)
        no_text = complete & (noise < self.each)
        no_image = complete & (noise >= self.each) & (noise < 2 * self.each)
        return text_mask & ~no_text.unsqueeze(1), image_mask & ~no_image.unsqueeze(1)

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"p={self.p}"


@torch.no_grad()
def noise_needed(model: nn.Module, *inputs: Any) -> int:
    """Number of noise values that one training step of a model takes.

    A copy of the model runs on the ``meta`` device, where nothing is computed: the model, its
    tape, its running statistics and PyTorch's generators stay as they are.

    Args:
        model: a model with a ``tape``, in any mode and on any device.
        inputs: what its `forward` takes, of the step's shapes: tensors, None, or mappings of them.

    Raises:
        TypeError: the model has no tape.
    """
    if not isinstance(vars(model).get("tape"), NoiseTape):
        raise TypeError(f"noise_needed: {type(model).__name__} has no tape")
    twin = copy.deepcopy(model).to("meta").train()
    tape: NoiseTape = vars(twin)["tape"]
    tape.count()
    twin(*(_on_meta(value) for value in inputs))
    return tape.position


def _on_meta(value: Any) -> Any:
    """The value with its tensors on the ``meta`` device."""
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    if isinstance(value, Mapping):
        return {name: _on_meta(part) for name, part in value.items()}
    return value
