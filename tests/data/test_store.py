"""Stores: what is built holds the source's cells, whole or not at all, and is built once."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import sparse_dataset
from scipy import sparse

import synthetic
from sclinguist_core.data.backed import BackedTable
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.store import data_set, index
from sclinguist_core.data.store.build import BuildReport, build_store
from sclinguist_core.data.store.index import data_sets, is_store, read_record
from sclinguist_core.data.store.order import SLICE_ROWS, windows
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.data.store.write import write_element
from sclinguist_core.errors import InputError


def build(*sources: Path, store: Path, **options) -> BuildReport:
    """Build without watching."""
    steps = build_store(sources, store, **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def cells(n_obs: int = 300, seed: int = 0) -> anndata.AnnData:
    """Cells with antibodies, a donor and a score."""
    table = synthetic.paired_cells(n_obs, 250, seed=seed)
    rng = np.random.default_rng(seed)
    table.obs["donor"] = pd.Categorical(rng.choice(["d1", "d2"], n_obs))
    table.obs["score"] = rng.random(n_obs)
    return table


def dense(matrix) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "cells.h5ad"
    cells().write_h5ad(path, compression="gzip")
    return path


@pytest.fixture(scope="module")
def store(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    build(source, store=folder)
    return folder


# --- what is in a store ---


def test_anndata_reads_the_same_cells_in_another_order(source, store):
    stored, given = anndata.read_zarr(store / "cells.zarr"), anndata.read_h5ad(source)
    assert list(stored.obs_names) != list(given.obs_names)
    assert sorted(stored.var_names) == sorted(given.var_names)
    same = given[stored.obs_names, stored.var_names].copy()
    assert stored.X.dtype == np.uint8
    np.testing.assert_array_equal(dense(stored.X), dense(same.X))
    assert (stored.X @ np.ones(stored.n_vars)).sum() == given.X.sum()  # scipy works with it
    pd.testing.assert_frame_equal(stored.obs, same.obs)
    np.testing.assert_array_equal(stored.obsm["protein"], same.obsm["protein"].to_numpy())
    assert list(stored.uns["protein_names"]) == list(same.obsm["protein"].columns)
    n_cells = (dense(given[:, stored.var_names].X) > 0).sum(axis=0)
    assert stored.var["n_cells_expressing"].tolist() == n_cells.tolist()


def test_a_backed_reader_takes_rows(store):
    import zarr

    whole = anndata.read_zarr(store / "cells.zarr").X
    backed = sparse_dataset(zarr.open_group(store / "cells.zarr", mode="r")["X"])
    np.testing.assert_array_equal(dense(backed[50:90]), dense(whole[50:90]))


def test_it_opens_as_any_other_section_does(source, store):
    section, given = open_section(store / "cells.zarr"), open_section(source)
    assert section.warnings == ()
    names = section.table.obs_names
    pd.testing.assert_frame_equal(
        section.table.obsm["protein"], given.table.obsm["protein"].loc[names]
    )
    pd.testing.assert_frame_equal(
        section.table.uns["protein_panel"], given.table.uns["protein_panel"]
    )
    rna = section.rna()
    order = given.table.var_names.get_indexer(section.table.var_names)
    rows = given.table.obs_names.get_indexer(names)
    np.testing.assert_array_equal(dense(rna.counts), dense(given.rna().counts[rows][:, order]))


def test_genes_are_sorted_by_symbol(store):
    from sclinguist_core.vocabulary.genes import resolve_genes

    symbols = resolve_genes(list(anndata.read_zarr(store / "cells.zarr").var_names)).symbols
    assert list(symbols) == sorted(symbols)


def test_the_index_says_what_there_is(source, store):
    index = json.loads((store / "store.json").read_text())
    assert index["format_version"] == 1
    (entry,) = index["data_sets"]
    assert entry["path"] == "cells.zarr"
    assert (entry["n_obs"], entry["n_genes"], entry["n_proteins"]) == (300, 250, 6)
    assert entry["n_values"] == int((dense(anndata.read_h5ad(source).X) > 0).sum())
    assert entry["source"]["size"] == source.stat().st_size
    assert len(entry["source"]["sha256"]) == 64
    assert entry["options"]["seed"] == 0
    assert is_store(store)


def test_reader_gives_any_rows(store):
    whole = anndata.read_zarr(store / "cells.zarr")
    stored = StoredCells(store / "cells.zarr")
    assert (stored.name, stored.n_obs, stored.has_protein) == ("cells", 300, True)
    for start, stop in ((0, 300), (0, 1), (299, 300), (17, 203)):
        rows = stored.rows(start, stop)
        assert rows.dtype == np.float32
        assert rows.has_sorted_indices
        np.testing.assert_array_equal(dense(rows), dense(whole.X[start:stop]))
        np.testing.assert_array_equal(
            stored.proteins(start, stop), whole.obsm["protein"][start:stop]
        )
    part = stored.section(10, 20)
    np.testing.assert_array_equal(dense(part.rna().counts), dense(whole.X[10:20]))
    assert list(part.table.obsm["protein"].columns) == list(whole.uns["protein_names"])


# --- the order of rows ---


def test_every_row_is_in_one_window_and_slices_come_from_everywhere():
    plan = list(windows(np.arange(100_000), 3, values_per_row=1_500.0))
    rows = np.concatenate([window.rows for window in plan])
    np.testing.assert_array_equal(np.sort(rows), np.arange(100_000))
    assert len(plan) > 10
    for window in plan[:-1]:
        assert len(window.slices) >= 80
        firsts = np.sort([one[0] for one in window.slices])
        # As a random sample is spread: in each third of the source about a third of the slices.
        thirds = np.histogram(firsts, bins=3, range=(0, 100_000))[0] / len(firsts)
        assert np.all(np.abs(thirds - 1 / 3) < 0.2)
    inside = np.diff(plan[0].rows)
    assert np.mean(inside == 1) < 0.05


def test_the_seed_decides_the_order():
    def order(seed):
        return np.concatenate([w.rows for w in windows(np.arange(5_000), seed, values_per_row=9.0)])

    np.testing.assert_array_equal(order(1), order(1))
    assert not np.array_equal(order(1), order(2))


def test_slices_are_no_shorter_than_what_the_source_unpacks_at_a_time():
    (window, *_) = windows(np.arange(5_000), 0, values_per_row=9.0, chunk_rows=200)
    assert {len(one) for one in window.slices} == {200}
    (window, *_) = windows(np.arange(5_000), 0, values_per_row=9.0, chunk_rows=1)
    assert {len(one) for one in window.slices[:-1]} <= {SLICE_ROWS, 5_000 % SLICE_ROWS}


# --- sources of all kinds ---


def same_cells(store_path: Path, given: anndata.AnnData) -> None:
    stored = anndata.read_zarr(store_path)
    same = given[stored.obs_names, stored.var_names].copy()
    np.testing.assert_array_equal(dense(stored.X), dense(same.X))


def test_dense_zarr_and_by_column(tmp_path):
    given = cells()
    table = given.copy()
    table.X = dense(table.X)
    table.write_h5ad(tmp_path / "dense.h5ad")
    table.X = sparse.csc_matrix(table.X)
    table.write_h5ad(tmp_path / "column.h5ad")
    from sclinguist_core.data.write import write_table

    write_table(given, tmp_path / "folder.zarr")
    names = ("dense.h5ad", "column.h5ad", "folder.zarr")
    build(*(tmp_path / name for name in names), store=tmp_path / "s")
    for name in names:
        same_cells((tmp_path / "s" / name).with_suffix(".zarr"), given)


@pytest.mark.parametrize("where", ["layers/counts", "raw", "layers/unusual"])
def test_counts_are_found_where_find_counts_finds_them(tmp_path, where):
    given = cells()
    table = given.copy()
    if where == "raw":
        table.raw = table
        table = table[:, :100].copy()
    else:
        table.layers[where.removeprefix("layers/")] = table.X.copy()
    table.X = table.X.copy()
    table.X.data = np.log1p(table.X.data)
    table.write_h5ad(tmp_path / "a.h5ad")
    report = build(tmp_path / "a.h5ad", store=tmp_path / "s")
    assert report.built[0].counts == where
    assert report.notes == list(open_section(tmp_path / "a.h5ad").warnings)
    assert any(where in note for note in report.notes)
    same_cells(tmp_path / "s/a.zarr", given)


def test_the_smallest_type_holds_the_largest_count(tmp_path):
    for highest, kind in ((255, np.uint8), (256, np.uint16), (70_000, np.uint32)):
        table = cells(60)
        table.X.data[3] = highest
        table.write_h5ad(tmp_path / "a.h5ad")
        build(tmp_path / "a.h5ad", store=tmp_path / f"s{highest}")
        stored = anndata.read_zarr(tmp_path / f"s{highest}/a.zarr")
        assert stored.X.dtype == kind
        assert stored.X.max() == highest


def test_estimated_counts_are_rounded_before_their_type_is_chosen(tmp_path):
    table = cells(60)
    table.X = sparse.csr_matrix(table.X, dtype=np.float32)
    table.X.data[:2] = 255.7, 0.4  # 0.4 of a read is none
    table.write_h5ad(tmp_path / "a.h5ad")
    build(tmp_path / "a.h5ad", store=tmp_path / "s")
    stored = anndata.read_zarr(tmp_path / "s/a.zarr")
    assert (stored.X.max(), stored.X.dtype) == (256, np.uint16)
    assert dense(stored.X).sum() == np.rint(table.X.data).sum()


def test_a_count_that_does_not_fit_is_told_and_never_wraps(tmp_path, monkeypatch):
    cells(60).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file["X/data"][3] = 256
    monkeypatch.setattr(data_set, "smallest_type", lambda _: np.dtype(np.uint8))
    with pytest.raises(InputError, match="counts beyond 255, expected none above 256"):
        build(tmp_path / "a.h5ad", store=tmp_path / "s")
    assert data_sets(tmp_path / "s") == []


def test_antibodies_among_the_features_go_to_protein(tmp_path):
    given = cells()
    proteins = given.obsm["protein"]
    table = anndata.AnnData(
        sparse.hstack([given.X, sparse.csr_matrix(proteins.to_numpy())], format="csr"),
        obs=given.obs,
        var=pd.DataFrame(
            {"feature_types": ["Gene Expression"] * 250 + ["Antibody Capture"] * 6},
            index=[*given.var_names, *(f"{name}_ab" for name in proteins.columns)],
        ),
    )
    table.write_h5ad(tmp_path / "a.h5ad")
    (record,) = build(tmp_path / "a.h5ad", store=tmp_path / "s").built
    assert (record.n_genes, record.n_proteins) == (250, 6)
    stored = open_section(tmp_path / "s/a.zarr").table
    whole = open_section(tmp_path / "a.h5ad").table
    pd.testing.assert_frame_equal(
        stored.obsm["protein"], whole.obsm["protein"].loc[stored.obs_names]
    )
    same_cells(tmp_path / "s/a.zarr", given)


@pytest.mark.parametrize("key", ["protein_expression", "own"])
def test_antibodies_under_another_key(tmp_path, key):
    given = cells()
    table = given.copy()
    frame = table.obsm["protein"]
    del table.obsm["protein"]
    table.obsm["pca"] = np.random.default_rng(0).random((300, 6))
    table.obsm[key] = frame.to_numpy()
    if key == "own":
        table.obsm[key] = frame
    else:
        table.uns["protein_names"] = np.array(frame.columns, dtype=object)
    table.write_h5ad(tmp_path / "a.h5ad")
    options = {"protein_key": "own"} if key == "own" else {}
    build(tmp_path / "a.h5ad", store=tmp_path / "s", **options)
    stored = open_section(tmp_path / "s/a.zarr").table
    pd.testing.assert_frame_equal(
        stored.obsm["protein"], frame.loc[stored.obs_names].astype(np.float32), check_names=False
    )


def test_ten_x_h5_by_the_reader_of_that_format(tmp_path):
    given = cells(80)
    matrix = sparse.csr_matrix(given.X, dtype=np.int32)
    with h5py.File(tmp_path / "sample.h5", "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = (
            matrix.data,
            matrix.indices,
            matrix.indptr,
        )
        group["shape"] = np.array([250, 80])
        group["barcodes"] = given.obs_names.to_numpy().astype("S")
        features = group.create_group("features")
        features["id"] = features["name"] = given.var_names.to_numpy().astype("S")
        features["feature_type"] = np.array(["Gene Expression"] * 250, "S")
        features["genome"] = np.array(["GRCh38"] * 250, "S")
    build(tmp_path / "sample.h5", store=tmp_path / "s")
    stored = anndata.read_zarr(tmp_path / "s/sample.zarr")
    table = open_section(tmp_path / "sample.h5").table
    np.testing.assert_array_equal(
        dense(stored.X), dense(table[stored.obs_names, stored.var_names].X)
    )


def test_split_into_one_data_set_a_value(source, tmp_path):
    build(source, store=tmp_path, split_by="donor")
    given = anndata.read_h5ad(source)
    names = [record.name for _, record in data_sets(tmp_path)]
    assert names == ["cells/d1", "cells/d2"]
    for donor in ("d1", "d2"):
        same_cells(tmp_path / f"cells/{donor}.zarr", given)
        stored = anndata.read_zarr(tmp_path / f"cells/{donor}.zarr")
        assert set(stored.obs["donor"]) == {donor}
        assert stored.n_obs == (given.obs["donor"] == donor).sum()


def test_labels_are_folders_of_their_own_on_every_disk(tmp_path):
    table = cells(60)
    table.obs["kind"] = [["T: a?", "con", "B."][i % 3] for i in range(60)]
    table.write_h5ad(tmp_path / "a.h5ad")
    build(tmp_path / "a.h5ad", store=tmp_path / "s", split_by="kind")
    folders = sorted(path.name for path, _ in data_sets(tmp_path / "s"))
    assert folders == ["B..zarr", "T- a-.zarr", "con-.zarr"]
    for one, other in (("T cell", "t cell"), ("a/b", "a:b"), ("caf\u00e9", "Cafe\u0301")):
        table.obs["kind"] = [one, other] * 30
        table.write_h5ad(tmp_path / "a.h5ad")
        with pytest.raises(InputError, match="values of 'kind' differ by upper and lower case"):
            build(tmp_path / "a.h5ad", store=tmp_path / "none", split_by="kind")
    assert data_sets(tmp_path / "none") == []


def test_a_folder_with_one_table_in_it_is_that_table(source, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(source, tmp_path / "run/cells.h5ad")
    (record,) = build(tmp_path / "run", store=tmp_path / "s").built
    assert (record.name, record.n_obs) == ("cells", 300)
    assert not build(tmp_path / "run", store=tmp_path / "s").built


def test_content_is_sampled_once_a_source(source, tmp_path, monkeypatch):
    sampled, sample = [], index._add_sample
    monkeypatch.setattr(
        index, "_add_sample", lambda *given: (sampled.append(given[1]), sample(*given))
    )
    assert len(build(source, store=tmp_path, split_by="donor").built) == 2
    assert sampled == [source.resolve()]


# --- building again ---


def test_what_is_there_stays_and_what_is_new_is_added(source, tmp_path):
    build(source, store=tmp_path / "s")
    before = contents(tmp_path / "s/cells.zarr")
    other = tmp_path / "other.h5ad"
    cells(50, seed=1).write_h5ad(other)
    report = build(source, other, store=tmp_path / "s")
    assert [r.name for r in report.built] == ["other"]
    assert [r.name for r in report.kept] == ["cells"]
    assert contents(tmp_path / "s/cells.zarr") == before
    assert build(source, other, store=tmp_path / "s").built == []


def test_the_same_source_and_seed_give_the_same_bytes(source, store, tmp_path):
    build(source, store=tmp_path / "again")
    assert contents(tmp_path / "again/cells.zarr") == contents(store / "cells.zarr")
    build(source, store=tmp_path / "other", seed=1)
    one, other = (anndata.read_zarr(f / "cells.zarr") for f in (store, tmp_path / "other"))
    assert list(one.obs_names) != list(other.obs_names)


def test_a_changed_source_is_stored_anew_and_said_so(tmp_path):
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    build(path, store=tmp_path / "s")
    cells(120, seed=5).write_h5ad(path)
    report = build(path, store=tmp_path / "s")
    assert [r.n_obs for r in report.built] == [120]
    assert report.notes == [f"'{path}' has changed since it was stored, and was stored anew."]
    same_cells(tmp_path / "s/cells.zarr", cells(120, seed=5))


def test_a_change_of_content_alone_is_seen(tmp_path):
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    build(path, store=tmp_path / "s")
    status = path.stat()
    with h5py.File(path, "r+") as file:
        file["X/data"][0] += 1
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert len(build(path, store=tmp_path / "s").built) == 1


def test_a_source_may_move(tmp_path):
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    build(path, store=tmp_path / "s")
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere/cells.h5ad")
    report = build(moved, store=tmp_path / "s")
    assert (len(report.built), len(report.kept)) == (0, 1)


def test_other_options_are_stored_anew_and_the_old_goes(source, tmp_path):
    build(source, store=tmp_path)
    report = build(source, store=tmp_path, split_by="donor")
    assert report.notes == [f"'{source}' was stored with other options, and was stored anew."]
    assert [record.name for _, record in data_sets(tmp_path)] == ["cells/d1", "cells/d2"]
    assert not (tmp_path / "cells.zarr").exists()


def test_leftovers_are_ignored_and_cleaned(source, store, tmp_path):
    shutil.copytree(store, tmp_path / "s")
    leftovers = [tmp_path / "s/.cells.zarr.abc.part", tmp_path / "s/cells/.d1.zarr.x.part"]
    for left in leftovers:
        shutil.copytree(store / "cells.zarr", left / "cells.zarr")
        (left / ".lock").touch()
    assert [path.name for path, _ in data_sets(tmp_path / "s")] == ["cells.zarr"]
    report = build(source, store=tmp_path / "s")
    assert len(report.kept) == 1
    assert not any(left.exists() for left in leftovers)


# --- interrupted ---

KILLED = """
import sys
from pathlib import Path
from sclinguist_core.data.store.build import build_store
print("ready", flush=True)
for progress in build_store([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), split_by="donor"):
    print(progress.phase, flush=True)
