"""Readers of sections and of what they are made of: tables, positions, images."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

from faults.makers import picture, positions_as_parquet
from faults.small import Small
from fuzzing.target import Files, Make, Target
from sclinguist_core.data.section import Section
from sclinguist_core.inference.progress import finish


def _check_section(section: Section) -> None:
    """Look whether a section that was read is one."""
    table = section.table
    assert section.n_obs > 0
    assert table.obs_names.is_unique
    assert table.var_names.is_unique
    assert section.name
    rna = section.rna()
    assert rna.counts.shape == (section.n_obs, len(rna.names))
    values = rna.counts.data
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (np.rint(values) == values).all()
    if section.image is not None:
        assert section.image.pixels.size
    if section.is_spatial:
        assert np.isfinite(section.positions).all()
    for scale in (section.spot_diameter, section.microns_per_pixel):
        assert scale is None or 0 < scale < np.inf


def _open(path: Path) -> Callable[[], None]:
    from sclinguist_core.data.readers import open_section

    return lambda: _check_section(open_section(path))


def table(source: str, *inside: str) -> Make:
    """Take an input of which some files are changed, and which is opened as a section."""

    def make(folder: Path, small: Small) -> Target:
        root = small.copy(source, folder)
        return Files(paths=[root / name for name in inside] or [root], read=_open(root))

    return make


def streamed(source: str, *inside: str) -> Make:
    """Take an input of which some files are changed, and which is read in blocks."""

    def make(folder: Path, small: Small) -> Target:
        from sclinguist_core.data.backed_section import BackedSection

        root = small.copy(source, folder)

        def read() -> None:
            with BackedSection(root) as section:
                rna = section.rna()
                counts = rna.counts[0 : section.n_obs]
                assert counts.shape == (section.n_obs, len(rna.names))
                assert (np.isfinite(counts.data) & (counts.data >= 0)).all()

        return Files(paths=[root / name for name in inside] or [root], read=read)

    return make


STORE = (
    "zarr.json", "X/zarr.json", "X/data/zarr.json", "X/data/c/0", "X/indices/zarr.json",
    "X/indices/c/0", "X/indptr/zarr.json", "X/indptr/c/0", "obs/zarr.json", "obs/_index/zarr.json",
    "obs/_index/c/0", "var/zarr.json", "obsm/zarr.json", "obsm/protein/zarr.json",
)  # fmt: skip
SHARDED = (
    "zarr.json", "X/zarr.json", "X/data/zarr.json", "X/data/c/0", "X/data/c/1", "X/indices/c/0",
    "X/indices/zarr.json", "X/indptr/zarr.json", "X/indptr/c/0",
)  # fmt: skip
STORE_2 = (
    ".zattrs", ".zgroup", ".zmetadata", "X/.zattrs", "X/data/.zarray", "X/data/0",
    "X/indices/.zarray", "X/indptr/0", "obs/.zattrs", "obs/_index/.zarray", "obs/_index/0",
)  # fmt: skip


def store(folder: Path, small: Small) -> Target:
    """Take a data set of a store for training, and read it as training does."""
    from sclinguist_core.data.store.build import build_store
    from sclinguist_core.data.store.index import data_sets
    from sclinguist_core.data.store.reader import StoredCells

    root = folder / "store"
    finish(build_store([small.h5ad], root))
    ((place, _),) = data_sets(root)
    inside = [path for path in sorted(place.rglob("*")) if path.is_file()]

    def read() -> None:
        for path, _ in data_sets(root):
            cells = StoredCells(path)
            _check_section(cells.section())
            for start in range(0, cells.n_obs, 5):
                stop = min(start + 5, cells.n_obs)
                assert cells.rows(start, stop).shape == (stop - start, len(cells.names))
                if cells.has_protein:
                    assert len(cells.proteins(start, stop)) == stop - start

    return Files(paths=[root / "store.json", *inside], read=read)


SPATIALDATA = (
    "zarr.json", "tables/table/zarr.json", "tables/table/X/data/zarr.json",
    "tables/table/X/data/c/0", "tables/table/obs/zarr.json", "tables/table/obs/spot_id/zarr.json",
    "tables/table/uns/spatialdata_attrs/zarr.json", "shapes/visium/zarr.json",
    "shapes/visium/shapes.parquet", "images/visium_hires_image/zarr.json",
    "images/visium_hires_image/s0/zarr.json", "images/visium_hires_image/s0/c/0/0/0",
)  # fmt: skip


def mtx(folder: Path, small: Small) -> Target:
    """Read a matrix and its names, not compressed, so that changes reach the text."""
    from sclinguist_core.data.readers.tenx import read_10x_mtx

    packed = small.copy("mtx", folder)
    root = folder / "plain"
    root.mkdir()
    paths = [root / path.name.removesuffix(".gz") for path in sorted(packed.iterdir())]
    for path in paths:
        path.write_bytes(gzip.decompress((packed / f"{path.name}.gz").read_bytes()))

    def read() -> None:
        matrix = read_10x_mtx(root)
        assert matrix.counts.shape == (len(matrix.barcodes), len(matrix.names))
        matrix.to_anndata(root)

    return Files(paths=paths, read=read)


def packed_mtx(folder: Path, small: Small) -> Target:
    """Read a compressed matrix and its names."""
    from sclinguist_core.data.readers.tenx import read_10x_mtx

    root = small.copy("mtx", folder)
    return Files(paths=sorted(root.iterdir()), read=lambda: read_10x_mtx(root))


def scalefactors(folder: Path, small: Small) -> Target:
    """Read the scale factors of a Visium folder."""
    from sclinguist_core.data.readers.positions import read_scalefactors

    spatial = small.copy("visium", folder) / "spatial"

    def read() -> None:
        assert all(np.isfinite(value) for value in read_scalefactors(spatial).values())

    return Files(paths=[spatial / "scalefactors_json.json"], read=read)


def positions(*, parquet: bool) -> Make:
    """Read the positions of a Visium folder."""

    def make(folder: Path, small: Small) -> Target:
        from sclinguist_core.data.readers.positions import read_positions

        spatial = small.copy("visium", folder) / "spatial"
        path = spatial / "tissue_positions.csv"
        if parquet:
            path = positions_as_parquet(spatial, small)

        def read() -> None:
            frame = read_positions(spatial)
            assert np.isfinite(frame.to_numpy()).all()
            assert frame.index.is_unique

        return Files(paths=[path], read=read)

    return make


def image(suffix: str) -> Make:
    """Read an image of this format."""

    def make(folder: Path, small: Small) -> Target:
        from sclinguist_core.data.readers.images import read_image

        path = picture(folder / f"image{suffix}")

        def read() -> None:
            pixels = read_image(path)
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3

        return Files(paths=[path], read=read)

    return make


def visium(folder: Path, small: Small) -> Target:
    """Open a Visium folder of which positions or scale factors are changed."""
    root = small.copy("visium", folder)
    names = ("spatial/tissue_positions.csv", "spatial/scalefactors_json.json")
    return Files(paths=[root / name for name in names], read=_open(root))
