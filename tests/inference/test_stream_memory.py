"""The memory of a streamed prediction does not depend on how many rows there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from inference.streaming import calibrated_checkpoint, table
from sclinguist_core.data.write import write_table
from sclinguist_core.model.checkpoint import save_checkpoint

MEASURE = """
import json, sys
from sclinguist_core.inference import stream
stream.BLOCK_VALUES = 200_000
stream.predict_to(**json.loads(sys.argv[1]))
# Not ru_maxrss, which begins with the memory of the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    cells = table(2_000)
    model = save_checkpoint(calibrated_checkpoint(table()), tmp_path / "model")
    peaks = []
    for n_rows in (20_000, 80_000):
        n_times = n_rows // 2_000
        many = ad.AnnData(
            sparse.vstack([cells.X] * n_times, format="csr"),
            obs=pd.DataFrame(index=[f"cell-{row}" for row in range(n_rows)]),
            var=cells.var,
        )
        source = write_table(many, tmp_path / f"{n_rows}.zarr")
        options = {
            "source": str(source),
            "output": str(tmp_path / f"{n_rows}.h5ad"),
            "model": str(model),
            "device": "cpu",
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", MEASURE, json.dumps(options)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=True, timeout=280,
        )  # fmt: skip
        peaks.append(int(done.stdout) / 1024)
        del many
    # Counts and predictions of 60,000 rows more would take 90 MB.
    assert np.diff(peaks)[0] < 45, peaks
