"""Estimate per-cell-type RNA and antibody profiles from public CITE-seq sets of blood.

Usage: ``python sample_data/make_profiles.py DATA_FOLDER``

Writes two small text files beside this script, which are summaries and hold no cell:

``profiles.tsv.gz``
    RNA: one row a gene (``gene_id``, ``symbol``), one column a cell type, counts per million.
``protein_profiles.tsv``
    Antibodies: mean count per cell on the scale of the 5k PBMC set, the gamma shape of the
    variation between cells of one type, and the sets it was measured in.

The cell types that blood does not hold are not estimated here; ``invented_types.toml`` has them.
"""

from __future__ import annotations

import argparse
import gzip
import io
import tomllib
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

HERE = Path(__file__).parent

#: Blood cell types that are estimated, each with the lineage that its whole-transcriptome
#: profile starts from.
LINEAGE = {
    "B naive": "B",
    "B memory": "B",
    "CD4 naive": "CD4 T",
    "CD4 memory": "CD4 T",
    "Treg": "CD4 T",
    "CD8 naive": "CD8 T",
    "CD8 memory": "CD8 T",
    "NK": "NK",
    "monocyte CD14": "monocyte",
    "monocyte CD16": "monocyte",
    "cDC": "monocyte",
    "pDC": "B",
}

#: Labels of the studies -> our cell types. A label that is not listed is not used.
LABELS = {
    "pbmc5k": {
        "naive B": "B naive",
        "memory B": "B memory",
        "naive CD4": "CD4 naive",
        "memory CD4": "CD4 memory",
        "Treg": "Treg",
        "naive CD8": "CD8 naive",
        "memory CD8": "CD8 memory",
        "CD16+ NK": "NK",
        "classical monocyte": "monocyte CD14",
        "non-classical CD16+ monocyte": "monocyte CD16",
    },
    "pbmc1k": {
        "naive CD4": "CD4 naive",
        "memory CD4": "CD4 memory",
        "naive CD8": "CD8 naive",
        "memory CD8": "CD8 memory",
        "CD16+ NK": "NK",
        "classical monocyte": "monocyte CD14",
    },
    "teaseq_pbmc": {
        "B.Naive": "B naive",
        "B.Activated": "B memory",
        "T.CD4.Naive": "CD4 naive",
        "T.CD4.Memory": "CD4 memory",
        "T.CD8.Naive": "CD8 naive",
        "T.CD8.Effector": "CD8 memory",
        "NK": "NK",
        "Mono.CD14": "monocyte CD14",
        "Mono.CD16": "monocyte CD16",
    },
    "bmmc_neurips2021": {
        "Naive CD20+ B IGKC+": "B naive",
        "Naive CD20+ B IGKC-": "B naive",
        "B1 B IGKC+": "B memory",
        "B1 B IGKC-": "B memory",
        "CD4+ T naive": "CD4 naive",
        "CD4+ T activated": "CD4 memory",
        "T reg": "Treg",
        "CD8+ T naive": "CD8 naive",
        "CD8+ T CD69+ CD45RO+": "CD8 memory",
        "CD8+ T CD57+ CD45RA+": "CD8 memory",
        "NK": "NK",
        "CD14+ Mono": "monocyte CD14",
        "CD16+ Mono": "monocyte CD16",
        "cDC2": "cDC",
        "pDC": "pDC",
    },
}

#: Panel of the simulated section: antibody -> its name in each study that measured it.
#: CD138 and EpCAM were measured in no set with cells that carry them: levels are invented.
PANEL: dict[str, dict[str, str]] = {
    "CD3": {},
    "CD4": {},
    "CD8a": {"bmmc_neurips2021": "CD8"},
    "CD11b": {},
    "CD14": {},
    "CD15": {},
    "CD16": {},
    "CD19": {},
    "CD20": {},
    "CD21": {},
    "CD25": {},
    "CD27": {},
    "CD28": {},
    "CD31": {},
    "CD38": {},
    "CD45RA": {},
    "CD45RO": {},
    "CD56": {},
    "CD62L": {},
    "CD69": {},
    "CD86": {},
    "CD127": {},
    "CD138": {},
    "CD197": {},
    "PD-1": {"bmmc_neurips2021": "CD279", "teaseq_pbmc": "CD279"},
    "HLA-DR": {"teaseq_pbmc": "HLA.DR"},
    "TIGIT": {},
    "EpCAM": {},
    "IgG1": {},
    "IgG2a": {},
    "IgG2b": {},
}

