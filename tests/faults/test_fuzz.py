"""Names and small files made by chance: a valid object or one sentence, as of every damaged input.

A few seconds of what ``training/benchmarks/fuzz.py`` does for minutes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faults.small import Small
from sclinguist_core.cli.common import names_in
from sclinguist_core.data.readers.positions import check_scale, read_positions, read_scalefactors
from sclinguist_core.data.readers.tenx import read_10x_mtx
from sclinguist_core.data.regions import read_geojson
from sclinguist_core.errors import InputError, visible
from sclinguist_core.train.recipe import read_recipe
from sclinguist_core.vocabulary import resolve_genes, resolve_panel

BENCHMARKS = Path(__file__).parents[2] / "training" / "benchmarks"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="forks")
SETTINGS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ANY_TEXT = st.text(st.characters(), max_size=30)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """Return what is read, or what is said where it is refused."""
    try:
        return read(), ""
    except InputError as error:
        return None, str(error)


@SETTINGS
@given(st.text(st.characters(), max_size=6_000))
def test_a_message_is_one_bounded_line(text):
    said = str(InputError(text))
    assert "\n" not in said
    assert len(said) <= 2_005
    assert visible(said) == said


@SETTINGS
@given(st.lists(ANY_TEXT, max_size=4))
def test_any_names_can_be_looked_up(names):
    assert len(resolve_panel(names)) == len(names)
    assert len(resolve_genes(names).symbols) == len(names)
    assert all(name == name.strip() != "" for name in names_in(",".join(names)) or [])


@SETTINGS
@given(ANY_JSON)
def test_any_scale_is_a_positive_number_or_refused(value):
    number, said = outcome(lambda: check_scale(value, "scale", "file"))
    assert "expected a number above zero" in said or 0 < number < np.inf


@pytest.fixture
def spatial(tmp_path):
    small = Small(tmp_path / "small")
    small.folder.mkdir()
    return small.visium / "spatial"


@SETTINGS
@given(content=ANY_JSON, keys=st.booleans())
def test_any_json_is_scale_factors_or_refused(spatial, content, keys):
    known = {"spot_diameter_fullres": 6.0, "tissue_hires_scalef": content}
    path = spatial / "scalefactors_json.json"
    path.write_text(json.dumps(known if keys else content))
    scales, said = outcome(lambda: read_scalefactors(spatial))
    assert str(path) in said or scales["spot_diameter_fullres"] > 0
    assert said or np.isfinite(list(scales.values())).all()


@SETTINGS
@given(cells=st.lists(st.lists(ANY_TEXT, min_size=6, max_size=6), min_size=1, max_size=3))
def test_any_lines_are_positions_or_refused(spatial, cells):
    path = spatial / "tissue_positions.csv"
    text = "\n".join(",".join(line) for line in cells)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    frame, said = outcome(lambda: read_positions(spatial))
    assert str(path) in said or np.isfinite(frame.to_numpy()).all()


@SETTINGS
@given(sizes=ANY_TEXT, entry=ANY_TEXT)
def test_any_text_is_a_matrix_or_refused(tmp_path, sizes, entry):
    path = tmp_path / "matrix.mtx"
    for name in ("barcodes.tsv", "features.tsv"):
        (tmp_path / name).write_text("A\nB\n")
    head = "%%MatrixMarket matrix coordinate integer general"
    path.write_bytes(f"{head}\n{sizes}\n{entry}".encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="matrix"):
        read_10x_mtx(tmp_path)


@SETTINGS
@given(ANY_JSON)
def test_any_json_is_regions_or_refused(tmp_path, content):
    path = tmp_path / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": content}))
    with pytest.raises(InputError, match=r"holds no polygon|is not a"):
        read_geojson(path)


@SETTINGS
@given(key=ANY_TEXT, value=ANY_TEXT)
def test_any_recipe_is_refused_by_name(tmp_path, key, value):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(f"name: a\n{key}: {value}\n".encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError) as error:
        read_recipe(path)
    assert str(path) in str(error.value)


@POSIX
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_benchmark_counts(monkeypatch, tmp_path):
    """Returned, refused and failed executions, and crashes, are told from each other."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import fuzz
    from fuzzing.target import Values

    def run(number: int) -> None:
        if number == 1:
            raise InputError("a sentence of some length: mend it.")
        if number == 2:
            raise KeyError("a mistake")
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    numbers = iter(range(100))
    target = (lambda *_: Values(draw=lambda chance: next(numbers), run=run), 1)
    monkeypatch.setitem(fuzz.TARGETS, "odd", target)
    tally = fuzz.run_target("odd", range(3), 0, Small(tmp_path))
    assert tally.ends == {"returned": 1, "refused": 1, "failures": 1}
    assert "KeyError" in tally.failures[0]
    tally = fuzz.run_target("odd", range(5), 0, Small(tmp_path))
    assert tally.ends == {"returned": 2, "refused": 1, "failures": 2}
    assert "crashed" in tally.failures[1]
