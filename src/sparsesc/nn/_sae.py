"""A trained sparse autoencoder in the units of its embedding: encode, decode, save, load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ._encode import encode_blocks
from ._io import load_folder, save_folder

WEIGHT_NAMES = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")

_FORMAT = 1


class SparseAutoencoder:
    r"""A trained sparse autoencoder: turns an embedding of cells into sparse features, and features back into it.

    :func:`sparsesc.get.sae` returns the one that :func:`sparsesc.tl.fit_sae` stored. The weights are in the original
    units of the embedding.

    Parameters
    ----------
    W_enc
        Encoder, (d, F).
    b_enc
        Encoder bias, (F,).
    W_dec
        Decoder, (F, d); rows have unit norm.
    b_dec
        Decoder bias, (d,): the embedding of a cell without active features.
    threshold
        A feature is active in a cell where its activation is above this, (F,); not negative.
    k
        Active features per cell for architecture ``"topk"``; ``None`` for all others.
    architecture
        Name of the training architecture.
    metadata
        Plain values that are saved with the weights.

    Raises
    ------
    ValueError
        If shapes do not fit together, values are not finite, or a threshold is negative.

    See Also
    --------
    sparsesc.tl.fit_sae : Fit a sparse autoencoder to the embedding of an AnnData.
    sparsesc.get.sae : The fitted sparse autoencoder of an AnnData.
    sparsesc.tl.apply_sae : Features of new cells.
    sparsesc.nn.train : Fit a sparse autoencoder to an array.

    Notes
    -----
    With row vectors, an embedding :math:`x` of d dimensions and F features,

    .. math::

        p = (x - b_{dec}) W_{enc} + b_{enc}, \qquad f_i = p_i \, [p_i > \theta_i], \qquad \hat x = f W_{dec} + b_{dec}

    with :math:`p` the pre-activations, :math:`f` the code and :math:`\hat x` the reconstruction. Thresholds
    :math:`\theta` are not negative, so codes are not negative either. Architecture ``"topk"`` has no thresholds: it
    keeps the `k` largest positive entries of each cell.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> sae = ssc.get.sae(adata)
    >>> codes = sae.encode(adata.obsm["X_pca"])
    >>> codes.shape == (adata.n_obs, sae.n_features)
    True
    >>> sae.decode(codes).shape == adata.obsm["X_pca"].shape
    True
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
            msg = f"W_dec must be two-dimensional (features x dimensions), got shape {arrays['W_dec'].shape}."
            raise ValueError(msg)
        F, d = arrays["W_dec"].shape
        expected = {"W_enc": (d, F), "b_enc": (F,), "W_dec": (F, d), "b_dec": (d,), "threshold": (F,)}
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                msg = f"{name} must have shape {shape} for {F} features over {d} dimensions, got {arrays[name].shape}."
                raise ValueError(msg)
            if not np.isfinite(arrays[name]).all():
                msg = f"{name} holds NaN or infinite values. Weights must be finite."
                raise ValueError(msg)
        if (arrays["threshold"] < 0).any():
            msg = f"Thresholds must not be negative, got {arrays['threshold'].min()}."
            raise ValueError(msg)
        if architecture == "topk" and k is None:
            msg = "Architecture 'topk' needs k, the number of active features per cell."
            raise ValueError(msg)
        if k is not None and not 1 <= k <= F:
            msg = f"k must lie between 1 and the number of features ({F}), got {k}."
            raise ValueError(msg)
        self.W_enc, self.b_enc, self.W_dec = arrays["W_enc"], arrays["b_enc"], arrays["W_dec"]
        self.b_dec, self.threshold = arrays["b_dec"], arrays["threshold"]
        self.k = int(k) if k is not None and architecture == "topk" else None
        self.architecture = architecture
        self.metadata = dict(metadata or {})

    @property
    def n_features(self) -> int:
        """Number F of features."""
        return len(self.W_dec)

    @property
    def n_dimensions(self) -> int:
        """Number d of dimensions of the embedding."""
        return self.W_dec.shape[1]

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The five arrays by name, as they are stored in ``uns[key]["weights"]``."""
        return {name: getattr(self, name) for name in WEIGHT_NAMES}

    def encode(self, X: np.ndarray) -> sparse.csr_matrix:
        """Activations of all features in cells, as a sparse matrix.

        Parameters
        ----------
        X
            Embedding of the cells, (n, d), in the units of the fit.

        Returns
        -------
        Codes, (n, F), CSR float32 with sorted indices. They are computed block by block and are never dense.

        Raises
        ------
        ValueError
            If `X` has another number of dimensions, or holds NaN or infinite values.

        See Also
        --------
        sparsesc.nn.SparseAutoencoder.decode : The way back, from codes to the embedding.
        sparsesc.tl.apply_sae : Codes of the cells of an AnnData.

        Examples
        --------
        >>> import scanpy as sc
        >>> import sparsesc as ssc
        >>> adata = sc.datasets.pbmc68k_reduced()
        >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
        >>> codes = ssc.get.sae(adata).encode(adata.obsm["X_pca"])
        >>> (codes != adata.obsm["X_sae"]).nnz  # those that the fit stored
        0
        """
        return encode_blocks(self._check(X), self.W_enc, self.b_enc, self.b_dec, self.threshold, self.k)

    def decode(self, Z: sparse.spmatrix | sparse.sparray | np.ndarray) -> np.ndarray:
        """The embedding that codes stand for.

        Parameters
        ----------
        Z
            Codes, (n, F), sparse or dense; a single code of shape (F,) gives a single embedding of shape (d,).

        Returns
        -------
        Embedding, (n, d) float32.

        Raises
        ------
        ValueError
            If `Z` has another number of features.

        See Also
        --------
        sparsesc.nn.SparseAutoencoder.encode : The way there, from the embedding to codes.
        sparsesc.tl.steer : Change features and decode the result.

        Examples
        --------
        A code without active features decodes to the bias:

        >>> import numpy as np
        >>> from sparsesc.nn import SparseAutoencoder
        >>> sae = SparseAutoencoder(np.eye(2), np.zeros(2), np.eye(2), np.ones(2), np.zeros(2))
        >>> sae.decode(np.array([[0, 0], [3, 0]]))
        array([[1., 1.],
               [4., 1.]], dtype=float32)
        """
        Z = Z if sparse.issparse(Z) else np.asarray(Z, dtype=np.float32)
        if Z.shape[-1] != self.n_features:
            msg = f"Codes must have {self.n_features} features, got shape {Z.shape}."
            raise ValueError(msg)
        return np.asarray(Z @ self.W_dec, dtype=np.float32) + self.b_dec

    def reconstruct(self, X: np.ndarray) -> np.ndarray:
        """The part of the embedding that the features explain.

        Parameters
        ----------
        X
            Embedding of the cells, (n, d), in the units of the fit.

        Returns
        -------
        ``decode(encode(X))``, (n, d) float32.

        Raises
        ------
        ValueError
            If `X` has another number of dimensions, or holds NaN or infinite values.

        See Also
        --------
        sparsesc.nn.SparseAutoencoder.encode : The codes in between.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsesc.nn import SparseAutoencoder
        >>> sae = SparseAutoencoder(np.eye(2), np.zeros(2), np.eye(2), np.zeros(2), np.full(2, 0.5))
        >>> sae.reconstruct(np.array([[0.2, 0.8]]))  # the first value is below its threshold
        array([[0. , 0.8]], dtype=float32)
        """
        return self.decode(self.encode(X))

    def save(self, folder: str | Path) -> None:
        """Write the weights to disk, without pickle.

        Parameters
        ----------
        folder
            Receives ``weights.safetensors`` and ``config.json``; created if needed.

        Raises
        ------
        TypeError
            If ``metadata`` holds something that JSON cannot store. Then nothing is written.

        See Also
        --------
        sparsesc.nn.SparseAutoencoder.load : Read the folder.

        Examples
        --------
        >>> import scanpy as sc
        >>> import sparsesc as ssc
        >>> adata = sc.datasets.pbmc68k_reduced()
        >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
        >>> ssc.get.sae(adata).save("my_sae")
        >>> ssc.nn.SparseAutoencoder.load("my_sae").metadata["use_rep"]
        'X_pca'
        """
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
        """Read a sparse autoencoder that :meth:`save` wrote.

        Parameters
        ----------
        folder
            Folder with ``weights.safetensors`` and ``config.json``.

        Returns
        -------
        The same autoencoder: equal weights, architecture and metadata.

        Raises
        ------
        FileNotFoundError
            If the folder does not hold a saved sparse autoencoder.
        ValueError
            If it was written by a newer version of the package.

        See Also
        --------
        sparsesc.nn.SparseAutoencoder.save : Write such a folder.
        sparsesc.tl.apply_sae : Features of new cells with the loaded autoencoder.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsesc.nn import SparseAutoencoder
        >>> sae = SparseAutoencoder(np.eye(2), np.zeros(2), np.eye(2), np.zeros(2), np.zeros(2))
        >>> sae.save("small_sae")
        >>> SparseAutoencoder.load("small_sae")
        SparseAutoencoder(batchtopk: 2 -> 2 features)
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
            msg = f"Expected cells x {self.n_dimensions} dimensions, got shape {X.shape}."
            raise ValueError(msg)
        if not np.isfinite(X).all():
            msg = f"The embedding holds NaN or infinite values in {int((~np.isfinite(X)).any(1).sum())} cells."
            raise ValueError(msg)
        return X
