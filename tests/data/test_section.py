"""Section, its images, and the ruler that Visium's lattice is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sclinguist_core.data import lattice
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.readers.images import to_rgb8
from sclinguist_core.data.section import SectionImage


def test_image_is_loaded_when_asked_for():
    calls = []

    def load():
        calls.append(1)
        return np.full((4, 6, 3), 9, np.uint8)

    image = SectionImage(load, 0.5, "hires", shape=(4, 6))
    assert image.shape == (4, 6)
    assert calls == []
    assert image.pixels[0, 0, 0] == image.pixels[1, 1, 1] == 9
    assert calls == [1]
    assert repr(image) == "SectionImage('hires', 6 x 4 px, scale=0.5)"


def test_image_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"expected \(height, width, 3\) and uint8"):
        SectionImage(np.zeros((4, 6)), 1.0, "grey")


def test_best_image_is_the_finest_that_fits(write_outs):
    section = open_section(write_outs().folder)
    huge = SectionImage(lambda: np.zeros((1, 1, 3), np.uint8), 4.0, "full", shape=(9000, 9000))
    tiny = SectionImage(np.zeros((2, 2, 3), np.uint8), 0.1, "tiny")
    pick = dataclasses.replace(section, images={"full": huge, "tiny": tiny, **section.images})
    assert pick.image.name == "hires"
    assert dataclasses.replace(section, images={"full": huge}).image is huge
    assert dataclasses.replace(section, images={}).image is None


def test_section_is_frozen_and_renamed_as_a_copy(write_outs):
    section = open_section(write_outs().folder)
    with pytest.raises(dataclasses.FrozenInstanceError):
        section.name = "other"
    other = section.renamed("other")
    assert (section.name, other.name, other.library_id) == ("sample", "other", "other")
    assert "Section('other'" in repr(other)
    assert "4 measured proteins" in repr(other)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [[[0] * 3, [255] * 3]]),
        (np.array([[0.0, 1.0]]), [[[0] * 3, [255] * 3]]),
        (np.array([[False, True]]), [[[0] * 3, [255] * 3]]),
        (np.array([[0.0, 200.0]]), [[[0] * 3, [200] * 3]]),
        (np.array([[[1, 2, 3, 4]]], np.uint8), [[[1, 2, 3]]]),
    ],
)
def test_images_become_8_bit_colour(pixels, expected):
    out = to_rgb8(pixels)
    assert out.dtype == np.uint8
    assert out.tolist() == expected


def slide(angle=0.0, step=7.0):
    rows, columns = np.meshgrid(np.arange(10), np.arange(0, 24, 2), indexing="ij")
    columns = columns + rows % 2
    xy = np.column_stack([columns.ravel() * step, rows.ravel() * step * np.sqrt(3)])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rows.ravel(), columns.ravel(), xy @ turn.T + 500


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 2, 3.0])
def test_pixel_size_is_that_of_the_lattice_at_any_angle(angle):
    rows, columns, xy = slide(angle)
    assert lattice.microns_per_pixel(rows, columns, xy) == pytest.approx(50 / 7)
    # The diameter only has to be possible: 55, 65 and 70 µm are all found in files.
    for diameter in (55, 65, 70):
        size = lattice.microns_per_pixel(rows, columns, xy, diameter * 7 / 50)
        assert size == pytest.approx(50 / 7)


def test_pixel_size_is_unknown_off_the_lattice():
    rows, columns, xy = slide()
    assert lattice.microns_per_pixel(rows, columns, xy, 14.0) is None  # spots of 100 µm
    assert lattice.microns_per_pixel(rows, columns, xy * [1, 1.2]) is None
    assert lattice.microns_per_pixel(rows, columns // 2, xy) is None
    assert lattice.microns_per_pixel(rows[:3], columns[:3], xy[:3]) is None
    one_row = rows == 0
    assert lattice.microns_per_pixel(rows[one_row], columns[one_row], xy[one_row]) is None
    shuffled = np.random.default_rng(0).permutation(xy)
    assert lattice.microns_per_pixel(rows, columns, shuffled) is None


def test_array_positions_are_told_from_pixels():
    rows, columns, xy = slide()
    assert lattice.is_array_position(np.column_stack([rows, columns]))
    assert not lattice.is_array_position(xy)
    assert not lattice.is_array_position(np.rint(xy))
    assert not lattice.is_array_position(np.column_stack([rows, columns + 500]))
    microns = lattice.to_microns(rows, columns)
    assert lattice.microns_per_pixel(rows, columns, microns) == pytest.approx(1.0)
