"""Names that mean harm in pages, drawings, tables: they are shown, and do nothing."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from importlib.resources import files

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from evaluation.made_up import add_positions, add_prediction, make_cells
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError, visible
from sclinguist_core.evaluation import benchmark_report
from sclinguist_core.evaluation.evaluate import evaluate
from sclinguist_core.evaluation.network import network_figure, write_graphml
from sclinguist_core.evaluation.overlay import Feature, overlay_figure, save_figure
from sclinguist_core.evaluation.report import render, write_report
from sclinguist_core.evaluation.results import Benchmark

NAMES = {
    "element": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "single quotes": "' onmouseover='alert(1)",
    "end of the title": "</title></style><script>alert(1)</script>",
    "escaped already": "&lt;script&gt;alert(1)&lt;/script&gt;",
    "comment": "--><script>alert(1)</script><!--",
    "character data": "]]><script>alert(1)</script>",
    "template": "{{ 7 * 7 }}{% for x in y %}",
    "address": "javascript:alert(1)",
    "right to left": "CD3\u202egpj.exe",
    "isolates": "\u2066CD3\u2069\u200f",
    "control characters": "CD3\x1b[2J\x07\x0b",
    "half a character": "CD3\ud800",
    "mathematics": "$\\bad{$ $",
    "a cell of Markdown": "x | y [link](javascript:alert(1)) `code`",
}
HARMLESS = [f"plain {i}" for i in range(len(NAMES))]
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Structure(HTMLParser):
    """Elements of a page with their attributes' names, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.values, self.texts = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *(key for key, _ in attrs)))
        self.values += [(key, value) for key, value in attrs if key not in {"alt", "data-value"}]

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_data(self, data):
        self.texts.append(data)


def evaluation(names):
    """Antibodies, proteins and all that is told about them have these names."""
    table = add_positions(add_prediction(make_cells(120)))
    protein, predicted = table.obsm["protein"], table.obsm["protein_predicted"]
    info = table.uns["sclinguist"]
    for name in names:
        protein[name] = protein["CD3"] * 2
        predicted[name] = predicted["CD3"]
        info["trust"][name] = name
    for i, key in enumerate(("model", "unit", "normalisation", "version", "date")):
        info[key] = names[i]
    info["notes"] = list(names)
    table.uns["spatial"] = {names[0]: table.uns["spatial"]["tissue"]}
    return evaluate(table)


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_a_page_has_the_elements_that_it_has_with_harmless_names():
    names = list(NAMES.values())
    harmless = Structure(render(evaluation(HARMLESS), title=HARMLESS[0], overlays=False))
    page = render(evaluation(names), title=names[3], overlays=False)
    found = Structure(page)
    # Some names stand for a protein that is there already, which is a note on the page.
    notes = {("ul", "class"), ("li",)}
    assert set(found.elements) | notes == set(harmless.elements) | notes
    for once in ("script", "style", "title", "body"):
        assert [tag for tag, *_ in found.elements].count(once) == 1
    assert {key for key, _ in found.values} <= {key for key, _ in harmless.values}
    pictures = [value for key, value in found.values if key == "src"]
    assert all(re.fullmatch("data:image/png;base64,[A-Za-z0-9+/=]+", one) for one in pictures)
    shown = "".join(found.texts)
    assert {name: visible(name) in shown for name in names} == dict.fromkeys(names, True)
    assert not BIDI.search(page)
    page.encode()


