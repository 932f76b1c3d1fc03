"""Small valid inputs, each written once, of which damaged copies are made."""

from __future__ import annotations

import gzip
import json
import shutil
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite

from synthetic import paired_cells

N_CELLS, N_GENES = 12, 240


class Small:
    """Valid inputs of 12 cells or spots and 240 genes, and a model that reads them.

    Parameters
    ----------
    folder
        Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def cells() -> ad.AnnData:
        """Make a table of cells with five proteins."""
        return paired_cells(N_CELLS, N_GENES)

    @cached_property
    def model(self) -> Path:
        """Write a checkpoint folder: an untrained translator of the cells' genes."""
        from inference.untrained import untrained_checkpoint
        from sclinguist_core.model.checkpoint import save_checkpoint

        checkpoint = untrained_checkpoint(paired_cells(100, N_GENES))
        return save_checkpoint(checkpoint, self.folder / "model")

    @cached_property
    def h5ad(self) -> Path:
        """Write the cells as ``.h5ad``."""
        return write_h5ad(self.cells(), self.folder / "cells.h5ad")

    @cached_property
    def zarr(self) -> Path:
        """Write the cells as an AnnData ``.zarr`` of zarr's third format."""
        from sclinguist_core.data.write import write_table

        return write_table(self.cells(), self.folder / "cells.zarr")

    @cached_property
    def sharded(self) -> Path:
        """Write the cells as an AnnData ``.zarr`` whose counts lie in shards of four chunks."""
        import zarr

        from sclinguist_core.data.write import write_table, zarr_as_we_write

        cells = self.cells()
        path = write_table(cells, self.folder / "sharded.zarr")
        root = zarr.open_group(path, mode="a", use_consolidated=False)
        del root["X"]
        with zarr_as_we_write():
            ad.io.write_elem(root, "X", cells.X, dataset_kwargs={"chunks": (16,), "shards": (64,)})
            zarr.consolidate_metadata(path)
        return path

    @cached_property
    def zarr2(self) -> Path:
        """Write the cells as an AnnData ``.zarr`` of zarr's second format."""
        path = self.folder / "cells2.zarr"
        with warnings.catch_warnings(action="ignore"), ad.settings.override(zarr_write_format=2):
            self.cells().write_zarr(path)
        return path

    @cached_property
    def spatialdata(self) -> Path:
        """Write the section as a SpatialData ``.zarr``."""
        from sclinguist_core.data.readers import open_section

        path = self.folder / "section.zarr"
        if path.exists():
            return path
        with warnings.catch_warnings(action="ignore"):
            open_section(self.visium).to_spatialdata().write(path)
        return path

    @cached_property
    def tenx(self) -> Path:
        """Write the cells as a 10x ``.h5``."""
        return write_tenx(self.folder / "cells.h5", self.cells())

    @cached_property
    def mtx(self) -> Path:
        """Write the cells as a ``matrix.mtx`` folder."""
        return write_mtx(self.folder / "filtered_feature_bc_matrix", self.cells())

    @cached_property
    def visium(self) -> Path:
        """Write a Space Ranger ``outs`` folder: 12 spots, one image."""
        folder = self.folder / "visium" / "outs"
        spatial = folder / "spatial"
        spatial.mkdir(parents=True)
        cells = self.cells()
        write_tenx(folder / "filtered_feature_bc_matrix.h5", cells)
        self.positions(cells).to_csv(spatial / "tissue_positions.csv", index=False)
        (spatial / "scalefactors_json.json").write_text(json.dumps(SCALES))
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(spatial / "tissue_hires_image.png")
        return folder

    @staticmethod
    def positions(cells: ad.AnnData) -> pd.DataFrame:
        """Make the positions of spots, in rows of six."""
        rows, columns = np.divmod(np.arange(cells.n_obs), 6)
        columns = 2 * columns + rows % 2
        return pd.DataFrame(
            {
                "barcode": cells.obs_names,
                "in_tissue": 1,
                "array_row": rows,
                "array_col": columns,
                "pxl_row_in_fullres": 20 + 8 * rows,
                "pxl_col_in_fullres": 5 + 4.6 * columns,
            }
        )

    @cached_property
    def orders(self) -> tuple[Path, Path]:
        """Write the authors' tables of a published checkpoint with 6 genes and 4 proteins."""
        genes, proteins = self.folder / "gene_order.csv", self.folder / "protein_index_map.csv"
        genes.write_text("".join(f"ENSG{i:011d}\n" for i in range(7)))
        names = ("CD3", "CD19", "CD14", "CD4")
        proteins.write_text("name,index\n" + "".join(f"{p},{i}\n" for i, p in enumerate(names)))
        return genes, proteins

    def copy(self, name: str, to: Path) -> Path:
        """Copy an input, such as ``"visium"``, into a folder under its own name."""
        source = getattr(self, name)
        if source.is_dir():
            return Path(shutil.copytree(source, to / source.name))
        return Path(shutil.copy(source, to / source.name))


SCALES: dict[str, Any] = {
    "spot_diameter_fullres": 6.0,
    "fiducial_diameter_fullres": 9.0,
    "tissue_hires_scalef": 1.0,
    "tissue_lowres_scalef": 0.5,
}


def write_h5ad(cells: ad.AnnData, path: Path) -> Path:
    """Write a table, whatever its libraries have to say about it."""
    with warnings.catch_warnings(action="ignore"):
        cells.write_h5ad(path)
    return path


def write_tenx(path: Path, cells: ad.AnnData) -> Path:
    """Write a 10x matrix in the layout of Cell Ranger 3."""
    counts = sparse.csr_matrix(cells.X)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(cells.obs_names, dtype="S")
        group["data"] = counts.data.astype(np.int32)
        group["indices"] = counts.indices.astype(np.int64)
        group["indptr"] = counts.indptr.astype(np.int64)
        group["shape"] = np.array(counts.shape[::-1], dtype=np.int32)
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(cells.n_vars)], dtype="S")
        features["name"] = np.array(cells.var_names, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * cells.n_vars, dtype="S")
        features["genome"] = np.array(["GRCh38"] * cells.n_vars, dtype="S")
    return path


def write_mtx(folder: Path, cells: ad.AnnData) -> Path:
    """Write a gzip-compressed ``matrix.mtx`` folder."""
    folder.mkdir()
    mmwrite(folder / "matrix.mtx", sparse.coo_matrix(cells.X.T.astype(int)))
    rows = [f"ENSG{i:011d}\t{name}\tGene Expression" for i, name in enumerate(cells.var_names)]
    contents = {
        "matrix.mtx": (folder / "matrix.mtx").read_bytes(),
        "barcodes.tsv": "\n".join(cells.obs_names).encode(),
        "features.tsv": "\n".join(rows).encode(),
    }
    (folder / "matrix.mtx").unlink()
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder
