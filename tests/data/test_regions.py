"""Regions from GeoJSON and categories from Loupe Browser, good files and bad ones."""

import json

import numpy as np
import pandas as pd
import pytest

from sclinguist_core.data.regions import (
    Region,
    categories_for,
    inside,
    read_geojson,
    read_loupe_categories,
    write_geojson,
)
from sclinguist_core.errors import InputError


def square(left, top, side, *, closed=False):
    points = [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]
    return points + points[:1] if closed else points


def polygon(*rings):
    return {"type": "Polygon", "coordinates": [square(*ring, closed=True) for ring in rings]}


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def written(tmp_path, content, *, encoding="utf-8"):
    path = tmp_path / "regions.geojson"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding)
    return path


GRID = np.stack(np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5), axis=-1).reshape(-1, 2)


def box(left, top, side):
    x, y = GRID.T
    return (x > left) & (x < left + side) & (y > top) & (y < top + side)


def test_inside_with_holes_and_islands_in_them():
    region = Region("a", (square(1, 1, 15), square(3, 3, 10), square(5, 5, 4)))
    expected = box(1, 1, 15) & ~box(3, 3, 10) | box(5, 5, 4)
    np.testing.assert_array_equal(inside(region, GRID), expected)
    assert inside(region, GRID).dtype == bool
    assert inside(region, np.empty((0, 2))).shape == (0,)
    # The same in whichever order the outlines come and whichever way around they run.
    turned = Region("a", tuple(np.array(outline)[::-1] for outline in region.polygons[::-1]))
    np.testing.assert_array_equal(inside(turned, GRID), expected)


def test_inside_of_outlines_that_cross_is_even_odd():
    bow_tie = Region("a", (np.array([[0, 0], [20, 20], [20, 0], [0, 20]]),))
    x, y = GRID.T
    off_the_lines = (x != y) & (x + y != 20)
    expected = np.abs(x - 10) > np.abs(y - 10)
    np.testing.assert_array_equal(inside(bow_tie, GRID)[off_the_lines], expected[off_the_lines])
    angle = np.arange(5) * 4 * np.pi / 5
    star = Region("star", (10 + 9 * np.column_stack([np.cos(angle), np.sin(angle)]),))
    assert inside(star, np.array([[10, 10], [18, 10]])).tolist() == [False, True]
    overlapping = Region("a", (square(0, 0, 10), square(5, 5, 10)))
    np.testing.assert_array_equal(inside(overlapping, GRID), box(0, 0, 10) ^ box(5, 5, 10))


def test_inside_agrees_with_matplotlib_on_a_ragged_outline():
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 300))
    radius = rng.uniform(4, 9, 300)
    ring = 10 + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    points = rng.uniform(0, 20, (5000, 2))
    expected = Outline(np.vstack([ring, ring[:1]])).contains_points(points)
    assert 1000 < expected.sum() < 4000
    np.testing.assert_array_equal(inside(Region("ragged", (ring,)), points), expected)


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ((), "found no outline"),
        (([[0, 0], [1, 1]],), r"shape \(2, 2\)"),
        (([[0, 0, 0]] * 4,), r"shape \(4, 3\)"),
        (([[0, 0], [1, np.nan], [1, 1]],), "not a finite number"),
    ],
)
def test_regions_that_are_none(polygons, message):
    with pytest.raises(InputError, match=f"region 'a': .*{message}"):
        Region("a", polygons)


def test_qupath_exports_are_read(tmp_path):
    content = {
        "type": "FeatureCollection",
        "features": [
            feature(polygon((1, 1, 8), (3, 3, 2)), objectType="annotation", name="Follicle 1"),
            feature(
                {
                    "type": "MultiPolygon",
                    "coordinates": [
                        polygon((0, 0, 2))["coordinates"],
                        polygon((10, 10, 5), (11, 11, 1))["coordinates"],
                    ],
                },
                classification={"name": "Tumor", "color": [200, 0, 0]},
            ),
            feature({"type": "Point", "coordinates": [3, 4]}, name="a dot"),
            feature(polygon((5, 5, 1)), name=None, classification={"names": ["Immune", "B"]}),
            feature(polygon((6, 6, 1)), name=" ", classification=None),
            {"type": "Feature", "geometry": None, "properties": None},
        ],
    }
    regions = read_geojson(written(tmp_path, content, encoding="utf-8-sig"))
    assert [r.name for r in regions] == ["Follicle 1", "Tumor", "Immune: B", "region 4"]
    assert [len(r.polygons) for r in regions] == [2, 3, 1, 1]
    np.testing.assert_array_equal(regions[0].polygons[1], square(3, 3, 2))  # not closed
    np.testing.assert_array_equal(inside(regions[0], GRID), box(1, 1, 8) & ~box(3, 3, 2))
    np.testing.assert_array_equal(
        inside(regions[1], GRID), box(0, 0, 2) | box(10, 10, 5) & ~box(11, 11, 1)
    )


