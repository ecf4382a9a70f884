"""A trained sparse autoencoder in the units of its embedding: encode, decode, save, load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ._encode import encode_blocks
from ._io import load_folder, save_folder

_FORMAT = 1


class SparseAutoencoder:
    r"""A dictionary of features over an embedding, as it is used after training.

    With row vectors, an embedding ``x`` of dimension d and F features,

    .. math::

        p = (x - b_{dec}) W_{enc} + b_{enc}, \qquad f_i = p_i \, [p_i > \theta_i], \qquad \hat x = f W_{dec} + b_{dec}

    where the thresholds are non-negative, so codes are too. Architecture ``"topk"`` keeps the `k` largest positive
    entries of each cell instead of a threshold. Weights are in the original units of the embedding.

    Parameters
    ----------
    W_enc
        Encoder, (d, F).
    b_enc
        Encoder bias, (F,).
    W_dec
        Decoder, (F, d); rows have unit norm.
    b_dec
        Decoder bias, (d,): what a cell without active features decodes to.
    threshold
        Smallest activation that counts, one a feature, (F,).
    k
        Active features per cell for architecture ``"topk"``; ``None`` for all others.
    architecture
        Name of the training architecture.
    metadata
        Plain values that travel with the weights.

    Raises
    ------
    ValueError
        If shapes do not fit together, values are not finite, or a threshold is negative.
    """

    def __init__(
        self,
        W_enc: np.ndarray,
        b_enc: np.ndarray,
        W_dec: np.ndarray,
        b_dec: np.ndarray,
        threshold: np.ndarray,
        *,
        k: int | None = None,
        architecture: str = "batchtopk",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        arrays = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, "threshold": threshold}
        arrays = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in arrays.items()}
        if arrays["W_dec"].ndim != 2:
            msg = f"W_dec must be two-dimensional (features x dimensions), found shape {arrays['W_dec'].shape}."
            raise ValueError(msg)
        F, d = arrays["W_dec"].shape
        expected = {"W_enc": (d, F), "b_enc": (F,), "W_dec": (F, d), "b_dec": (d,), "threshold": (F,)}
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                msg = (
                    f"{name} must have shape {shape} for {F} features over {d} dimensions, found {arrays[name].shape}."
                )
                raise ValueError(msg)
            if not np.isfinite(arrays[name]).all():
                msg = f"{name} holds NaN or infinite values."
                raise ValueError(msg)
        if (arrays["threshold"] < 0).any():
            msg = f"Thresholds must not be negative, found {arrays['threshold'].min()}."
            raise ValueError(msg)
        if architecture == "topk" and k is None:
            msg = "Architecture 'topk' needs k, the number of active features per cell."
            raise ValueError(msg)
        if k is not None and not 1 <= k <= F:
            msg = f"k must lie between 1 and the number of features ({F}), found {k}."
            raise ValueError(msg)
        self.W_enc, self.b_enc, self.W_dec = arrays["W_enc"], arrays["b_enc"], arrays["W_dec"]
        self.b_dec, self.threshold = arrays["b_dec"], arrays["threshold"]
        self.k = int(k) if k is not None and architecture == "topk" else None
        self.architecture = architecture
        self.metadata = dict(metadata or {})

    @property
    def n_features(self) -> int:
        """Number of features F."""
        return len(self.W_dec)

    @property
    def n_dimensions(self) -> int:
        """Dimensions d of the embedding."""
        return self.W_dec.shape[1]

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The five arrays by name, as they are stored in ``uns[key]["weights"]``."""
        return {name: getattr(self, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}

    def encode(self, X: np.ndarray) -> sparse.csr_matrix:
        """Codes of cells, (n, F), CSR float32 with sorted indices; made block by block, never dense.

        Parameters
        ----------
        X
            Embedding, (n, d), in the units the autoencoder was fitted in.

        Raises
        ------
        ValueError
            If `X` has another number of dimensions, or holds NaN or infinite values.
        """
        return encode_blocks(self._check(X), self.W_enc, self.b_enc, self.b_dec, self.threshold, self.k)

    def decode(self, Z: sparse.spmatrix | sparse.sparray | np.ndarray) -> np.ndarray:
        """Embedding of codes, (n, d) float32.

        Parameters
        ----------
        Z
            Codes, (n, F), sparse or dense; a single code of shape (F,) gives a single embedding of shape (d,).

        Raises
        ------
        ValueError
            If `Z` has another number of features.
        """
        Z = Z if sparse.issparse(Z) else np.asarray(Z, dtype=np.float32)
        if Z.shape[-1] != self.n_features:
            msg = f"Codes must have {self.n_features} features, found shape {Z.shape}."
            raise ValueError(msg)
        return np.asarray(Z @ self.W_dec, dtype=np.float32) + self.b_dec

    def reconstruct(self, X: np.ndarray) -> np.ndarray:
        """The embedding as the code sees it, ``decode(encode(X))``, (n, d) float32."""
        return self.decode(self.encode(X))

    def save(self, folder: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json`` to `folder`."""
        config = {
            "format": _FORMAT,
            "architecture": self.architecture,
            "k": self.k,
            "n_features": self.n_features,
            "n_dimensions": self.n_dimensions,
            "metadata": self.metadata,
        }
        save_folder(folder, self.weights, config)

    @classmethod
    def load(cls, folder: str | Path) -> SparseAutoencoder:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder does not hold a saved sparse autoencoder.
        ValueError
            If it was written by a newer version of the package.
        """
        weights, config = load_folder(folder)
        if config.get("format", 0) > _FORMAT:
            msg = f"{folder} has format {config['format']}; this version reads up to {_FORMAT}. Update sparsesc."
            raise ValueError(msg)
        return cls(**weights, k=config["k"], architecture=config["architecture"], metadata=config["metadata"])

    def __repr__(self) -> str:
        active = f", k={self.k}" if self.k else ""
        return f"SparseAutoencoder({self.architecture}: {self.n_dimensions} -> {self.n_features} features{active})"

    def _check(self, X: np.ndarray) -> np.ndarray:
        X = np.ascontiguousarray(X, dtype=np.float32)
        if X.ndim != 2 or X.shape[1] != self.n_dimensions:
            msg = f"Expected cells x {self.n_dimensions} dimensions, found shape {X.shape}."
            raise ValueError(msg)
        if not np.isfinite(X).all():
            msg = f"The embedding holds NaN or infinite values in {int((~np.isfinite(X)).any(1).sum())} cells."
            raise ValueError(msg)
        return X
