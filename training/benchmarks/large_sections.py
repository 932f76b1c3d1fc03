"""Simulated sections of real size: Visium HD bins, Xenium cells, segmented cells.

They are made of the tissue, the cells and the histology of the sample section
(``sample_data/``), drawn larger, in the file layouts of Space Ranger 4 and Xenium Onboard Analysis.
Nobody measured them: they show what size does to time and memory, nothing else. Counts are drawn
and written some thousand rows at a time.

Sizes follow public data: the Visium HD colon cancer section of Oliveira et al. (2024) has 545,913
bins of 8 µm with about 380 molecules of 300 genes each; Xenium panels have some 380 genes, of
which a cell expresses 60 to 100.

Shapes: n bins or cells, T cell types, G genes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "sample_data"))

SEED = 7
ROWS_AT_ONCE = 10_000
BIN_UM = 8.0
FULL_RESOLUTION_UM = 0.275
"""Pixel of the full-resolution image that Visium HD positions refer to."""
ROTATION = 0.007
"""Of the slide under the image, in radians: real bins never lie square to it."""
HIRES_PIXELS = 6_000
MOLECULES_OF_BIN, MOLECULES_OF_CELL = 380, 170
XENIUM_GENES, HD_GENES = 380, 18_000
MORPHOLOGY_UM = 1.7
"""Pixel of the largest level that is written; real ones begin with 0.2125 µm."""
CELL_AREA_UM2 = 52.0
GAP_UM = 120.0
"""Between pieces of tissue."""
CONTROLS = {
    "Negative Control Probe": 20,
    "Negative Control Codeword": 41,
    "Genomic Control": 10,
    "Unassigned Codeword": 141,
    "Deprecated Codeword": 6,
}
NOTICE = "SIMULATED. Nobody measured this section: it shows what size does to time and memory.\n"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """A canvas of tissue with cells, and what they express; see ``sample_data``."""

    tissue: Any
    cells: Any
    profiles: Any


def make_scene(pixel_um: float = 1.725) -> Scene:
    """Draw the compartments and scatter the cells; coarser pixels are quicker."""
    from cells import place_cells
    from counts import read_profiles
    from tissue import make_tissue

    profiles = read_profiles()
    tissue = make_tissue(pixel_um, SEED)
    return Scene(tissue=tissue, cells=place_cells(tissue, profiles.types, SEED), profiles=profiles)


# --- counts -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Genes:
    """Genes, and how often each type expresses them.

    Attributes
    ----------
    names, ids
        Length G.
    cumulative
        (T + 1, G) float64, from 0 to 1 along the genes; the last row is what drifts about.
    """

    names: list[str]
    ids: list[str]
    cumulative: np.ndarray


def whole_transcriptome(profiles: Any, n_genes: int = HD_GENES) -> Genes:
    """All genes of the profiles, and rare ones up to the number that a probe set has."""
    known = pd.read_csv(REPOSITORY / "src/sclinguist_core/vocabulary/tables/genes.tsv.gz", sep="\t")
    known = known[~known["symbol"].isin(profiles.genes["symbol"]) & known["ensembl_id"].notna()]
    rare = known.iloc[: max(n_genes - len(profiles.genes), 0)]
    rates = np.hstack(
        [profiles.rna * 0.97, np.full((len(profiles.rna), len(rare)), 0.03 / max(len(rare), 1))]
    )
    return _genes(
        [*profiles.genes["symbol"], *rare["symbol"]],
        [*profiles.genes["gene_id"], *rare["ensembl_id"]],
        rates,
    )


def panel(profiles: Any, n_genes: int = XENIUM_GENES) -> Genes:
    """Genes that tell the types apart, as panels have them; the frequent ones are damped."""
    logs = np.log1p(profiles.rna * 1e4)
    housekeeping = profiles.genes["symbol"].str.match(r"^(RP[LS]|MT-|MALAT1|MRP)").to_numpy()
    spread = np.where(housekeeping, -1.0, logs.std(axis=0))
    chosen = np.sort(np.argsort(-spread, kind="stable")[:n_genes])
    table = profiles.genes.iloc[chosen]
    return _genes([*table["symbol"]], [*table["gene_id"]], profiles.rna[:, chosen] ** 0.6)


def _genes(names: list[str], ids: list[str], rates: np.ndarray) -> Genes:
    rates = np.vstack([rates, rates.mean(axis=0)])
    cumulative = np.cumsum(rates, axis=1)
    return Genes(names=names, ids=ids, cumulative=cumulative / cumulative[:, -1:])


def draw_counts(
    genes: Genes, types: np.ndarray, shares: np.ndarray, totals: np.ndarray, rng: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the molecules of some rows: data, indices, and lengths of the rows (n,).

    Parameters
    ----------
    types, shares
        (n, k) types that each row is mixed of, and the part of each, adding up to 1.
    totals
        (n,) molecules of each row.
    """
    row = np.repeat(np.arange(len(totals)), totals)
    draw = rng.random(len(row))
    part = (np.cumsum(shares, axis=1)[row] < draw[:, None]).sum(axis=1)
    kind = types[row, np.minimum(part, types.shape[1] - 1)]
    gene = np.empty(len(row), np.int64)
    draw = rng.random(len(row))
    for one in np.unique(kind):
        of_kind = kind == one
        gene[of_kind] = np.searchsorted(genes.cumulative[one], draw[of_kind])
    n_genes = genes.cumulative.shape[1]
    key, counts = np.unique(row * n_genes + np.minimum(gene, n_genes - 1), return_counts=True)
    return counts, key % n_genes, np.bincount(key // n_genes, minlength=len(totals))


def write_counts(
    path: Path,
    barcodes: np.ndarray,
    genes: Genes,
    rows: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    controls: dict[str, int] | None = None,
) -> None:
    """Write a 10x .h5 matrix as its rows come."""
    import h5py

    controls = controls or {}
    names, kinds = list(genes.names), ["Gene Expression"] * len(genes.names)
    ids = list(genes.ids)
    for kind, number in controls.items():
        names += [f"{kind.replace(' ', '')}_{i:04d}" for i in range(number)]
        kinds += [kind] * number
    ids += names[len(ids) :]
    packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        data, indices = (
            matrix.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1 << 18,), **packed)
            for name, dtype in (("data", "<i4"), ("indices", "<i8"))
        )
        lengths = []
        for values, columns, of_rows in rows:
            start = data.shape[0]
            for dataset, part in ((data, values), (indices, columns)):
                dataset.resize((start + len(part),))
                dataset[start:] = part
            lengths.append(of_rows)
        indptr = np.r_[0, np.cumsum(np.concatenate(lengths))]
        matrix.create_dataset("indptr", data=indptr.astype("<i8"), **packed)
        matrix.create_dataset("shape", data=np.array([len(names), len(barcodes)], "<i4"))
        matrix.create_dataset("barcodes", data=barcodes, **packed)
        features = matrix.create_group("features")
        columns_of = {"id": ids, "name": names, "feature_type": kinds}
        columns_of["genome"] = ["GRCh38"] * len(names)
        for name, values in columns_of.items():
            features.create_dataset(name, data=np.array(values, dtype="S"), **packed)
        file.attrs["software_version"] = "simulated (layout of spaceranger-4.0.1)"
        file.attrs["chemistry_description"] = "SIMULATED: not a measurement"


