"""Batch correction of an embedding: what differs between data sets for technical reasons.

No correction can tell a technical difference from one of composition: it is an option, never done
unasked, and what was before stays beside it.

Shapes: n cells or spots, E dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

CORRECTIONS = ("none", "center", "harmony")
CENTER_SHARE = 0.5
"""How far `center` moves a batch. All the way would take batches of another composition to where
they do not belong."""
UNCORRECTED = "X_sclinguist_uncorrected"
_HARMONY_COMPONENTS = 50


def check_correction(method: str) -> None:
    """Refuse a correction that is not known or not installed, before work is spent.

    Raises
    ------
    InputError
        With what to do.
    """
    if method not in CORRECTIONS:
        raise InputError(f"correct {method!r}: expected one of {', '.join(CORRECTIONS)}.")
    if method == "harmony":
        try:
            import harmonypy  # noqa: F401
        except ImportError as error:
            raise InputError(
                "correct 'harmony': the package harmonypy is not installed; "
                'pip install "napari-sclinguist[integrate]", or choose center.'
            ) from error


def corrected(values: np.ndarray, batch: np.ndarray | pd.Series, method: str) -> np.ndarray:
    """Bring the batches of an embedding closer to each other.

    Parameters
    ----------
    values
        Shape (n, E); rows that are NaN stay so.
    batch
        Which batch each row is of, shape (n,).
    method
        ``"center"``: every batch is moved half-way to the mean of the batches' means.
        ``"harmony"``: Korsunsky et al., Nature Methods 16:1289, 2019, by harmonypy, seeded, on the
        first 50 principal components; what it changes there is added in the E dimensions.
        ``"none"``: as it is.

    Returns
    -------
    float32, shape (n, E).

    Raises
    ------
    InputError
        If the method is unknown or not installed, or there is a single batch.
    """
    check_correction(method)
    values = np.asarray(values, np.float32)
    if method == "none":
        return values
    names = pd.Categorical(pd.Series(np.asarray(batch)).astype(str))
    known = np.isfinite(values).all(axis=1)
    codes = names.codes[known]
    if len(np.unique(codes)) < 2:
        raise InputError(
            f"correct {method!r}: all rows are of one batch, expected two or more; give several "
            "inputs, or a column of obs that tells batches apart as batch key."
        )
    result = values.copy()
    part = values[known]
    result[known] = _centred(part, codes) if method == "center" else _harmonised(part, codes)
    return result


def _centred(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    present = np.unique(codes)
    means = np.array([values[codes == code].mean(axis=0) for code in present])
    shift = CENTER_SHARE * (means.mean(axis=0) - means)
    return values + shift[np.searchsorted(present, codes)]


def _harmonised(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    from harmonypy import run_harmony
    from sklearn.decomposition import PCA

    n_components = min(_HARMONY_COMPONENTS, *values.shape)
    pca = PCA(n_components, svd_solver="full" if len(values) < 1_000 else "auto", random_state=0)
    before = pca.fit_transform(values)
    batches = pd.DataFrame({"batch": codes.astype(str)})
    after = np.asarray(
        run_harmony(before, batches, ["batch"], verbose=False, random_state=0).Z_corr
    )
    # Versions of harmonypy differ in which way round the answer stands.
    after = after if after.shape == before.shape else after.T
    return values + (after - before) @ pca.components_


def correct_table(table: AnnData, method: str, batch_key: str | None) -> None:
    """Correct ``obsm["X_sclinguist"]`` of a table, in place.

    What was before goes to ``obsm["X_sclinguist_uncorrected"]``, the method and the batch key into
    ``uns["sclinguist_embed"]``.

    Raises
    ------
    InputError
        If the column does not exist, or as `corrected` does.
    """
    from sclinguist_core.inference.embed import KEY

    info = table.uns["sclinguist_embed"]
    info["correct"] = method
    if method == "none":
        return
    batch = batches_of(table, batch_key)
    before = table.obsm[KEY]
    table.obsm[KEY] = corrected(before, batch, method)
    table.obsm[UNCORRECTED] = before
    info["batch_key"] = str(batch.name)


def check_column(table: AnnData, column: str, source: str) -> None:
    """Refuse a column that obs does not have.

    Raises
    ------
    InputError
        With the columns that it has; `source` says whose they are.
    """
    if column not in table.obs:
        columns = ", ".join(map(str, table.obs.columns))
        expected = f"expected one of {columns}" if columns else "where there are no columns at all"
        raise InputError(f"{source}: found no column {column!r} in obs, {expected}.")


def batches_of(table: AnnData, batch_key: str | None) -> pd.Series:
    """Batch of each row: a column of obs; by default the data sets that were joined.

    Raises
    ------
    InputError
        If there is no such column, or a row has no batch.
    """
    column = "dataset" if batch_key is None else batch_key
    if batch_key is None and column not in table.obs:
        raise InputError(
            "batches: a single input was given and no batch key; give several inputs, or the "
            "column of obs that tells batches apart as batch key."
        )
    check_column(table, column, "batch key")
    batch = table.obs[column]
    if batch.isna().any():
        raise InputError(
            f"batch key {column!r}: {int(batch.isna().sum())} rows have no value, expected one "
            "for each; fill the column."
        )
    return batch.astype(str)
