"""A small model and small tables for streamed predictions, and a process that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import zarr
from scipy import sparse

import sclinguist_core as scl
from inference.untrained import CONFIG, untrained_cells, untrained_checkpoint
from sclinguist_core.data.backed_section import BackedSection
from sclinguist_core.data.write import write_table
from sclinguist_core.inference import stream
from sclinguist_core.inference.progress import Progress
from sclinguist_core.model.calibration import ContextCalibration, interval_features
from sclinguist_core.model.checkpoint import Checkpoint, save_checkpoint
from sclinguist_core.model.familiarity import Familiarity

BLOCK_VALUES = 6_000
"""A block is then some 50 of the cells."""


def calibration(n_proteins: int = 5) -> ContextCalibration:
    """Calibration in which everything that a section tells has a say."""
    rng = np.random.default_rng(0)
    n_features = len(interval_features(np.zeros(1), np.zeros(1), np.ones(1)))
    low, high = np.zeros(n_features), np.zeros(n_features)
    low[:3], high[:3] = [-1.0, 0.1, 0.05], [1.5, 0.1, 0.05]
    flat = np.ones(n_proteins)
    return ContextCalibration(
        slope=rng.uniform(0.5, 1.5, n_proteins),
        offset=rng.normal(0, 0.1, n_proteins),
        center=0 * flat,
        spread=rng.uniform(0.2, 1.0, n_proteins),
        observed=0.8 * flat,
        evidence=np.r_[np.ones(n_proteins - 1), np.nan],
        agreement=flat,
        implied=flat,
        reliability=flat,
        tested=np.array([0.1, 0.1, 0.2, 0.2, 0.1, 0.3]),
        untested=np.array([0.1, 0.1, 0.2, 0.2, 0.1]),
        lower=low,
        upper=high,
        width_per_std=3.0,
        well=0.7,
        fairly=0.4,
    )


def calibrated_checkpoint(cells: ad.AnnData) -> Checkpoint:
    """Checkpoint with all that a prediction can make use of."""
    checkpoint = untrained_checkpoint(cells, replace(CONFIG, n_components=3))
    shares = np.random.default_rng(1).gamma(0.5, size=(3, len(checkpoint.genes))) + 0.01
    return replace(
        checkpoint,
        calibration={"cells": calibration(), "spots": calibration()},
        familiarity=Familiarity(
            profiles=(shares / shares.sum(axis=1, keepdims=True)).astype(np.float32),
            levels=np.linspace(0, 3, 101),
        ),
    )


def saved_model(folder: Path) -> Path:
    """Save the calibrated checkpoint of the tables that are made here."""
    return save_checkpoint(calibrated_checkpoint(table()), folder / "m")


def table(n_obs: int = 330, *, kind: str = "csr", dtype: Any = np.float32) -> ad.AnnData:
    """Cells with most of what a table can hold beside its counts."""
    cells = untrained_cells(n_obs)
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(cells.X, dtype=dtype)
    cells.X = {"csr": counts, "dense": counts.toarray(), "csc": counts.tocsc()}[kind]
    cells.obs["type"] = np.where(rng.random(n_obs) < 0.5, "T", "B")
    cells.obs["type"] = cells.obs["type"].astype("category")
    cells.obs["is_good"] = rng.random(n_obs) < 0.5
    cells.obs["depth"] = np.asarray(counts.sum(axis=1)).ravel().astype(np.int64)
    cells.obsm["X_pca"] = rng.normal(size=(n_obs, 3))
    cells.obsp["near"] = sparse.random(n_obs, n_obs, 0.01, "csr", random_state=0)
    cells.uns["note"] = "ünïcode"
    cells.uns["colours"] = ["red", "blue"]
    cells.uns["nested"] = {"x": 1.5, "flag": True, "values": np.arange(3)}
    return cells


def normalised(cells: ad.AnnData) -> ad.AnnData:
    """The same table with logarithms in X, so that the counts are elsewhere."""
    changed = cells.copy()
    changed.X = sparse.csr_matrix(cells.X, dtype=np.float32).log1p()
    return changed


def read(path: Path) -> ad.AnnData:
    """Read a table of either format."""
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)


def whole(source: Path, output: Path, **options: Any) -> ad.AnnData:
    """Predict in memory and write; what a streamed prediction is compared with."""
    write_table(scl.predict(source, **options), output)
    return read(output)


def assert_same_results(found: ad.AnnData, expected: ad.AnnData, *, atol: float = 1e-5) -> None:
    """Every result has the same key, names, type, place of NaN, and values."""
    keys = {key for key in expected.obsm if key.startswith("protein_predicted")}
    assert {key for key in found.obsm if key.startswith("protein_predicted")} == keys
    assert keys >= {"protein_predicted"}
    for key in keys:
        one, other = found.obsm[key], expected.obsm[key]
        assert one.columns.tolist() == other.columns.tolist()
        assert one.index.equals(found.obs_names)
        assert {str(dtype) for dtype in one.dtypes} == {"float32"}
        np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=0, atol=atol)
    assert list(found.obs.columns) == list(expected.obs.columns)
    if "sclinguist_ood" in expected.obs:
        ood = found.obs["sclinguist_ood"].to_numpy(), expected.obs["sclinguist_ood"].to_numpy()
        np.testing.assert_allclose(*ood, rtol=0, atol=atol)
    one, other = dict(found.uns["sclinguist"]), dict(expected.uns["sclinguist"])
    assert one.keys() == other.keys()
    for key in one.keys() - {"seconds", "expected_r", "warnings"}:
        assert np.array_equal(one[key], other[key]), key
    for name, r in other.get("expected_r", {}).items():
        np.testing.assert_allclose(one["expected_r"][name], r, atol=2e-3)
    assert {*one["warnings"]} == {*other["warnings"]}


def tree(path: Path, *places: str) -> dict[str, tuple[str, str, int]]:
    """Everything under some groups of a file: attributes, type and dimensions, by name."""
    found: dict[str, tuple[str, str, int]] = {}

    def look(name: str, node: Any) -> None:
        attributes = {
            key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
            for key, value in dict(node.attrs).items()
        }
        text = json.dumps(attributes, sort_keys=True)
        found[name] = (text, str(getattr(node, "dtype", "")), len(getattr(node, "shape", ())))
        if not hasattr(node, "shape"):
            for child in node.keys():  # noqa: SIM118 - zarr groups iterate over names, too
                look(f"{name}/{child}", node[child])

    if path.suffix == ".zarr":
        root = zarr.open_group(path, mode="r")
        for place in places:
            look(place, root[place])
    else:
        with h5py.File(path) as root:
            for place in places:
                look(place, root[place])
    return found


CHILD = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[3])
from sclinguist_core.errors import InputError
from sclinguist_core.inference import stream, stream_blocks, stream_merge, stream_work

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

options = json.loads(sys.argv[1])
moment, number = options.pop("moment"), options.pop("number")
stream.BLOCK_VALUES = options.pop("block_values")
stream_blocks.PATIENCE = options.pop("patience")
work, seen = stream_work.WorkFolder, []
write, replace = work.write, os.replace

def counted_write(self, *given):
    if moment == "before" and len(seen) == number:
        stream_work.os.replace = die
    write(self, *given)
    seen.append(1)
    if moment == "after" and len(seen) == number:
        die()

work.write = counted_write
if moment == "writing":
    stream_merge.PartWriter.add_uns = die
elif moment == "finishing":
    stream_merge.sync_names = die
elif moment == "small files":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
try:
    print(stream.predict_to(**options))
except InputError as error:
    sys.exit(f"InputError: {error}")
"""


def child(
    source: Path,
    output: Path,
    model: Path,
    *,
    moment: str = "",
    number: int = 0,
    environment: dict[str, str] | None = None,
    module: list[str] | None = None,
    patience: float = 60.0,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start a streamed prediction in a process of its own, which may kill itself at a moment."""
    given = {
        "source": str(source),
        "output": str(output),
        "model": str(model),
        "device": "cpu",
        "moment": moment,
        "number": number,
        "block_values": BLOCK_VALUES,
        "patience": patience,
        **options,
    }
    script = output.with_name("child.py")
    script.write_text(CHILD)
    arguments = [str(script), json.dumps(given), "", str(Path(__file__).parents[1])]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *(module or []), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def predicted_alone(source: Path, output: Path, model: Path) -> ad.AnnData:
    """What one process gives that nobody killed."""
    process = child(source, output, model)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    return read(output)


def reach(steps: Generator[Progress, None, Any], phase: str) -> None:
    """Let a streamed prediction come to a phase."""
    while next(steps).phase != phase:
        pass


def n_blocks(source: Path) -> int:
    """Blocks in which a table is predicted by the small model."""
    with BackedSection(source) as section:
        return len(stream.plan_blocks(section, 5)) - 1
