"""Which slots a function may write: free ones, and those of an earlier call, which it replaces as scanpy's do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from . import _keys

if TYPE_CHECKING:
    from anndata import AnnData

WRITTEN_BY = "function"
"""Entry of ``uns[key]["params"]`` with the name of the function that wrote the slots."""


def check_slots_free(adata: AnnData, key: str, function: str, slots: Mapping[str, Sequence[str]]) -> None:
    """Refuse a name that cannot be stored, or whose slots hold what `function` did not write.

    Parameters
    ----------
    adata
        Where the slots are.
    key
        Entry of ``uns`` that goes with the slots.
    function
        Its name, with the part of the package.
    slots
        Names of slots by attribute (``"obs"``, ``"obsm"``, ...).

    Raises
    ------
    ValueError
        If it is so.
    """
    if not isinstance(key, str) or not key or "/" in key:
        msg = f"key_added must be a non-empty string without '/', found {key!r}."
        raise ValueError(msg)
    entry = adata.uns.get(key)
    params = entry.get(_keys.PARAMS) if isinstance(entry, Mapping) else None
    if isinstance(params, Mapping) and params.get(WRITTEN_BY) == function:
        return
    taken = [
        f"{attribute}[{slot!r}]"
        for attribute, names in ({"uns": [key]} | dict(slots)).items()
        for slot in names
        if slot in getattr(adata, attribute)
    ]
    if taken:
        msg = (
            f"key_added={key!r} would overwrite {' and '.join(taken)}, which {function} did not write. "
            "Choose another key_added, or delete that slot."
        )
        raise ValueError(msg)
