"""Cell types of the labelled data sets in one coarse vocabulary, mapped by hand.

What is in no class (doublets, "undefined", rare innate T cells) is None and left out.
"""

from __future__ import annotations

import numpy as np
from anndata import AnnData

_SIMPLE = {
    "pbmc1k": (
        "cell_type_l1",
        {"monocytes": "monocyte", "CD4 T": "CD4 T", "CD8 T": "CD8 T", "B": "B", "NK": "NK"},
    ),
    "pbmc5k": (
        "cell_type_l1",
        {
            "monocytes": "monocyte", "CD4 T": "CD4 T", "CD8 T": "CD8 T", "B": "B", "NK": "NK",
            "DCs": "DC",
        },
    ),
    "teaseq_pbmc": (
        "cell_type",
        {
            "T.CD4.Memory": "CD4 T", "T.CD4.Naive": "CD4 T", "T.CD8.Effector": "CD8 T",
            "T.CD8.Naive": "CD8 T", "B.Naive": "B", "B.Activated": "B", "NK": "NK",
            "Mono.CD14": "monocyte", "Mono.CD16": "monocyte", "DC.Myeloid": "DC",
        },
    ),
    "cbmc": (
        "rna_annotations",
        {
            "CD14+ Mono": "monocyte", "CD16+ Mono": "monocyte", "Memory CD4 T": "CD4 T",
            "Naive CD4 T": "CD4 T", "CD8 T": "CD8 T", "NK": "NK", "B": "B", "DC": "DC",
            "pDCs": "DC", "CD34+": "progenitor", "Eryth": "erythroid",
        },
    ),
    "pbmc_wide_panel": (
        "celltype",
        {
            "Mono": "monocyte", "CD4 T": "CD4 T", "CD8 T": "CD8 T", "NK": "NK", "B": "B",
            "DC": "DC",
        },
    ),
}  # fmt: skip
_MARROW = {
    "NK": "NK", "NK CD158e1+": "NK", "CD14+ Mono": "monocyte", "CD16+ Mono": "monocyte",
    "pDC": "DC", "cDC2": "DC", "Transitional B": "B", "T reg": "CD4 T",
    "Normoblast": "erythroid", "Erythroblast": "erythroid", "Proerythroblast": "erythroid",
    "Reticulocyte": "erythroid", "HSC": "progenitor", "G/M prog": "progenitor",
    "Lymph prog": "progenitor", "MK/E prog": "progenitor", "ID2-hi myeloid prog": "progenitor",
}  # fmt: skip
_FINE = {
    "naive CD4": "CD4 T naive", "memory CD4": "CD4 T memory", "Treg": "Treg",
    "naive CD8": "CD8 T naive", "memory CD8": "CD8 T memory", "CD16+ NK": "NK", "CD16- NK": "NK",
    "classical monocyte": "monocyte CD14", "intermediate monocyte": "monocyte CD14",
    "non-classical CD16+ monocyte": "monocyte CD16", "memory B": "B", "naive B": "B",
    "T.CD4.Memory": "CD4 T memory", "T.CD4.Naive": "CD4 T naive",
    "T.CD8.Effector": "CD8 T memory", "T.CD8.Naive": "CD8 T naive", "B.Naive": "B",
    "B.Activated": "B", "Mono.CD14": "monocyte CD14", "Mono.CD16": "monocyte CD16",
}  # fmt: skip


def coarse_labels(name: str, table: AnnData) -> np.ndarray:
    """Coarse cell type of each cell of a data set, object, shape (n,); None where in no class."""
    if name == "bmmc_neurips2021":
        return np.array([_marrow(label) for label in table.obs["cell_type"].astype(str)], object)
    column, names = _SIMPLE[name]
    return np.array([names.get(label) for label in table.obs[column].astype(str)], object)


def fine_labels(name: str, table: AnnData) -> np.ndarray:
    """T cells naive and memory, monocytes by CD16; pbmc1k, pbmc5k and teaseq_pbmc only."""
    column = "cell_type" if name == "teaseq_pbmc" else "cell_type_l2"
    labels = np.array([_FINE.get(label) for label in table.obs[column].astype(str)], object)
    if name != "teaseq_pbmc":
        # The finer column leaves most B cells of pbmc1k without a label.
        labels[(table.obs["cell_type_l1"] == "B").to_numpy()] = "B"
    return labels


def _marrow(label: str) -> str | None:
    if label in _MARROW:
        return _MARROW[label]
    for start, name in (("CD4+ T", "CD4 T"), ("CD8", "CD8 T"), ("Plasma", "plasma")):
        if label.startswith(start):
            return name
    return "B" if "B IGKC" in label else None
