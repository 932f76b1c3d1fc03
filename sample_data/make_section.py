"""Write the simulated tonsil section in the layout of Space Ranger 2.

Usage: ``python sample_data/make_section.py [--output FOLDER]``

Needs no data but the profile files beside it. The seed is fixed: every run writes the same counts
and the same picture.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from cells import Cells, place_cells
from counts import Profiles, read_profiles, simulate_counts
from fields import CANVAS_UM
from histology import draw_histology
from lattice import SPOT_UM, Lattice, make_lattice
from PIL import Image
from png import write_png
from scipy import sparse
from tissue import Tissue, make_tissue

HERE = Path(__file__).parent
SEED = 20240617
PIXEL_UM = 3.45  # of the hires image: 2,000 pixels
FULL_RESOLUTION_UM = 0.5  # pixel of the full-resolution image that positions refer to
LOWRES_PIXELS = 600
FIDUCIAL_UM = 90.0

NOTICE = """SIMULATED. Nobody measured this section: a program made tissue, picture and counts.
Figures from it are circular: a model's accuracy on it says nothing about real tissue.
"""


@dataclass(frozen=True)
class SimulatedSection:
    """Everything that is written."""

    tissue: Tissue
    cells: Cells
    lattice: Lattice
    profiles: Profiles
    rna: sparse.csr_matrix
    protein: np.ndarray
    cell_types: pd.DataFrame
    image: np.ndarray


def simulate(
    pixel_um: float = PIXEL_UM, n_genes: int | None = None, seed: int = SEED
) -> SimulatedSection:
    """Simulate the section; coarser pixels and fewer genes make a quick small one."""
    profiles = read_profiles(n_genes)
    tissue = make_tissue(pixel_um, seed)
    cells = place_cells(tissue, profiles.types, seed)
    lattice = make_lattice(tissue, seed)
    rna, protein, cell_types = simulate_counts(profiles, cells, lattice, tissue, seed)
    image = draw_histology(tissue, cells, seed)
    return SimulatedSection(tissue, cells, lattice, profiles, rna, protein, cell_types, image)


def checksum(*arrays: np.ndarray) -> str:
    """SHA-256 over the values of integer arrays (not over the bytes of a compressed file)."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()


def count_matrix(section: SimulatedSection) -> sparse.csr_matrix:
    """Spots x features (genes, then antibodies), sorted and without stored zeros."""
    counts = sparse.hstack([section.rna, sparse.csr_matrix(section.protein)], format="csr")
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts


def antibody_names(profiles: Profiles) -> list[str]:
    """Antibodies as feature names, in the manner of the 10x antibody panels."""
    return [
        f"{a}_control_TotalSeqB" if a.startswith("IgG") else f"{a}_TotalSeqB"
        for a in profiles.antibodies
    ]


def write_counts(section: SimulatedSection, path: Path) -> None:
    """Write ``filtered_feature_bc_matrix.h5`` (10x v3; barcodes sorted as Space Ranger does)."""
    profiles = section.profiles
    barcode = section.lattice.barcode[section.lattice.in_tissue]
    order = np.argsort(barcode)
    counts = count_matrix(section)[order]
    counts.sort_indices()
    antibodies = antibody_names(profiles)
    genes = len(profiles.genes)
    features = {
        "id": [*profiles.genes["gene_id"], *antibodies],
        "name": [*profiles.genes["symbol"], *antibodies],
        "feature_type": ["Gene Expression"] * genes + ["Antibody Capture"] * len(antibodies),
        "genome": ["GRCh38"] * genes + [""] * len(antibodies),
    }
    packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with h5py.File(path, "w") as file:
        file.attrs["chemistry_description"] = "SIMULATED: not a measurement"
        file.attrs["filetype"] = "matrix"
        file.attrs["library_ids"] = np.array([b"tonsil_simulated"])
        file.attrs["original_gem_groups"] = np.array([1])
        file.attrs["software_version"] = "simulated (layout of spaceranger-2.1.0)"
        file.attrs["version"] = 2
        matrix = file.create_group("matrix")
        size = 1 << 18
        for name, values in (
            ("data", counts.data.astype("<i4")),
            ("indices", counts.indices.astype("<i8")),
            ("indptr", counts.indptr.astype("<i8")),
        ):
            chunks = (min(size, len(values)),)
            matrix.create_dataset(name, data=values, chunks=chunks, **packed)
        matrix.create_dataset("shape", data=np.array(counts.shape[::-1], "<i4"))
        matrix.create_dataset("barcodes", data=barcode[order].astype("S18"), **packed)
        group = matrix.create_group("features")
        for name, values in features.items():
            group.create_dataset(name, data=np.array(values, dtype="S"), **packed)
        group.create_dataset("_all_tag_keys", data=np.array([b"genome"]))


