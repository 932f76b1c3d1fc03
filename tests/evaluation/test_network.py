"""The network of genes and proteins: edges, places, GraphML."""

import itertools

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from sclinguist_core.evaluation.network import network_figure, network_table, write_graphml


def ranked(proteins: int = 3, genes: int = 30) -> pd.DataFrame:
    """Each protein has its own genes, and the last two of its first twelve with the next."""
    parts = {}
    for p in range(proteins):
        names = [f"GENE{p * 10 + i}" for i in range(genes)]
        share = 0.1 / np.arange(1, genes + 1)
        share[-3:] *= -1
        parts[f"CD{p}"] = pd.DataFrame(
            {
                "rank": np.arange(1, genes + 1),
                "share": share,
                "direction": np.where(np.arange(genes) % 4 == 3, "lowers", "raises"),
                "in_top": np.where(np.arange(genes) == 1, 0.4, 0.9),
            },
            index=pd.Index(names, name="gene"),
        )
    return pd.concat(parts, names=["protein", "gene"])


@pytest.fixture
def edges():
    return network_table(ranked())


def test_edges_are_the_first_stable_genes(edges):
    assert list(edges) == ["protein", "gene", "share", "direction", "stability"]
    first = edges[edges["protein"] == "CD0"]
    assert first["gene"].tolist() == ["GENE0", *(f"GENE{i}" for i in range(2, 12))]
    assert (edges["stability"] >= 0.5).all()
    every = network_table(ranked(genes=12), n_genes=12)
    assert (every["share"] > 0).all()  # genes against the others drive nothing


def test_proteins_and_genes_differ_in_shape_and_names_do_not_overlap(edges):
    figure = network_figure(edges)
    figure.canvas.draw()
    ax = figure.axes[0]
    texts = {text.get_text(): text for text in ax.texts}
    assert set(texts) == {"CD0", "CD1", "CD2"} | set(edges["gene"])
    boxed = {name for name, text in texts.items() if text.get_bbox_patch() is not None}
    assert boxed == {"CD0", "CD1", "CD2"}
    assert len(ax.collections) == edges["gene"].nunique()
    assert len(ax.lines) == len(edges)
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(dashed) == (edges["direction"] == "lowers").sum()
    # Upright names have boxes that can be compared; turned ones stand on rays of a circle.
    angles = np.sort([np.arctan2(*c.get_offsets()[0][::-1]) % (2 * np.pi) for c in ax.collections])
    gaps = np.diff([*angles, angles[0] + 2 * np.pi])
    radius = ax.transData.transform((1.04, 0))[0] - ax.transData.transform((0, 0))[0]
    height = max(
        text.get_fontsize() * figure.dpi / 72 for name, text in texts.items() if name not in boxed
    )
    assert gaps.min() * radius > height
    squares = [texts[name].get_window_extent() for name in boxed]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(squares, 2))


def test_genes_stand_before_their_proteins(edges):
    ax = network_figure(edges).axes[0]
    place = {text.get_text(): np.array(text.get_position()) for text in ax.texts}
    for protein in ("CD0", "CD1", "CD2"):
        own = edges.loc[edges["protein"] == protein, "gene"]
        others = edges.loc[~edges["gene"].isin(own), "gene"].unique()
        towards = place[protein] / np.linalg.norm(place[protein])
        assert np.mean([place[g] @ towards for g in own]) > 0.5
        assert np.mean([place[g] @ towards for g in others]) < 0


def test_one_protein_and_proteins_without_shared_genes_are_drawn():
    one = network_table(ranked(1))
    assert len(network_figure(one).axes[0].lines) == len(one)
    apart = network_table(ranked(2), n_genes=3)
    assert len(network_figure(apart).axes[0].lines) == 4


def test_graphml_keeps_kinds_and_figures(edges, tmp_path):
    # A gene that is called like a protein stays a node of its own.
    named = edges.replace({"gene": {"GENE0": "CD0"}})
    write_graphml(named, tmp_path / "n.graphml")
    graph = nx.read_graphml(tmp_path / "n.graphml")
    kinds = pd.Series(nx.get_node_attributes(graph, "kind")).value_counts()
    assert kinds["protein"] == 3
    assert kinds["gene"] == named["gene"].nunique()
    edge = graph.edges["gene:CD0", "protein:CD0"]
    first = named.iloc[0]
    assert edge["share"] == pytest.approx(first["share"])
    assert (edge["direction"], edge["stability"]) == (first["direction"], 0.9)
