"""Every function that writes, on a disk that fails at its n-th call, for every n.

Afterwards there is the older result or the new one, whole, and nothing beside it; what an error
says is true; and the same call succeeds.
"""

import itertools
import random
import sys
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from crash.failing_disk import REMOVALS, errors, every_name, failing_at, full_after
from evaluation.tiny_model import tiny_checkpoint
from napari_sclinguist.control.catalogue import Catalogue
from napari_sclinguist.control.table_export import TableOptions, table_steps
from sclinguist_core import files
from sclinguist_core.data.download_record import read_record, write_record
from sclinguist_core.data.partial_file import PartialFile
from sclinguist_core.data.section import Section
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.overlay import Feature, overlay_figure, save_figure
from sclinguist_core.evaluation.report import write_text
from sclinguist_core.inference.stream_work import WorkFolder
from sclinguist_core.model.checkpoint import load_checkpoint, save_checkpoint
from sclinguist_core.train.fit import Step
from sclinguist_core.train.run_folder import RunFolder
from sclinguist_core.train.state import read_state, write_state

FAILURES = (InputError, OSError, KeyboardInterrupt)


def table(n_obs):
    names = [f"cell{i}" for i in range(n_obs)]
    made = ad.AnnData(
        sparse.csr_matrix(np.arange(n_obs * 3, dtype=np.float32).reshape(n_obs, 3)),
        obs=pd.DataFrame({"depth": np.arange(n_obs)}, index=names),
        var=pd.DataFrame(index=["CD19", "CD3E", "CD4"]),
    )
    made.obsm["protein_predicted"] = pd.DataFrame(
        {"CD19": np.arange(n_obs, dtype=np.float32)}, index=names
    )
    return made


def opened(n_obs):
    """A section as exports look at one that is open in the window."""
    made = table(n_obs)
    made.obsm["spatial"] = np.arange(n_obs * 2.0).reshape(n_obs, 2)
    section = Section(name="small", table=made, spot_diameter=1.0, assay="visium")
    return SimpleNamespace(
        name="small", noun="spots", section=section, catalogue=Catalogue(section), selected=None
    )


class Tables:
    """A table in a file or a store."""

    def __init__(self, suffix):
        self.name = f"table{suffix}"

    def write(self, folder, n):
        write_table(table(n), folder / self.name)

    def read(self, folder):
        path = folder / self.name
        read = ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)
        assert read.X.sum() == np.arange(read.n_obs * 3).sum()
        return read.n_obs


class Checkpoints:
    name = "model"

    def __init__(self):
        self.made = {3: tiny_checkpoint(), 5: tiny_checkpoint(without=("CD4",))}

    def write(self, folder, n):
        save_checkpoint(self.made[n], folder / self.name)

    def read(self, folder):
        return {6: 3, 5: 5}[len(load_checkpoint(folder / self.name).proteins)]


class States:
    name = "last.safetensors"

    def write(self, folder, n):
        write_state({"n": n, "weights": torch.full((n, 1_000), float(n))}, folder / self.name)

    def read(self, folder):
        state = read_state(folder / self.name)
        assert state["weights"].shape == (state["n"], 1_000)
        return state["n"]


class Exports:
    """Tables as the window exports them."""

    def __init__(self, suffix):
        self.name = f"exported{suffix}"

    def write(self, folder, n):
        for _ in table_steps(opened(n), TableOptions(), folder / self.name):
            pass

    def read(self, folder):
        path = folder / self.name
        read = pd.read_excel(path) if path.suffix == ".xlsx" else pd.read_csv(path)
        return len(read)


class Pictures:
    name = "picture.svg"

    def write(self, folder, n):
        figure = overlay_figure(
            opened(n).section, [Feature(values=np.arange(float(n)), title="x")], width=1.0
        )
        figure.set_gid(f"rows-{n}")
        save_figure(figure, folder / self.name)

    def read(self, folder):
        text = (folder / self.name).read_text()
        assert text.rstrip().endswith("</svg>")
        return int(text.partition('id="rows-')[2].partition('"')[0])


