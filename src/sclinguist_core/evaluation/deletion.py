"""Deletion curves: if a ranking is right, taking its first genes away must hurt the most.

The first k genes of a protein's ranking are set to zero in all rows (as a pseudo-knockout does),
then k random genes that are expressed about as much, then k genes of like expression that the
ranking puts at the bottom; each time the prediction is compared with the untouched one and, where
the protein was measured, with the measurement. (Samek et al., IEEE TNNLS 28:2660, 2017.)

Shapes: m rows, K genes, V genes of the model.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.metrics import pearson
from sclinguist_core.inference.background import draw_like_expressed
from sclinguist_core.inference.explain import sampled
from sclinguist_core.inference.explanation import Explanation
from sclinguist_core.inference.perturber import scaled
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.inference.progress import Progress
from sclinguist_core.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTS = (1, 5, 20, 100, 500)
DRAWS = 3
MAX_ROWS = 200
CANDIDATES = 20
"""Genes of like expression, of which the lowest in the ranking is taken."""
FIRST, RANDOM, LAST = ORDERS = ("first", "random", "last")
_LOOK = {
    # Colour, marker and words of each order; shapes differ so that colour is not the only cue.
    FIRST: ("#0f766e", "o", "first genes of the ranking"),
    RANDOM: ("#7b8696", "s", "random genes of like expression"),
    LAST: ("#d97706", "^", "genes of like expression, lowest in the ranking"),
}
_INK, _MUTED, _GRID = "#1c2430", "#7b8696", "#e6e9ee"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Deletion:
    """What taking genes away does to predictions.

    Attributes
    ----------
    table
        A row for each protein, order (``"first"``, ``"random"``, ``"last"``), number of genes and
        draw: ``moved`` (mean absolute change in standard deviations of the untouched prediction
        over the rows), ``r_predicted`` (Pearson with the untouched prediction), ``r_measured``
        (Pearson with the CLR of the measured protein, NaN where it was not measured; mean of its
        antibodies). 0 genes is the untouched prediction.
    noun
        What the rows are.
    n_rows
        How many were used.
    """

    table: pd.DataFrame
    noun: str
    n_rows: int

    def summary(self) -> pd.DataFrame:
        """Mean over draws; index ``protein``, ``order``, ``n_genes``."""
        keys = ["protein", "order", "n_genes"]
        return self.table.drop(columns="draw").groupby(keys, sort=False).mean()

    def describe(self, n_genes: int = 20) -> str:
        """Say how far predictions move without the first genes, and without random ones."""
        summary = self.summary()["moved"]
        counts = summary.index.get_level_values("n_genes")
        count = max(n for n in counts if n <= max(n_genes, counts[counts > 0].min()))
        moved = summary.xs(count, level="n_genes")
        each = ", ".join(
            f"{protein} {moved[protein, FIRST]:.2f} against {moved[protein, RANDOM]:.2f}"
            for protein in moved.index.get_level_values("protein").unique()
        )
        return f"Predictions move without {count} genes, first against random (SD): {each}"


def deletion_iter(
    section: Section,
    explanation: Explanation,
    *,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    counts: Sequence[int] = COUNTS,
    draws: int = DRAWS,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> Generator[Progress, None, Deletion]:
    """Take genes away in the order of an explanation; yields progress, returns the curves.

    Parameters
    ----------
    section
        What was explained.
    explanation
        Gives order and rows.
    model, device
        As for the explanation.
    counts
        Numbers of genes to take away.
    draws
        Sets of random genes.
    max_rows
        A sample of so many of the explained rows is used.
    seed
        Draws genes and rows.
    """
    places = sampled(np.arange(len(explanation.rows)), max_rows, seed)
    rows = explanation.rows[places]
    prepared = prepare(section, model=model, proteins=explanation.names, device=device)
    if prepared.checkpoint.symbols != explanation.symbols:
        raise InputError(
            f"model {prepared.checkpoint.info.name!r}: reads other genes than the explained one, "
            "expected the model of the explanation; give the same."
        )
    runner = prepared.runner()
    aligned = prepared.aligned(rows)
    expression = runner.expression(aligned)
    shares = explanation.shares()
    measured = _measured(section, explanation.names, rows)
    n_expressed = len(np.unique(expression.indices))
    counts = sorted({min(count, n_expressed // 3) for count in counts} - {0})
    if not counts:
        raise InputError("deletion: the rows express too few genes, expected at least three.")
    orders = [_orders(expression, share, counts[-1], draws, seed) for share in shares]
    per_protein = len(counts) * len(orders[0])
    total = len(rows) * (1 + len(orders) * per_protein)
    done = 0

    def run(changed: sparse.csr_matrix) -> Generator[Progress, None, np.ndarray]:
        nonlocal done
        mean = np.empty((changed.shape[0], len(explanation.names)))
        for batch, outputs in runner.run_expression(changed, aligned.measured, aligned.pattern):
            mean[batch] = outputs.mean
            done += len(batch)
            yield Progress(done, total, "taking genes away")
        return mean

    untouched = yield from run(expression)
    found = []
    for i, protein in enumerate(explanation.names):
        before = untouched[:, i]
        spread = before.std()
        for order, draw, genes in orders[i]:
            for count in (0, *counts):
                after = before
                if count:
                    after = (yield from run(scaled(expression, genes[:count], 0.0)))[:, i]
                moved = np.abs(after - before).mean() / spread if spread > 0 else np.nan
                found.append(
                    {
                        "protein": protein,
                        "order": order,
                        "draw": draw,
                        "n_genes": count,
                        "moved": moved,
                        "r_predicted": _correlation(after, before[:, None]),
                        "r_measured": _correlation(after, measured[protein]),
                    }
                )
    return Deletion(table=pd.DataFrame(found), noun=prepared.context, n_rows=len(rows))


def _orders(
    expression: sparse.csr_matrix, share: np.ndarray, most: int, draws: int, seed: int
) -> list[tuple[str, int, np.ndarray]]:
    """Genes to take away, best first, in each order and draw."""
    mean = np.asarray(expression.mean(axis=0)).ravel()
    n_rows = np.bincount(expression.indices, minlength=len(mean))
    known = np.flatnonzero(mean > 0)
    first = known[np.argsort(-share[known], kind="stable")][:most]
    drawn = draw_like_expressed(mean, n_rows, first, max(draws, CANDIDATES), seed)
    last: dict[int, None] = {}
    for candidates in drawn.T:
        # Lowest in the ranking are the genes without influence, not those with a negative one.
        weakest = candidates[np.argsort(np.abs(share[candidates]), kind="stable")]
        # A gene all of whose likes are taken has no counterpart.
        free = next((gene for gene in weakest.tolist() if gene not in last), None)
        if free is not None:
            last[free] = None
    random = [(RANDOM, draw, genes) for draw, genes in enumerate(drawn[:draws])]
    return [(FIRST, 0, first), *random, (LAST, 0, np.array(list(last), np.int64))]


def _measured(section: Section, names: list[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    """CLR of the antibodies against each protein, shape (m, antibodies); often none or one."""
    nothing = np.empty((len(rows), 0))
    if not section.has_protein or "protein_panel" not in section.table.uns:
        return dict.fromkeys(names, nothing)
    panel = section.table.uns["protein_panel"]
    clr = protein_clr(section.table.obsm["protein"], panel["isotype"].to_numpy(bool)).to_numpy()
    against = np.where(panel["status"] == "resolved", panel["canonical"], "")
    return {name: clr[rows][:, against == name] for name in names}


def _correlation(values: np.ndarray, with_: np.ndarray) -> float:
    if not with_.shape[1]:
        return float("nan")
    r = pearson(np.repeat(values[:, None], with_.shape[1], axis=1), with_)
    return float(np.mean(r)) if np.isfinite(r).all() else float("nan")


def deletion_figure(result: Deletion, *, columns: int = 6) -> Figure:
    """Draw how far predictions move, and how much correlation goes with that.

    A column for each protein (at most `columns`); the band is the range of the random draws.
    """
    from matplotlib.figure import Figure

    table = result.table
    proteins = list(dict.fromkeys(table["protein"]))[:columns]
    rows = {"moved": "mean change of the\nprediction (SD)"}
    if table["r_measured"].notna().any():
        rows["r_measured"] = "change of Pearson with\nthe measured protein"
    else:
        rows["r_predicted"] = "change of Pearson with\nthe untouched prediction"
    size = (1.9 * len(proteins) + 0.9, 1.9 * len(rows) + 0.8)
    figure = Figure(figsize=(max(size[0], 5.6), size[1]), layout="constrained")
    axes = figure.subplots(len(rows), len(proteins), squeeze=False, sharex=True, sharey="row")
    for i, (column, words) in enumerate(rows.items()):
        for j, protein in enumerate(proteins):
            part = table[table["protein"] == protein]
            _curves(axes[i, j], part, column)
            if i == 0:
                axes[i, j].set_title(protein, fontsize=10, color=_INK, parse_math=False)
        axes[i, 0].set_ylabel(words, fontsize=8.5, color=_INK)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=3 if len(proteins) > 3 else 1,
        frameon=False, fontsize=8.5,
    )  # fmt: skip
    figure.supxlabel(
        f"genes taken away in all of {result.n_rows} {result.noun}", fontsize=9, color=_INK
    )
    return figure


def _curves(ax: Axes, part: pd.DataFrame, column: str) -> None:
    for order in ORDERS:
        colour, marker, words = _LOOK[order]
        curves = part[part["order"] == order].groupby("n_genes")[column]
        mean, low, high = curves.mean(), curves.min(), curves.max()
        if column != "moved":
            low, high, mean = low - mean.iloc[0], high - mean.iloc[0], mean - mean.iloc[0]
        if mean.isna().all():
            continue
        ax.plot(mean.index, mean, color=colour, marker=marker, ms=3.5, lw=1.4, label=words)
        ax.fill_between(mean.index, low, high, color=colour, alpha=0.18, lw=0)
    # Linear up to one gene, so that "none" has a place on a logarithmic axis.
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [n for n in (0, 1, 10, 100) if n <= part["n_genes"].max()]
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.set_xticks([], minor=True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#c3c9d3")
    ax.grid(axis="y", color=_GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, colors=_INK, length=2)
