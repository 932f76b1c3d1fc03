"""Several embedded data sets in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference.embed import KEY, Embedding

if TYPE_CHECKING:
    from anndata import AnnData

DATASET = "dataset"


def with_names(sections: Sequence[Section]) -> list[Section]:
    """Give sections different names, numbered where they are alike: ``"cells"``, ``"cells_2"``."""
    from dataclasses import replace

    taken: set[str] = set()
    named = []
    for section in sections:
        name, number = section.name, 2
        while name in taken:
            name, number = f"{section.name}_{number}", number + 1
        taken.add(name)
        named.append(replace(section, name=name))
    return named


def join(sections: Sequence[Section], embeddings: Sequence[Embedding]) -> AnnData:
    """Put data sets below each other.

    Parameters
    ----------
    sections
        With different names, which go to ``obs["dataset"]`` and behind the names of the rows.
    embeddings
        Of each, by the same model, of one kind.

    Returns
    -------
    AnnData with all columns of obs that any of them has and ``obsm["X_sclinguist"]``. The counts
    are in it only where all have the very same features in the same order; otherwise X is empty.

    Raises
    ------
    InputError
        If the embeddings are of different models or kinds.
    """
    import anndata

    for what in ("model_digest", "kind", "dimensions"):
        found = {embedding.info[what] for embedding in embeddings}
        if len(found) > 1:
            raise InputError(
                f"embeddings: differ in {what} ({', '.join(map(str, sorted(found)))}), expected "
                "the same model and kind for all; embed them together."
            )
    tables = [section.table for section in sections]
    frames = [
        table.obs.assign(**{DATASET: section.name}).set_axis(
            [f"{name}-{section.name}" for name in table.obs_names]
        )
        for section, table in zip(sections, tables, strict=True)
    ]
    obs = pd.concat(frames)
    obs[DATASET] = pd.Categorical(obs[DATASET], [section.name for section in sections])
    joined = anndata.AnnData(obs=obs)
    same = all(table.var_names.equals(tables[0].var_names) for table in tables)
    if same and all(sparse.issparse(table.X) for table in tables):
        stacked = sparse.vstack([table.X for table in tables], format="csr")
        joined = anndata.AnnData(X=stacked, obs=obs, var=tables[0].var.copy())
    joined.obsm[KEY] = np.concatenate([embedding.values for embedding in embeddings])
    shared = embeddings[0].info
    joined.uns["sclinguist_embed"] = {
        **{name: shared[name] for name in _SHARED},
        "input": [section.name for section in sections],
        "genes_found": [embedding.info["genes_found"] for embedding in embeddings],
        "seconds": round(sum(embedding.info["seconds"] for embedding in embeddings), 3),
        "warnings": [
            f"{section.name}: {sentence}"
            for section, embedding in zip(sections, embeddings, strict=True)
            for sentence in embedding.warnings
        ],
    }
    return joined


_SHARED = (
    "model", "model_digest", "version", "training_datasets", "kind", "dimensions", "names",
    "context", "context_neighbours", "genes_expected", "device", "date",
)  # fmt: skip
