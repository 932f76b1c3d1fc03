"""Parts of a Space Ranger folder that are missing, wrong, or of another run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from faults.fault import Fault, Make
from faults.makers import cases
from faults.small import SCALES, Small

_NAN = float("nan")


def _folder(change: Callable[[Path], None]) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("visium", folder)
        change(root)
        return root

    return make


def _scale(key: str, value: Any) -> Make:
    """Change one scale factor; ``...`` removes it."""

    def change(root: Path) -> None:
        scales = SCALES | {key: value}
        if value is ...:
            del scales[key]
        (root / "spatial" / "scalefactors_json.json").write_text(json.dumps(scales))

    return _folder(change)


def _json(text: str) -> Make:
    return _folder(
        lambda root: (root / "spatial" / "scalefactors_json.json").write_text(text) and None
    )


def _without(*inside: str) -> Make:
    def change(root: Path) -> None:
        for name in inside:
            (root / name).unlink()

    return _folder(change)


def _positions(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Make:
    def on_disk(root: Path) -> None:
        path = root / "spatial" / "tissue_positions.csv"
        change(pd.read_csv(path, dtype=object)).to_csv(path, index=False)

    return _folder(on_disk)


def _set(column: str, value: Any, rows: slice = slice(None)) -> Make:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.iloc[rows, frame.columns.get_loc(column)] = value
        return frame

    return _positions(change)


def _other_run(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(barcode=[f"OTHER{i}-1" for i in range(len(frame))])


def _text(text: str) -> Make:
    return _folder(
        lambda root: (root / "spatial" / "tissue_positions.csv").write_text(text) and None
    )


def _without_mtx(name: str) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("mtx", folder)
        (root / name).unlink()
        return root

    return make


def _mixed_mtx(folder: Path, small: Small) -> Path:
    """A matrix beside the barcodes of another run."""
    import gzip

    root = small.copy("mtx", folder)
    (root / "barcodes.tsv.gz").write_bytes(gzip.compress(b"A-1\nB-1\n"))
    return root


def _small_image(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "spatial" / "tissue_hires_image.png")


def _without_spatial(root: Path) -> None:
    for path in (root / "spatial").iterdir():
        path.unlink()
    (root / "spatial").rmdir()


_SCALES = {
    f"{key.split('_')[1]} of {shown}": (_scale(key, value), f"{key}|expected a number above zero")
    for key in ("spot_diameter_fullres", "tissue_hires_scalef")
    for shown, value in {
        "0": 0, "-1": -1, "NaN": _NAN, "infinity": float("inf"), "text": "1.0", "true": True,
        "a list": [1.0], "10^300": 1e300, "10^-300": 1e-300,
    }.items()
}  # fmt: skip
_MISSING = {
    "matrix": (_without("filtered_feature_bc_matrix.h5"), "positions of spots but no counts"),
    "positions": (_without("spatial/tissue_positions.csv"), "has no positions of spots"),
    "scale factors": (_without("spatial/scalefactors_json.json"), "has no scalefactors_json.json"),
    "diameter": (_scale("spot_diameter_fullres", ...), "does not state spot_diameter_fullres"),
    "scale of the image": (_scale("tissue_hires_scalef", ...), "tissue_hires_scalef = None"),
    "matrix.mtx.gz": (_without_mtx("matrix.mtx.gz"), "nothing that can be opened|no matrix.mtx"),
    "barcodes.tsv.gz": (_without_mtx("barcodes.tsv.gz"), "has no barcodes.tsv"),
    "features.tsv.gz": (_without_mtx("features.tsv.gz"), "has no features.tsv"),
}
_LEFT_OUT = {
    "image": (_without("spatial/tissue_hires_image.png"), "has no image"),
    "spatial": (_folder(_without_spatial), "for 12 cells"),
}
_POSITIONS = {
    "of another run": (_positions(_other_run), "Only 0 of the 12 barcodes"),
    "of a quarter of the spots": (_positions(lambda f: f.iloc[:3]), "Only 3 of the 12 barcodes"),
    "all outside the tissue": (_set("in_tissue", 0), "lies under tissue"),
    "named twice": (_positions(lambda f: pd.concat([f, f])), "twice, such as"),
    "without a column": (_positions(lambda f: f.drop(columns="array_row")), "lacks the column"),
    "with a column twice": (
        _positions(lambda f: pd.concat([f, f[["array_row"]]], axis=1)),
        "twice",
    ),
    "of NaN": (_set("pxl_row_in_fullres", "nan", slice(2)), "2 line.s. that are no positions"),
    "of infinity": (_set("pxl_row_in_fullres", "inf", slice(2)), "2 line.s. that are no positions"),
    "of 10^300": (_set("array_col", "1e300"), "12 line.s. that are no positions"),
    "of text": (_set("pxl_col_in_fullres", "here"), "12 line.s. that are no positions"),
    "without lines": (_positions(lambda f: f.iloc[:0]), "Only 0 of the 12 barcodes"),
    "of unequal lines": (_text("A,1,2\nB,1,2,3,4,5,6,7\n"), "comma-separated"),
    "of five columns": (_text("A,1,2,3,4\n"), "5 columns and no header"),
    "without text": (_text(""), "is empty"),
    "that are a quotation without end": (_text('"A,1,2,3,4,5\n'), "."),
}
_POSITIONS_TOLD = {
    "of half of the spots": (_positions(lambda f: f.iloc[:7]), "5 of 12 barcodes have no position"),
    "beside the image": (_folder(_small_image), "lie outside the image"),
}

FAULTS = [
    *cases("wrong scale factors", _SCALES),
    *cases(
        "wrong scale factors",
        {
            "an array": (_json("[1, 2]"), "does not state"),
            "text alone": (_json('"6.0"'), "does not state"),
            "null": (_json("null"), "does not state"),
            "two objects": (_json("{}{}"), "JSON"),
            "quoted otherwise": (_json("{'a': 1}"), "JSON"),
        },
    ),
    *cases("missing files", _MISSING),
    *cases("missing files", _LEFT_OUT, ends="goes on"),
    *cases("positions that do not fit", _POSITIONS),
    *cases("positions that do not fit", _POSITIONS_TOLD, ends="goes on"),
    *cases("positions that do not fit", {"barcodes of an mtx": (_mixed_mtx, "three files must")}),
    Fault(
        kind="wrong scale factors",
        name="others that are no numbers",
        make=_scale("note", {"a": [1, None, "x"], "b": 10**400}),
        says="for 12 spots",
        ends="goes on",
    ),
]
