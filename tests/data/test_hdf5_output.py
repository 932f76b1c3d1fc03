"""Writing HDF5: a full disk is an error, and the process goes on."""

import errno
import subprocess
import sys

import h5py
import numpy as np
import pytest

from sclinguist_core.data.hdf5_output import new_hdf5

ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from sclinguist_core.data.hdf5_output import new_hdf5

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
try:
    with new_hdf5(Path(sys.argv[1])) as file:
        for i in range(50):
            file.create_group(f"g{i}")["values"] = np.arange(100.0)
except OSError as error:
    print(error.errno)
"""


def test_what_is_written_is_an_ordinary_file(tmp_path):
    path = tmp_path / "a.h5"
    values = np.random.default_rng(0).random((300, 40))
    with new_hdf5(path) as file:
        file.create_dataset("values", data=values, chunks=(7, 40), compression="gzip")
        file["values"][5] = 1
        file["names"] = ["α", "b"]
    values[5] = 1
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["values"][:], values)
        assert file["names"].asstr()[:].tolist() == ["α", "b"]


def test_an_older_file_is_not_overwritten(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("older")
    with pytest.raises(FileExistsError), new_hdf5(path):
        pass
    assert path.read_text() == "older"


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_is_one_error(tmp_path):
    """The HDF5 library alone prints 60 lines and crashes when the process ends."""
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path / "a.h5")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"{errno.EFBIG}\n", "")


def test_other_errors_go_through(tmp_path):
    with pytest.raises(KeyError, match="ours"), new_hdf5(tmp_path / "a.h5"):
        raise KeyError("ours")
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == []
