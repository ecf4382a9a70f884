"""Cells to work with, real and simulated, and gene sets."""

from ._gene_sets import gene_sets
from ._real import (
    balf_covid,
    bonemarrow_human,
    bonemarrow_mouse,
    citeseq,
    kang2018,
    onek1k,
    pbmc3k,
    pbmc68k_reduced,
    pbmc_3tech,
)
from ._simulate_programs import simulate_programs

__all__ = [
    "balf_covid",
    "bonemarrow_human",
    "bonemarrow_mouse",
    "citeseq",
    "gene_sets",
    "kang2018",
    "onek1k",
    "pbmc3k",
    "pbmc68k_reduced",
    "pbmc_3tech",
    "simulate_programs",
]
