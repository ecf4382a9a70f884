"""Every slot that sparsesc reads or writes, and every table it stores, spelled once.

A sparse autoencoder is stored under one ``key`` (default ``"sae"``); functions get the names of its slots
from :func:`sae_keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ._columns import MEANING

DEFAULT_KEY = "sae"
SCHEMA_VERSION = 1

PARAMS = "params"
WEIGHTS = "weights"
HISTORY = "history"
METRICS = "metrics"
FEATURES = "features"
ASSOCIATION = "association"
ASSOCIATION_NUMERIC = "association_numeric"
LABELS = "labels"
GENES = "genes"
ENRICHMENT = "enrichment"
ANNOTATION = "annotation"
DIFFERENTIAL = "differential"
DIFFERENTIAL_SAMPLES = "differential_samples"
SIMILARITY = "similarity"
SIMILARITY_MATRIX = "similarity_matrix"
SAME_LABEL = "same_label"
LOCALITY = "locality"
ABSORPTION = "absorption"
STEERING = "steering"
SUPPRESSION = "suppression"
STABILITY = "stability"
VALIDATION = "validation_obs"
REFERENCE = "reference"
QUERY = "query"
DRIFT = "drift"
BLOCKS = "blocks"
CROSSCODER = "crosscoder"

SALIENCY_KEY = "saliency"
UNITS = "units"
INPUTS = "inputs"
SALIENT_CELLS = "cells"
PAIRS = "pairs"
NODE_WEIGHTS = "node_weights"
INPUT_VALUES = "values"
IMPACT = "impact"
IMPACT_CONTRAST = "impact_contrast"

STUDIES = ("rank_fidelity", "count_diagnostics", "latent_diagnostics", SALIENCY_KEY)
"""Functions whose tables have an entry of ``uns`` to themselves, by default under these names."""
REPRESENTATION_COLUMNS = (
    "representation", "label_key", "metric", "value", "null_mean", "null_sd", "pval", "n_features", "n_labels",
    "n_cells",
)  # fmt: skip
"""Columns of the table that ``tl.compare_representations`` returns."""


@dataclass(frozen=True)
class SaeKeys:
    """Slots of one sparse autoencoder in an AnnData."""

    key: str
    """Entry of ``uns`` that holds parameters, weights and tables."""
    codes: str
    """Entry of ``obsm``: cells x features, CSR."""
    genes: str
    """Entry of ``varm``: genes x features."""
    joint: str
    """Entry of ``obsm``: several embeddings side by side, cells x dimensions."""
    residual: str
    """Column of ``obs``: length of what the features do not explain of a query cell."""
    residual_pval: str
    """Column of ``obs``: share of reference cells with a residual at least as large."""

    def feature_names(self, n_features: int) -> list[str]:
        """Stable names, ``{key}_0 ...``."""
        return [f"{self.key}_{i}" for i in range(n_features)]


def sae_keys(key: str = DEFAULT_KEY) -> SaeKeys:
    """Slots that belong to ``key``."""
    return SaeKeys(
        key=key,
        codes=f"X_{key}",
        genes=f"{key}_genes",
        joint=f"X_{key}_joint",
        residual=f"{key}_residual",
        residual_pval=f"{key}_residual_pval",
    )


@dataclass(frozen=True)
class RankKeys:
    """Slots of one rank encoding in an AnnData."""

    key: str
    """Entry of ``layers`` (cells x genes, CSR) and of ``uns``."""
    median: str
    """Column of ``var``: what a gene was divided by."""
    n_genes: str
    """Column of ``obs``: genes with a rank, before any cut."""
    zeros: str
    """Column of ``obs``: the rank that all zeros share."""


def rank_keys(key: str) -> RankKeys:
    """Slots that belong to a rank encoding."""
    return RankKeys(key=key, median=f"{key}_median", n_genes=f"{key}_n_genes", zeros=f"{key}_zeros")


@dataclass(frozen=True)
class ThinKeys:
    """Slots of counts that were split into two parts."""

    key: str
    """Entry of ``uns``."""
    train: str
    """Entry of ``layers`` for learning."""
    test: str
    """Entry of ``layers`` for testing."""
    overdispersion: str
    """Column of ``var``."""


def thin_keys(key: str = "thin") -> ThinKeys:
    """Slots that belong to a thinning."""
    return ThinKeys(key=key, train=f"{key}_train", test=f"{key}_test", overdispersion=f"{key}_overdispersion")


@dataclass(frozen=True)
class SaliencyKeys:
    """Slots of the saliency of one model in an AnnData."""

    key: str
    """Entry of ``uns``."""
    genes: str
    """Entry of ``varm``: genes x units."""


def saliency_keys(key: str = SALIENCY_KEY) -> SaliencyKeys:
    """Slots that belong to a saliency."""
    return SaliencyKeys(key=key, genes=key)


def steered_key(use_rep: str) -> str:
    """Entry of ``obsm`` with the embedding after steering."""
    return f"{use_rep}_steered"


def clean_key(use_rep: str) -> str:
    """Entry of ``obsm`` with the embedding without its suppressed features."""
    return f"{use_rep}_clean"


@dataclass(frozen=True)
class Table:
    """A table that this package stores."""

    writer: str
    """Function that writes it, with the option that the table needs."""
    reader: str
    """Function that reads it."""
    choice: str
    """Its name in the reader's option `table`; empty where the reader has one table only."""
    rows: str
    """What a row is."""
    columns: Mapping[str, str]
    """Meaning of the columns that it always has, in order; the name of the index first where it has one."""


