"""Which paths the plugin claims, and that it does so by a cheap look."""

import h5py
import pytest

from napari_sclinguist.reader import napari_get_reader, read_sections
from sclinguist_core.resources import sample_section_path


def test_a_space_ranger_folder_is_claimed():
    assert napari_get_reader(str(sample_section_path())) is read_sections
    assert napari_get_reader([str(sample_section_path())] * 2) is read_sections


def test_a_table_is_claimed(tmp_path):
    with h5py.File(tmp_path / "cells.h5ad", "w") as file:
        file.create_group("obs")
    assert napari_get_reader(str(tmp_path / "cells.h5ad")) is read_sections


@pytest.mark.parametrize("name", ["", "missing.h5ad", "picture.png"])
def test_other_paths_are_left_to_others(tmp_path, name):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert napari_get_reader(str(tmp_path / name)) is None


def test_an_image_store_is_left_to_others(tmp_path):
    store = tmp_path / "image.zarr"
    store.mkdir()
    (store / ".zattrs").write_text('{"multiscales": []}')
    assert napari_get_reader(str(store)) is None


def test_a_folder_of_several_sections_is_claimed(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).symlink_to(sample_section_path(), target_is_directory=True)
    assert napari_get_reader(str(tmp_path)) is read_sections


def test_one_stranger_among_sections_refuses_all(tmp_path):
    assert napari_get_reader([str(sample_section_path()), str(tmp_path)]) is None