def write_spatial(section: SimulatedSection, folder: Path) -> None:
    """Write positions, scale factors and the two images."""
    folder.mkdir(parents=True, exist_ok=True)
    lattice = section.lattice
    full = CANVAS_UM / FULL_RESOLUTION_UM
    pd.DataFrame(
        {
            "barcode": lattice.barcode,
            "in_tissue": lattice.in_tissue.astype(int),
            "array_row": lattice.array_row,
            "array_col": lattice.array_col,
            "pxl_row_in_fullres": np.round(lattice.y / FULL_RESOLUTION_UM).astype(int),
            "pxl_col_in_fullres": np.round(lattice.x / FULL_RESOLUTION_UM).astype(int),
        }
    ).to_csv(folder / "tissue_positions.csv", index=False, lineterminator="\n")
    lowres = Image.fromarray(section.image).resize((LOWRES_PIXELS,) * 2, Image.Resampling.BOX)
    write_png(folder / "tissue_hires_image.png", section.image)
    lowres.save(folder / "tissue_lowres_image.png")
    factors = {
        "tissue_hires_scalef": section.image.shape[0] / full,
        "tissue_lowres_scalef": LOWRES_PIXELS / full,
        "spot_diameter_fullres": SPOT_UM / FULL_RESOLUTION_UM,
        "fiducial_diameter_fullres": FIDUCIAL_UM / FULL_RESOLUTION_UM,
    }
    (folder / "scalefactors_json.json").write_text(json.dumps(factors, indent=1) + "\n")


def write_truth(section: SimulatedSection, path: Path) -> None:
    """Write ``regions.csv``: compartment, number of cells and share of each type, by barcode."""
    lattice = section.lattice
    numbers = section.cell_types
    total = numbers.sum(axis=1)
    table = pd.DataFrame(
        {
            "barcode": lattice.barcode[lattice.in_tissue],
            "region": lattice.region[lattice.in_tissue],
            "n_cells": total,
        }
    )
    shares = numbers.div(total.clip(lower=1), axis=0).round(3)
    pd.concat([table, shares], axis=1).sort_values("barcode").to_csv(
        path, index=False, lineterminator="\n"
    )


def write_section(section: SimulatedSection, folder: Path) -> None:
    """Write the whole folder."""
    outs = folder / "outs"
    shutil.rmtree(outs, ignore_errors=True)
    write_spatial(section, outs / "spatial")
    write_counts(section, outs / "filtered_feature_bc_matrix.h5")
    write_truth(section, folder / "regions.csv")
    (folder / "SIMULATED.txt").write_text(NOTICE)
    with h5py.File(outs / "filtered_feature_bc_matrix.h5") as file:
        matrix = file["matrix"]
        sums = {
            "counts": checksum(matrix["data"][:], matrix["indices"][:], matrix["indptr"][:]),
            "image": checksum(section.image),
        }
    (folder / "checksums.json").write_text(json.dumps(sums, indent=1) + "\n")


def main() -> None:
    """Simulate, write, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "tonsil_simulated")
    folder = parser.parse_args().output
    section = simulate()
    write_section(section, folder)
    rna = np.asarray(section.rna.sum(1)).ravel()
    print(f"{folder}: {section.rna.shape[0]} spots, {section.rna.shape[1]} genes")
    print(
        f"median RNA UMI {np.median(rna):.0f}, genes {np.median(np.diff(section.rna.indptr)):.0f}"
    )
    print(f"median antibody counts {np.median(section.protein.sum(1)):.0f}")
    print(f"median cells a spot {section.cell_types.sum(axis=1).median():.0f}")


if __name__ == "__main__":
    main()
