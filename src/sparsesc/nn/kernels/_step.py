"""One training step of a sparse code after its encoder product: decode, loss, gradients, update.

Only the active features of each cell are touched: there is no dense code, and no dense gradient of it. Shapes: batch
of B cells, d dimensions, F features, P nested prefixes of the dictionary (1 but for ``matryoshka``), n active entries.

The loss is ``sum_p |x - x_hat_p|^2 / (P B d)`` over prefixes p, plus ``aux_weight`` times the same for the auxiliary
reconstruction of the residual by dead features. In standardised units that is the fraction of variance unexplained.

With r_p = x_hat_p - x, a feature that belongs to prefixes p >= g sees only their sum S_g = sum_{p >= g} r_p, so each
cell keeps P such sums and every entry (cell i, feature f, value v) takes its gradients from one of them:
``dv = S_g . D_f``, ``dD_f += v S_g``, ``dE_f += dv (x - b_dec)``. The auxiliary reconstruction is one more such sum.

All reductions run over a fixed number of blocks, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ._select import PARALLEL, kth_largest


@nb.njit(**PARALLEL)
def decode_and_residuals(
    X: np.ndarray,
    D: np.ndarray,
    b_dec: np.ndarray,
    prefixes: np.ndarray,
    index: np.ndarray,
    value: np.ndarray,
    count: np.ndarray,
    sums: np.ndarray,
    slope: np.ndarray,
    group: np.ndarray,
    row_loss: np.ndarray,
    row_error: np.ndarray,
    n_blocks: int,
) -> None:
    """Reconstruct every prefix; fill the residual sums (B, P + 1, d), each entry's slope dv and prefix number.

    ``row_loss`` gets the squared error summed over prefixes and divided by P, ``row_error`` that of the whole code.
    """
    n_rows, d = X.shape
    n_prefixes = len(prefixes)
    for block in nb.prange(n_blocks):
        for i in range(block * n_rows // n_blocks, (block + 1) * n_rows // n_blocks):
            at = 0
            loss, error = 0.0, 0.0
            for p in range(n_prefixes):
                r = sums[i, p]
                if p == 0:
                    for c in range(d):
                        r[c] = b_dec[c] - X[i, c]
                else:
                    before = sums[i, p - 1]
                    for c in range(d):
                        r[c] = before[c]
                while at < count[i] and index[i, at] < prefixes[p]:
                    v, row = value[i, at], D[index[i, at]]
                    group[i, at] = p
                    for c in range(d):
                        r[c] += v * row[c]
                    at += 1
                error = 0.0
                for c in range(d):
                    error += r[c] * r[c]
                loss += error
            row_loss[i] = loss / n_prefixes
            row_error[i] = error
            if n_prefixes > 1:
                # The whole code's residual stays in the last place until the auxiliary step has read it.
                share = X.dtype.type(1.0 / n_prefixes)
                for c in range(d):
                    sums[i, n_prefixes, c] = sums[i, n_prefixes - 1, c]
                    sums[i, n_prefixes - 1, c] *= share
                for p in range(n_prefixes - 2, -1, -1):
                    for c in range(d):
                        sums[i, p, c] = sums[i, p, c] * share + sums[i, p + 1, c]
            else:
                for c in range(d):
                    sums[i, 1, c] = sums[i, 0, c]
            for at in range(count[i]):
                row, s = D[index[i, at]], sums[i, group[i, at]]
                dot = X.dtype.type(0)
                for c in range(d):
                    dot += s[c] * row[c]
                slope[i, at] = dot


@nb.njit(**PARALLEL)
def add_auxiliary(
    pre: np.ndarray,
    bias: np.ndarray,
    D: np.ndarray,
    dead: np.ndarray,
    k_aux: int,
    aux_weight: float,
    index: np.ndarray,
    value: np.ndarray,
    count: np.ndarray,
    sums: np.ndarray,
    slope: np.ndarray,
    group: np.ndarray,
    work: np.ndarray,
    row_loss: np.ndarray,
) -> None:
    """Let the ``k_aux`` largest dead features of every cell explain what the code left over, gradients included.

    Appends their entries behind the active ones; ``index`` and its companions need room for them.
    """
    n_rows, d = len(sums), sums.shape[2]
    last = sums.shape[1] - 1
    n_blocks = len(work)
    for block in nb.prange(n_blocks):
        scratch = work[block]
        for i in range(block * n_rows // n_blocks, (block + 1) * n_rows // n_blocks):
            n = 0
            for j in dead:
                v = pre[i, j] + bias[j]
                if v > 0:
                    scratch[n] = v
                    n += 1
            limit = pre.dtype.type(0)
            if n > k_aux:
                limit = kth_largest(scratch, n, k_aux)
            u = sums[i, last]  # holds x_hat - x: add the auxiliary reconstruction and it is the new residual
            start = at = count[i]
            for j in dead:
                v = pre[i, j] + bias[j]
                if v > 0 and v >= limit and at - start < k_aux:
                    index[i, at] = j
                    value[i, at] = v
                    group[i, at] = last
                    row = D[j]
                    for c in range(d):
                        u[c] += v * row[c]
                    at += 1
            error = 0.0
            for c in range(d):
                error += u[c] * u[c]
                u[c] *= aux_weight
            row_loss[i] += aux_weight * error
            for a in range(start, at):
                row = D[index[i, a]]
                dot = pre.dtype.type(0)
                for c in range(d):
                    dot += u[c] * row[c]
                slope[i, a] = dot
            count[i] = at


@nb.njit(cache=True, nogil=True)
def transpose_entries(
    index: np.ndarray, count: np.ndarray, width: int, n_features: int, start: np.ndarray, entry: np.ndarray
) -> None:
    """List the entries by feature: feature f has ``entry[start[f]:start[f + 1]]``, each ``row * width + place``."""
    start[:] = 0
    for i in range(len(count)):
        for at in range(count[i]):
            start[index[i, at] + 2] += 1
    for f in range(2, n_features + 2):
        start[f] += start[f - 1]
    for i in range(len(count)):
        for at in range(count[i]):
            f = index[i, at] + 1
            entry[start[f]] = i * width + at
            start[f] += 1


@nb.njit(**PARALLEL)
def weight_gradients(
    X: np.ndarray,
    E: np.ndarray,
    D: np.ndarray,
    b_dec: np.ndarray,
    value: np.ndarray,
    slope: np.ndarray,
    group: np.ndarray,
    sums: np.ndarray,
    start: np.ndarray,
    entry: np.ndarray,
    scale: float,
    silent: np.ndarray,
    grad_E: np.ndarray,
    grad_D: np.ndarray,
    grad_b: np.ndarray,
    partial: np.ndarray,
    norms: np.ndarray,
) -> None:
    """Gradients of both weight matrices (F, d) and the encoder bias; the decoder's without its part along the row.

    ``partial`` (blocks, d) gets what the encoder path sends to ``b_dec``, ``norms`` (blocks,) the squared norms.
    ``silent`` counts the cells seen since each feature was last active by itself.
    """
    n_rows, d = X.shape
    n_features, width = len(E), value.shape[1]
    n_blocks, auxiliary = len(norms), sums.shape[1] - 1
    for block in nb.prange(n_blocks):
        total = 0.0
        toward = partial[block]
        toward[:] = 0
        # Features are dealt out in turn: in a nested dictionary the first ones are the busiest.
        for f in range(block, n_features, n_blocks):
            g_E, g_D = grad_E[f], grad_D[f]
            g_b = X.dtype.type(0)
            g_E[:] = 0
            g_D[:] = 0
            active = False
            for e in range(start[f], start[f + 1]):
                i, at = entry[e] // width, entry[e] % width
                v, s, x, p = value[i, at], slope[i, at], X[i], group[i, at]
                r = sums[i, p]
                active |= p < auxiliary
                g_b += s
                for c in range(d):
                    g_D[c] += v * r[c]
                    g_E[c] += s * x[c]
            silent[f] = 0 if active else silent[f] + n_rows
            if start[f] == start[f + 1]:
                grad_b[f] = 0
                continue
            row, encoder = D[f], E[f]
            along = X.dtype.type(0)
            for c in range(d):
                along += g_D[c] * row[c]
            g_b *= scale
            norm = g_b * g_b
            for c in range(d):
                g_D[c] = scale * (g_D[c] - along * row[c])
                g_E[c] = scale * g_E[c] - g_b * b_dec[c]
                norm += g_D[c] * g_D[c] + g_E[c] * g_E[c]
                toward[c] -= g_b * encoder[c]
            grad_b[f] = g_b
            total += norm
        norms[block] = total


@nb.njit(**PARALLEL)
def adam_update(
    E: np.ndarray,
    D: np.ndarray,
    b_enc: np.ndarray,
    grad_E: np.ndarray,
    grad_D: np.ndarray,
    grad_b: np.ndarray,
    first_E: np.ndarray,
    first_D: np.ndarray,
    first_b: np.ndarray,
    second_E: np.ndarray,
    second_D: np.ndarray,
    second_b: np.ndarray,
    shrink: float,
    step: float,
    pull: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    n_blocks: int,
) -> None:
    """Adam on the gradients times ``shrink``, then every decoder row back to unit norm.

    ``step`` and ``epsilon`` come with both bias corrections folded in. ``pull`` moves the encoder by that share of the
    way toward the decoder, apart from the gradients (as AdamW decays weights).
    """
    n_features, d = E.shape
    keep1, keep2 = E.dtype.type(beta1), E.dtype.type(beta2)
    new1, new2 = E.dtype.type((1 - beta1) * shrink), E.dtype.type((1 - beta2) * shrink * shrink)
    rate, eps, toward = E.dtype.type(step), E.dtype.type(epsilon), E.dtype.type(pull)
    for block in nb.prange(n_blocks):
        for f in range(block * n_features // n_blocks, (block + 1) * n_features // n_blocks):
            w, g, m, s, aim = E[f], grad_E[f], first_E[f], second_E[f], D[f]
            for c in range(d):
                m[c] = keep1 * m[c] + new1 * g[c]
                s[c] = keep2 * s[c] + new2 * g[c] * g[c]
                w[c] += toward * (aim[c] - w[c]) - rate * m[c] / (np.sqrt(s[c]) + eps)
            w, g, m, s = D[f], grad_D[f], first_D[f], second_D[f]
            norm = E.dtype.type(0)
            for c in range(d):
                m[c] = keep1 * m[c] + new1 * g[c]
                s[c] = keep2 * s[c] + new2 * g[c] * g[c]
                w[c] -= rate * m[c] / (np.sqrt(s[c]) + eps)
                norm += w[c] * w[c]
            if norm > 0:
                inverse = 1 / np.sqrt(norm)
                for c in range(d):
                    w[c] *= inverse
            first_b[f] = keep1 * first_b[f] + new1 * grad_b[f]
            second_b[f] = keep2 * second_b[f] + new2 * grad_b[f] * grad_b[f]
            b_enc[f] -= rate * first_b[f] / (np.sqrt(second_b[f]) + eps)