"""


def start_build(store: Path, *sources: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store), *map(str, sources)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_at_any_moment_and_called_again_it_is_the_same_store(tmp_path):
    sources = []
    for number in range(2):
        sources.append(tmp_path / f"set{number}.h5ad")
        cells(600, seed=number).write_h5ad(sources[-1])
    build(*sources, store=tmp_path / "unbroken", split_by="donor")
    expected = contents(tmp_path / "unbroken")
    finished = {path.relative_to(tmp_path / "unbroken"): c for path, c in (
        (path, contents(path)) for path, _ in data_sets(tmp_path / "unbroken"))}  # fmt: skip
    rng = random.Random(0)
    store, n_kills = tmp_path / "killed", 0
    for n_steps in (3, 4, 4):
        process = start_build(store, *sources)
        # A few steps, and some way into the next one.
        for _ in range(n_steps):
            process.stdout.readline()
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        n_kills += process.returncode == -signal.SIGKILL
        for path, _ in data_sets(store):
            # What has a name is whole, byte for byte.
            assert contents(path) == finished[path.relative_to(store)]
    assert n_kills >= 2
    build(*sources, store=store, split_by="donor")
    assert contents(store) == expected
    assert len(finished) == 4


def test_a_data_set_gets_its_name_in_one_step_when_it_is_complete(source, tmp_path, monkeypatch):
    renamed = {}
    rename = data_set.replace_folder

    def look(new, final):
        assert not final.exists()
        assert read_record(new) is not None
        renamed[final] = contents(new)
        rename(new, final)

    monkeypatch.setattr(data_set, "replace_folder", look)
    build(source, store=tmp_path, split_by="donor")
    assert list(renamed) == [tmp_path / "cells/d1.zarr", tmp_path / "cells/d2.zarr"]
    for final, content in renamed.items():
        assert contents(final) == content


def test_an_interrupt_leaves_nothing_unfinished(source, tmp_path):
    steps = build_store([source], tmp_path / "s")
    for progress in steps:
        if progress.phase.startswith("writing"):
            break
    assert any(".part" in path.name for path in (tmp_path / "s").iterdir())
    steps.close()
    assert contents(tmp_path / "s") == {}


def test_two_builders_do_not_meet(source, tmp_path):
    steps = build_store([source], tmp_path / "s")
    next(steps)
    with pytest.raises(InputError, match="is being built by another process"):
        build(source, store=tmp_path / "s")
    steps.close()
    assert len(build(source, store=tmp_path / "s").built) == 1


def test_a_full_disk_is_one_sentence_and_leaves_finished_sets(source, tmp_path, monkeypatch):
    other = tmp_path / "other.h5ad"
    cells(50, seed=1).write_h5ad(other)
    build(other, store=tmp_path / "s")
    before = contents(tmp_path / "s/other.zarr")

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_set, "sync", full)
    with pytest.raises(InputError, match=r"No space left on device.*call it again"):
        build(other, source, store=tmp_path / "s")
    assert [path.name for path, _ in data_sets(tmp_path / "s")] == ["other.zarr"]
    assert contents(tmp_path / "s/other.zarr") == before
    assert not list((tmp_path / "s").glob(".*.part"))


# --- memory ---


def test_antibodies_that_the_disk_has_no_room_for_are_an_error(source, tmp_path, monkeypatch):
    """Behind a memory map a full disk is a signal that ends the process, and nobody can catch."""

    class Full(io.FileIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(data_set, "open", Full, raising=False)
    with pytest.raises(InputError, match=r"Writing '.*s' failed \(No space left on device\)"):
        build(source, store=tmp_path / "s")
    assert [path.name for path in (tmp_path / "s").iterdir() if path.is_dir()] == []


def test_memory_does_not_grow_with_the_source(tmp_path, monkeypatch):
    """A source of 29 MB in blocks of 0.4 MB."""
    n_obs, n_genes, expressed = 24_000, 400, 150
    rng = np.random.default_rng(0)
    names = synthetic.paired_cells(2, n_genes).var_names
    indices = np.sort(
        np.argpartition(rng.random((n_obs, n_genes), np.float32), expressed, 1)[:, :expressed], 1
    )
    counts = sparse.csr_matrix(
        (
            rng.integers(1, 9, indices.size).astype(np.float32),
            indices.ravel().astype(np.int32),
            np.arange(n_obs + 1) * expressed,
        ),
        shape=(n_obs, n_genes),
    )
    table = anndata.AnnData(counts, var=pd.DataFrame(index=names))
    table.obs_names = [f"cell-{i}" for i in range(n_obs)]
    table.write_h5ad(tmp_path / "a.h5ad")
    whole = counts.data.nbytes + counts.indices.nbytes
    del table, counts, indices
    monkeypatch.setattr("sclinguist_core.data.store.order.WINDOW_VALUES", 2**17)
    monkeypatch.setattr(BackedTable, "_survey", _small_survey(BackedTable._survey))
    build(tmp_path / "a.h5ad", store=tmp_path / "warm")  # what is loaded once is not counted
    tracemalloc.start()
    try:
        build(tmp_path / "a.h5ad", store=tmp_path / "s")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Names of the cells and the order of the rows grow with n, by some 150 bytes a cell.
    assert peak < whole / 2
    assert whole > 25e6


def _small_survey(survey):
    def look(self, where):
        matrix = self.matrix
        self.matrix = lambda place: _SmallBlocks(matrix(place))
        try:
            return (yield from survey(self, where))
        finally:
            del self.matrix

    return look


class _SmallBlocks:
    def __init__(self, matrix):
        self._matrix = matrix

    def __getattr__(self, name):
        return getattr(self._matrix, name)

    def blocks(self):
        return self._matrix.blocks(2**16)


# --- what cannot be used ---


def test_bad_inputs_are_one_sentence(source, tmp_path):
    text = tmp_path / "text.h5ad"
    text.write_text("no HDF5")
    normalised = cells(60)
    normalised.X.data = np.log1p(normalised.X.data)
    normalised.write_h5ad(tmp_path / "normalised.h5ad")
    twice = cells(60)
    twice.obs_names = ["a"] * 60
    twice.write_h5ad(tmp_path / "twice.h5ad")
    measured = cells(60)
    measured.layers["measured"] = np.ones(measured.shape, bool)
    measured.write_h5ad(tmp_path / "measured.h5ad")
    proteins = cells(60)
    proteins.var["feature_types"] = "Antibody Capture"
    proteins.write_h5ad(tmp_path / "proteins.h5ad")
    for path, options, message in (
        (tmp_path / "absent.h5ad", {}, "does not exist"),
        (text, {}, "cannot be read as HDF5"),
        (tmp_path / "normalised.h5ad", {}, "No raw counts"),
        (tmp_path / "twice.h5ad", {}, "more than once"),
        (tmp_path / "measured.h5ad", {}, "layer 'measured'"),
        (tmp_path / "proteins.h5ad", {}, "has no RNA"),
        (source, {"layer": "none"}, "No layer 'none'"),
        (source, {"split_by": "plate"}, "'plate' is not in obs, which holds donor, score"),
        (source, {"protein_key": "adt"}, "'adt' is not in obsm, which holds protein"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            build(path, store=tmp_path / "s", **options)
        assert str(caught.value).count("\n") == 0
        assert data_sets(tmp_path / "s") == []
        assert not list((tmp_path / "s").glob("**/.*.part"))


def test_damage_is_told_before_anything_has_a_name(tmp_path):
    path = tmp_path / "a.h5ad"
    for key, value, message in (
        ("indices", 250, "name columns beyond its 250"),
        ("indices", -1, "name columns beyond its 250"),
        ("indptr", 10**6, "do not fit"),
    ):
        cells().write_h5ad(path)
        with h5py.File(path, "r+") as file:
            file[f"X/{key}"][5] = value
        with pytest.raises(InputError, match=message):
            build(path, store=tmp_path / "s")
        assert data_sets(tmp_path / "s") == []


def test_a_gene_with_two_counts_is_told(tmp_path):
    path = tmp_path / "a.h5ad"
    cells().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][1] = file["X/indices"][0]
    with pytest.raises(InputError, match="two counts of one gene"):
        build(path, store=tmp_path / "s")


def test_a_source_that_changes_under_way_is_not_stored(tmp_path):
    path = tmp_path / "a.h5ad"
    cells().write_h5ad(path)

    def touched():
        for progress in build_store([path], tmp_path / "s"):
            if progress.phase.startswith("writing"):
                os.utime(path, (1, 1))

    with pytest.raises(InputError, match="changed while it was read"):
        touched()
    assert data_sets(tmp_path / "s") == []


def test_names_that_clash(source, tmp_path):
    (tmp_path / "b").mkdir()
    other = tmp_path / "b/cells.h5ad"
    cells(50, seed=3).write_h5ad(other)
    with pytest.raises(InputError, match="would both be called 'cells'"):
        build(source, other, store=tmp_path / "s")
    build(source, store=tmp_path / "s")
    with pytest.raises(InputError, match=r"holds a data set 'cells' of .*rename one"):
        build(other, store=tmp_path / "s")


def test_folders_that_are_something_else(source, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        build(source, store=tmp_path / "file")
    with pytest.raises(InputError, match=r"without \.zarr"):
        build(source, store=tmp_path / "name.zarr")


def test_other_versions_and_damage_of_a_store(store, tmp_path):
    shutil.copytree(store, tmp_path / "s")
    path = tmp_path / "s/cells.zarr"
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["sclinguist_store"]["format_version"] = 99
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="of version 99, expected 1"):
        StoredCells(path)
    metadata["attributes"]["sclinguist_store"] |= {"format_version": 1, "strange": 1}
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="damaged record"):
        StoredCells(path)
    assert read_record(tmp_path) is None
    with pytest.raises(InputError, match="is no data set of a store"):
        StoredCells(tmp_path / "s")


@pytest.mark.parametrize(
    "changes", [{"n_obs": "300"}, {"n_obs": 0}, {"n_values": 1.5}, {"name": 3}, {"parts": [None]}]
)
def test_a_record_of_other_types(store, tmp_path, changes):
    path = Path(shutil.copytree(store / "cells.zarr", tmp_path / "cells.zarr"))
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["sclinguist_store"] |= changes
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="damaged record"):
        StoredCells(path)
    (path / "zarr.json").write_text('{"attributes": ' + "[" * 100_000)
    assert read_record(path) is None


def test_parts_of_a_store_that_do_not_fit_together(store, tmp_path):
    def damaged(key: str, value: object) -> StoredCells:
        path = Path(shutil.copytree(store / "cells.zarr", tmp_path / f"{len(read)}.zarr"))
        group = zarr.open_group(path, mode="a", use_consolidated=False)
        del group[key]
        write_element(group, key, value)
        return StoredCells(path)

    read: list[str] = []
    for key, value, why in (
        ("var", StoredCells(store / "cells.zarr").var.iloc[1:], "no table of"),
        ("var", {"a": 1}, "no table of"),
        ("X/indptr", np.zeros(301, np.int32), "its rows do not fit"),
        ("X/indptr", np.zeros(301, np.float32), "its rows do not fit"),
    ):
        cells = damaged(key, value)
        read.append(key)
        with pytest.raises(InputError, match=why):
            cells.section()
    var = StoredCells(store / "cells.zarr").var
    var.index = [var.index[1], *var.index[1:]]
    with pytest.raises(InputError, match="names something twice"):
        damaged("var", var).section()


def test_damaged_chunks_are_told(store, tmp_path):
    shutil.copytree(store, tmp_path / "s")
    path = tmp_path / "s/cells.zarr"
    shard = next(p for p in (path / "X/data").rglob("*") if p.is_file() and p.name != "zarr.json")
    content = bytearray(shard.read_bytes())
    content[20:60] = bytes(40)
    shard.write_bytes(content)
    with pytest.raises(InputError, match="damaged or not complete"):
        StoredCells(path).rows(0, 300)


# --- BackedTable, which reads for the builder ---


def test_backed_rows_are_the_rows(source):
    given = anndata.read_h5ad(source)
    with BackedTable(source) as table:
        found = table.find_counts()
        assert (found.where, found.notes, found.highest) == ("X", (), given.X.max())
        matrix = table.matrix("X")
        blocks = list(matrix.blocks(5_000))
        assert len(blocks) > 3
        assert [b[0] for b in blocks[1:]] == [b[1] for b in blocks[:-1]]
        rows = sparse.vstack([matrix.rows(*block) for block in blocks])
    np.testing.assert_array_equal(dense(rows), dense(given.X))


def test_a_row_that_is_larger_than_a_block_is_a_block(source):
    with BackedTable(source) as table:
        blocks = list(table.matrix("X").blocks(1))
    assert blocks == [(i, i + 1) for i in range(300)]


def test_by_column_is_one_sentence_where_it_is_too_large_to_be_read_whole(tmp_path):
    table = cells()
    table.X = sparse.csc_matrix(table.X)
    table.write_h5ad(tmp_path / "a.h5ad")
    with BackedTable(tmp_path / "a.h5ad") as backed:
        assert not backed.has_rows
        with pytest.raises(InputError, match=r"stored by column \(CSC\).*tocsr"):
            backed.matrix("X")