REFERENCE = "pbmc5k"
MIN_TOTAL = 10  # UMIs over the whole-transcriptome sets for a gene to enter the list
PRIOR_UMI = 20_000  # strength of the shrinkage of a fine type to its lineage


def read(folder: Path, name: str) -> ad.AnnData:
    """Read one paired or RNA-only set by name."""
    for kind in ("citeseq", "rna_only"):
        path = folder / kind / f"{name}.h5ad"
        if path.exists():
            return ad.read_h5ad(path)
    raise SystemExit(f"Error: {folder} holds neither citeseq/{name}.h5ad nor rna_only/{name}.h5ad.")


def clr_z(protein: pd.DataFrame) -> np.ndarray:
    """Centred log counts of each cell, standardised over the cells of the set."""
    logs = np.log1p(protein.to_numpy(float))
    logs -= logs.mean(1, keepdims=True)
    return (logs - logs.mean(0)) / logs.std(0)


def discriminant(train: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Linear discriminant analysis; returns a label a query cell, "" below 90 % posterior."""
    classes = np.unique(labels)
    means = np.stack([train[labels == c].mean(0) for c in classes])
    residual = train - means[np.searchsorted(classes, labels)]
    precision = np.linalg.inv(np.cov(residual.T) + 0.05 * np.eye(train.shape[1]))
    prior = np.log([np.mean(labels == c) for c in classes])
    score = query @ precision @ means.T - 0.5 * np.sum(means @ precision * means, 1) + prior
    posterior = np.exp(score - score.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    return np.where(posterior.max(1) > 0.9, classes[posterior.argmax(1)], "")


def log_cp10k(data: ad.AnnData, genes: list[str]) -> np.ndarray:
    """Log1p CP10k of a few genes (dense: cells x ``len(genes)``)."""
    total = np.asarray(data.X.sum(1)).ravel().clip(1)
    return np.log1p(data[:, genes].X.toarray() / total[:, None] * 1e4)


def dendritic(data: ad.AnnData, labels: np.ndarray) -> np.ndarray:
    """Overwrite labels of cells whose RNA says dendritic cell (few antibodies tell them)."""
    plasmacytoid = log_cp10k(data, ["LILRA4", "SERPINF1", "IRF7", "TCF4"])
    conventional = log_cp10k(data, ["CD1C", "FCER1A", "CLEC10A"])
    monocyte = log_cp10k(data, ["CD14", "S100A12", "FCGR3A"])
    labels = labels.copy()
    labels[((conventional > 0).sum(1) >= 2) & (monocyte.sum(1) < 1.5)] = "cDC"
    labels[((plasmacytoid > 0).sum(1) >= 3) & (monocyte.sum(1) < 1.0)] = "pDC"
    return labels


def label_sets(folder: Path) -> dict[str, tuple[ad.AnnData, np.ndarray]]:
    """Read the sets with antibodies and give each cell one of our types, or ""."""
    sets = {}
    for name, mapping in LABELS.items():
        data = read(folder, name)
        column = "cell_type" if "cell_type" in data.obs else "cell_type_l2"
        labels = data.obs[column].astype(str).map(mapping).fillna("").to_numpy(object)
        if name == REFERENCE:
            labels = dendritic(data, labels)
        sets[name] = (data, labels)

    reference, labels = sets[REFERENCE]
    data = read(folder, "pbmc10k")
    shared = [c for c in data.obsm["protein"] if not c.startswith("IgG")]
    known = np.flatnonzero((labels != "") & ~np.isin(labels, ["cDC", "pDC"]))
    found = discriminant(
        clr_z(reference.obsm["protein"][shared])[known],
        labels[known].astype(str),
        clr_z(data.obsm["protein"][shared]),
    )
    sets["pbmc10k"] = (data, dendritic(data, found.astype(object)))
    return sets


def counts_of(data: ad.AnnData, cells: np.ndarray, genes: pd.Index) -> np.ndarray:
    """Sum the counts of some cells over a gene list (0 for a gene not in the set)."""
    total = pd.Series(np.asarray(data.X[cells].sum(0)).ravel(), index=data.var_names)
    return total.groupby(level=0).sum().reindex(genes, fill_value=0.0).to_numpy(float)


def lineage_counts(folder: Path, genes: pd.Index) -> pd.DataFrame:
    """Whole-transcriptome counts of five lineages (genes x lineages).

    pbmc1k has labels; the cells of two RNA-only sets go to the lineage whose profile they
    correlate with best over the 600 genes that tell the lineages apart.
    """
    named = {"B": "B", "CD4 T": "CD4 T", "CD8 T": "CD8 T", "NK": "NK", "monocytes": "monocyte"}
    data = read(folder, "pbmc1k")
    labels = data.obs["cell_type_l1"].astype(str).map(named).fillna("").to_numpy(object)
    counts = pd.DataFrame(
        {t: counts_of(data, labels == t, genes) for t in named.values()}, index=genes
    )
    logs = np.log1p(counts / counts.sum() * 1e4)
    spread = logs.max(axis=1) - logs.median(axis=1)
    for name in ("pbmc1k_v2", "pbmc1k_v3"):
        data = read(folder, name)
        data = data[:, ~data.var_names.duplicated()].copy()
        usable = spread[spread.index.isin(data.var_names)]
        telling = list(usable.sort_values(ascending=False).index[:600])
        cells = log_cp10k(data, telling)
        cells -= cells.mean(1, keepdims=True)
        cells /= np.linalg.norm(cells, axis=1, keepdims=True).clip(1e-9)
        centre = logs.loc[telling].to_numpy()
        centre -= centre.mean(0)
        centre /= np.linalg.norm(centre, axis=0)
        match = cells @ centre
        order = np.sort(match, 1)
        best = np.where(order[:, -1] - order[:, -2] > 0.02, match.argmax(1), -1)
        for k, lineage in enumerate(counts.columns):
            counts[lineage] += counts_of(data, best == k, genes)
    return counts


def rna_profiles(folder: Path, sets: dict, names: pd.DataFrame, extra: set[str]) -> pd.DataFrame:
    """Gene fractions of every estimated type, in counts per million.

    A type's profile is the whole-transcriptome profile of its lineage, times the fold change
    between type and lineage in the two large sets (4,000 genes; shrunk to 1 where counts are few).
    """
    genes = pd.Index(names["symbol"])
    lineages = lineage_counts(folder, genes)
    keep = (lineages.sum(axis=1) >= MIN_TOTAL) | genes.isin(list(extra))
    lineages = lineages[keep]
    genes = lineages.index

    fine = {t: np.zeros(len(genes)) for t in LINEAGE}
    for name in ("pbmc5k", "pbmc10k"):
        data, labels = sets[name]
        for cell_type in LINEAGE:
            fine[cell_type] += counts_of(data, labels == cell_type, genes)
    selected = genes.isin(sets[REFERENCE][0].var_names)

    profiles = {}
    for cell_type, lineage in LINEAGE.items():
        members = [t for t in LINEAGE if LINEAGE[t] == lineage and t not in ("cDC", "pDC")]
        parent = sum(fine[t] for t in members)
        parent = (parent + 0.5 * selected) / (parent + 0.5 * selected).sum()
        whole = lineages[lineage].to_numpy() / lineages[lineage].sum()
        # both kinds of set are averaged where both measured, so that neither is batch-free truth
        whole = np.where(selected, 0.5 * whole + 0.5 * parent * whole[selected].sum(), whole)
        child = fine[cell_type] + PRIOR_UMI * parent
        child = child / child.sum()
        profile = np.where(selected, whole * child / np.where(selected, parent, 1), whole)
        profiles[cell_type] = profile / profile.sum() * 1e6
    return pd.DataFrame(profiles, index=genes)


def trimmed_mean(counts: np.ndarray) -> float:
    """Mean after the top 2 % (doublets, aggregates) is pulled down to the 98th percentile."""
    return float(np.minimum(counts, np.quantile(counts, 0.98)).mean())


def protein_levels(sets: dict) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Mean count per cell (antibodies x types), gamma shape, and the sets behind each.

    A set is brought to the scale of the reference set antibody by antibody (geometric mean ratio
    over the types that carry the antibody); an antibody that the reference lacks takes the set's
    median ratio. Sets are then averaged in logs, weighted by the root of their cells.
    """
    means: dict[str, pd.DataFrame] = {}
    weights: dict[str, pd.Series] = {}
    for name, (data, labels) in sets.items():
        table = data.obsm["protein"]
        columns = {p: alias.get(name, p) for p, alias in PANEL.items()}
        columns = {p: c for p, c in columns.items() if c in table}
        types = [t for t in LINEAGE if (labels == t).sum() >= 8]
        means[name] = pd.DataFrame(
            {
                t: {p: trimmed_mean(table.loc[labels == t, c]) for p, c in columns.items()}
                for t in types
            }
        )
        weights[name] = pd.Series({t: np.sqrt((labels == t).sum()) for t in types})

    reference = means[REFERENCE]
    log_sum = pd.DataFrame(0.0, index=list(PANEL), columns=list(LINEAGE))
    weight = log_sum.copy()
    sources: dict[str, list[str]] = {p: [] for p in PANEL}
    for name, mean in means.items():
        types = [t for t in mean.columns if t in reference.columns]
        ratio = {}
        for p in mean.index.intersection(reference.index):
            carried = [t for t in types if reference.at[p, t] >= reference.loc[p, types].median()]
            logs = np.log((reference.loc[p, carried] + 0.5) / (mean.loc[p, carried] + 0.5))
            ratio[p] = float(np.exp(logs.mean()))
        usual = float(np.median(list(ratio.values())))
        for p in mean.index:
            scaled = mean.loc[p] * ratio.get(p, usual)
            log_sum.loc[p, mean.columns] += np.log(scaled + 0.3) * weights[name]
            weight.loc[p, mean.columns] += weights[name]
            sources[p].append(name)
    levels = (np.exp(log_sum / weight.where(weight > 0)) - 0.3).clip(lower=0.05)
    levels = levels.apply(lambda row: row.fillna(row.quantile(0.25)), axis=1)

    shapes = {}
    for p, alias in PANEL.items():
        found = []
        for name, (data, labels) in sets.items():
            column = alias.get(name, p)
            if column not in data.obsm["protein"]:
                continue
            for t in LINEAGE:
                values = data.obsm["protein"].loc[labels == t, column].to_numpy(float)
                if len(values) >= 30 and values.mean() > 3:
                    values = np.minimum(values, np.quantile(values, 0.98))
                    excess = values.var() - values.mean()
                    found.append(values.mean() ** 2 / max(excess, 1e-3))
        shapes[p] = float(np.clip(np.median(found), 0.8, 12)) if found else np.nan
    shape = pd.Series(shapes)
    return levels, shape.fillna(shape.median()), pd.Series(sources).str.join(";")


def two_digits(value: float) -> str:
    """Two significant digits, as short as can be (the file is small for it)."""
    text = np.format_float_positional(float(f"{value:.1e}"), trim="-")
    return text[1:] if text.startswith("0.") else text


def main() -> None:
    """Read the sets, write the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with citeseq/, rna_only/ and names/")
    folder = parser.parse_args().data

    names = pd.read_csv(
        folder / "names" / "gene_ids_36601.tsv.gz", sep="\t", names=["gene_id", "symbol"]
    ).drop_duplicates("symbol", keep=False)
    with (HERE / "invented_types.toml").open("rb") as file:
        invented = tomllib.load(file)
    extra = {gene for entry in invented.values() for gene in entry.get("rna", {})}
    unknown = extra - set(names["symbol"])
    if unknown:
        raise SystemExit(f"Error: invented_types.toml names unknown genes: {sorted(unknown)}.")

    sets = label_sets(folder)
    for name, (_, labels) in sets.items():
        print(name, pd.Series(labels[labels != ""]).value_counts().to_dict())

    profiles = rna_profiles(folder, sets, names, extra).round(2)
    profiles.insert(0, "gene_id", names.set_index("symbol")["gene_id"].reindex(profiles.index))
    text = io.StringIO()
    table = profiles.reset_index(names="symbol")
    for column in LINEAGE:
        table[column] = [two_digits(v) if v >= 0.05 else "0" for v in table[column]]
    table.to_csv(text, sep="\t", index=False)
    # mtime=0: the same input gives the same bytes
    (HERE / "profiles.tsv.gz").write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))

    levels, shape, sources = protein_levels(sets)
    out = levels.round(2)
    out.insert(0, "shape", shape.round(2))
    out["measured_in"] = sources
    out.to_csv(HERE / "protein_profiles.tsv", sep="\t", index_label="antibody")
    print(f"{len(profiles)} genes, {len(out)} antibodies, {len(LINEAGE)} cell types")


if __name__ == "__main__":
    main()
