"""Names of features from their evidence: a confirmed concept, gene sets, genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sparsesc.door._keys import ANNOTATION, TABLES

CONFIDENCE = ("none", "low", "medium", "high")
UNKNOWN = "unknown"
_SOURCES = ("label", "term", "gene")
_POOL = 10  # best genes of a feature, among which its name takes one that few others have
_CLEAR_IN_TERM = 2  # genes of a set that must be clear by themselves
_ALONE = 2  # genes in a name of genes only
_HIGH_F1 = 0.5


def clear_genes(table: pd.DataFrame, *, alpha: float, min_effect: float, correlation: bool) -> pd.DataFrame:
    """Rows of the gene table that are clearly higher where the feature is active."""
    effect = table["effect_size"].to_numpy(dtype=np.float64) if "effect_size" in table else np.full(len(table), np.inf)
    if correlation:  # the difference in standard deviations that a correlation means between groups of equal size
        effect = 2 * effect / np.sqrt(np.maximum(1 - effect**2, 1e-12))
    return table[(table["padj"] < alpha) & (table["score"] > 0) & (effect >= min_effect)]


def gene_evidence(clear: pd.DataFrame, *, n: int, features: pd.Index, held_out: bool = False) -> pd.DataFrame:
    """Clear genes, first those that few other features have; `held_out` when they were tested on other data."""
    kept = clear.sort_values("score", ascending=False, kind="stable")
    kept = kept.groupby("feature", sort=False, observed=True).head(_POOL)
    n_features = max(kept["feature"].nunique(), 1)
    share = kept.groupby("gene", observed=True)["gene"].transform("size") / n_features
    kept = kept.assign(weight=kept["score"] * (1 - share)).sort_values("weight", ascending=False, kind="stable")
    kept = kept.groupby("feature", sort=False, observed=True).head(n)
    return _evidence(kept, "gene", kept["gene"], features).assign(held_out=held_out)


def term_evidence(
    table: pd.DataFrame, clear: pd.DataFrame | None, *, alpha: float, n: int, features: pd.Index
) -> pd.DataFrame:
    """Gene sets with positive scores, smallest p first; with clear genes, only sets that hold some of these.

    Sets are tested as if genes were independent. Genes that vary together make a set significant in which no single
    gene stands out.
    """
    kept = table[(table["padj"] < alpha) & (table["score"] > 0)]
    kept = kept.sort_values(["pval", "score"], ascending=[True, False], kind="stable")
    if clear is not None:
        known = set(zip(clear["feature"].astype(str), clear["gene"].astype(str), strict=True))
        rows = zip(kept["feature"].astype(str), kept["genes"].astype(str), strict=True)
        n_clear = [sum((feature, gene) in known for gene in genes.split(",")) for feature, genes in rows]
        kept = kept[np.array(n_clear, dtype=int) >= _CLEAR_IN_TERM]
    kept = kept.groupby("feature", sort=False, observed=True).head(n)
    return _evidence(kept, "term", kept["term"], features)


def _evidence(kept: pd.DataFrame, source: str, text: pd.Series, features: pd.Index) -> pd.DataFrame:
    out = pd.DataFrame(
        {
            "feature": kept["feature"].astype(str),
            "source": source,
            "key": "",
            "evidence": text.astype(str),
            "score": kept["score"].astype(np.float64),
            "null": np.nan,
            "pval": kept["pval"],
            "padj": kept["padj"],
            "held_out": False,
            "in_name": False,
        }
    )
    return out[out["feature"].isin(features)]


@dataclass(frozen=True)
class Names:
    """One name per feature, and the evidence for it."""

    table: pd.DataFrame
    """Columns `name`, `name_source`, `confidence`, indexed by features."""
    evidence: pd.DataFrame
    """All evidence for names, with `in_name`."""


def make_names(labels: pd.DataFrame, others: list[pd.DataFrame], features: pd.Index) -> Names:
    """Name features by a concept and a gene, else by a gene set and a gene, else by genes.

    Parameters
    ----------
    labels
        Evidence of concepts, with the text for names in `text`, and the boolean column `holds`: at most one concept per
        feature, which may name it.
    others
        Evidence of gene sets and genes, best first within each feature.
    features
        Names of the features.
    """
    held = labels[labels["holds"].astype(bool)]
    label = dict(zip(held["feature"], held["text"], strict=True))
    f1 = dict(zip(held["feature"], held["score"], strict=True))
    labels = labels.assign(in_name=labels["holds"].astype(bool)).drop(columns=["holds", "text"])
    parts = [part for part in (labels, *others) if len(part)]
    evidence = pd.concat(parts, ignore_index=True) if parts else labels
    lists = {
        source: part.groupby("feature", sort=False)["evidence"].agg(list).to_dict()
        for source, part in evidence.groupby("source")
    }
    terms, genes = lists.get("term", {}), lists.get("gene", {})
    names, sources, confidence, used = [], [], [], set()
    for feature in features:
        text = [label[feature]] if feature in label else terms.get(feature, [])[:1]
        kind = ["label"] if feature in label else ["term"] * len(text)
        chosen = genes.get(feature, [])[: 1 if text else _ALONE]
        used |= {(feature, "gene", gene) for gene in chosen}
        used |= {(feature, "term", term) for term in text if kind == ["term"]}
        names.append(" / ".join([*text, ", ".join(chosen)] if chosen else text) or f"{UNKNOWN} ({feature})")
        sources.append("+".join([*kind, *(["gene"] if chosen else [])]) or UNKNOWN)
        level = ("high" if f1[feature] >= _HIGH_F1 else "medium") if feature in label else "low"
        confidence.append(level if text or chosen else "none")
    rows = zip(evidence["feature"], evidence["source"], evidence["evidence"], strict=True)
    evidence["in_name"] = evidence["in_name"].to_numpy(dtype=bool) | np.array([row in used for row in rows], dtype=bool)
    table = pd.DataFrame(
        {
            "name": pd.Series(_distinct(names), index=features, dtype=str),
            "name_source": pd.Series(sources, index=features, dtype=str),
            "confidence": pd.Categorical(confidence, categories=list(CONFIDENCE), ordered=True),
        },
        index=features,
    )
    return Names(table, _in_order(evidence, features))


def _distinct(names: list[str]) -> list[str]:
    """The second feature of a name gets " (2)", the third " (3)"."""
    taken, count, out = set(names), dict.fromkeys(names, 0), []
    for name in names:
        count[name] += 1
        unique = name
        while count[name] > 1 and (unique := f"{name} ({count[name]})") in taken:
            count[name] += 1
        taken.add(unique)
        out.append(unique)
    return out


def _in_order(evidence: pd.DataFrame, features: pd.Index) -> pd.DataFrame:
    order = pd.DataFrame(
        {
            "feature": features.get_indexer(evidence["feature"]),
            "source": pd.Categorical(evidence["source"], categories=list(_SOURCES)).codes,
        }
    )
    out = evidence.iloc[order.sort_values(["feature", "source"], kind="stable").index].reset_index(drop=True)
    return out[list(TABLES[ANNOTATION].columns)].astype(dict.fromkeys(("feature", "source", "key", "evidence"), str))
