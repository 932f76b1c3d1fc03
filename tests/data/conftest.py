"""Small synthetic sections in the layouts that readers meet."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite

GENES = ["CD3E", "MS4A1", "ACTB", "GAPDH", "TBCE", "TBCE", "PTPRC", "EPCAM"]
ANTIBODIES = ["CD3E", "PTPRC", "PTPRC", "mouse-IgG2bk"]
PIXELS_PER_COLUMN = 10.0  # one array_col is 50 µm, so a pixel is 5 µm
MICRONS_PER_PIXEL = 5.0
DIAMETER = 13.0  # a "65 µm spot"


@dataclass
class Truth:
    """What was written: rows are the spots of the matrix, in its order."""

    folder: Path
    barcodes: list[str]
    counts: np.ndarray
    names: list[str]
    ids: list[str]
    types: list[str]
    in_tissue: np.ndarray
    xy: np.ndarray
    pixels: np.ndarray

    @property
    def tissue_counts(self) -> np.ndarray:
        return self.counts[self.in_tissue]

    @property
    def genes(self) -> np.ndarray:
        return np.array([kind == "Gene Expression" for kind in self.types])


def write_h5(path: Path, truth: Truth, *, v2: bool = False) -> None:
    csr = sparse.csr_matrix(truth.counts)
    with h5py.File(path, "w") as file:
        group = file.create_group("GRCh38" if v2 else "matrix")
        group["barcodes"] = np.array(truth.barcodes, dtype="S")
        group["data"] = csr.data.astype(np.int32)
        group["indices"] = csr.indices.astype(np.int64)
        group["indptr"] = csr.indptr.astype(np.int64)
        group["shape"] = np.array(csr.shape[::-1], dtype=np.int32)
        if v2:
            group["genes"] = np.array(truth.ids, dtype="S")
            group["gene_names"] = np.array(truth.names, dtype="S")
            return
        features = group.create_group("features")
        features["id"] = np.array(truth.ids, dtype="S")
        features["name"] = np.array(truth.names, dtype="S")
        features["feature_type"] = np.array(truth.types, dtype="S")
        features["genome"] = np.array(["GRCh38"] * len(truth.ids), dtype="S")
        file.attrs["software_version"] = b"spaceranger-2.1.0"


def write_mtx(
    folder: Path, truth: Truth, *, packed: bool, genes_tsv: bool, prefix: str = ""
) -> None:
    folder.mkdir(exist_ok=True)
    columns = [truth.ids, truth.names] + ([] if genes_tsv else [truth.types])
    features = "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True))
    mmwrite(folder / "m.mtx", sparse.coo_matrix(truth.counts.T.astype(int)))
    contents = {
        "matrix.mtx": (folder / "m.mtx").read_bytes(),
        "barcodes.tsv": ("\n".join(truth.barcodes) + "\n").encode(),
        "genes.tsv" if genes_tsv else "features.tsv": features.encode(),
    }
    (folder / "m.mtx").unlink()
    for name, content in contents.items():
        if packed:
            (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{prefix}{name}").write_bytes(content)


def write_positions(spatial: Path, frame: pd.DataFrame, layout: str, prefix: str) -> None:
    if layout == "list":
        frame.to_csv(spatial / f"{prefix}tissue_positions_list.csv", header=False, index=False)
    elif layout == "list_with_header":
        frame.to_csv(spatial / f"{prefix}tissue_positions_list.csv", index=False)
    elif layout == "csv":
        frame.to_csv(spatial / f"{prefix}tissue_positions.csv", index=False)
    elif layout == "csv.gz":
        frame.to_csv(spatial / f"{prefix}tissue_positions.csv.gz", index=False)
    else:
        frame.to_parquet(spatial / f"{prefix}tissue_positions.parquet")


@pytest.fixture
def write_outs(tmp_path):
    """Return a function that writes an ``outs`` folder and gives back what is in it."""

    def write(
        where: str = "sample/outs",
        *,
        counts: str = "filtered.h5",
        positions: str = "csv",
        images: tuple[str, ...] = ("hires", "lowres"),
        suffix: str = "-1",
        position_suffix: str | None = None,
        prefix: str = "",
        spatial_prefix: str = "",
        spatial_name: str = "spatial",
        antibodies: bool = True,
        scalefactors: dict | None = None,
        seed: int = 0,
    ) -> Truth:
        folder = tmp_path / where
        spatial = folder / spatial_name
        spatial.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        lattice = [(r, c) for r in range(6) for c in range(12) if (r + c) % 2 == 0]
        rows, columns = np.array(lattice).T
        letters = np.array(list("ACGT"))
        barcodes = ["".join(rng.choice(letters, 16)) for _ in lattice]
        x = 20 + PIXELS_PER_COLUMN * columns
        y = 15 + PIXELS_PER_COLUMN * np.sqrt(3) * rows
        in_tissue = columns > 2
        in_matrix = in_tissue | counts.startswith("raw")
        order = rng.permutation(np.flatnonzero(in_matrix))
        names = GENES + (ANTIBODIES if antibodies else [])
        ids = [f"ENSG{i:011d}" for i in range(len(GENES))]
        ids += ["CD3E.1", "PTPRC.1", "PTPRC.2", "mouse-IgG2bk"] if antibodies else []
        types = ["Gene Expression"] * len(GENES)
        types += ["Antibody Capture"] * len(ANTIBODIES) if antibodies else []
        pixels = rng.integers(0, 256, (120, 150, 3), dtype=np.uint8)
        truth = Truth(
            folder,
            [barcodes[i] + suffix for i in order],
            rng.poisson(2.0, (len(order), len(names))),
            names,
            ids,
            types,
            in_tissue[order],
            np.column_stack([x, y])[order],
            pixels,
        )
        kind, form = counts.split(".")
        if form in {"h5", "v2"}:
            path = folder / f"{prefix}{kind}_feature_bc_matrix.h5"
            write_h5(path, truth, v2=form == "v2")
        elif form == "flat":
            write_mtx(folder, truth, packed=True, genes_tsv=False, prefix=prefix)
        else:
            write_mtx(
                folder / f"{prefix}{kind}_feature_bc_matrix",
                truth,
                packed=form == "mtxgz",
                genes_tsv=form == "genes",
            )
        frame = pd.DataFrame(
            {
                "barcode": [
                    b + (suffix if position_suffix is None else position_suffix) for b in barcodes
                ],
                "in_tissue": in_tissue.astype(int),
                "array_row": rows,
                "array_col": columns,
                "pxl_row_in_fullres": y,
                "pxl_col_in_fullres": x,
            }
        )
        write_positions(spatial, frame, positions, spatial_prefix)
        scales = {
            "spot_diameter_fullres": DIAMETER,
            "fiducial_diameter_fullres": 21.0,
            "tissue_hires_scalef": 1.0,
            "tissue_lowres_scalef": 0.5,
        }
        (spatial / f"{spatial_prefix}scalefactors_json.json").write_text(
            json.dumps(scales | (scalefactors or {}))
        )
        for key in images:
            step = 1 if key == "hires" else 2
            Image.fromarray(pixels[::step, ::step].copy()).save(
                spatial / f"{spatial_prefix}tissue_{key}_image.png"
            )
        return truth

    return write
