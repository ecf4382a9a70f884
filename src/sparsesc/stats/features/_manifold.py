"""Where are moved cells among real ones? Their nearest neighbors, and how far away these are."""

from __future__ import annotations

import numpy as np


class Manifold:
    """Real cells, and which of them are the neighbors of any position.

    Parameters
    ----------
    X
        Embedding of the real cells, cells x dimensions.
    n_neighbors
        How many neighbors count.

    Raises
    ------
    ValueError
        If there are not more cells than neighbors.
    """

    def __init__(self, X: np.ndarray, *, n_neighbors: int) -> None:
        from sklearn.neighbors import NearestNeighbors

        if len(X) <= n_neighbors:
            msg = f"{n_neighbors} neighbors need more than {n_neighbors} cells, found {len(X)}."
            raise ValueError(msg)
        self._k = n_neighbors
        self._search = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(X)
        self._real: np.ndarray | None = None

    def neighbors(self, positions: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean distance to the nearest real cells, and which these are.

        Parameters
        ----------
        positions
            Positions x dimensions.
        own
            For each position the real cell that it belongs to, which does not count as its neighbor; -1: none.
        """
        distance, index = self._search.kneighbors(positions)
        # drop the cell itself where it is among the neighbors, else the farthest one
        mine = index == own[:, None]
        mine[~mine.any(1), -1] = True
        shape = (len(positions), self._k)
        distance, index = distance[~mine].reshape(shape), index[~mine].reshape(shape)
        return distance.mean(1), index

    def set_real(self, positions: np.ndarray, own: np.ndarray) -> None:
        """Take these cells, where they really are, as what distances are compared with."""
        self._real = np.sort(self.neighbors(positions, own)[0])

    def percentile(self, distance: np.ndarray) -> np.ndarray:
        """Share of real cells (0 to 1) that are nearer to their neighbors."""
        if self._real is None:
            msg = "Real distances are not known yet: call set_real first."
            raise RuntimeError(msg)
        return np.searchsorted(self._real, distance) / len(self._real)


def same_length(directions: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """`directions` (one for all moves, or one each) with the lengths of `moves`; a direction of length 0 stays."""
    directions = np.broadcast_to(directions, moves.shape)
    norm = np.linalg.norm(directions, axis=1, keepdims=True)
    return directions / np.where(norm > 0, norm, 1) * np.linalg.norm(moves, axis=1, keepdims=True)
