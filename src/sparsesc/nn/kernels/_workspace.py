"""Memory of the sparse training step on the CPU, and the conversion to and from its layout."""

from __future__ import annotations

import numpy as np

from . import _select, _step
from ._bfloat16 import pack_encoder
from ._chunks import BLOCK, SLOTS, aligned, block_capacity, in_tiles
from ._processor import compiled_bfloat16_product, compiled_product
from ._simd import LANES
from ._step import Buffers
from ._threads import n_parts


class SparseStep:
    """Parameters of a sparse code (float32 or float64), and all other memory that a training step needs.

    Parameters
    ----------
    cells
        Training cells, (n, d), standardized.
    E, D, b_enc, b_dec
        Where training starts: transposed encoder (F, d), decoder (F, d) with unit rows, biases.
    k, batch_size, by_batch
        Active features per cell; cells per step; whether the k x B largest of the batch are kept, or k of each cell.
    widths
        Ascending widths of the nested dictionaries; the last one is F.
    k_aux, aux_weight, dead_after
        Auxiliary loss: features per cell, weight, and the number of inactive cells after which a feature is dead.
    clip
        Largest norm of the gradient.
    tie_strength
        Share of the difference between encoder and decoder that a step removes, per unit of learning rate.
    noise
        Pool of numbers for the encoder's input, ``None`` for none.
    bfloat16
        Whether the encoder product is in bfloat16.
    """

    def __init__(
        self,
        cells: np.ndarray,
        *,
        E: np.ndarray,
        D: np.ndarray,
        b_enc: np.ndarray,
        b_dec: np.ndarray,
        k: int,
        batch_size: int,
        by_batch: bool,
        widths: np.ndarray,
        weights: np.ndarray | None = None,
        k_aux: int,
        aux_weight: float,
        dead_after: int,
        clip: float,
        tie_strength: float = 0.0,
        noise: np.ndarray | None = None,
        bfloat16: bool = False,
    ) -> None:
        (F, d), dtype = E.shape, E.dtype
        self.n_features, self.n_dimensions = F, d
        width = LANES if d <= LANES else 2 * LANES
        C, n, B = -(-d // width), _select.padded(F), -(-batch_size // BLOCK) * BLOCK
        P, blocks = len(widths), B // BLOCK
        # One row more than needed: chunks at a distance of a power of two would evict each other from the cache.
        shape_D, shape_E = (C, n + (C > 1), width), (n, C * width)
        room = blocks * block_capacity(n) + LANES
        entries = batch_size * (4 * k + k_aux)
        if bfloat16 and dtype != np.float32:
            msg = f"The bfloat16 product needs float32 parameters, got {dtype}. Use precision='float32'."
            raise TypeError(msg)
        self.compiled_product = compiled_bfloat16_product() if bfloat16 else compiled_product(d)
        tiles = n // 64 if self.compiled_product else 0
        tiles, bfloat16_tiles = (0, tiles) if bfloat16 else (tiles, 0)
        widths = np.asarray(widths, np.int64)
        weights = np.full(P, 1 / P) if weights is None else np.asarray(weights)

        def zeros(*shape: int) -> np.ndarray:
            return aligned(shape, dtype)

        def words(*shape: int) -> np.ndarray:
            return aligned(shape, np.dtype(np.uint32))

        seen_rows = zeros(B, C * width)
        self.buffers = Buffers(
            cells=np.ascontiguousarray(cells, dtype=dtype),
            noise=np.empty(0, dtype) if noise is None else noise,
            E=zeros(*shape_E), D=zeros(*shape_D), b_enc=np.full(n, _select.NEVER, dtype), b_dec=zeros(C * width),
            packed=zeros(tiles, C * width, 64),
            seen_bfloat16=words(B if bfloat16_tiles else 0, C * width // 2),
            packed_bfloat16=words(bfloat16_tiles, C * width // 2, 64),
            m_E=zeros(*shape_E), m_D=zeros(*shape_D), m_b=zeros(F), m_c=zeros(C * width),
            v_E=zeros(*shape_E), v_D=zeros(*shape_D), v_b=zeros(F), v_c=zeros(C * width),
            grad_E=zeros(*shape_D), grad_D=zeros(*shape_D), grad_b=zeros(F), grad_c=zeros(C * width),
            target=zeros(C, B, width),
            seen=seen_rows.reshape(1, B, width) if C == 1 else zeros(C, B, width),
            seen_rows=seen_rows,
            pre=zeros(B, n),
            feature=np.empty(room, np.int32), value=np.empty(room, dtype), grad_value=np.empty(room, dtype),
            begin=np.zeros(B, np.int64), end=np.zeros(B, np.int64), stop=np.zeros(blocks, np.int64),
            maxima=zeros(blocks, n + 2 * LANES),
            sums=zeros(C, P + 1, B, width), row_loss=np.empty(B), row_error=np.empty(B),
            output_grad=zeros(SLOTS, C * width),
            only_dead=np.full(n, _select.NEVER, dtype),
            aux_index=np.empty(B * k_aux, np.int32), aux_value=np.empty(B * k_aux, dtype),
            aux_grad=np.empty(B * k_aux, dtype), aux_begin=np.arange(B) * k_aux, aux_end=np.arange(B) * k_aux,
            start=np.zeros(F + 1, np.int64), aux_start=np.zeros(F, np.int64),
            by_row=np.empty(entries, np.int32), by_value=np.empty(entries, dtype), by_grad=np.empty(entries, dtype),
            square=zeros(F), grad_dot_row=zeros(F), input_grad=zeros(SLOTS, C * width), silent=np.zeros(F, np.int64),
            widths=widths, weights=weights.astype(dtype),
            level=np.searchsorted(widths, np.arange(F), side="right"),
            clock=np.zeros(1, np.int64), guess=zeros(1),
            k=k, k_aux=k_aux, by_batch=by_batch, dead_after=dead_after, aux_weight=aux_weight, clip=clip,
            tie_strength=tie_strength,
        )  # fmt: skip
        self.batch_size = batch_size
        b = self.buffers
        b.E[:F, :d], b.b_enc[:F], b.b_dec[:d] = E, b_enc, b_dec
        _split_into_chunks(D, b.D)
        if len(b.packed):
            b.packed[:] = in_tiles(b.E)
        if len(b.packed_bfloat16):
            pack_encoder(b.E, b.packed_bfloat16)

    def run(self, batches: np.ndarray, noise_at: np.ndarray, lr: np.ndarray, phase: int = _step.ALL) -> np.ndarray:
        """One step for each row of ``batches`` (steps, B), with the learning rates ``lr``; returns the reports.

        Columns are those of :mod:`._step`. Rates of zero leave the parameters unchanged.
        """
        report = np.zeros((len(batches), 5))
        _step.take_steps(self.buffers, batches, noise_at, np.asarray(lr, np.float64), phase, n_parts(), report)
        return report

    def parameters(self) -> dict[str, np.ndarray]:
        """A copy of the parameters, each as a plain array."""
        b, F, d = self.buffers, self.n_features, self.n_dimensions
        plain = {"E": b.E[:F, :d], "D": self._plain(b.D), "b_enc": b.b_enc[:F], "b_dec": b.b_dec[:d]}
        return {name: np.ascontiguousarray(value).copy() for name, value in plain.items()}

    def gradients(self) -> dict[str, np.ndarray]:
        """Unclipped gradients of the last batch; the decoder's without the component along each row."""
        b, d = self.buffers, self.n_dimensions
        scale = b.grad_b.dtype.type(2 / (self.batch_size * d))
        decoder = self._plain(b.grad_D) - b.grad_dot_row[:, None] * self._plain(b.D)
        plain = {"E": self._plain(b.grad_E), "D": decoder, "b_enc": b.grad_b, "b_dec": b.grad_c[:d]}
        return {name: scale * value for name, value in plain.items()}

    @property
    def dead(self) -> np.ndarray:
        """(F,) features that were inactive for at least ``dead_after`` cells."""
        return self.buffers.silent >= self.buffers.dead_after

    def _plain(self, chunks: np.ndarray) -> np.ndarray:
        """(F, d) copy of an array in chunks."""
        rows = chunks.transpose(1, 0, 2).reshape(chunks.shape[1], -1)
        return rows[: self.n_features, : self.n_dimensions]


def _split_into_chunks(D: np.ndarray, out: np.ndarray) -> None:
    for chunk in out:
        part, D = D[:, : chunk.shape[1]], D[:, chunk.shape[1] :]
        chunk[: len(part), : part.shape[1]] = part
