"""Pure functions on arrays and sparse matrices: tests, effect sizes and moments, all from the non-zeros."""

from __future__ import annotations

from ._association import auroc, mann_whitney, pearson_one_hot
from ._coactivation import overlap_test
from ._correlate import correlate
from ._disentanglement import lms, msas, msgs, smi, spn
from ._f1 import best_f1, f1_at
from ._information import InformationTest, information_test, mutual_information
from ._locality import GroupContrasts, group_contrasts
from ._matching import match_features
from ._moments import GroupMoments, group_moments
from ._multiple import benjamini_hochberg
from ._ranks import RankedColumns, rank_columns
from ._recovery import RecoveryScores, recovery
from ._splitting import Detector, best_detector
from ._stability import DictionaryStability, dictionary_stability
from ._thinning import overdispersion, thin_counts

__all__ = [
    "Detector",
    "DictionaryStability",
    "GroupContrasts",
    "GroupMoments",
    "InformationTest",
    "RankedColumns",
    "RecoveryScores",
    "auroc",
    "benjamini_hochberg",
    "best_detector",
    "best_f1",
    "correlate",
    "dictionary_stability",
    "f1_at",
    "group_contrasts",
    "group_moments",
    "information_test",
    "lms",
    "mann_whitney",
    "match_features",
    "msas",
    "msgs",
    "mutual_information",
    "overdispersion",
    "overlap_test",
    "pearson_one_hot",
    "rank_columns",
    "recovery",
    "smi",
    "spn",
    "thin_counts",
]
