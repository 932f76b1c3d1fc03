"""What is given odd inputs: every reader of files that a user can hand in, and what takes names."""

from __future__ import annotations

from fuzzing import models, naming, sections, texts
from fuzzing.target import Make

TARGETS: dict[str, tuple[Make, int]] = {
    ".h5ad": (sections.table("h5ad"), 10),
    ".h5ad, streamed": (sections.streamed("h5ad"), 10),
    "10x .h5": (sections.table("tenx"), 25),
    ".zarr": (sections.table("zarr", *sections.STORE), 10),
    ".zarr of the second format": (sections.table("zarr2", *sections.STORE_2), 10),
    ".zarr in shards": (sections.table("sharded", *sections.SHARDED), 10),
    ".zarr, streamed": (sections.streamed("zarr", *sections.STORE), 10),
    "store of cells": (sections.store, 10),
    "SpatialData": (sections.table("spatialdata", *sections.SPATIALDATA), 3),
    "matrix.mtx, barcodes, features": (sections.mtx, 50),
    "the same, compressed": (sections.packed_mtx, 40),
    "Visium folder": (sections.visium, 8),
    "scale factors": (sections.scalefactors, 120),
    "positions .csv": (sections.positions(parquet=False), 80),
    "positions .parquet": (sections.positions(parquet=True), 60),
    ".png": (sections.image(".png"), 60),
    ".jpg": (sections.image(".jpg"), 80),
    ".tif": (sections.image(".tif"), 60),
    "safetensors": (models.tensors, 120),
    "config.json and tables of a model": (models.model, 40),
    "whole model": (models.whole_model, 10),
    "calibration and the like": (models.beside_model, 40),
    "weights of PyTorch": (models.pickles, 80),
    "tables of the published model": (models.orders, 25),
    "recipe": (texts.recipe, 60),
    "antibody table": (texts.antibodies, 30),
    "regions": (texts.regions, 150),
    "outlines of cells": (texts.outlines, 150),
    "categories": (texts.categories, 60),
    "download, tar": (texts.archive(packed=False), 60),
    "download, gzip": (texts.archive(packed=True), 80),
    "protein name": (naming.proteins, 40),
    "panel": (naming.panels, 40),
    "gene names": (naming.genes, 12),
    "--proteins": (naming.protein_lists, 25),
    "paths": (naming.paths, 150),
    "names of cells and genes": (naming.barcodes, 3),
}
"""What is tried, and its share of the executions: the quicker, the more of them."""
