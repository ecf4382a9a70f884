"""Several embeddings of the same cells, side by side as one: where they are, and in which units they are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsesc._values import listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder


class Source(NamedTuple):
    """Where an embedding is."""

    name: str
    modality: str
    """Of a MuData; empty: ``obsm`` of the object itself."""
    use_rep: str

    def read(self, adata: AnnData | MuData) -> np.ndarray:
        """The embedding, cells in the order of `adata`.

        Raises
        ------
        KeyError
            If there is no such modality or embedding.
        ValueError
            If the modality lacks some of the cells.
        """
        if not self.modality:
            return check.get_rep(adata, self.use_rep)
        modalities = getattr(adata, "mod", {})
        if self.modality not in modalities:
            msg = (
                f"The embedding {self.name!r} is that of a modality {self.modality!r}. Found modalities: "
                f"{listing(modalities)}. Pass a MuData that has it."
            )
            raise KeyError(msg)
        part = modalities[self.modality]
        X = check.get_rep(part, self.use_rep)
        place = part.obs_names.get_indexer(adata.obs_names)
        if (place < 0).any():
            msg = (
                f"{int((place < 0).sum())} of {adata.n_obs} cells are not in modality {self.modality!r}: embeddings "
                "can only be joined for cells that have all of them. Keep these, for example by muon.pp.intersect_obs."
            )
            raise ValueError(msg)
        return X[place]


@dataclass(frozen=True)
class Blocks:
    """Embeddings with the units in which they are joined: centered, and each of total variance 1."""

    sources: list[Source]
    n_dimensions: np.ndarray
    """Of each embedding."""
    mean: np.ndarray
    """Of every dimension of all of them, one after another."""
    scale: np.ndarray
    """Of each embedding: root of its total variance."""

    @property
    def names(self) -> list[str]:
        """What users call the embeddings."""
        return [source.name for source in self.sources]

    @property
    def columns(self) -> list[slice]:
        """Where each embedding is in the joint one."""
        ends = np.cumsum(self.n_dimensions)
        return [slice(int(end - width), int(end)) for end, width in zip(ends, self.n_dimensions, strict=True)]

    def join(self, adata: AnnData | MuData) -> np.ndarray:
        """The joint embedding of cells, float32, in the units of these blocks."""
        return self._join([source.read(adata) for source in self.sources])

    def _join(self, parts: list[np.ndarray]) -> np.ndarray:
        for source, part, width in zip(self.sources, parts, self.n_dimensions, strict=True):
            if part.shape[1] != width:
                msg = (
                    f"The embedding {source.name!r} had {width} dimensions in the fit, but has {part.shape[1]} here. "
                    "Both must come from the same model."
                )
                raise ValueError(msg)
        joint = (np.concatenate(parts, axis=1) - self.mean) / np.repeat(self.scale, self.n_dimensions)
        return np.ascontiguousarray(joint, dtype=np.float32)

    def stored(self) -> dict[str, Any]:
        """Plain arrays that survive files; :meth:`restored` reads them."""
        fields = zip(("names", "modalities", "use_reps"), zip(*self.sources, strict=True), strict=True)
        texts = {name: np.array(values, dtype=object) for name, values in fields}
        return texts | {"n_dimensions": self.n_dimensions, "mean": self.mean, "scale": self.scale}

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Blocks:
        """Blocks that were stored."""
        texts = [[str(v) for v in stored[name]] for name in ("names", "modalities", "use_reps")]
        sources = [Source(*values) for values in zip(*texts, strict=True)]
        width = np.asarray(stored["n_dimensions"], dtype=np.int64)
        mean, scale = (np.asarray(stored[name], dtype=np.float64) for name in ("mean", "scale"))
        return cls(sources, width, mean, scale)


def find_sources(adata: AnnData | MuData, use_reps: Mapping[str, str] | Sequence[str]) -> list[Source]:
    """Which embeddings to join: entries of ``obsm``, or of the modalities that a mapping names.

    Raises
    ------
    TypeError
        If `use_reps` is neither a mapping nor a list of names.
    ValueError
        If it names fewer than two embeddings, or one twice, or a name cannot be stored.
    """
    if isinstance(use_reps, str) or not isinstance(use_reps, Mapping | Sequence):
        msg = f"use_reps must name embeddings, as ['X_pca', 'X_scVI'] or {{'rna': 'X_pca', ...}}, found {use_reps!r}."
        raise TypeError(msg)
    reps = dict(use_reps) if isinstance(use_reps, Mapping) else {name: name for name in use_reps}
    for name in [*reps, *reps.values()]:
        if not isinstance(name, str) or not name or "/" in name:
            msg = f"Names in use_reps must be non-empty strings without '/', found {name!r}."
            raise ValueError(msg)
    modalities = getattr(adata, "mod", {})
    sources = [Source(name, name if name in modalities else "", rep) for name, rep in reps.items()]
    if len({source[1:] for source in sources}) < max(2, len(use_reps)):
        msg = (
            f"use_reps must name at least two different embeddings, found {listing(reps.values())}. For one, "
            "use ssc.tl.fit_sae."
        )
        raise ValueError(msg)
    return sources


def join_blocks(adata: AnnData | MuData, sources: list[Source]) -> tuple[Blocks, np.ndarray]:
    """Choose units in which every embedding counts alike, and join them.

    Raises
    ------
    KeyError
        If there is no such modality or embedding.
    ValueError
        If an embedding is constant, or a modality lacks cells.
    """
    parts = [source.read(adata) for source in sources]
    means = [part.mean(0, dtype=np.float64) for part in parts]
    scale = [np.sqrt(np.square(part - mean).sum() / len(part)) for part, mean in zip(parts, means, strict=True)]
    for source, part, value in zip(sources, parts, scale, strict=True):
        if value <= 1e-6 * np.abs(part).max(initial=1e-30):
            msg = f"The embedding {source.name!r} is constant: there is nothing to learn. Leave it out."
            raise ValueError(msg)
    widths = np.array([part.shape[1] for part in parts])
    blocks = Blocks(sources, widths, np.concatenate(means), np.array(scale))
    return blocks, blocks._join(parts)


class Embedding(NamedTuple):
    """Cells as an autoencoder takes them."""

    X: np.ndarray
    use_rep: str
    """Entry of ``obsm``; empty: it was joined of several."""


def get_embedding(
    adata: AnnData | MuData, sae: SparseAutoencoder, use_rep: str | None, *, name: str = "adata"
) -> Embedding:
    """The embedding of cells that an autoencoder was fitted for, joined of several where it was fitted to several.

    Raises
    ------
    KeyError
        If there is no such embedding.
    ValueError
        If it is not known which one, or it has another number of dimensions.
    """
    check.check_adata(adata)
    blocks = sae.metadata.get(_keys.BLOCKS)
    if use_rep is None and blocks is not None:
        return Embedding(Blocks.restored(blocks).join(adata), "")
    use_rep = use_rep or sae.metadata.get("use_rep")
    if not use_rep:
        msg = "use_rep is not known: the autoencoder does not say which embedding it was fitted on. Name it."
        raise ValueError(msg)
    X = check.get_rep(adata, use_rep)
    if X.shape[1] != sae.n_dimensions:
        msg = (
            f"The autoencoder was fitted on {sae.n_dimensions} dimensions, but {use_rep!r} has {X.shape[1]} in {name}. "
            "Both embeddings must come from the same model."
        )
        raise ValueError(msg)
    return Embedding(X, use_rep)
