"""Published cells, as raw counts with their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._registry import data_file

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def pbmc68k_reduced() -> AnnData:
    """700 peripheral blood cells that come with scanpy: works offline, without any other file.

    Returns
    -------
    700 cells x 765 genes. ``X`` is scaled, ``raw`` log-normalized (no counts). ``obs["bulk_labels"]`` (10 cell types),
    ``obsm["X_pca"]`` (50 dimensions), ``obsm["X_umap"]``.

    See Also
    --------
    sparsesc.datasets.pbmc3k : Counts of 2,700 blood cells.

    Notes
    -----
    Small and without counts: good for trying things out, not for conclusions. Its labels come from correlation with
    bulk profiles and are imperfect among T cells.

    References
    ----------
    Zheng et al. (2017), Massively parallel digital transcriptional profiling of single cells,
    *Nature Communications* 8, 14049. License of the data: CC BY 4.0 (10x Genomics).

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.pbmc68k_reduced()
    >>> adata.shape, adata.obs["bulk_labels"].nunique()
    ((700, 765), 10)
    """
    import scanpy as sc

    return sc.datasets.pbmc68k_reduced()


def pbmc3k() -> AnnData:
    """2,700 peripheral blood cells of one healthy donor: the example of most tutorials.

    Returns
    -------
    2,700 cells x 32,738 genes (symbols), counts in CSR. ``obs["cell_type"]`` (9 types of the Seurat tutorial and 62
    cells ``"unlabelled (failed QC)"``), ``obs["louvain_scanpy"]`` (8 types of the scanpy tutorial and the same 62
    cells), ``obs["donor"]``, ``obs["batch"]``. ``var["gene_ids"]`` holds the Ensembl ids.

    Raises
    ------
    FileNotFoundError
        If the file is not in the folder that ``SPARSESC_DATA_DIR`` names.

    See Also
    --------
    sparsesc.datasets.pbmc_3tech : Blood by three protocols.

    Notes
    -----
    Labels are clusters of the same counts, which favors methods that cluster. Drop the
    cells that failed quality control before training.

    References
    ----------
    Zheng et al. (2017), *Nature Communications* 8, 14049. License: CC BY 4.0 (10x Genomics).

    Examples
    --------
    With ``SPARSESC_DATA_DIR`` set to the folder that holds the file:

    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.pbmc3k()
    >>> adata.n_obs
    2700
    """
    return _read("pbmc3k_raw_labelled.h5ad")


def balf_covid() -> AnnData:
    """3,724 cells of bronchoalveolar lavage fluid of three patients with COVID-19.

    Returns
    -------
    3,724 cells x 33,539 genes (symbols), counts in CSR. ``obs["cell_type"]`` (10 types), ``obs["donor"]`` (3),
    ``obs["condition"]`` (``"moderate"``, ``"severe_critical"``), ``obs["batch"]`` (the donors).

    Raises
    ------
    FileNotFoundError
        If the file is not in the folder that ``SPARSESC_DATA_DIR`` names.

    See Also
    --------
    sparsesc.datasets.kang2018 : Stimulated blood of several donors.

    Notes
    -----
    Only one patient is moderate: condition and donor are confounded, so no difference between conditions can be tested.
    Three types have ten cells or fewer (mast, plasma, pDC).

    References
    ----------
    Liao et al. (2020), Single-cell landscape of bronchoalveolar immune cells in patients with COVID-19,
    *Nature Medicine* 26, 842-844. GEO GSE145926 (public).

    Examples
    --------
    With ``SPARSESC_DATA_DIR`` set to the folder that holds the file:

    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.balf_covid()
    >>> adata.n_obs
    3724
    """
    return _read("balf_covid_liao2020_3donors.h5ad")


def kang2018() -> AnnData:
    """2,000 blood cells of eight donors, half of them stimulated with interferon beta.

    Returns
    -------
    2,000 cells x 9,015 genes (symbols), counts in CSR. ``obs["condition"]`` (``"ctrl"``, ``"stim"``: 1,000 each),
    ``obs["donor"]`` (8, and ``"NA"`` for 26 cells), ``obs["cell_type"]`` (8) with ``obs["label_origin"]``
    (``"original"`` or ``"predicted"``) and ``obs["cell_type_pred_prob"]``.

    Raises
    ------
    FileNotFoundError
        If the file is not in the folder that ``SPARSESC_DATA_DIR`` names.

    See Also
    --------
    sparsesc.datasets.onek1k : Blood of forty donors.

    Notes
    -----
    Score cell types only where ``label_origin == "original"`` (659 cells): the other labels were predicted from the
    same counts. Test conditions with donors as replicates, not cells.

    References
    ----------
    Kang et al. (2018), Multiplexed droplet single-cell RNA-sequencing using natural genetic variation,
    *Nature Biotechnology* 36, 89-94. GEO GSE96583 (public).

    Examples
    --------
    With ``SPARSESC_DATA_DIR`` set to the folder that holds the file:

    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.kang2018()
    >>> adata.n_obs
    2000
    """
    return _read("kang2018_harmony_2000.h5ad")


def onek1k() -> AnnData:
    """7,811 blood cells of 40 donors: enough replicates for tests between donors.

    Returns
    -------
    7,811 cells x 1,000 genes (Ensembl ids), counts in CSR. ``obs["cell_type"]`` (4: ``"cd4nc"``, ``"bmem"``,
    ``"monoc"``, ``"mononc"``), ``obs["donor"]`` (40), ``obs["sex"]``, ``obs["age"]``.

    Raises
    ------
    FileNotFoundError
        If the file is not in the folder that ``SPARSESC_DATA_DIR`` names.

    See Also
    --------
    sparsesc.datasets.kang2018 : Stimulated blood of several donors.

    Notes
    -----
    Genes are Ensembl ids without symbols, and only 1,000 of them: gene sets of symbols do not match.

    References
    ----------
    Yazar et al. (2022), Single-cell eQTL mapping identifies cell type-specific genetic control of autoimmune disease,
    *Science* 376, eabf3041. GEO GSE196830 (public).

    Examples
    --------
    With ``SPARSESC_DATA_DIR`` set to the folder that holds the file:

    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.onek1k()
    >>> adata.n_obs
    7811
    """
    return _read("pbmc_onek1k_scdesignpop_40donors.h5ad")


def pbmc_3tech() -> AnnData:
    """1,200 blood cells measured by three 10x chemistries: technical batches of the same tissue.

    Returns
    -------
    1,200 cells x 1,767 genes (symbols), counts in CSR. ``obs["cell_type"]`` (9), ``obs["cell_type_broad"]`` (7),
    ``obs["batch"]`` (``"3pv1"``, ``"3pv2"``, ``"5p"``),
    ``obs["total_umi_all_genes"]`` (library size over all genes).

    Raises
    ------
    FileNotFoundError
        If the file is not in the folder that ``SPARSESC_DATA_DIR`` names.

    See Also
    --------
    sparsesc.datasets.pbmc3k : Blood of one donor.

    Notes
    -----
    Normalize by ``total_umi_all_genes``: the sum over the 1,767 variable genes is not the library size. Two types have
    fewer than ten cells (``"MK"``, ``"HSC"``).

    References
    ----------
    Kang et al. (2021), Efficient and precise single-cell reference atlas mapping with Symphony,
    *Nature Communications* 12, 5890. License of the cells: CC BY 4.0 (10x Genomics).

    Examples
    --------
    With ``SPARSESC_DATA_DIR`` set to the folder that holds the file:

    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.pbmc_3tech()
    >>> adata.n_obs
    1200
    """
    return _read("pbmc_symphony_3tech.h5ad")


def bonemarrow_human() -> AnnData:
    """8,390 mononuclear cells of human bone marrow: two healthy donors and one patient with AML.

    Returns
    -------
    8,390 cells x 32,738 genes (symbols), counts in CSR. ``obs["donor"]`` (3), ``obs["condition"]`` (``"healthy"``,
    ``"AML"``), ``obs["batch"]`` (the donors). ``var["gene_ids"]`` holds the Ensembl ids. There are no cell types.

    Raises
    ------
    FileNotFoundError
        If the file is not in the folder that ``SPARSESC_DATA_DIR`` names.

    See Also
    --------
    sparsesc.datasets.bonemarrow_mouse : Marrow of the mouse.

    Notes
    -----
    One patient has the disease: a difference between conditions may come from the donor, the handling of the sample or
    the disease.

    References
    ----------
    Zheng et al. (2017), *Nature Communications* 8, 14049. License: CC BY 4.0 (10x Genomics).

    Examples
    --------
    With ``SPARSESC_DATA_DIR`` set to the folder that holds the file:

    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.bonemarrow_human()
    >>> adata.n_obs
    8390
    """
    return _read("bonemarrow_human_zheng2017_bmmc_aml_3donors.h5ad")


def bonemarrow_mouse() -> AnnData:
    """2,730 myeloid progenitors of mouse bone marrow: continuous differentiation.

    Returns
    -------
    2,730 cells x 8,716 genes (mouse symbols), counts in CSR. ``obs["paul15_cluster"]`` (19), ``obs["cell_type"]`` (10,
    the clusters merged by name), ``obs["batch"]`` (16 plates).

    Raises
    ------
    FileNotFoundError
        If the file is not in the folder that ``SPARSESC_DATA_DIR`` names.

    See Also
    --------
    sparsesc.datasets.bonemarrow_human : Human marrow.

    Notes
    -----
    Clusters cut a continuum: a feature between two of them is not a failure. Gene sets of human symbols do not match.

    References
    ----------
    Paul et al. (2015), Transcriptional heterogeneity and lineage commitment in myeloid progenitors,
    *Cell* 163, 1663-1677. GEO GSE72857 (public).

    Examples
    --------
    With ``SPARSESC_DATA_DIR`` set to the folder that holds the file:

    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.bonemarrow_mouse()
    >>> adata.n_obs
    2730
    """
    return _read("bonemarrow_mouse_paul2015.h5ad")


def citeseq() -> MuData:
    """500 blood cells with transcriptome and surface proteins.

    Returns
    -------
    500 cells with three modalities of counts in CSR: ``"rna"`` (19,521 genes, symbols behind the prefix ``hg19_``),
    ``"adt"`` (49 antibodies), ``"hto"`` (4 hashtags). There are no labels.

    Raises
    ------
    FileNotFoundError
        If the file is not in the folder that ``SPARSESC_DATA_DIR`` names.

    See Also
    --------
    sparsesc.datasets.pbmc3k : RNA alone.

    Notes
    -----
    Strip ``hg19_`` from the gene names before matching gene sets. Two antibodies are isotype
    controls (IgG1, IgG2a) and measure background.

    References
    ----------
    Mimitou et al. (2019), Multiplexed detection of proteins, transcriptomes, clonotypes and CRISPR perturbations in
    single cells, *Nature Methods* 16, 409-412. Kim et al. (2020), CiteFuse enables multi-modal analysis of CITE-seq
    data, *Bioinformatics* 36, 4137-4143 (the subset). Public record.

    Examples
    --------
    With ``SPARSESC_DATA_DIR`` set to the folder that holds the file:

    >>> import sparsesc as ssc
    >>> mdata = ssc.datasets.citeseq()
    >>> mdata.n_obs
    500
    """
    import mudata

    return mudata.read_h5mu(data_file("citeseq_eccite_citefuse_500cells.h5mu"))


def _read(name: str) -> AnnData:
    import anndata

    return anndata.read_h5ad(data_file(name))
