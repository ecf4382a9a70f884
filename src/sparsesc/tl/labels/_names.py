"""Names of features from their evidence: where they are on, and what is expressed there."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sparsesc._titles import term_title
from sparsesc.door._keys import ANNOTATION, TABLES

CONFIDENCE = ("none", "low", "medium", "high")
UNKNOWN = "unknown"
_SOURCES = ("label", "term", "gene")
_POOL = 10  # best genes of a feature, among which its name takes one that few others have
_CLEAR_IN_TERM = 2  # genes of a set that must be clear by themselves
_ALONE = 2  # genes in a name of genes only
_TELLING = 0.5  # excess F1 from which a label needs no gene set beside it
_WORD = 4  # letters from which a word says the same in a label and in a gene set
_LONG = 48  # letters of labels, above which a gene set stands in the name instead


def clear_genes(table: pd.DataFrame, *, alpha: float, min_effect: float, correlation: bool) -> pd.DataFrame:
    """Rows of the gene table that are clearly higher where the feature is on."""
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
    """Gene sets with positive scores, smallest p first; with clear genes, only sets that hold some of these."""
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
        }
    )
    return out[out["feature"].isin(features)]


@dataclass(frozen=True)
class Names:
    """One name per feature, and the evidence for it."""

    table: pd.DataFrame
    """Columns `name`, `name_source`, `confidence`, `where`, `what`, `marker_genes`, indexed by features."""
    evidence: pd.DataFrame
    """All evidence for names, with `in_name`."""


def make_names(
    labels: pd.DataFrame, others: list[pd.DataFrame], features: pd.Index, *, confidence: pd.Series, coherent: set[str]
) -> Names:
    """Name features by where they are on and by what is expressed there.

    Parameters
    ----------
    labels
        Evidence of labels, with the text for names in `text`, and the boolean column `holds`: at most one label (or
        union) per feature, which may name it.
    others
        Evidence of gene sets and genes, best first within each feature.
    features
        Names of the features.
    confidence
        Confidence of the labels that hold, by feature.
    coherent
        Features whose genes vary together: only these are named by gene sets or genes.
    """
    held = labels[labels["holds"].astype(bool)].set_index("feature")
    where, text, excess = (held[name].to_dict() for name in ("evidence", "text", "excess"))
    evidence = pd.concat([labels, *others]).reset_index(drop=True)
    lists = {
        source: part.groupby("feature", sort=False)["evidence"].agg(list).to_dict()
        for source, part in evidence.groupby("source")
    }
    rows, used, taken = [], set(), dict[str, str]()
    for feature in features:
        is_coherent = feature in coherent
        terms = lists.get("term", {}).get(feature, []) if is_coherent else []
        markers = lists.get("gene", {}).get(feature, [])
        genes = markers if is_coherent else []
        term = terms[:1] if excess.get(feature, 0.0) < _TELLING else []
        label = text.get(feature, "")
        term = [] if term and _repeats(label, term[0]) else term
        if len(label) > _LONG and terms:
            label, term = "", terms[:1]
        parts = _Parts(label, term, genes, feature)
        name, chosen = parts.name(taken)
        taken[name] = feature
        used |= {(feature, "gene", gene) for gene in chosen} | {(feature, "term", t) for t in term}
        if label:
            used.add((feature, "label", where[feature]))
        kinds = ["label"] * bool(label) + ["term"] * len(term) + ["gene"] * bool(chosen)
        rows.append(
            {
                "name": name,
                "name_source": "+".join(kinds) or UNKNOWN,
                "confidence": confidence.get(feature, "low" if kinds else "none"),
                "where": where.get(feature, ""),
                "what": term_title(terms[0]) if terms else ", ".join(genes[:_ALONE]),
                "marker_genes": ", ".join(markers),
            }
        )
    table = pd.DataFrame(rows, index=features)
    table["confidence"] = pd.Categorical(table["confidence"], categories=list(CONFIDENCE), ordered=True)
    table = table.astype({name: str for name in table if name != "confidence"})
    found = zip(evidence["feature"], evidence["source"], evidence["evidence"], strict=True)
    in_name = np.array([row in used for row in found], dtype=bool)
    # of labels, the row that holds: another column may have one of the same text
    evidence["in_name"] = in_name & (evidence["holds"].isin([True]) | (evidence["source"] != "label"))
    return Names(table, _in_order(evidence, features))


def _repeats(label: str, term: str) -> bool:
    """Whether a gene set is named like the label that it would stand beside: "Classical monocyte: CD14+ Monocyte"."""
    words = {word for word in re.findall(r"[a-z]+", label.lower()) if len(word) >= _WORD}
    return any(word in term.lower() for word in words)


@dataclass(frozen=True)
class _Parts:
    """What a name is made of."""

    label: str
    term: list[str]
    genes: list[str]
    feature: str

    def name(self, taken: dict[str, str]) -> tuple[str, list[str]]:
        """The shortest name that no other feature has, and the genes in it."""
        front = ": ".join([*(term_title(t) for t in self.term), *([self.label] if self.label else [])])
        fewest = min(len(self.genes), 1 if front else _ALONE)
        for n in range(fewest, len(self.genes) + 1):
            genes = self.genes[:n]
            name = " | ".join([*([front] if front else []), *([", ".join(genes)] if genes else [])])
            if name and name not in taken:
                return name, genes
        genes = self.genes[:fewest]
        name = " | ".join([*([front] if front else []), *([", ".join(genes)] if genes else [])])
        return (f"{name} ({self.feature})" if name else f"{UNKNOWN} ({self.feature})"), genes


def _in_order(evidence: pd.DataFrame, features: pd.Index) -> pd.DataFrame:
    order = pd.DataFrame(
        {
            "feature": features.get_indexer(evidence["feature"]),
            "source": pd.Categorical(evidence["source"], categories=list(_SOURCES)).codes,
        }
    )
    out = evidence.iloc[order.sort_values(["feature", "source"], kind="stable").index].reset_index(drop=True)
    return out[list(TABLES[ANNOTATION].columns)].astype(dict.fromkeys(("feature", "source", "key", "evidence"), str))