# --- Visium HD ----------------------------------------------------------------------------------


def write_visium_hd(folder: Path, scene: Scene, n_bins: int) -> Path:
    """Write a Visium HD run with bins of 8 µm under tissue; returns its ``outs``."""
    from fields import CANVAS_UM
    from histology import draw_histology
    from PIL import Image
    from scipy.spatial import cKDTree
    from tissue import BACKGROUND

    tissue, cells, rng = scene.tissue, scene.cells, np.random.default_rng(SEED)
    outs = folder / "outs"
    bins = outs / "binned_outputs" / "square_008um"
    (bins / "spatial").mkdir(parents=True)
    (folder / "SIMULATED.txt").write_text(NOTICE)
    # The tissue is drawn so much larger that it has the wanted number of bins.
    area = float((tissue.region != BACKGROUND).mean()) * CANVAS_UM**2
    stretch = np.sqrt(1.02 * n_bins * BIN_UM**2 / area)
    width = CANVAS_UM * stretch
    n = int(np.ceil(width / BIN_UM))
    row, column = np.divmod(np.arange(n * n), n)
    centred = (np.column_stack([column, row]) + 0.5) * BIN_UM - n * BIN_UM / 2
    cos, sin = np.cos(ROTATION), np.sin(ROTATION)
    place = centred @ np.array([[cos, sin], [-sin, cos]]) + width / 2  # x, y in µm of the image
    depth = tissue.at(tissue.edge_depth, *(place / stretch).T)
    depth[tissue.at(tissue.region, *(place / stretch).T) == BACKGROUND] = -np.inf
    inside = np.sort(np.argsort(-depth, kind="stable")[:n_bins])
    in_tissue = np.zeros(n * n, np.int64)
    in_tissue[inside] = 1
    barcodes = np.array([f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)])
    pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": in_tissue,
            "array_row": row,
            "array_col": column,
            "pxl_row_in_fullres": place[:, 1] / FULL_RESOLUTION_UM,
            "pxl_col_in_fullres": place[:, 0] / FULL_RESOLUTION_UM,
        }
    ).to_parquet(bins / "spatial" / "tissue_positions.parquet")
    full = width / FULL_RESOLUTION_UM
    factors = {
        "tissue_hires_scalef": HIRES_PIXELS / full,
        "tissue_lowres_scalef": HIRES_PIXELS / 10 / full,
        "spot_diameter_fullres": BIN_UM / FULL_RESOLUTION_UM,
        "fiducial_diameter_fullres": 1206.5,
        "bin_size_um": BIN_UM,
        "microns_per_pixel": FULL_RESOLUTION_UM,
        "regist_target_img_scalef": HIRES_PIXELS / full,
    }
    (bins / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    image = Image.fromarray(draw_histology(tissue, cells, SEED))
    for key, side in (("hires", HIRES_PIXELS), ("lowres", HIRES_PIXELS // 10)):
        resized = image.resize((side, side), Image.Resampling.BICUBIC)
        resized.save(bins / "spatial" / f"tissue_{key}_image.png", compress_level=1)

    tree = cKDTree(np.column_stack([cells.x, cells.y]))
    genes = whole_transcriptome(scene.profiles)
    ambient = len(scene.profiles.types)

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, n_bins, ROWS_AT_ONCE):
            some = inside[start : start + ROWS_AT_ONCE]
            distance, nearest = tree.query(place[some] / stretch, k=3)
            weight = np.exp(-((distance / 6.0) ** 2)) + 1e-3
            shares = np.column_stack(
                [0.95 * weight / weight.sum(axis=1, keepdims=True), np.full(len(some), 0.05)]
            )
            types = np.column_stack([cells.kind[nearest], np.full(len(some), ambient)])
            load = 0.5 + 0.5 * np.minimum(weight.sum(axis=1), 1.5)
            totals = rng.poisson(MOLECULES_OF_BIN * load * rng.lognormal(0, 0.45, len(some)))
            yield draw_counts(genes, types, shares, totals, rng)

    path = bins / "filtered_feature_bc_matrix.h5"
    write_counts(path, barcodes[inside].astype("S"), genes, rows())
    return outs


# --- Xenium and segmented cells -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScatteredCells:
    """Cells over several copies of the canvas, in rows of the picture.

    Attributes
    ----------
    x, y
        (n,) in µm.
    kind
        (n,) type.
    area
        (n,) in µm².
    side
        Of the whole square, in µm.
    """

    x: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    area: np.ndarray
    side: float


def scatter_cells(scene: Scene, n_cells: int) -> ScatteredCells:
    """Lay copies of the canvas beside each other, mirrored, until there are enough cells."""
    rng, cells = np.random.default_rng(SEED), scene.cells
    tiles = int(np.ceil(np.sqrt(n_cells / len(cells.x))))
    own_x, own_y = cells.x - cells.x.min(), cells.y - cells.y.min()
    width, height = own_x.max(), own_y.max()
    x, y = [], []
    for i in range(tiles):
        for j in range(tiles):
            x.append(GAP_UM + j * (width + GAP_UM) + (own_x if j % 2 == 0 else width - own_x))
            y.append(GAP_UM + i * (height + GAP_UM) + (own_y if i % 2 == 0 else height - own_y))
    kind = np.tile(cells.kind, tiles**2)
    chosen = np.sort(rng.choice(len(kind), n_cells, replace=False))
    return ScatteredCells(
        x=np.concatenate(x)[chosen],
        y=np.concatenate(y)[chosen],
        kind=kind[chosen],
        area=CELL_AREA_UM2 * rng.lognormal(0, 0.25, n_cells),
        side=float(max(width, height) + GAP_UM) * tiles + GAP_UM,
    )


def write_xenium(folder: Path, scene: Scene, n_cells: int) -> Path:
    """Write a Xenium run of cells with a morphology image; returns its folder."""
    folder.mkdir(parents=True)
    (folder / "SIMULATED.txt").write_text(NOTICE)
    cells = scatter_cells(scene, n_cells)
    ids = np.array([_xenium_id(i) for i in range(1, n_cells + 1)])
    totals = _totals(n_cells, np.random.default_rng(SEED + 1))
    pd.DataFrame(
        {
            "cell_id": ids,
            "x_centroid": cells.x,
            "y_centroid": cells.y,
            "transcript_counts": totals,
            "control_probe_counts": np.zeros(n_cells, np.int64),
            "total_counts": totals,
            "cell_area": cells.area,
            "nucleus_area": cells.area * 0.4,
        }
    ).to_parquet(folder / "cells.parquet")
    (folder / "experiment.xenium").write_text(
        json.dumps({"major_version": 6, "num_cells": n_cells, "pixel_size": MORPHOLOGY_UM})
    )
    genes = panel(scene.profiles)
    write_counts(
        folder / "cell_feature_matrix.h5",
        ids.astype("S"),
        genes,
        _rows_of_cells(cells, genes, totals, controls=sum(CONTROLS.values())),
        controls=CONTROLS,
    )
    _write_morphology(folder / "morphology_focus" / "morphology_focus_0000.ome.tif", cells)
    return folder


def write_segmented(folder: Path, scene: Scene, n_cells: int) -> Path:
    """Write ``segmented_outputs`` of Space Ranger 4, without an image; returns it."""
    folder = folder / "outs" / "segmented_outputs"
    (folder / "spatial").mkdir(parents=True)
    (folder / "SIMULATED.txt").write_text(NOTICE)
    cells = scatter_cells(scene, n_cells)
    barcodes = np.array([f"cellid_{i:09d}-1" for i in range(1, n_cells + 1)], dtype="S")
    genes = panel(scene.profiles)
    totals = _totals(n_cells, np.random.default_rng(SEED + 1))
    path = folder / "filtered_feature_cell_matrix.h5"
    write_counts(path, barcodes, genes, _rows_of_cells(cells, genes, totals))
    factors = {"microns_per_pixel": FULL_RESOLUTION_UM, "tissue_hires_scalef": 0.1}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    _write_outlines(folder / "cell_segmentations.geojson", cells)
    return folder


def _totals(n_cells: int, rng: Any) -> np.ndarray:
    return rng.poisson(MOLECULES_OF_CELL * rng.lognormal(0, 0.4, n_cells))


def _rows_of_cells(
    cells: ScatteredCells, genes: Genes, totals: np.ndarray, *, controls: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw the counts of cells; every twentieth cell has a molecule of a control."""
    rng = np.random.default_rng(SEED + 2)
    ambient = len(genes.cumulative) - 1
    for start in range(0, len(totals), ROWS_AT_ONCE):
        kind = cells.kind[start : start + ROWS_AT_ONCE]
        n = len(kind)
        types = np.column_stack([kind, np.full(n, ambient)])
        shares = np.tile([0.93, 0.07], (n, 1))
        data, indices, lengths = draw_counts(genes, types, shares, totals[start : start + n], rng)
        if controls:
            ends = np.cumsum(lengths)[::20]
            where = len(genes.names) + rng.integers(0, controls, len(ends))
            data, indices = np.insert(data, ends, 1), np.insert(indices, ends, where)
            lengths[::20] += 1
        yield data, indices, lengths


def _xenium_id(number: int) -> str:
    """Write a number as Xenium does: hexadecimal in the letters a to p."""
    return f"{number:08x}".translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop")) + "-1"


def _write_morphology(path: Path, cells: ScatteredCells) -> None:
    """Nuclei as soft ellipses, a pyramid of 16 bits."""
    import tifffile
    from histology import stamp

    path.parent.mkdir()
    rng, n = np.random.default_rng(SEED), int(np.ceil(cells.side / MORPHOLOGY_UM))
    canvas = np.zeros((n, n), np.float32)
    axis = 0.8 * np.sqrt(cells.area * 4 / np.pi) / MORPHOLOGY_UM
    place = (cells.x / MORPHOLOGY_UM, cells.y / MORPHOLOGY_UM)
    size = len(cells.x)
    shape = (axis, axis * rng.uniform(0.65, 1, size), rng.uniform(0, np.pi, size))
    stamp(canvas, *place, *shape, rng.lognormal(0, 0.3, size), np.full(size, 0.2))
    level = (canvas * 2_000 + 80).astype(np.uint16)
    del canvas
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tiff:
        options = {"tile": (1024, 1024), "compression": "zlib"}
        metadata = {"axes": "YX", "PhysicalSizeX": MORPHOLOGY_UM, "PhysicalSizeY": MORPHOLOGY_UM}
        tiff.write(level, subifds=4, metadata=metadata, **options)
        for _ in range(4):
            level = level[: len(level) // 2 * 2, : len(level) // 2 * 2]
            level = level.reshape(len(level) // 2, 2, -1, 2).mean((1, 3)).astype(np.uint16)
            tiff.write(level, subfiletype=1, **options)


def _write_outlines(path: Path, cells: ScatteredCells) -> None:
    """Write a polygon of 24 corners a cell, in pixels of the full-resolution image."""
    rng, angle = np.random.default_rng(SEED), np.linspace(0, 2 * np.pi, 25)[:-1]
    radius = np.sqrt(cells.area / np.pi) / FULL_RESOLUTION_UM
    with path.open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for start in range(0, len(radius), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            r = radius[some, None] * rng.uniform(0.85, 1.15, (len(radius[some]), 24))
            x = np.round(cells.x[some, None] / FULL_RESOLUTION_UM + r * np.cos(angle), 2)
            y = np.round(cells.y[some, None] / FULL_RESOLUTION_UM + r * np.sin(angle), 2)
            features = []
            for i, (xs, ys) in enumerate(zip(x.tolist(), y.tolist(), strict=True), start + 1):
                points = [f"[{a}, {b}]" for a, b in zip(xs, ys, strict=True)]
                outline = ", ".join([*points, points[0]])
                features.append(
                    '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": '
                    f'[[{outline}]]}}, "properties": {{"cell_id": {i}}}}}'
                )
            file.write((", " if start else "") + ", ".join(features))
        file.write("]}")