_EFFECTS = "within between auroc cohen_d ratio"


def _table(writer: str, reader: str, choice: str, rows: str, columns: str, **special: str) -> Table:
    """A table whose columns mean what they mean everywhere, but for some."""
    return Table(writer, reader, choice, rows, {name: special.get(name, MEANING[name]) for name in columns.split()})


TABLES: dict[str, Table] = {
    FEATURES: _table("tl.fit_sae", "get.features", "", "a feature (index)",
        "feature density mean_active max n_cells dead", n_cells="cells in which it is active"),
    HISTORY: _table("tl.fit_sae", "get.history", "", "an epoch",
        "epoch train_fvu validation_fvu l0 dead_fraction lr seconds"),
    DRIFT: _table("tl.apply_sae", "get.drift", "", "a feature, the smallest p first, then the largest drift",
        "feature density_reference density_query mean_active_reference mean_active_query logfc_density logfc_active "
        "drift pval padj", pval="p-value of a test between samples; NaN without samples"),
    ASSOCIATION: _table("tl.feature_association", "get.association", "categories", "a feature and a category of labels",
        "feature key category pearson_r auroc f1 mean_in mean_out pval padj", f1="F1 score of the best threshold"),
    ASSOCIATION_NUMERIC: _table("tl.feature_association", "get.association", "numbers",
        "a feature and a column of numbers",
        "feature key pearson_r spearman_r pval padj", pval="p-value of `spearman_r`"),
    LABELS: _table("tl.feature_association", "get.association", "labels", "a category, with its best feature",
        "key category feature n_cells auroc_heldout f1_heldout pearson_r_heldout auroc f1 pearson_r padj",
        auroc_heldout="area under the ROC curve, held-out cells", f1_heldout="F1 score, held-out cells",
        pearson_r_heldout="Pearson's correlation, held-out cells"),
    GENES: _table("tl.feature_genes", "get.genes", "", "a feature and a gene, the best gene first",
        "feature gene score logfc pval padj"),
    ENRICHMENT: _table("tl.feature_enrichment", "get.enrichment", "", "a feature and a gene set, the smallest p first",
        "feature term score pval padj n_genes genes", n_genes="tested genes of the set"),
    DIFFERENTIAL: _table("tl.differential_features", "get.differential", "",
        "a feature, group and condition, the smallest p first",
        "feature group measure condition reference score effect logfc mean_condition mean_reference pval padj",
        score="t statistic"),
    SIMILARITY: _table("tl.feature_similarity", "get.similarity", "neighbors",
        "a feature and a similar one, the most similar first",
        "feature neighbor rank score pearson_r jaccard n_both n_expected pval padj decoder_cosine",
        score="similarity by the metric of the call", pval="p-value of `n_both`"),
    SAME_LABEL: _table("tl.feature_similarity", "get.similarity", "same_label", "two features that share a label",
        "label feature neighbor score pearson_r pearson_r_within n_both n_expected pval padj relation",
        score="similarity by the metric of the call", n_both="cells of the label in which both are active",
        pval="p-value of `n_both`"),
    LOCALITY: _table("tl.feature_locality", "get.locality", "", "a feature and a category",
        "feature category mean_in mean_out statistic pval padj", statistic="standardized Mann-Whitney statistic"),
    ABSORPTION: _table("tl.feature_absorption", "get.absorption", "", "a category, with its best feature",
        "category n_cells feature f1 recall precision split split_features f1_split missed absorbed absorbed_expected "
        "absorbers pval padj", n_cells="held-out cells", feature="the best single detector"),
    ANNOTATION: _table("tl.annotate_features", "get.annotation", "", "a feature and a piece of evidence for its name",
        "feature source key evidence score null pval padj held_out in_name",
        source="``'label'``, ``'term'`` or ``'gene'``", score="held-out F1 for labels, otherwise that of its table"),
    f"{STEERING}/features": _table("tl.steer", "get.steering", "features", "a stratum and a changed feature",
        "stratum feature n_cells before after share_of_difference"),
    f"{STEERING}/doses": _table("tl.steer", "get.steering", "doses", "a control, draw and dose",
        "control draw dose n_cells norm distance percentile off_manifold", distance="median, to real neighbors"),
    f"{STEERING}/landing": _table("tl.steer(label_keys=...)", "get.steering", "landing",
        "a state, a column of labels and a category",
        "state key category share", state="``'before'`` or ``'after'``", share="share of cells near this category"),
    f"{STEERING}/effects": _table("tl.steer(decoder=...)", "get.steering", "effects",
        "a decoded gene, the largest effect first",
        "gene logfc sd n_cells control_sd score", score="`logfc` over `control_sd`"),
    f"{STEERING}/gene_doses": _table("tl.steer(decoder=...)", "get.steering", "gene_doses",
        "one of the top genes and a dose", "gene dose logfc"),
    f"{STEERING}/{ENRICHMENT}": _table("tl.steer(net=...)", "get.steering", "enrichment",
        "a gene set among the decoded effects", "term score pval padj n_genes genes"),
    f"{SUPPRESSION}/features": _table("tl.suppress_features", "get.suppression", "features",
        "a feature, suppressed ones first",
        "feature n_cells mean_active suppressed", n_cells="cells in which it is active"),
    f"{SUPPRESSION}/transfer": _table("tl.suppress_features(batch_key=..., bio_keys=...)", "get.suppression",
        "transfer", "a column of labels, batch, state and draw: label transfer between batches",
        "label_key batch state draw n_cells accuracy macro_f1 norm"),
    f"{SUPPRESSION}/scib": _table("tl.suppress_features(scib=True)", "get.suppression", "scib",
        "a score of scib-metrics, for a state and draw", "label_key state draw metric about value"),
    f"{STABILITY}/fits": _table("tl.stability", "get.stability", "fits", "a fit, the stored one first",
        "seed n_alive fvu l0"),
    f"{CROSSCODER}/embeddings": _table("tl.fit_crosscoder", "get.crosscoder", "embeddings", "an embedding",
        "embedding modality use_rep n_dimensions fvu fvu_shuffled fvu_alone l0_alone dead_alone"),
    f"{CROSSCODER}/cross": _table("tl.fit_crosscoder", "get.crosscoder", "cross",
        "an embedding, predicted from another one",
        "source target fvu n_passes fvu_linear fvu_shuffled", source="embedding that is known"),
    f"{CROSSCODER}/counts": _table("tl.fit_crosscoder", "get.crosscoder", "counts", "a kind of feature",
        "kind n n_shuffled", kind="``'shared'``, ``'mixed'`` or ``'private'``"),
    "count_diagnostics/genes": _table("tl.count_diagnostics", "get.count_diagnostics", "genes", "a gene (index)",
        "gene n_cells mean variance zeros zeros_poisson zeros_nb zeros_zinb zeros_lognormal overdispersion "
        "overdispersion_zinb zero_inflation loglik_poisson loglik_nb loglik_zinb loglik_lognormal bic_poisson bic_nb "
        "bic_zinb bic_lognormal family margin pval_nb padj_nb pval_zinb padj_zinb",
        n_cells="cells with a count", family="distribution with the lowest BIC"),
    "count_diagnostics/families": _table("tl.count_diagnostics", "get.count_diagnostics", "families",
        "a family of distributions (index)", "family n_genes share loglik bic zeros zeros_error",
        n_genes="genes for which it has the lowest BIC", share="share of these genes", zeros="expected share of zeros"),
    "count_diagnostics/summary": _table("tl.count_diagnostics", "get.count_diagnostics", "summary",
        "a statistic of the whole matrix", "statistic value", statistic="its name"),
    "latent_diagnostics/elbo": _table("tl.latent_diagnostics", "get.latent_diagnostics", "elbo",
        "all cells, or a donor", "donor n_cells elbo reconstruction kl elbo_sd"),
    "latent_diagnostics/dimensions": _table("tl.latent_diagnostics", "get.latent_diagnostics", "dimensions",
        "a dimension of the latent space (index)",
        "dimension kl kl_share variance posterior_variance active silent_cells collapsed"),
    "latent_diagnostics/dependence": _table("tl.latent_diagnostics", "get.latent_diagnostics", "dependence",
        "a dimension and a column of ``obs``", "dimension key share null_mean null_sd pval padj unit n_units",
        share="share of the variance explained", unit="what was shuffled"),
    "rank_fidelity/summary": _table("tl.rank_fidelity", "get.rank_fidelity", "summary", "a measure of distance",
        f"measure n_within n_between {_EFFECTS}"),
    "rank_fidelity/pairs": _table("tl.rank_fidelity", "get.rank_fidelity", "pairs", "a measure and a pair of types",
        "measure group_a group_b within distance n_pairs score", within="whether both are the same type"),
    "rank_fidelity/outliers": _table("tl.rank_fidelity", "get.rank_fidelity", "outliers",
        "a conspicuous pair of types", "measure kind group_a group_b distance within_a within_b score",
        kind="whether different types are alike, or a type is unlike itself"),
    "rank_fidelity/neighbors": _table("tl.rank_fidelity", "get.rank_fidelity", "neighbors", "a measure of distance",
        "measure same_group same_group_expected"),
    "rank_fidelity/neighbor_groups": _table("tl.rank_fidelity", "get.rank_fidelity", "neighbor_groups",
        "a measure and a type", "measure group n_cells same_group same_group_expected", group="type"),
    "rank_fidelity/rules": _table("tl.rank_fidelity", "get.rank_fidelity", "rules",
        "a rule for ties, zeros and medians",
        f"rule ties zeros over_medians {_EFFECTS}", zeros="how zeros are ranked"),
    "rank_fidelity/sparsity": _table("tl.rank_fidelity", "get.rank_fidelity", "sparsity",
        "a level of sparsity and a measure",
        f"by level n_genes measure self_correlation {_EFFECTS}", n_genes="genes detected in the median cell"),
    f"{SALIENCY_KEY}/{GENES}": _table("tl.saliency", "get.saliency", "genes",
        "a unit and a gene, the largest saliency first", "unit gene saliency signed"),
    f"{SALIENCY_KEY}/{UNITS}": _table("tl.saliency", "get.saliency", "units", "a unit of the model (index)",
        "unit n_cells mean sd silent top_genes"),
    f"{SALIENCY_KEY}/{INPUTS}": _table("tl.saliency", "get.saliency", "inputs", "a gene of the model (index)",
        "mean detected", mean="mean of what the model sees"),
    f"{SALIENCY_KEY}/{IMPACT}": _table("tl.geneset_impact", "get.geneset_impact", "impact",
        "a unit and a gene set, the smallest p first",
        "unit term impact sd scaled score pval padj n_genes genes", genes="those with the largest saliency"),
    f"{SALIENCY_KEY}/{IMPACT_CONTRAST}": _table("tl.geneset_impact(groupby=...)", "get.geneset_impact", "contrast",
        "a unit and a gene set", "unit term impact_a impact_b difference score pval padj"),
}  # fmt: skip
"""Every table by its name: the place in ``uns[key]``, behind the name of the study that it belongs to, if any."""


def tables_of(reader: str) -> dict[str, str]:
    """Names of the tables that a function of ``get`` reads, by its option `table`."""
    return {table.choice: name for name, table in TABLES.items() if table.reader == f"get.{reader}"}


def table_path(name: str) -> list[str]:
    """Where a table is in ``uns[key]``."""
    first, *rest = name.split("/")
    return rest if first in STUDIES else [first, *rest]
