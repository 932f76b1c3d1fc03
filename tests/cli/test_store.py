"""``sclinguist store build``: what it prints, leaves and refuses."""

from __future__ import annotations

import anndata
import pytest
from typer.testing import CliRunner

from sclinguist_core.cli import app
from sclinguist_core.errors import InputError
from synthetic import paired_cells


@pytest.fixture
def sources(tmp_path):
    for number, name in enumerate(("one", "two")):
        table = paired_cells(80 + number, 250, seed=number, name=name)
        table.obs["donor"] = ["d1", "d2"] * 40 + ["d1"] * number
        table.write_h5ad(tmp_path / f"{name}.h5ad", compression="gzip")
    return [str(tmp_path / "one.h5ad"), str(tmp_path / "two.h5ad")]


def run(*arguments: str):
    return CliRunner().invoke(app, ["store", "build", *arguments], catch_exceptions=False)


def test_it_prints_the_folder_and_says_what_is_in_it(sources, tmp_path):
    folder = tmp_path / "cells"
    first = run(*sources, "-o", str(folder))
    assert first.exit_code == 0
    assert first.stdout == f"{folder}\n"
    assert "one: 80 cells, 250 genes, 6 proteins, stored" in first.stderr
    assert "two: 81 cells, 250 genes, 6 proteins, stored" in first.stderr
    assert anndata.read_zarr(folder / "two.zarr").shape == (81, 250)
    again = run(*sources, "-o", str(folder))
    assert again.stdout == f"{folder}\n"
    assert "two: 81 cells, 250 genes, 6 proteins, there already" in again.stderr


def test_options_reach_the_builder(sources, tmp_path):
    folder = tmp_path / "cells"
    done = run(sources[1], "-o", str(folder), "--split-by", "donor", "--seed", "7")
    assert done.exit_code == 0
    assert sorted(path.name for path in (folder / "two").iterdir()) == ["d1.zarr", "d2.zarr"]
    assert anndata.read_zarr(folder / "two/d1.zarr").n_obs == 41
    other = run(sources[1], "-o", str(folder), "--layer", "X")
    assert "was stored with other options, and was stored anew" in other.stderr
    assert "two: 81 cells" in other.stderr


def test_what_cannot_be_used_leaves_no_data_set(sources, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        run(str(tmp_path / "none.h5ad"), "-o", str(tmp_path / "cells"))
    assert not (tmp_path / "cells").exists()
    with pytest.raises(InputError, match="'plate' is not in obs, which holds donor"):
        run(sources[0], "-o", str(tmp_path / "cells"), "--split-by", "plate")
    assert list((tmp_path / "cells").glob("*")) == []
    assert run(sources[0]).exit_code == 2  # without --output
