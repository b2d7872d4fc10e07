"""Adam and averages of weights for stacked members."""

from __future__ import annotations

import torch
from torch import Tensor

from fuse.setting import Setting
from mmsa_cache.native.nvrtc import kernel

from .rates import BETAS, EPSILON

_THREADS, _NUMBERS = 256, 4
"""Threads of a block, and numbers of a thread, to whose multiples parameters are aligned."""
KERNEL = "move"
SOURCE = """
struct alignas(16) Four { float at[4]; };

static __device__ float lerp(float from, float to, float share) {
    const float by = to - from;
    return share < 0.5f ? from + share * by : to - by * (1.0f - share);
}

/* One thread moves four weights of a member. Each array is (members, count) but for
   rates (members, 5), norms (members), and constants (5): clip, decay, epsilon, beta, 1 - beta. */
extern "C" __global__ void move(
    Four* weights, Four* means, Four* squares, Four* averages, const Four* gradients,
    const float* rates, const float* norms, const float* constants,
    int count, int clips, int decays, int averaging
) {
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count / 4) return;
    const long long at = (long long)blockIdx.y * (count / 4) + place;
    const float* rate = rates + 5 * blockIdx.y;
    const float decay = rate[0], weight = rate[1], scale = rate[2], size = rate[3], share = rate[4];
    const float clipped = clips ? constants[0] / (norms[blockIdx.y] + 1e-6f) : 1.0f;
    const float factor = clipped > 1.0f ? 1.0f : clipped;  /* NaN stays NaN */
    Four w = weights[at], m = means[at], v = squares[at], a = w;
    const Four g = gradients[at];
    if (averaging) a = averages[at];
    for (int i = 0; i < 4; ++i) {
        float slope = g.at[i] * factor;
        if (decays == 1) slope += constants[1] * w.at[i];
        if (decays == 2) w.at[i] *= decay;
        m.at[i] = lerp(m.at[i], slope, weight);
        v.at[i] = v.at[i] * constants[3] + constants[4] * slope * slope;
        w.at[i] += m.at[i] / (constants[2] + sqrtf(v.at[i]) * scale) * size;
        a.at[i] = lerp(a.at[i], w.at[i], share);
    }
    weights[at] = w;
    means[at] = m;
    squares[at] = v;
    if (averaging) averages[at] = a;
}
"""
"""One pass over the numbers. PyTorch's own kernels read and write three times as many."""


class StackedAdam:
    """A step of `torch.optim.Adam` or `AdamW` for all members, and of the averages of weights.

    Args:
        setting: Says optimiser, weight decay and clipping.
        weights: (members, numbers) float32.
        means: Means of the gradients, likewise.
        squares: Means of the squared gradients, likewise.
        averages: Averages of the weights, likewise; None: there are none.
    """

    def __init__(
        self,
        setting: Setting,
        weights: Tensor,
        means: Tensor,
        squares: Tensor,
        averages: Tensor | None,
    ) -> None:
        self._setting = setting
        self._weights, self._means, self._squares = weights, means, squares
        self._averages = averages
        self._epsilon = weights.new_full((1,), EPSILON)
        constants = (setting.clip, setting.weight_decay, EPSILON, BETAS[1], 1 - BETAS[1])
        self._constants = torch.tensor(constants, dtype=weights.dtype, device=weights.device)
        single = weights.dtype == torch.float32
        self._kernel = kernel(SOURCE, KERNEL, weights.device) if single else None

    def __call__(self, gradients: Tensor, rates: Tensor) -> None:
        """Takes one step.

        Args:
            gradients: (members, numbers); may be overwritten.
            rates: Decay of the weights, weight of the gradient in its mean, 1 / √(1 − β₂ᵗ),
                −rate / (1 − β₁ᵗ), weight of the weights in their average, (members, 5, 1).
        """
        norms = rates
        if self._setting.clip:
            norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        if self._kernel is None:
            self._torch_step(gradients, norms, rates)
            return
        setting, (members, count) = self._setting, self._weights.shape
        decays = 0 if not setting.weight_decay else 1 if setting.optimiser == "adam" else 2
        averages = self._weights if self._averages is None else self._averages
        self._kernel(
            (-(-count // (_THREADS * _NUMBERS)), members),
            _THREADS,
            [
                self._weights, self._means, self._squares, averages, gradients.contiguous(),
                rates.contiguous(), norms.contiguous(), self._constants,
                count, bool(setting.clip), decays, self._averages is not None,
            ],
        )  # fmt: skip

    def _torch_step(self, gradients: Tensor, norms: Tensor, rates: Tensor) -> None:
        setting = self._setting
        decay, weight, scale, size, share = rates.unbind(1)
        if setting.clip:
            gradients.mul_((setting.clip / (norms + 1e-6)).clamp(max=1.0))
        if setting.weight_decay and setting.optimiser == "adam":
            gradients.add_(self._weights, alpha=setting.weight_decay)
        elif setting.weight_decay:
            self._weights.mul_(decay)
        self._means.lerp_(gradients, weight)
        self._squares.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        divisor = torch.addcmul(self._epsilon, self._squares.sqrt(), scale)
        self._weights.addcmul_(self._means / divisor, size)
        if self._averages is not None:
            self._averages.lerp_(self._weights, share)