class Texts:
    name = "report.html"

    def write(self, folder, n):
        write_text(folder / self.name, str(n) * 10_000)

    def read(self, folder):
        text = (folder / self.name).read_text()
        assert len(text) == 10_000
        return int(text[0])


class Records:
    name = "download.json"

    def write(self, folder, n):
        about = SimpleNamespace(name=str(n), title="t", licence="l", page="p")
        write_record(folder, about, sources={}, files=[])

    def read(self, folder):
        return int(read_record(folder)["name"])


KINDS = {
    "h5ad": Tables(".h5ad"),
    "zarr": Tables(".zarr"),
    "checkpoint": Checkpoints(),
    "state": States(),
    "csv": Exports(".csv"),
    "xlsx": Exports(".xlsx"),
    "svg": Pictures(),
    "html": Texts(),
    "record": Records(),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


def try_to_write(kind, folder, n):
    """Write; return what it says when it fails, None when it does not."""
    try:
        kind.write(folder, n)
    except FAILURES as error:
        return error
    return None


def check_after(kind, folder, names, failure):
    """Whatever failed: one of the two is there, whole, alone, and the error tells which."""
    found = kind.read(folder)
    assert found in (3, 5)
    assert every_name(folder) in names
    if failure is None:
        assert found == 5
    elif "nothing was changed" in str(failure):
        assert found == 3


MOST_FAILURES = 20
LAST_CALLS = 10
"""In which a result takes its name."""


def failures_of(n_calls):
    """Which calls fail and how: all, or each of the last once and a sample of the rest."""
    kinds = errors()
    every = list(itertools.product(range(1, n_calls + 1), kinds))
    if len(every) <= MOST_FAILURES:
        return every
    last = [(n_calls - i, kinds[i % len(kinds)]) for i in range(min(LAST_CALLS, n_calls))]
    rest = [failure for failure in every if failure not in last]
    return [*random.Random(0).sample(rest, MOST_FAILURES - len(last)), *last]


def names_of_both(kind, folder):
    """Names in a folder with a new result, and then with an older one, which stays."""
    names = []
    for n in (5, 3):
        kind.write(folder, n)
        names.append(every_name(folder))
    return names


WAYS = [
    *(pytest.param(kind, True, id=name) for name, kind in KINDS.items()),
    # A file takes the place of another everywhere; a folder that of another does not.
    pytest.param(KINDS["checkpoint"], False, id="checkpoint, renamed twice"),
]


@pytest.mark.parametrize(("kind", "swaps"), WAYS)
def test_every_call_that_fails(kind, tmp_path, monkeypatch, swaps):
    if not swaps:
        monkeypatch.setattr(files, "_swap", lambda *_: False)
    new, older = names_of_both(kind, tmp_path)
    with failing_at(0, OSError()) as disk:
        kind.write(tmp_path, 3)
    told = []
    for number, error in failures_of(disk.calls):
        with failing_at(number, error):
            told.append(try_to_write(kind, tmp_path, 5))
        check_after(kind, tmp_path, (older, new), told[-1])
        kind.write(tmp_path, 3)
        assert every_name(tmp_path) == older
    # Of the names' way to the disk, which comes last, a failure is logged alone.
    assert sum(failure is not None for failure in told) >= len(told) // 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits files as Linux does")
def test_a_disk_that_is_full_at_any_byte(kind, tmp_path):
    new, older = names_of_both(kind, tmp_path)
    kind.write(tmp_path, 5)
    largest = max(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    kind.write(tmp_path, 3)
    # Not to the last byte: what holds the time of its making has not always the same size.
    for limit in sorted({0, 1, *np.linspace(0, 0.95 * largest, 8, dtype=int).tolist()}):
        with full_after(limit):
            failure = try_to_write(kind, tmp_path, 5)
        assert isinstance(failure, InputError | OSError), limit
        assert kind.read(tmp_path) == 3
        assert every_name(tmp_path) == older
    kind.write(tmp_path, 5)
    check_after(kind, tmp_path, (new,), None)


# --- what grows -----------------------------------------------------------------------------------

RECIPE = "name: x\n"
RECORD = {"stage": "post-pretrain", "data": {}}


def test_a_run_whose_folder_cannot_be_made_is_begun_anew(tmp_path):
    number, ended = 0, False
    while not ended:
        number += 1
        for kind, error in enumerate(errors()):
            run = RunFolder(tmp_path / f"{number}-{kind}")
            with failing_at(number, error) as disk:
                try:
                    run.create(RECIPE, RECORD, resume=False)
                except FAILURES:
                    assert disk.calls >= number
            ended = disk.calls < number
            run.create(RECIPE, RECORD, resume=True)
            assert run.recipe_path.read_text() == RECIPE
            assert every_name(run.path) == ["recipe.yaml", "run.json", "state"]
    assert number > 5


def test_a_run_that_goes_on_clears_away_what_a_kill_has_left(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(RECIPE, RECORD, resume=False)
    names = every_name(run.path)
    for path in (run.state_path, run.best_path):
        left = path.with_name(f".{path.name}.abc.part")
        left.mkdir()
        (left / ".lock").touch()
        (left / path.name).write_text("half")
    run.create(RECIPE, RECORD, resume=True)
    assert every_name(run.path) == names


def step(done):
    return Step(
        done=done, total=20, error=0.5, loss=0.75, learning_rate=0.1, cells_per_second=1.0,
        score=0.5,
    )  # fmt: skip


@pytest.mark.parametrize("table", ["metrics_path", "heldout_path"])
def test_reports_that_are_cut_off_are_made_again(tmp_path, table):
    """Whatever part of a table of reports is on the disk, a run that goes on completes it."""
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    for folder in (whole, run):
        folder.create(RECIPE, RECORD, resume=False)
    for done in (1, 2):
        whole.add_metrics(step(done), {"clr": 0.5}, {"nöw": 0.5})
    content, path = getattr(whole, table).read_bytes(), getattr(run, table)
    for size in range(len(content) + 1):
        # The state of a step is saved when its reports were written.
        saved = max(0, content[:size].count(b"\n") - 1)
        for name in ("metrics_path", "heldout_path"):
            getattr(run, name).write_bytes(getattr(whole, name).read_bytes())
        path.write_bytes(content[:size])
        run.cut_metrics(saved)
        for done in range(saved + 1, 3):
            run.add_metrics(step(done), {"clr": 0.5}, {"nöw": 0.5})
        assert path.read_bytes() == content
    assert saved == 2


def test_blocks_are_known_until_the_last_is_removed(tmp_path):
    """Stopped while it clears up, a streamed prediction can still be given once more."""
    work = WorkFolder(
        tmp_path / "out.h5ad", {"input": "x"}, np.arange(5), ("mean",), 1, with_ood=False
    )
    number, ended = 0, False
    while not ended:
        number += 1
        work.create()
        for block in range(work.n_blocks):
            work.file(block).write_bytes(b"values")
        with failing_at(number, KeyboardInterrupt(), REMOVALS) as disk:
            try:
                work.remove()
            except KeyboardInterrupt:
                assert disk.calls == number
                assert work.check() or not any(work.path.iterdir())
            else:
                ended = True
    assert number > work.n_blocks
    assert every_name(tmp_path) == []


def test_a_partial_file_never_says_what_it_does_not_hold(tmp_path):
    number, ended = 0, False
    while not ended:
        number += 1
        for kind, error in enumerate(errors()):
            target = tmp_path / f"{number}-{kind}"
            part = PartialFile(target, "https://example.org/a")
            part.restart('"old"', 5)
            with part.append() as file:
                file.write(b"old b")
            with failing_at(number, error) as disk:
                try:
                    part.restart('"new"', 5)
                    part.append().close()
                except FAILURES:
                    pass
            ended = disk.calls < number
            version = part.version()
            if version is not None:
                assert (version.validator, part.size) == ('"new"', 0)
            assert ended <= (version is not None)
    assert number > 3
