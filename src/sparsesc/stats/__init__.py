"""Pure functions on arrays and sparse matrices: tests, effect sizes and moments, all from the non-zeros."""

from __future__ import annotations

from .core._correlate import correlate
from .core._moments import GroupMoments, group_moments
from .core._multiple import benjamini_hochberg
from .core._ranks import RankedColumns, rank_columns
from .features._coactivation import overlap_test
from .features._matching import match_features
from .features._recovery import RecoveryScores, recovery
from .features._splitting import Detector, best_detector
from .features._stability import DictionaryStability, dictionary_stability
from .genes._thinning import overdispersion, thin_counts
from .groups._association import auroc, mann_whitney, pearson_one_hot
from .groups._disentanglement import lms, msas, msgs, smi, spn
from .groups._f1 import best_f1, f1_at
from .groups._information import InformationTest, information_test, mutual_information
from .groups._locality import GroupContrasts, group_contrasts

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
