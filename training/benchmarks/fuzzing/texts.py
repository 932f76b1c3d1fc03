"""Readers of recipes, regions, tables of antibodies and categories, and downloads."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from faults.small import Small
from fuzzing.target import Files, Make, Target

_RECIPE = """name: both
paired:
  - a.h5ad
  - {path: b.h5ad, name: b, layer: counts, batch_key: donor, same_cells_as: {d1: a}}
rna: [c.h5]
protein: [{path: d.csv, transpose: true}]
validate: [e.h5ad]
hold_out: [b]
init: {rna: runs/rna, protein: runs/protein}
architecture: translator
model: {width: 64, n_heads: 4, dropout: 0.2, n_components: 8, log_output: true}
fit: {steps: 100, batch_size: 64, learning_rate: 1e-3}
augmentation: {}
masking: {}
trainer: {devices: [0, 1], precision: 32, compile: false, patience: 3}
"""


def recipe(folder: Path, small: Small) -> Target:
    """Read a recipe; what it is written out as says the same."""
    from sclinguist_core.train.recipe import Recipe, read_recipe

    path = folder / "recipe.yaml"
    path.write_text(_RECIPE)

    def read() -> None:
        recipe = read_recipe(path)
        assert isinstance(recipe, Recipe)
        path.write_text(recipe.to_yaml(), "utf-8")
        assert read_recipe(path) == recipe

    return Files(paths=[path], read=read)


def _feature(points: list[list[float]], **properties: Any) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [points]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


_SQUARE = [[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0], [0.0, 0.0]]


def regions(folder: Path, small: Small) -> Target:
    """Read outlines of regions."""
    from sclinguist_core.data.regions import inside, read_geojson

    path = folder / "regions.geojson"
    features = [
        _feature(_SQUARE, name="tumour", classification={"name": "T", "color": [1, 2, 3]}),
        _feature([[1, 1], [2, 1], [2, 2]]),
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    def read() -> None:
        for region in read_geojson(path):
            assert all(np.isfinite(outline).all() for outline in region.polygons)
            inside(region, np.array([[1.0, 1.0], [9.0, 9.0]]))

    return Files(paths=[path], read=read)


def outlines(folder: Path, small: Small) -> Target:
    """Read outlines of segmented cells."""
    from sclinguist_core.data.readers.cell_outlines import read_cell_outlines

    path = folder / "cell_segmentations.geojson"
    features = [_feature(_SQUARE, cell_id=i) for i in range(1, 6)]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    def read() -> None:
        cells = read_cell_outlines(path)
        assert len(cells.numbers) == len(cells.centroids) == len(cells.areas)
        assert len(np.unique(cells.numbers)) == len(cells.numbers)
        assert np.isfinite(cells.areas).all()
        assert np.isfinite(cells.centroids).all()

    return Files(paths=[path], read=read)


def categories(folder: Path, small: Small) -> Target:
    """Read categories of spots."""
    from sclinguist_core.data.regions import categories_for, read_loupe_categories

    path = folder / "clusters.csv"
    path.write_text("Barcode,Cluster,Type\nA-1,1,T cell\nB-1,2,\nC-1,1,B cell\n")

    def read() -> None:
        table = read_loupe_categories(path)
        for column in table.columns:
            assert len(categories_for(["A-1", "B", "D-1"], table, column)) == 3

    return Files(paths=[path], read=read)


def archive(*, packed: bool) -> Make:
    """Unpack a download, of which the tar within is changed, or what packs it."""

    def make(folder: Path, small: Small) -> Target:
        from sclinguist_core.data.unpack import unpack_iter

        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name in ("spatial/a.csv", "spatial/scalefactors_json.json"):
                member = tarfile.TarInfo(name)
                member.size = 600
                archive.addfile(member, io.BytesIO(b"a,b,c\n" * 100))
        path = folder / "spatial.tar.gz"
        tar = folder / "spatial.tar"
        path.write_bytes(gzip.compress(content.getvalue()))
        tar.write_bytes(content.getvalue())
        outside = {"spatial.tar.gz", "spatial.tar"}

        def read() -> None:
            if not packed:
                path.write_bytes(gzip.compress(tar.read_bytes(), 1))
            try:
                with tempfile.TemporaryDirectory(dir=folder) as name:
                    for _ in unpack_iter(path, Path(name), wanted="spatial", max_bytes=2**16):
                        pass
            finally:
                assert {entry.name for entry in folder.iterdir()} == outside

        return Files(paths=[path if packed else tar], read=read)

    return make


def antibodies(folder: Path, small: Small) -> Target:
    """Read a table of antibody counts."""
    from sclinguist_core.train.antibody_table import read_antibody_table
    from sclinguist_core.train.sources import DataEntry

    path = folder / "adt.csv"
    path.write_text("cell,CD3,CD4,CD19,note\nA,1,2,3,x\nB,0,5,9,y\nC,4,0,0,z\n")

    def read() -> None:
        section = read_antibody_table(DataEntry(path=str(path)))
        assert section.table.obs_names.is_unique
        values = section.table.obsm["protein"].to_numpy()  # NaN where not measured
        assert not ((values < 0) | np.isinf(values)).any()

    return Files(paths=[path], read=read)
