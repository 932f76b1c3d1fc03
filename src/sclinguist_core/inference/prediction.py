"""What a prediction gives, and where it is written.

Shapes: n cells or spots, P proteins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Predicted proteins of n cells or spots.

    Attributes
    ----------
    names
        Canonical protein names, length P.
    mean
        Abundance in the model's unit, float32, shape (n, P).
    std
        Standard deviation of the error, float32, shape (n, P); NaN where the model states none.
    low, high
        Ends of the 90 % interval, float32, shape (n, P); NaN where the model states no error.
    ood
        Out-of-distribution score of each row, 0 to 1, float32, shape (n,); None when the model
        has no reference for it (`sclinguist_core.model.familiarity`).
    log1p
        ``log1p`` antibody counts in standard deviations of a data set, not calibrated, float32,
        shape (n, P); None unless asked for.
    info
        Provenance, as written to ``uns["sclinguist"]``.
    warnings
        One sentence for everything that the user should know.
    """

    names: list[str]
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    info: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())
    ood: np.ndarray | None = None
    log1p: np.ndarray | None = None


def attach(table: AnnData, prediction: Prediction) -> None:
    """Write a prediction into a table, in place; ``X`` and everything else stay as they were.

    ``obsm["protein_predicted"]``, ``..._low``, ``..._high``, ``..._std`` (DataFrames with a column
    a protein; the latter three only where the model states an error), ``..._log1p`` where asked
    for, and ``uns["sclinguist"]``.
    """
    # An earlier prediction may have had columns that this one has not.
    for suffix in ("_low", "_high", "_std", "_log1p"):
        table.obsm.pop(f"protein_predicted{suffix}", None)
    if "sclinguist_ood" in table.obs:
        del table.obs["sclinguist_ood"]
    parts = {"protein_predicted": prediction.mean}
    if np.isfinite(prediction.std).any():
        parts |= {
            "protein_predicted_low": prediction.low,
            "protein_predicted_high": prediction.high,
            "protein_predicted_std": prediction.std,
        }
    if prediction.log1p is not None:
        parts["protein_predicted_log1p"] = prediction.log1p
    if prediction.ood is not None:
        table.obs["sclinguist_ood"] = prediction.ood
    for key, values in parts.items():
        table.obsm[key] = pd.DataFrame(values, index=table.obs_names, columns=prediction.names)
    table.uns["sclinguist"] = {**prediction.info, "warnings": list(prediction.warnings)}
