"""The sparse training step on the CPU: buffers that live as long as the training, and the order of the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import _select, _step

_BLOCKS = 64  # fixed, so that sums run in the same order whatever the number of threads
_GUESS = 0.9  # the last limit lowered by this is where the next batch's search starts
BETAS = (0.9, 0.999)
EPSILON = 1e-10


@dataclass
class StepResult:
    """What a step reports; floats, already on the host."""

    loss: float
    """Training loss of the batch, auxiliary term included."""
    error: float
    """Squared error of the whole code, summed over the batch."""
    active: int
    """Active entries in the batch."""
    gradient_norm: float
    """Norm over all parameters before clipping."""
    n_dead: int
    """Features that counted as dead when the step began."""


@dataclass
class SparseStep:
    """Parameters of a sparse code (float32 or float64) and everything a step needs beside them.

    ``E`` (F, d) is the transposed encoder: a feature's weights are one row in both matrices.
    """

    E: np.ndarray
    D: np.ndarray
    b_enc: np.ndarray
    b_dec: np.ndarray
    k: int
    batch_size: int
    by_batch: bool
    """Whether the k x B largest of the batch are kept, or the k largest of each cell."""
    prefixes: np.ndarray
    """Ascending widths of the nested dictionaries; the last one is F."""
    k_aux: int
    aux_weight: float
    dead_after: int
    """A feature is dead when it was not active for this many cells."""
    clip: float
    align: float = 0.0
    """Share of the way from encoder to decoder that a step goes, per unit of learning rate."""
    n_steps: int = 0
    guess: float = 0.0

    def __post_init__(self) -> None:
        n_features, d = self.E.shape
        B, dtype, width = self.batch_size, self.E.dtype, n_features + self.k_aux
        groups = _select.n_groups(n_features, self.k)
        zeros, empty = np.zeros, np.empty
        self.prefixes = np.asarray(self.prefixes, np.int64)
        self.silent = zeros(n_features, np.int64)
        self.index, self.value = empty((B, width), np.int32), empty((B, width), dtype)
        self.slope, self.group = empty((B, width), dtype), empty((B, width), np.int8)
        self.count = zeros(B, np.int64)
        self.maxima, self.work = empty((_BLOCKS, groups), dtype), empty((_BLOCKS, n_features), dtype)
        self.sums = empty((B, len(self.prefixes) + 1, d), dtype)
        self.row_loss, self.row_error = empty(B), empty(B)
        self.start = zeros(n_features + 2, np.int64)
        self.entry = empty(B * (4 * self.k + self.k_aux), np.int64)
        self.grad_E, self.grad_D, self.grad_b = np.zeros_like(self.E), np.zeros_like(self.D), zeros(n_features, dtype)
        self.partial, self.norms = empty((_BLOCKS, d), dtype), empty(_BLOCKS)
        self.first = [np.zeros_like(p) for p in (self.E, self.D, self.b_enc, self.b_dec)]
        self.second = [np.zeros_like(p) for p in (self.E, self.D, self.b_enc, self.b_dec)]

    def bias(self) -> np.ndarray:
        """What is added to ``x @ E.T``: the encoder bias with the decoder's centre folded in."""
        return self.b_enc - self.E @ self.b_dec

    def gradients(self, X: np.ndarray, pre: np.ndarray, seen: np.ndarray | None = None) -> StepResult:
        """Fill the gradients of a batch ``X`` (B, d) to be reconstructed.

        ``pre = seen @ E.T`` comes from what the encoder saw: the same cells, or a noisy version of them.
        """
        B, d = X.shape
        n_features = len(self.E)
        count, index, value, slope, group = (
            a[:B] for a in (self.count, self.index, self.value, self.slope, self.group)
        )
        sums, row_loss, row_error = self.sums[:B], self.row_loss[:B], self.row_error[:B]
        bias, dtype = self.bias(), self.E.dtype.type
        if self.by_batch:
            guess = dtype(_GUESS * self.guess)
            if self.n_steps == 0:
                guess = dtype(_first_guess(pre, bias, self.k))
            self.guess = _select.select_batch_top_k(pre, bias, self.k * B, guess, index, value, count, self.maxima)
        else:
            _select.select_top_k(pre, bias, self.k, index, value, count, self.maxima, self.work)
        active = int(count.sum())
        _step.decode_and_residuals(
            X, self.D, self.b_dec, self.prefixes, index, value, count, sums, slope, group, row_loss, row_error, _BLOCKS
        )
        grad_b_dec = sums[:, 0].sum(0)
        dead = np.flatnonzero(self.silent >= self.dead_after)
        if len(dead) and self.aux_weight > 0:
            _step.add_auxiliary(
                pre, bias, self.D, dead, self.k_aux, dtype(self.aux_weight), index, value, count, sums, slope, group,
                self.work, row_loss,
            )  # fmt: skip
        n_entries = int(count.sum())
        if n_entries > len(self.entry):
            self.entry = np.empty(n_entries, np.int64)
        _step.transpose_entries(index, count, index.shape[1], n_features, self.start, self.entry)
        scale = dtype(2 / (B * d))
        _step.weight_gradients(
            X if seen is None else seen, self.E, self.D, self.b_dec, value, slope, group, sums, self.start,
            self.entry, scale, self.silent,
            self.grad_E, self.grad_D, self.grad_b, self.partial, self.norms,
        )  # fmt: skip
        self.grad_b_dec = scale * grad_b_dec + self.partial.sum(0)
        squared = float(self.norms.sum()) + float(self.grad_b_dec @ self.grad_b_dec)
        return StepResult(
            loss=float(row_loss.sum()) / (B * d),
            error=float(row_error.sum()),
            active=active,
            gradient_norm=squared**0.5,
            n_dead=len(dead),
        )

    def step(self, X: np.ndarray, pre: np.ndarray, lr: float, seen: np.ndarray | None = None) -> StepResult:
        """Gradients of a batch, clipped, one Adam step, decoder rows back to unit norm."""
        report = self.gradients(X, pre, seen)
        self.n_steps += 1
        shrink = min(1.0, self.clip / max(report.gradient_norm, 1e-30))
        correct1, correct2 = 1 - BETAS[0] ** self.n_steps, 1 - BETAS[1] ** self.n_steps
        rate, epsilon = lr * correct2**0.5 / correct1, EPSILON * correct2**0.5
        m, s = self.first, self.second
        _step.adam_update(
            self.E, self.D, self.b_enc, self.grad_E, self.grad_D, self.grad_b, m[0], m[1], m[2], s[0], s[1], s[2],
            shrink, rate, lr * self.align, *BETAS, epsilon, _BLOCKS,
        )  # fmt: skip
        g = self.grad_b_dec * shrink
        m[3][:] = BETAS[0] * m[3] + (1 - BETAS[0]) * g
        s[3][:] = BETAS[1] * s[3] + (1 - BETAS[1]) * g * g
        self.b_dec -= rate * m[3] / (np.sqrt(s[3]) + epsilon)
        return report


def _first_guess(pre: np.ndarray, bias: np.ndarray, k: int, n_rows: int = 32) -> float:
    """A value below which the first batch's limit hardly lies: the (2 k)-th largest of some rows on average."""
    sample = np.maximum(pre[:: max(1, len(pre) // n_rows)] + bias, 0).ravel()
    keep = min(len(sample) - 1, 2 * k * max(1, len(sample) // pre.shape[1]))
    return float(np.partition(sample, len(sample) - 1 - keep)[len(sample) - 1 - keep])
