"""The ACB loss of all members in one CUDA kernel instead of fifty small ones."""

from __future__ import annotations

import torch
from torch import Tensor

from mmsa_cache.native.nvrtc import Kernel, kernel

MOST_CLASSES = 8
"""Most classes that the kernel has room for."""
THREADS = 256
"""Threads of a block, which computes one member."""
NAME = "acb"
SOURCE = """
struct Row { float p[8], log_pt, wrong, margin; int label, first, second; };

/* As in PyTorch, NaN stays NaN. */
static __device__ float at_least(float value, float floor) { return value < floor ? floor : value; }

static __device__ Row row_of(const float* logits, long long label, int classes) {
    Row row;
    float most = logits[0], total = 0.0f;
    for (int c = 1; c < classes; ++c) most = fmaxf(most, logits[c]);
    for (int c = 0; c < classes; ++c) total += expf(logits[c] - most);
    const float scale = logf(total);
    const bool known = 0 <= label && label < classes;
    row.label = known ? (int)label : 0;
    row.log_pt = nanf("");
    row.first = row.second = -1;
    for (int c = 0; c < classes; ++c) {
        const float log_p = at_least(logits[c] - most - scale, -1e30f);
        row.p[c] = expf(log_p);
        if (known && c == row.label) row.log_pt = log_p;
        if (row.first < 0 || row.p[c] > row.p[row.first]) {
            row.second = row.first;
            row.first = c;
        } else if (row.second < 0 || row.p[c] > row.p[row.second]) {
            row.second = c;
        }
    }
    row.wrong = at_least(-expm1f(row.log_pt), 1.17549435e-38f);
    row.margin = row.p[row.first] - row.p[row.second];
    return row;
}

/* The sum over the threads, always in the same order. */
static __device__ double added(double value, double* all) {
    all[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) all[threadIdx.x] += all[threadIdx.x + half];
        __syncthreads();
    }
    const double total = all[0];
    __syncthreads();
    return total;
}

/* A block computes a member. logits and slopes (members, rows, classes), labels (members, rows),
   sums and counts (members, classes), values (members), constants (members, 2): alpha, beta. */
extern "C" __global__ void acb(
    const float* logits, const long long* labels, double* sums, double* counts,
    float* values, float* slopes, const float* constants,
    int rows, int classes, int training, int forgets, int by_sample
) {
    __shared__ double all[256];
    __shared__ float weights[8], gammas[8];
    logits += (long long)blockIdx.x * rows * classes;
    slopes += (long long)blockIdx.x * rows * classes;
    labels += (long long)blockIdx.x * rows;
    sums += blockIdx.x * classes;
    counts += blockIdx.x * classes;
    const float alpha = constants[2 * blockIdx.x], beta = constants[2 * blockIdx.x + 1];

    double sum[8] = {0}, count[8] = {0}, margins = 0;
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        const Row row = row_of(logits + (long long)r * classes, labels[r], classes);
        sum[row.label] += row.wrong;
        count[row.label] += 1.0;
        margins += row.margin;
    }
    for (int c = 0; c < classes; ++c) {
        const double of_sum = added(sum[c], all), of_count = added(count[c], all);
        if (threadIdx.x == 0) {
            if (training) {
                sums[c] = (forgets ? 0.0 : sums[c]) + of_sum;
                counts[c] = (forgets ? 0.0 : counts[c]) + of_count;
            }
            const float log_difficulty = (float)log1p(sums[c] / fmax(counts[c], 1.0));
            weights[c] = 1.0f + 5.0f * log_difficulty;
            gammas[c] = 1.5f + 3.0f * log_difficulty;
        }
    }
    const float edge = expf(-2.0f * (float)(added(margins, all) / rows));  /* all wait */

    const float of_rows = alpha / rows, of_edge = -2.0f * beta / rows;
    double focal = 0, boundary = 0;
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        const Row row = row_of(logits + (long long)r * classes, labels[r], classes);
        const float gamma = gammas[row.label];
        const float weighted = weights[row.label] * powf(row.wrong, gamma) * of_rows;
        const float own = by_sample ? expf(-2.0f * row.margin) : edge;
        const float of_log_pt =
            weighted * (gamma * expf(row.log_pt) * row.log_pt / row.wrong - 1.0f);
        const float of_margin = own * of_edge;
        focal += weighted * row.log_pt;
        boundary += own;
        for (int c = 0; c < classes; ++c) {
            float slope = -row.p[c] * (of_log_pt + of_margin * row.margin);
            if (c == row.label) slope += of_log_pt;
            if (c == row.first) slope += row.p[c] * of_margin;
            if (c == row.second) slope -= row.p[c] * of_margin;
            slopes[(long long)r * classes + c] = slope;
        }
    }
    const double of_focal = added(focal, all), of_boundary = added(boundary, all);
    if (threadIdx.x == 0)
        values[blockIdx.x] = beta * (float)(of_boundary / rows) - (float)of_focal;
}
"""


def find_kernel(logits: Tensor) -> Kernel | None:
    """The kernel for logits (…, classes), or None if it does not support them."""
    if logits.dtype != torch.float32 or logits.shape[-1] > MOST_CLASSES:
        return None
    return kernel(SOURCE, NAME, logits.device)


def value_and_gradient(
    compiled: Kernel,
    logits: Tensor,
    labels: Tensor,
    sums: Tensor,
    counts: Tensor,
    constants: Tensor,
    flags: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor]:
    """The loss of each member and its gradient, (members,) and (members, batch, classes).

    Args:
        compiled: The kernel.
        logits: (members, batch, classes) float32.
        labels: (members, batch) int64.
        sums, counts: Statistics, (members, classes) float64; training adds those of the batch.
        constants: α and β, (members, 2) float32.
        flags: Whether in training; whether to forget earlier batches; whether the margin is by
            sample.
    """
    members, rows, classes = logits.shape
    logits, labels = logits.contiguous(), labels.contiguous()
    values, slopes = logits.new_empty(members), torch.empty_like(logits)
    compiled(
        (members, 1),
        THREADS,
        [logits, labels, sums, counts, values, slopes, constants, rows, classes, *flags],
    )
    return values, slopes
