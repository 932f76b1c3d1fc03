"""Genes and proteins as a network: who drives whom, as a table, a drawing and GraphML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.errors import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_GENES = 12
STABLE = 0.5
"""Genes that are among the first 20 in fewer of the resamples stay out."""
_RAISES, _LOWERS, _PROTEIN, _GENE = "#0f766e", "#c2410c", "#1e3a8a", "#f1b24a"
_INK = "#1c2430"
_INNER, _OUTER = 0.42, 1.0


def network_table(ranked: pd.DataFrame, *, n_genes: int = N_GENES) -> pd.DataFrame:
    """Edges from genes to proteins.

    Parameters
    ----------
    ranked
        From `Explanation.ranked`, with resamples.
    n_genes
        Most genes a protein.

    Returns
    -------
    DataFrame, a row an edge: ``protein``, ``gene``, ``share``, ``direction``, ``stability``
    (share of resamples in which the gene is among the protein's first 20).
    """
    wide = ranked.reset_index()
    chosen = wide[(wide["rank"] <= n_genes) & (wide["in_top"] >= STABLE) & (wide["share"] > 0)]
    columns = {"in_top": "stability"}
    table = chosen.rename(columns=columns)[["protein", "gene", "share", "direction", "stability"]]
    return table.reset_index(drop=True)


def network_figure(edges: pd.DataFrame) -> Figure:
    """Draw proteins (squares) on an inner ring, genes (dots) on an outer one.

    A gene stands where its proteins pull it; as every gene has a place of its own on the ring and
    its name points outwards, names do not overlap.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    at_protein, at_gene = _angles(edges)
    # The ring must be long enough for the names on it.
    radius = max(2.2, len(at_gene) * 0.155 / (2 * np.pi))
    side = 2 * (radius + 0.78)
    figure = Figure(figsize=(side, side + 0.3), layout="constrained")
    ax = figure.subplots()
    widest = edges["share"].max()
    for edge in edges.itertuples():
        start, end = at_protein[edge.protein], at_gene[edge.gene]
        lowers = edge.direction == "lowers"
        ax.plot(
            [_INNER * np.cos(start), _OUTER * np.cos(end)],
            [_INNER * np.sin(start), _OUTER * np.sin(end)],
            color=_LOWERS if lowers else _RAISES,
            ls=(0, (3, 2)) if lowers else "-",
            lw=0.5 + 3.0 * (edge.share / widest) ** 0.5,
            alpha=0.25 + 0.5 * edge.stability,
            solid_capstyle="round",
            zorder=1,
        )
    several = edges["gene"].value_counts() > 1
    for gene, angle in at_gene.items():
        x, y = np.cos(angle), np.sin(angle)
        ax.scatter([x], [y], s=26, color=_GENE, edgecolor=_INK, linewidth=0.5, zorder=3)
        turned = np.degrees(angle) % 360
        left = 90 < turned < 270
        ax.text(
            1.04 * x, 1.04 * y, gene, fontsize=8, color=_INK, style="italic",
            weight="bold" if several[gene] else "normal",
            rotation=turned - 180 if left else turned, rotation_mode="anchor",
            ha="right" if left else "left", va="center", parse_math=False,
        )  # fmt: skip
    for protein, angle in at_protein.items():
        ax.text(
            _INNER * np.cos(angle), _INNER * np.sin(angle), protein, fontsize=9.5, color="white",
            weight="bold", ha="center", va="center", zorder=4, parse_math=False,
            bbox={"boxstyle": "square,pad=0.35", "facecolor": _PROTEIN, "edgecolor": "white"},
        )  # fmt: skip
    reach = 1 + 0.78 / radius
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.set_axis_off()
    handles = [
        Line2D([], [], marker="s", ls="", ms=9, color=_PROTEIN, label="protein"),
        Line2D([], [], marker="o", ls="", ms=6, color=_GENE, mec=_INK, mew=0.5, label="gene"),
        Line2D([], [], color=_RAISES, lw=2, label="raises"),
    ]
    if (edges["direction"] == "lowers").any():
        handles.append(Line2D([], [], color=_LOWERS, lw=2, ls=(0, (3, 2)), label="lowers"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
    )
    return figure


def _angles(edges: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """Where proteins and genes stand on their rings, in radians."""
    weight = edges.pivot_table(index="protein", columns="gene", values="share", fill_value=0.0)
    weight = weight.loc[list(dict.fromkeys(edges["protein"]))]
    order = _chain(weight.to_numpy())
    proteins = [str(weight.index[i]) for i in order]
    # A protein's place on the ring is as wide as its number of genes.
    size = (weight.iloc[order].to_numpy() > 0).sum(axis=1).astype(float)
    middle = (np.cumsum(size) - size / 2) / size.sum()
    at_protein = dict(zip(proteins, np.pi / 2 - 2 * np.pi * middle, strict=True))
    direction = np.exp(1j * np.array(list(at_protein.values())))
    pulled = np.angle(weight.iloc[order].to_numpy().T @ direction) % (2 * np.pi)
    # Rounded: genes of one protein alone are level, whatever the last digit says.
    ring = np.argsort(-pulled.round(6), kind="stable")
    steps = 2 * np.pi * np.arange(len(ring)) / len(ring)
    # Turned so that genes stand, on the whole, before their proteins.
    turn = np.angle(np.sum(np.exp(1j * (pulled[ring] + steps))))
    at_gene = {str(weight.columns[g]): turn - step for g, step in zip(ring, steps, strict=True)}
    return at_protein, at_gene


def _chain(weight: np.ndarray) -> list[int]:
    """Order of the rows in which each is followed by the most alike of those left."""
    unit = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    alike = unit @ unit.T
    order = [0]
    while len(order) < len(weight):
        left = [i for i in range(len(weight)) if i not in order]
        order.append(max(left, key=lambda i: alike[order[-1], i]))
    return order


def write_graphml(edges: pd.DataFrame, path: Path) -> None:
    """Write the network as GraphML: nodes with ``kind``, edges with their figures."""
    import networkx as nx

    graph = nx.DiGraph()
    for edge in edges.itertuples():
        # A gene and its protein may share a name (CD19); their nodes must not be one.
        # XML knows no control characters.
        gene, protein = visible(str(edge.gene)), visible(str(edge.protein))
        graph.add_node(f"gene:{gene}", kind="gene", label=gene)
        graph.add_node(f"protein:{protein}", kind="protein", label=protein)
        graph.add_edge(
            f"gene:{gene}",
            f"protein:{protein}",
            share=float(edge.share),
            direction=str(edge.direction),
            stability=float(edge.stability),
        )
    nx.write_graphml(graph, path)