def test_the_template_escapes_everywhere():
    """Also in the parts that were not rendered above: the tissue."""
    template = files("sclinguist_core.evaluation").joinpath("templates/report.html.j2")
    text = template.read_text("utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)
    tags = re.findall(r"<[a-z][^<>]*>", re.sub(r"{%.*?%}", "", text))
    with_values = [tag for tag in tags if "{{" in tag]
    assert len(with_values) > 5
    for tag in with_values:  # quoted, and in no attribute that is an address or a program
        assert re.sub(r'"[^"]*"', '""', tag).count("{{") == 0
        holders = re.findall(r'([\w-]+)="[^"]*{{', tag)
        assert set(holders) <= {"src", "alt", "data-value", "style"}
    pictures = {"dots", "histology", "item.picture", "per_cell", "scatters"}
    assert set(re.findall(r'src="{{ ([\w.]+) }}"', text)) == pictures


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_files_in_a_folder_with_such_a_name(tmp_path):
    name = "<b>\"&'\u202e"
    written = write_report(evaluation([name] * 5), tmp_path / name, overlays=False)
    page = written.html.read_text("utf-8")
    assert '<b>"&' not in page
    assert pd.read_csv(written.per_protein)["antibody"].tolist().count(name) == 1


def drawn(path):
    """Parse an SVG; return the names of its elements and attributes."""
    text = path.read_text("utf-8")
    assert not BIDI.search(text)
    root = ET.fromstring(text)
    kinds = {
        element.tag.rpartition("}")[2] for element in root.iter() if isinstance(element.tag, str)
    }
    attributes = {key.rpartition("}")[2] for element in root.iter() for key in element.attrib}
    links = [
        value
        for element in root.iter()
        for key, value in element.attrib.items()
        if key.endswith("href") and element.tag.rpartition("}")[2] != "image"
    ]
    assert all(link.startswith("#") for link in links)
    return kinds, attributes


ACTIVE = {"script", "a", "foreignObject", "iframe", "animate", "set", "handler", "object", "embed"}


def assert_inert(path):
    kinds, attributes = drawn(path)
    assert kinds.isdisjoint(ACTIVE)
    assert not [key for key in attributes if key.lower().startswith("on")]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("as_text", ["path", "none"])
def test_an_svg_of_the_tissue(tmp_path, as_text):
    section = as_section(add_positions(make_cells(30)))
    values = np.linspace(0, 1, section.n_obs)
    panels = [Feature(values=values, title=name, unit=name) for name in NAMES.values()]
    with mpl.rc_context({"svg.fonttype": as_text}):
        figure = overlay_figure(section, panels, width=1.5, title=NAMES["element"])
        assert_inert(save_figure(figure, tmp_path / "tissue.svg"))


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_a_network(tmp_path):
    names = list(NAMES.values())
    edges = pd.DataFrame(
        {
            "protein": names, "gene": names[::-1], "share": 0.5, "direction": "raises",
            "stability": 0.9,
        }
    )  # fmt: skip
    assert_inert(save_figure(network_figure(edges), tmp_path / "network.svg"))
    write_graphml(edges, tmp_path / "network.graphml")
    root = ET.parse(tmp_path / "network.graphml").getroot()
    kinds = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert set(kinds) == {"graphml", "graph", "key", "node", "edge", "data"}
    assert kinds.count("edge") == len(names)


def benchmark(names):
    where = [
        {"dataset": name, "part": name, "input": "full", "seed": 0, "method": method}
        for name in names
        for method in ("model", "ridge")
    ]
    columns = (
        "n_proteins", "pearson_clr", "pearson_clr_low", "pearson_clr_high", "lead", "lead_low",
        "lead_high", "n_lead", "pearson_log1p", "spearman",
    )  # fmt: skip
    per_protein = [
        one | {"antibody": one["dataset"], "protein": one["dataset"], "pearson_clr": 0.6}
        for one in where
    ]
    return Benchmark(
        summary=pd.DataFrame([one | dict.fromkeys(columns, 0.5) for one in where]),
        per_protein=pd.DataFrame(per_protein).assign(pearson_log1p=0.6),
        warnings=tuple(names),
    )


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_a_benchmark(tmp_path):
    # Tables in CSV hold names as they are, and no file holds half a character.
    names = [name for key, name in NAMES.items() if key != "half a character"]
    written = benchmark_report.write_benchmark(benchmark(names), tmp_path / "benchmark.csv")
    assert len(written) == 5
    assert_inert(tmp_path / "benchmark.svg")
    text = (tmp_path / "benchmark.md").read_text("utf-8")
    assert not BIDI.search(text)
    assert re.search(r"<\w|(?<!\\)\]\(", text) is None
    plain = benchmark_report.markdown_report(benchmark(HARMLESS[: len(names)]))
    assert text.count("\n") == plain.count("\n")
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()]
    assert bars == [line.count("|") for line in plain.splitlines()]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_sentence_of_an_error(name):
    sentence = str(InputError(f"{name}: expected another name."))
    assert not BIDI.search(sentence)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", sentence)
