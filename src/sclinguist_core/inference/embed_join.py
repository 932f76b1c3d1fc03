"""Several embedded data sets in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.counts import counts_at
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


def join(
    sections: Sequence[Section], embeddings: Sequence[Embedding]
) -> tuple[AnnData, tuple[str, ...]]:
    """Put data sets below each other.

    Parameters
    ----------
    sections
        With different names, which go to ``obs["dataset"]`` and behind the names of the rows.
    embeddings
        Of each, by the same model, of one kind.

    Returns
    -------
    table
        AnnData with all columns of obs that any of them has and ``obsm["X_sclinguist"]``. A column
        that is called ``"dataset"`` already becomes ``"dataset_original"``. X holds the raw counts,
        wherever each section keeps them, if all have the very same features in the same order;
        otherwise it is empty. ``layers["measured"]`` comes along if any of them has it.
    warnings
        One sentence for everything that the user should know of the join.

    Raises
    ------
    InputError
        If the embeddings are of different models or kinds.
    """
    for what in ("model_digest", "kind", "dimensions"):
        found = {embedding.info[what] for embedding in embeddings}
        if len(found) > 1:
            raise InputError(
                f"embeddings: differ in {what} ({', '.join(map(str, sorted(found)))}), expected "
                "the same model and kind for all; embed them together."
            )
    warnings: list[str] = []
    obs = _joined_obs(sections, warnings)
    joined = _joined_counts(sections, obs, warnings)
    joined.obsm[KEY] = np.concatenate([embedding.values for embedding in embeddings])
    shared = embeddings[0].info
    joined.uns["sclinguist_embed"] = {
        **{name: shared[name] for name in _SHARED},
        "input": [section.name for section in sections],
        "genes_found": [embedding.info["genes_found"] for embedding in embeddings],
        "seconds": round(sum(embedding.info["seconds"] for embedding in embeddings), 3),
        "warnings": warnings
        + [
            f"{section.name}: {sentence}"
            for section, embedding in zip(sections, embeddings, strict=True)
            for sentence in embedding.warnings
        ],
    }
    return joined, tuple(warnings)


def _joined_obs(sections: Sequence[Section], warnings: list[str]) -> pd.DataFrame:
    """Put the columns of the rows below each other, in types that files can hold."""
    columns = {str(name) for section in sections for name in section.table.obs}
    kept = f"{DATASET}_original"
    while kept in columns:
        kept += "_original"
    if DATASET in columns:
        warnings.append(
            f"The inputs' own column '{DATASET}' of obs is '{kept}' now: '{DATASET}' says which "
            "input a row is from."
        )
    frames = []
    for section in sections:
        frame = section.table.obs.rename(columns={DATASET: kept}).assign(**{DATASET: section.name})
        frames.append(frame.set_axis([f"{name}-{section.name}" for name in frame.index]))
    obs = pd.concat(frames).apply(_writable)
    obs[DATASET] = pd.Categorical(obs[DATASET], [section.name for section in sections])
    return obs


_NULLABLE = {
    "boolean": "boolean",
    "integer": "Int64",
    "floating": "float64",
    "mixed-integer-float": "float64",
}


def _writable(column: pd.Series) -> pd.Series:
    """Make one type of a column whose values are of several, or missing, as files want it.

    Columns of different types, and columns that some inputs lack, come together as objects.
    """
    if column.dtype != object:
        return column
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in _NULLABLE:
        return column.astype(_NULLABLE[kind])
    text = column.astype(str).where(column.notna())
    # As text, what is missing could not be written (.h5ad) or would become a word (.zarr).
    return text.astype("category") if text.isna().any() else text


def _joined_counts(sections: Sequence[Section], obs: pd.DataFrame, warnings: list[str]) -> AnnData:
    """Table of the rows with their raw counts; without counts where features differ."""
    import anndata

    features = sections[0].counts_var
    if not all(section.counts_var.index.equals(features.index) for section in sections):
        warnings.append(
            "The inputs have different features: the joined table has the embedding and the "
            "columns of obs, and no counts."
        )
        return anndata.AnnData(obs=obs)
    counts = [counts_at(section.table, section.counts_location) for section in sections]
    joined = anndata.AnnData(X=sparse.vstack(counts, format="csr"), obs=obs, var=features.copy())
    measured = [section.measured for section in sections]
    if any(mask is not None for mask in measured):
        # Dense: nearly all are true, and a byte each takes less than an index.
        joined.layers["measured"] = np.concatenate(
            [
                np.ones(part.shape, bool) if mask is None else _dense(mask)
                for part, mask in zip(counts, measured, strict=True)
            ]
        )
    return joined


def _dense(mask: Any) -> np.ndarray:
    return np.asarray(mask.toarray() if sparse.issparse(mask) else mask, dtype=bool)


_SHARED = (
    "model", "model_digest", "version", "training_datasets", "kind", "dimensions", "names",
    "context", "context_neighbours", "genes_expected", "device", "date",
)  # fmt: skip
