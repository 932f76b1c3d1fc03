"""Numbers out of texts that users give.

pandas' own conversion, and its reader of CSV with default settings, follow an exponent of more than
nine digits out of their tables: "3.2e3099999999994" ends the process. Readers of CSV therefore say
``float_precision=SAFE_PRECISION``.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

SAFE_PRECISION: Literal["round_trip"] = "round_trip"
"""Python's own conversion, exact to the last bit."""


def as_numbers(column: pd.Series) -> np.ndarray:
    """Read a column of any type as numbers.

    Returns
    -------
    numpy.ndarray
        float64; NaN for what is no number, infinite for what is too large.
    """
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy(np.float64)
    values = column.to_numpy(dtype=object)
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.array([_number(value) for value in values], np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return np.inf
    except (TypeError, ValueError):
        return np.nan
