"""Blood cells with and without interferon beta (Kang et al. 2018): does a unit have the gene sets of cells it is on in?

Guided backpropagation shows what switches a unit on, so that each unit's gene sets are held against the cells in which
the unit is larger: over all units, the score of a set goes with the AUROC of the unit for the cells of the set.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sparsesc as ssc

N_GENES = 2000  # detected in most cells: a fit of a few seconds
N_RANDOM = 40
STIMULATED = "stimulated"
INTERFERON = ["HALLMARK_INTERFERON_ALPHA_RESPONSE", "HALLMARK_INTERFERON_GAMMA_RESPONSE"]
LINEAGES = {
    ("CD14+ Monocytes", "FCGR3A+ Monocytes"): ["Classical monocyte", "Nonclassical monocyte"],
    ("CD8 T cells", "NK cells"): ["CD8 T cell", "NK cell"],
}


def units_and_sets(adata, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of gene sets, real and random, units x sets; and AUROC, units x kinds of cells."""
    import scvi
    import torch

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    detected = np.asarray((adata.X > 0).sum(axis=0)).ravel()
    adata = adata[:, np.sort(np.argsort(-detected, kind="stable")[:N_GENES])].copy()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        scvi.settings.seed = seed
        ssc.models.OrthogonalAE.setup_anndata(adata)
        model = ssc.models.OrthogonalAE(adata, n_latent=32, n_hidden=64)
        model.train(max_epochs=20, accelerator="cpu", enable_progress_bar=False, lr=2e-3, batch_size=64)
    values = pd.DataFrame(model.get_latent_representation(), columns=[f"oae_{i}" for i in range(32)])
    ssc.tl.saliency(adata, model, max_cells=30, progress_bar=False)
    nets = {name: ssc.datasets.gene_sets(name) for name in ("hallmark", "immune_markers")}
    sizes = nets["hallmark"][nets["hallmark"]["source"].isin(INTERFERON)].groupby("source")["target"]
    size = int(sizes.apply(lambda genes: genes.isin(adata.var_names).sum()).max())
    rng = np.random.default_rng(0)
    nets["random"] = {f"random {i}": list(rng.choice(adata.var_names, size, replace=False)) for i in range(N_RANDOM)}
    scores = []
    for net in nets.values():
        ssc.tl.geneset_impact(adata, net, n_permutations=200, progress_bar=False)
        table = ssc.get.geneset_impact(adata).astype({"unit": str, "term": str})
        scores.append(table.pivot(index="unit", columns="term", values="score"))
    score = pd.concat(scores, axis=1)
    cells = {STIMULATED: (adata.obs["condition"] == "stim").to_numpy()}
    cells |= {types: adata.obs["cell_type"].isin(types).to_numpy() for types in LINEAGES}
    cells |= {f"lot {i}": rng.permutation(cells[STIMULATED]) for i in range(N_RANDOM)}
    ranked = ssc.stats.rank_columns(sparse.csr_matrix(values[score.index].to_numpy()))
    on = pd.DataFrame({name: ssc.stats.auroc(ranked, inside.astype(int))[:, 1] for name, inside in cells.items()})
    return score, on.set_axis(score.index)


@pytest.fixture(scope="module")
def found(published):
    return units_and_sets(published("kang2018"), seed=0)


def test_units_of_stimulated_cells_have_the_interferon_response(found):
    score, on = found
    together = score.corrwith(on[STIMULATED], method="spearman")
    hallmark = together.filter(like="HALLMARK")
    assert hallmark.rank(ascending=False)[INTERFERON].max() <= 5
    assert hallmark[INTERFERON].min() > 0.35
    # controls: sets of as many other genes, and other cells
    assert hallmark[INTERFERON].mean() > together.filter(like="random").quantile(0.95)
    assert abs(together.filter(like="random").mean()) < 0.2
    by_lot = on[[f"lot {i}" for i in range(N_RANDOM)]].corrwith(score[INTERFERON].mean(axis=1), method="spearman")
    assert hallmark[INTERFERON].mean() > by_lot.quantile(0.95)
    # the unit that is on in stimulated cells has them among its first of fifty sets
    unit = on[STIMULATED].idxmax()
    assert on.loc[unit, STIMULATED] > 0.75
    assert score.loc[unit, hallmark.index].rank(ascending=False)[INTERFERON].min() <= 5


def test_units_of_a_lineage_have_its_markers(found):
    """Less sure than interferon: of five trainings, one had no such markers on the units of cytotoxic cells."""
    score, on = found
    own, other = [], []
    for types in LINEAGES:
        for target, markers in LINEAGES.items():
            together = score[markers].mean(axis=1).corr(on[types], method="spearman")
            (own if target == types else other).append(together)
    assert np.mean(own) > 0.15
    assert np.mean(own) > np.mean(other) + 0.2