@pytest.mark.parametrize("wrap", ["geometry", "feature", "list", "collection"])
def test_geojson_of_any_form(tmp_path, wrap):
    geometry = polygon((2, 2, 6))
    content = {
        "geometry": geometry,
        "feature": feature(geometry),
        "list": [feature(geometry)],
        "collection": {"type": "GeometryCollection", "geometries": [geometry]},
    }[wrap]
    (region,) = read_geojson(written(tmp_path, content), pixels_per_unit=2.0)
    assert region.name == "region 1"
    np.testing.assert_array_equal(inside(region, GRID), box(4, 4, 12))


def test_outlines_may_be_open_and_have_heights(tmp_path):
    geometry = {"type": "Polygon", "coordinates": [[[0, 0, 7], [4, 0, 7], [4, 4, 7], [0, 4, 7]]]}
    (region,) = read_geojson(written(tmp_path, geometry))
    np.testing.assert_array_equal(inside(region, GRID), box(0, 0, 4))


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Barcode,Cluster\n", "is not JSON"),
        ("", "is not JSON"),
        (DEEP, "is not JSON"),
        ({"type": "FeatureCollection", "features": []}, "holds no polygon .found no geometry"),
        ({"type": "FeatureCollection"}, "holds no polygon"),
        ([1, None, []], "holds no polygon"),
        (3, "holds no polygon"),
        (feature({"type": "Point", "coordinates": [1, 2]}), "holds no polygon .found Point"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}, "at least three points"),
        ({"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [0, 0]]]}, "feature 1 is not a"),
        ({"type": "Polygon", "coordinates": [[0, 1], [2, 3]]}, "feature 1 is not a Polygon"),
        ({"type": "Polygon", "coordinates": None}, "feature 1 is not a Polygon"),
        ({"type": "Polygon"}, "feature 1 is not a Polygon"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [10**400, 0]]]}, "feature 1 is not"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, None], [1, 0]]]}, "feature 1 is not"),
        ({"type": "GeometryCollection", "geometries": [1]}, "feature 1 is not"),
    ],
)
def test_geojson_that_is_none(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_geojson(path)
    assert str(path) in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"gone.json.*cannot be opened.*No such file"):
        read_geojson(tmp_path / "gone.json")
    with pytest.raises(InputError, match="is a folder"):
        read_geojson(tmp_path)
    with pytest.raises(InputError, match=r"gone.csv.*cannot be opened"):
        read_loupe_categories(tmp_path / "gone.csv")
    with pytest.raises(InputError, match=r"Cannot write.*No such file"):
        write_geojson([], tmp_path / "gone" / "r.geojson")
    path = written(tmp_path, polygon((0, 0, 1)))
    (tmp_path / "latin.json").write_bytes(path.read_bytes() + b"\xff")
    with pytest.raises(InputError, match="is not JSON"):
        read_geojson(tmp_path / "latin.json")
    for scale in (0, -1, float("nan")):
        with pytest.raises(InputError, match="pixels per unit"):
            read_geojson(path, pixels_per_unit=scale)


def test_regions_survive_writing_and_reading(tmp_path):
    import shapely

    star = 10 + 9 * np.array([[np.cos(a), np.sin(a)] for a in np.arange(5) * 4 * np.pi / 5])
    regions = [
        Region("Follicle \u00e4", (square(1.25, 1, 15), square(3, 3, 10), square(5, 5, 4))),
        Region("two", (square(0, 0, 3), square(5, 5, 3), square(6, 6, 1))),
        Region("star", (star,)),
        Region("crossing", (square(0, 0, 10), square(4, 4, 10))),
        Region("mostly in each other", (square(0, 0, 10), square(1, 0, 10))),
    ]
    path = tmp_path / "regions.geojson"
    path.write_text("old")
    assert write_geojson(regions, path) == path
    again = read_geojson(path)
    assert [r.name for r in again] == [r.name for r in regions]
    for one, other in zip(regions, again, strict=True):
        np.testing.assert_array_equal(inside(one, GRID), inside(other, GRID))
        assert len(one.polygons) == len(other.polygons)
    content = json.loads(path.read_text("utf-8"))
    nested = shapely.from_geojson(json.dumps(content["features"][0]["geometry"]))
    assert nested.is_valid
    assert nested.area == pytest.approx(15**2 - 10**2 + 4**2)
    assert [len(part.interiors) for part in nested.geoms] == [1, 0]
    assert content["features"][1]["properties"] == {"objectType": "annotation", "name": "two"}
    assert [p.name for p in tmp_path.iterdir()] == ["regions.geojson"]


