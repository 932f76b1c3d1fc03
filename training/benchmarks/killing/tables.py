"""What tables say, whatever the file is like that holds them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

NEVER_THE_SAME = frozenset({"date", "seconds"})
"""Entries of ``uns["sclinguist"]`` that tell of the run and not of its result."""


def table_content(path: Path) -> str:
    """Checksum of an AnnData table, read as a whole."""
    import anndata

    table = anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)
    digest = hashlib.sha256()
    matrix = table.X.tocsr()
    for array in (matrix.data, matrix.indices, matrix.indptr):
        digest.update(np.ascontiguousarray(array).tobytes())
    frames = {"obs": table.obs, "var": table.var}
    for key, value in table.obsm.items():
        frames[key] = value if isinstance(value, pd.DataFrame) else pd.DataFrame(value)
    for key, frame in sorted(frames.items()):
        digest.update(repr((key, frame.columns.tolist())).encode())
        digest.update(pd.util.hash_pandas_object(frame).to_numpy().tobytes())
    told = {k: v for k, v in table.uns.get("sclinguist", {}).items() if k not in NEVER_THE_SAME}
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def write_older(path: Path) -> None:
    """Write a small table that says something else than any other here."""
    from sclinguist_core.data.write import write_table
    from synthetic import paired_cells

    write_table(paired_cells(20, 30, seed=9, name="older"), path)
