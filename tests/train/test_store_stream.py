"""Training from a store: the cells that are in it, in an order that the seed decides, in few MB."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import synthetic
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.store.build import build_store
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.errors import InputError
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train import stream
from sclinguist_core.train.augment import Augmentation
from sclinguist_core.train.chunks import Draws, PairedChunks, StepChunks, drawn_set
from sclinguist_core.train.corpus import (
    gene_statistics,
    gene_universe,
    paired_dataset,
    protein_universe,
)
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.launch import train_stage
from sclinguist_core.train.masked_rna import RnaChunks
from sclinguist_core.train.masking import Masking
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.recipe import Recipe, read_recipe
from sclinguist_core.train.run_folder import RunFolder
from sclinguist_core.train.sources import DataEntry, open_entry
from sclinguist_core.train.stages import post_pretrain, pretrain_protein, pretrain_rna
from sclinguist_core.train.stream import StreamedRna, StreamPlan
from sclinguist_core.train.stream_order import StreamOrder
from sclinguist_core.train.streamed_pairs import StreamedPairs
from sclinguist_core.train.training_sections import open_training_sections

SIZES = {"a": 700, "b": 500, "c": 300}
FIT = FitConfig(steps=12, batch_size=32, sets_per_step=3, learning_rate=5e-3, ema=0.9)
PLAIN = Augmentation(spots=0.0, gene_dropout=0.0, thinning=0.0, max_tokens=10_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three data sets as .h5ad and, under ``store``, stored."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, n_obs) in enumerate(SIZES.items()):
        table = synthetic.paired_cells(n_obs, 250, seed=seed, name=name)
        # A panel of their own genes: not all genes of the model are in every set.
        table[:, : 250 - 20 * seed].copy().write_h5ad(folder / f"{name}.h5ad")
    for _ in build_store([folder / f"{name}.h5ad" for name in SIZES], folder / "store"):
        pass
    return folder


@pytest.fixture(scope="module")
def stored(folder) -> list[StoredCells]:
    return [StoredCells(folder / f"store/{name}.zarr") for name in SIZES]


@pytest.fixture(scope="module")
def symbols(stored) -> list[str]:
    return gene_universe(stored)["symbol"].tolist()


@pytest.fixture(scope="module")
def proteins(stored) -> list[str]:
    return protein_universe(stored)["name"].tolist()


@pytest.fixture(scope="module")
def share(symbols) -> np.ndarray:
    return np.full(len(symbols), 1 / len(symbols))


@pytest.fixture
def short_runs(monkeypatch):
    """Runs of 20 rows and windows of 3 batches, so that small sets have many of both."""
    monkeypatch.setattr(stream, "MAX_WINDOW_BATCHES", 3)
    monkeypatch.setattr(StreamPlan, "of", classmethod(_with_runs(StreamPlan.of.__func__, 20)))


def _with_runs(of, run_rows):
    return lambda cls, config, n_streams: replace(of(cls, config, n_streams), run_rows=run_rows)


def order(n_obs: int, **options) -> StreamOrder:
    return StreamOrder(
        n_obs,
        **{"batch_size": 8, "n_lanes": 3, "window_batches": 2, "run_rows": 5, "seed": (0, 0)}
        | options,
    )


def rows_of(order: StreamOrder, lane: int, number: int) -> np.ndarray:
    """Rows of the data set in a batch."""
    batch = order.batch(lane, number)
    return np.concatenate([np.arange(*run) for run in batch.window.runs])[batch.rows]


# --- the order ---


@pytest.mark.parametrize("n_obs", [1, 7, 40, 1_003])
@pytest.mark.parametrize("n_lanes", [1, 3])
def test_an_epoch_holds_every_row_once_in_lanes_that_share_none(n_obs, n_lanes):
    one = order(n_obs, n_lanes=n_lanes)
    for epoch in range(3):
        seen = []
        for lane in range(one.n_lanes):
            for window in one.windows(epoch, lane):
                inside = np.concatenate([np.arange(*run) for run in window.runs])
                batches = one.rows(window)
                assert all(1 <= len(rows) <= 8 for rows in batches)
                assert max(map(len, batches)) - min(map(len, batches)) <= 1
                seen += [inside[rows] for rows in batches]
        assert np.sort(np.concatenate(seen)).tolist() == list(range(n_obs))


def test_batches_run_through_the_epochs_in_order_whenever_they_are_asked_for():
    one = order(103)
    n_batches = [sum(len(one.rows(w)) for w in one.windows(e, 1)) for e in range(4)]
    expected = [
        np.concatenate([np.arange(*run) for run in window.runs])[rows]
        for epoch in range(4)
        for window in one.windows(epoch, 1)
        for rows in one.rows(window)
    ]
    assert len(expected) == sum(n_batches)
    runs = [[window.runs for window in one.windows(epoch, 1)] for epoch in range(4)]
    assert all(runs[0] != others for others in runs[1:])
    other = order(103)
    numbers = np.random.default_rng(0).permutation(len(expected))
    for number in numbers.tolist():
        np.testing.assert_array_equal(rows_of(other, 1, number), expected[number])
    assert not np.array_equal(np.sort(expected[0]), np.sort(expected[n_batches[0]]))


def test_the_next_window_is_the_next_window():
    one = order(203)
    windows = [w for epoch in range(3) for w in one.windows(epoch, 2)]
    assert [one.following(w) for w in windows[:-1]] == windows[1:]


def test_a_batch_costs_one_window_and_its_rows_once(monkeypatch):
    """However many windows an epoch has: a hundred million cells have thousands in a lane."""
    one = order(10_000, n_lanes=2)
    made = {"window": [], "rows": []}
    for name, calls in made.items():
        method = getattr(StreamOrder, name)
        monkeypatch.setattr(
            StreamOrder,
            name,
            lambda self, *given, method=method, calls=calls: (
                calls.append(given),
                method(self, *given),
            )[1],
        )
    windows = [one.batch(lane, number).window for number in range(20) for lane in (0, 1)]
    assert {window.number for window in windows} == set(range(10))
    assert len(made["window"]) == len(made["rows"]) == 20


def test_the_seed_decides():
    firsts = [rows_of(order(500, seed=seed), 0, 0).tolist() for seed in ((0, 0), (0, 0), (0, 1))]
    assert firsts[0] == firsts[1] != firsts[2]


def test_draws_count_what_came_before():
    sizes, config = [100, 50, 10], replace(FIT, sets_per_step=5)
    draws = Draws(sizes, config)
    for n_lanes in (1, 2, 5):
        count: dict[tuple[int, int], int] = {}
        for step in range(20):
            for number in range(5):
                key = (drawn_set(sizes, config, step, number), number % n_lanes)
                assert draws.before(step, number, n_lanes) == count.get(key, 0)
                count[key] = count.get(key, 0) + 1
    assert Draws(sizes, config).before(17, 3, 2) == draws.before(17, 3, 2)


# --- the same cells as in memory ---


def test_universes_and_statistics_are_those_of_the_sections(stored, symbols):
    sections = [cells.section() for cells in stored]
    pd.testing.assert_frame_equal(gene_universe(stored), gene_universe(sections))
    pd.testing.assert_frame_equal(protein_universe(stored), protein_universe(sections))
    genes = gene_universe(stored)
    streamed = gene_statistics(genes, [StreamedRna(cells, symbols) for cells in stored])
    whole = gene_statistics(genes, [align_genes(s.rna(), symbols) for s in sections])
    pd.testing.assert_frame_equal(streamed.table, whole.table, rtol=1e-5)


def test_streamed_rows_are_aligned_as_align_genes_does(stored, symbols):
    cells = stored[1]
    whole = align_genes(cells.section().rna(), symbols)
    for wanted in (symbols, symbols[::-1], symbols[10:40]):
        streamed = StreamedRna(cells, wanted)
        expected = align_genes(cells.section().rna(), wanted)
        found = streamed.load([(3, 30), (30, 31), (200, 260)])
        rows = np.r_[3:31, 200:260]
        np.testing.assert_array_equal(found.counts.toarray(), expected.take(rows).counts.toarray())
        assert found.counts.has_sorted_indices
        np.testing.assert_array_equal(found.measured, expected.measured)
        np.testing.assert_array_equal(found.pattern, expected.pattern[rows])
        assert streamed.n_measured == expected.n_measured
    rows = np.array([400, 3, 3, 77, 499, 0])
    np.testing.assert_array_equal(
        StreamedRna(cells, symbols).take(rows).counts.toarray(), whole.take(rows).counts.toarray()
    )


def test_two_names_of_one_gene_are_summed(tmp_path, symbols):
    table = synthetic.paired_cells(60, 250)
    table.var_names = [*table.var_names[:-1], "CD20"]  # once more MS4A1
    table.var["gene_name"] = [*table.var_names[:-2], "MS4A1", "CD20"]
    table.write_h5ad(tmp_path / "a.h5ad")
    for _ in build_store([tmp_path / "a.h5ad"], tmp_path / "s"):
        pass
    cells = StoredCells(tmp_path / "s/a.zarr")
    genes = sorted({*symbols, "MS4A1"})
    expected = align_genes(cells.section().rna(), genes)
    found = StreamedRna(cells, genes).load([(0, 60)])
    np.testing.assert_array_equal(found.counts.toarray(), expected.counts.toarray())


def fingerprints(counts) -> list[tuple]:
    """Something that tells cells apart."""
    return [tuple(row) for row in counts.toarray().astype(int).tolist()]


def test_an_epoch_of_chunks_is_every_cell_once(short_runs, stored, symbols, share):
    rna = StreamedRna(stored[0], symbols)
    source = RnaChunks([rna], share, FIT, PLAIN, Masking())
    whole = fingerprints(align_genes(stored[0].section().rna(), symbols).counts)
    assert len(set(whole)) == 700
    order = rna.order(source._plan, (FIT.seed, 0))
    assert order.n_lanes == 3
    for epoch in range(2):
        seen: list[tuple] = []
        for lane in range(3):
            before = sum(len(order.rows(w)) for e in range(epoch) for w in order.windows(e, lane))
            n_batches = sum(len(order.rows(w)) for w in order.windows(epoch, lane))
            for number in range(before, before + n_batches):
                window, rows = rna.batch(order, lane, number)
                seen += fingerprints(window.counts[rows])
        assert sorted(seen) == sorted(whole)


def test_chunks_are_those_of_the_same_rows_in_memory(short_runs, stored, symbols, proteins, share):
    """A source in memory that is told the order gives the very same tensors."""
    streams = [StreamedPairs(cells, symbols, proteins) for cells in stored]
    augmentation = Augmentation(max_tokens=40)
    source = PairedChunks(streams, share, FIT, augmentation)
    whole = [paired_dataset(cells.section(), symbols, proteins) for cells in stored]
    told = PairedChunks([InMemory(w, s) for w, s in zip(whole, streams, strict=True)],
                        share, FIT, augmentation)  # fmt: skip
    for step in range(40):
        for number in range(3):
            streamed, in_memory = source.chunk(step, number), told.chunk(step, number)
            assert streamed.seed == in_memory.seed
            for key, tensor in streamed.tensors.items():
                torch.testing.assert_close(tensor, in_memory.tensors[key], rtol=1e-5, atol=1e-5)


class InMemory(StreamedPairs):
    """The stream over a data set in memory."""

    def __init__(self, whole, like):
        super(StreamedPairs, self).__init__(like.cells)
        self.whole = whole

    def load(self, runs):
        rows = np.concatenate([np.arange(*run) for run in runs])
        return replace(
            self.whole,
            rna=self.whole.rna.take(rows),
            antibodies=self.whole.antibodies[rows],
            groups=self.whole.groups[rows],
        )


# --- reproducible, whoever asks when ---


def tensors_of(source, steps, **options) -> list[dict[str, torch.Tensor]]:
    return [
        chunk.tensors for step in steps for chunk in StepChunks(source, 0, 0, **options).of(step)
    ]


def assert_same(ours, theirs) -> None:
    assert len(ours) == len(theirs) > 0
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.keys() == yours.keys()
        for key in mine:
            torch.testing.assert_close(mine[key], yours[key], rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def chunks(short_runs, stored, symbols, share):
    """Make a source of masked RNA over all three sets, from nothing."""

    def make(**options):
        rna = [StreamedRna(cells, symbols) for cells in stored]
        return RnaChunks(rna, share, replace(FIT, **options), Augmentation(), Masking())

    return make


def test_the_seed_gives_the_same_chunks_bit_for_bit(chunks):
    expected = tensors_of(chunks(), range(30))
    assert_same(tensors_of(chunks(), range(30)), expected)
    other = tensors_of(chunks(seed=1), range(30))
    assert not torch.equal(other[0]["genes"][:5, :20], expected[0]["genes"][:5, :20])


def test_begun_in_the_middle_it_goes_on_as_if_it_had_not_stopped(chunks):
    expected = tensors_of(chunks(), range(60))
    for first in (1, 23, 59):  # of an epoch and of a window
        assert_same(tensors_of(chunks(), range(first, 60)), expected[3 * first :])


def test_ranks_see_together_what_one_sees_and_share_no_cell(chunks):
    whole = tensors_of(chunks(), range(20))
    for world_size in (2, 3):
        sources = [chunks() for _ in range(world_size)]
        parts = [
            tensors_of(source, range(20), rank=rank, world_size=world_size)
            for rank, source in enumerate(sources)
        ]
        numbers = [range(rank, 3, world_size) for rank in range(world_size)]
        for rank, part in enumerate(parts):
            mine = [whole[3 * step + number] for step in range(20) for number in numbers[rank]]
            assert_same(part, mine)


def test_ranks_read_different_rows(short_runs, stored, symbols, share):
    reads: list[set[int]] = []
    for rank in range(3):
        rna = StreamedRna(stored[0], symbols)
        rows: list[int] = []
        load = rna.load
        rna.load = lambda runs, load=load, rows=rows: (
            rows.extend(i for run in runs for i in range(*run)) or load(runs)
        )
        source = RnaChunks([rna], share, FIT, PLAIN, Masking())
        order = rna.order(source._plan, (FIT.seed, 0))
        n_batches = sum(len(order.rows(w)) for w in order.windows(0, rank))
        for step in range(n_batches):
            source.chunk(step, rank)
        if rna._pool is not None:
            rna._pool.shutdown()  # what is read ahead belongs to the next epoch
        epoch = {i for w in order.windows(0, rank) for run in w.runs for i in range(*run)}
        assert epoch <= set(rows)
        reads.append(epoch)
    assert sum(map(len, reads)) == len(set.union(*reads)) == 700


def test_a_stream_can_be_sent_to_another_process(chunks):
    source = chunks()
    expected = tensors_of(source, range(5))  # its threads have started
    assert_same(tensors_of(pickle.loads(pickle.dumps(source)), range(5)), expected)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_that_were_forked_after_reading_see_the_same(chunks):
    source = chunks()
    expected = tensors_of(source, range(8))

    class Steps(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(StepChunks(source, 0, 8))

    loader = torch.utils.data.DataLoader(
        Steps(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert_same([chunk.tensors for step in loader for chunk in step], expected)


def test_in_another_process_nothing_is_read_by_the_files_of_the_first(
    stored, symbols, proteins, monkeypatch
):
    """A lock or a thread of a reader that was copied by a fork belongs to nobody."""
    pairs = StreamedPairs(stored[0], symbols, proteins)
    readers = pairs.cells, pairs._rna.cells
    expected = pairs.load([(0, 8)])
    monkeypatch.setattr(stream.os, "getpid", lambda: -1)
    plan = StreamPlan(batch_size=8, n_lanes=1, window_batches=1)
    pairs.batch(pairs.order(plan, (0,)), 0, 0)
    assert pairs.cells is pairs._rna.cells
    assert pairs.cells not in readers
    found = pairs.load([(0, 8)])
    np.testing.assert_array_equal(found.antibodies, expected.antibodies)
    assert (found.rna.counts != expected.rna.counts).nnz == 0


# --- memory ---


def test_windows_of_all_streams_fit_into_the_buffer():
    for n_streams in (1, 10, 1_000):
        for config in (FIT, FitConfig(batch_size=512, sets_per_step=8)):
            plan = StreamPlan.of(config, n_streams)
            cells = 2 * n_streams * plan.n_lanes * plan.window_batches * plan.batch_size
            least = 2 * n_streams * plan.n_lanes * plan.batch_size
            assert plan.window_batches >= 1
            assert cells <= max(stream.BUFFER_CELLS, least)


def test_memory_is_that_of_the_windows(short_runs, tmp_path):
    """A store of 24 MB, of which windows of 0.1 MB are held."""
    import anndata
    from scipy import sparse

    n_obs, n_genes, expressed = 20_000, 400, 150
    rng = np.random.default_rng(0)
    indices = np.argpartition(rng.random((n_obs, n_genes), np.float32), expressed, 1)
    counts = sparse.csr_matrix(
        (
            rng.integers(1, 9, n_obs * expressed).astype(np.float32),
            np.sort(indices[:, :expressed], 1).ravel().astype(np.int32),
            np.arange(n_obs + 1) * expressed,
        ),
        shape=(n_obs, n_genes),
    )
    names = synthetic.paired_cells(2, n_genes).var_names
    table = anndata.AnnData(counts, var=pd.DataFrame(index=names))
    table.write_h5ad(tmp_path / "a.h5ad")
    whole = counts.data.nbytes + counts.indices.nbytes
    del table, counts, indices
    for _ in build_store([tmp_path / "a.h5ad"], tmp_path / "s"):
        pass
    cells = StoredCells(tmp_path / "s/a.zarr")
    symbols = gene_universe([cells])["symbol"].tolist()
    share = np.full(len(symbols), 1 / len(symbols))
    source = RnaChunks([StreamedRna(cells, symbols)], share, FIT, PLAIN, Masking())
    source.chunk(0, 0)
    tracemalloc.start()
    try:
        n_cells = sum(
            source.chunk(step, number).n_rows for step in range(50) for number in range(3)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_cells > 3_500
    assert whole == 24_000_000
    assert peak < whole / 5  # measured: a few MB, most of them one chunk of the store


# --- recipes ---


def recipe_of(folder: Path, **more) -> Recipe:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "x", **more}))
    return read_recipe(recipe)


def test_a_store_stands_for_its_data_sets(folder, tmp_path):
    recipe = recipe_of(tmp_path, paired=[str(folder / "store")])
    assert [entry.name for entry in recipe.paired] == ["a", "b", "c"]
    assert recipe.paired[1].path == str(folder / "store/b.zarr")
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert read_recipe(tmp_path / "again.yaml").paired == recipe.paired
    opened = open_training_sections(recipe, ["b"])
    assert [cells.name for cells in opened.paired] == ["a", "c"]
    assert all(isinstance(cells, StoredCells) for cells in opened.paired)
    one = recipe_of(tmp_path, paired=[{"path": str(folder / "store/b.zarr"), "name": "own"}])
    assert [cells.name for cells in open_training_sections(one).paired] == ["own"]


def test_a_split_source_is_held_out_in_part_or_whole(tmp_path):
    table = synthetic.paired_cells(120, 250)
    table.obs["donor"] = ["d1", "d2", "d3"] * 40
    table.write_h5ad(tmp_path / "set.h5ad")
    synthetic.paired_cells(60, 250, seed=1).write_h5ad(tmp_path / "other.h5ad")
    for _ in build_store([tmp_path / "set.h5ad"], tmp_path / "s", split_by="donor"):
        pass
    recipe = recipe_of(tmp_path, paired=[str(tmp_path / "s"), str(tmp_path / "other.h5ad")])
    assert [entry.name for entry in recipe.paired] == ["set/d1", "set/d2", "set/d3", "other"]
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert read_recipe(tmp_path / "again.yaml").paired == recipe.paired
    part = open_training_sections(recipe, ["set/d2"])
    assert part.names == ("set/d1", "set/d3", "other")
    assert open_training_sections(recipe, ["set"]).names == ("other",)


def test_what_does_not_fit_a_store_is_one_sentence(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/store.json").write_text('{"format_version": 1, "data_sets": []}')
    for entry, message in (
        (str(tmp_path / "empty"), "a store without data sets"),
        ({"path": str(folder / "store"), "name": "x"}, "holds 3 data sets, found the one name 'x'"),
    ):
        with pytest.raises(InputError, match=message):
            recipe_of(tmp_path, paired=[entry])
    for option in ({"layer": "counts"}, {"batch_key": "donor"}, {"protein_key": "adt"}):
        entry = DataEntry(path=str(folder / "store/a.zarr"), **option)
        with pytest.raises(InputError, match="comes too late for a data set of a store"):
            open_entry(entry)


MODEL = {"gene_dim": 8, "width": 8, "n_latents": 2, "n_heads": 2, "n_layers": 1}
SMALL = {
    "model": MODEL | {"n_components": 4, "n_perceptrons": 1},
    "fit": {"steps": 12, "batch_size": 16, "sets_per_step": 2, "ema": 0.5},
    "trainer": {"accelerator": "cpu", "log_every": 1, "validate_every": 6, "save_every": 1},
}


def test_stages_learn_from_a_store(folder, tmp_path):
    held = {"validate": [str(folder / "store/c.zarr")]}
    sets = {"paired": [str(folder / "store/a.zarr"), str(folder / "store/b.zarr")]}
    recipe = recipe_of(tmp_path, **sets, **held, **SMALL)
    for stage in (pretrain_rna, pretrain_protein, post_pretrain):
        checkpoint = stage(recipe)
        assert checkpoint.info.training_datasets == ("a", "b")
        weights = checkpoint.model.state_dict().values()
        assert all(bool(torch.isfinite(weight).all()) for weight in weights)


def losses(run: Path) -> pd.DataFrame:
    return pd.read_csv(RunFolder(run).metrics_path).drop(columns="cells_per_second")


def test_a_run_that_was_stopped_goes_on_bit_for_bit(folder, tmp_path):
    torch.set_num_threads(1)
    recipe = recipe_of(tmp_path, paired=[str(folder / "store")], **SMALL)
    train_stage("post-pretrain", recipe, tmp_path / "unbroken")

    class Stop(Exception):
        pass

    def stop(step):
        if step.done == 7:
            raise Stop

    with pytest.raises(Stop):
        train_stage("post-pretrain", recipe, tmp_path / "broken", progress=stop)
    assert 6 <= RunFolder(tmp_path / "broken").last_step() <= 7
    train_stage("post-pretrain", recipe, tmp_path / "broken", resume=True)
    ours, theirs = (load_file(RunFolder(tmp_path / f).state_path) for f in ("broken", "unbroken"))
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    pd.testing.assert_frame_equal(
        losses(tmp_path / "broken"), losses(tmp_path / "unbroken"), check_exact=True
    )


def test_two_processes_learn_what_one_learns(folder, tmp_path):
    torch.set_num_threads(1)
    values = {**SMALL, "model": SMALL["model"] | {"dropout": 0.0}}
    recipe = recipe_of(tmp_path, paired=[str(folder / "store")], **values)
    train_stage("post-pretrain", recipe, tmp_path / "one")
    command = [sys.executable, "-m", "sclinguist_core.train.cli", "post-pretrain"]
    command += [str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "two")]
    done = subprocess.run(
        [*command, "trainer.devices=2", "trainer.strategy=ddp"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(losses(tmp_path / "one"), losses(tmp_path / "two"), rtol=1e-3)


def test_the_first_loss_from_a_store_is_near_that_from_its_files(folder, tmp_path):
    """Another order of other cells: the same data, so the same loss but for the draw."""
    torch.set_num_threads(1)
    values = {**SMALL, "fit": SMALL["fit"] | {"batch_size": 256, "sets_per_step": 3}}
    values["augmentation"] = {"spots": 0.0, "gene_dropout": 0.0, "thinning": 0.0}
    first = []
    for place in ("store/{}.zarr", "{}.h5ad"):
        paired = [str(folder / place.format(name)) for name in SIZES]
        run = tmp_path / f"run{len(first)}"
        train_stage("post-pretrain", recipe_of(tmp_path, paired=paired, **values), run)
        first.append(losses(run)["loss"].iloc[0])
    assert first[0] == pytest.approx(first[1], rel=0.05)
    assert first[0] != first[1]


def test_options_of_the_model_stay_what_they_were():
    """The sizes above are those of a translator."""
    assert TranslatorConfig(**SMALL["model"]).n_components == 4
    assert TrainerConfig(**SMALL["trainer"]).save_every == 1
