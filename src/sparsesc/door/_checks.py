"""The door's face: bad input becomes an error here, before any work is done.

A message says what is wrong, what there is and what to do.
"""

from ._entries import (
    check_key_free,
    feature_names,
    get_codes,
    get_feature_table,
    get_on_thresholds,
    get_sae_slot,
    get_saliency_slot,
    get_table,
    is_sae_slot,
    pick_names,
)
from ._matrices import get_expression, get_rep, to_float_matrix
from ._objects import check_adata, get_obs_column, get_var_column, writable

__all__ = [
    "check_adata",
    "check_key_free",
    "feature_names",
    "get_codes",
    "get_expression",
    "get_feature_table",
    "get_obs_column",
    "get_on_thresholds",
    "get_rep",
    "get_sae_slot",
    "get_saliency_slot",
    "get_table",
    "get_var_column",
    "is_sae_slot",
    "pick_names",
    "to_float_matrix",
    "writable",
]