def test_a_hole_that_touches_its_outline_stays_a_hole(tmp_path):
    hole = [[2, 2], [6, 2], [0, 6]]  # one corner on the left side
    path = write_geojson([Region("a", (square(0, 0, 10), hole))], tmp_path / "a.geojson")
    (made,) = json.loads(path.read_text())["features"]
    assert [len(rings) for rings in made["geometry"]["coordinates"]] == [2]


def csv_file(tmp_path, text, *, encoding="utf-8"):
    path = tmp_path / "Graph-based.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_loupe_categories_are_read(tmp_path):
    text = 'Barcode,Graph-based,"My, regions"\r\nAAC-1,Cluster 1,"T, cells"\r\nAAG-1,,NA\r\n\r\n'
    for encoding in ("utf-8", "utf-8-sig"):
        table = read_loupe_categories(csv_file(tmp_path, text, encoding=encoding))
        assert table.index.tolist() == ["AAC-1", "AAG-1"]
        assert table.index.name == "barcode"
        assert table.columns.tolist() == ["Graph-based", "My, regions"]
        assert table.loc["AAC-1"].tolist() == ["Cluster 1", "T, cells"]
        assert table["Graph-based"].isna().tolist() == [False, True]
        assert table.loc["AAG-1", "My, regions"] == "NA"  # a name like any other


@pytest.mark.parametrize("separator", [";", "\t"])
def test_loupe_categories_that_went_through_a_spreadsheet(tmp_path, separator):
    text = "barcode,c\nAAC, Cluster 1 \nAAC,Cluster 1\nAAG,\n".replace(",", separator)
    table = read_loupe_categories(csv_file(tmp_path, text))
    assert table["c"].dropna().to_dict() == {"AAC": "Cluster 1"}
    assert table.index.tolist() == ["AAC", "AAG"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "headed ''"),
        ("AAC-1,Cluster 1\nAAG-1,Cluster 2\n", "headed 'AAC-1', 'Cluster 1', expected 'Barcode'"),
        ("Barcode\nAAC-1\n", "headed 'Barcode'"),
        ("Barcode,c,c\nAAC-1,1,2\n", "different categories"),
        ("Barcode,c\nAAC-1,1\nAAG-1\n", "row 3 has 1 columns, expected 2"),
        ("Barcode,c\nAAC-1,1,\n", "row 2 has 3 columns, expected 2"),
        ("Barcode,c\nAAC-1,1\nAAC-1,2\n", "'AAC-1' has several different rows"),
        ("Barcode,c\nAAC-1,\udcff\n", "is not a table"),
        ('Barcode,c\nAAC-1,"' + "x" * 200_000, "is not a table"),
    ],
)
def test_tables_that_are_no_categories(tmp_path, text, message):
    path = tmp_path / "c.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        read_loupe_categories(path)
    assert str(path) in str(caught.value)


def table(**columns):
    return pd.DataFrame(columns, index=pd.Index(["AAC-1", "AAG-1", "AAT-1"], name="barcode"))


@pytest.mark.parametrize("ours", ["", "-1"])
@pytest.mark.parametrize("theirs", ["", "-1"])
def test_categories_come_into_the_order_of_the_section(ours, theirs):
    clusters = table(c=["Cluster 10", "Cluster 2", np.nan])
    clusters.index = clusters.index.str.removesuffix("-1") + theirs
    names = pd.Index(["AAG", "AAT", "GGG", "AAC"]) + ours
    found = categories_for(names, clusters)
    assert isinstance(found, pd.Categorical)
    assert found.categories.tolist() == ["Cluster 2", "Cluster 10"]
    assert found.codes.tolist() == [0, -1, -1, 1]


def test_other_samples_of_an_aggregate_are_not_ours():
    clusters = pd.DataFrame({"c": ["a", "b"]}, index=["AAC-1", "AAC-2"])
    assert categories_for(["AAC-2", "AAC-1"], clusters).tolist() == ["b", "a"]
    assert categories_for(["AAC"], clusters).tolist() == ["a"]


def test_a_category_is_chosen_by_name():
    two = table(c=["a", "a", "b"], d=["x²", "²", "y"])
    assert categories_for(["AAT-1"], two).tolist() == ["b"]
    assert categories_for(["AAT-1", "AAC-1", "AAG-1"], two, "d").tolist() == ["y", "x²", "²"]
    with pytest.raises(InputError, match="no column 'e', expected one of 'c', 'd'"):
        categories_for(["AAT-1"], two, "e")


def test_categories_of_another_section_are_refused_with_counts():
    message = "0 of 3 barcodes are among the 2 of the section .*'AAC-1' and 'GGG-1'"
    with pytest.raises(InputError, match=message):
        categories_for(["GGG-1", "GGC-1"], table(c=["a", "b", "c"]))
    with pytest.raises(InputError, match="0 of 3 barcodes are among the 0"):
        categories_for([], table(c=["a", "b", "c"]))
