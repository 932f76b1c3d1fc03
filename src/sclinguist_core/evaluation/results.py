"""The result of a benchmark: tables, and the sentences that go with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.evaluation.methods import MODEL

_SETS_AND_PARTS = ["dataset", "part"]
_AVERAGED = ["n_proteins", "pearson_clr", "lead", "lead_low", "lead_high"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Benchmark:
    """The result of :func:`sclinguist_core.evaluation.benchmark.benchmark`.

    Attributes
    ----------
    summary
        One row a task, input and method: ``dataset``, ``part`` (of a split), ``input`` (``"full"``
        or what was left of it), ``seed`` of the input's draw, ``method`` and the columns of
        :func:`sclinguist_core.evaluation.scores.score`.
    per_protein
        The same for each antibody.
    warnings
        What makes a figure less than it seems, and what is missing, one sentence each.
    """

    summary: pd.DataFrame
    per_protein: pd.DataFrame
    warnings: tuple[str, ...] = ()

    @property
    def datasets(self) -> list[str]:
        """Test sets in their order."""
        return list(dict.fromkeys(self.summary["dataset"]))

    def proteins(self, dataset: str) -> list[str]:
        """Proteins that were scored, the same for every method."""
        rows = self.per_protein[self.per_protein["dataset"] == dataset]
        return list(dict.fromkeys(rows["protein"]))

    def table(self, column: str = "pearson_clr", *, input: str = "full") -> pd.DataFrame:
        """One row a method, one column a data set (or part of it), and their mean; best mean first.

        Draws of the same input, of donors or of few cells are averaged.
        """
        rows = self.summary[self.summary["input"] == input]
        label = rows["dataset"].where(rows["part"] == "", rows["dataset"] + ", " + rows["part"])
        if rows["part"].str.startswith("donor ").any():
            label = rows["dataset"]
        wide = (
            rows.assign(label=label)
            .groupby(["method", "label"], sort=False)[column]
            .mean()
            .unstack()
        )
        wide = wide[list(dict.fromkeys(label))]
        wide.columns.name = None
        wide["mean"] = wide.mean(axis=1, skipna=False)
        return wide.sort_values("mean", ascending=False, na_position="last")

    def losses(self) -> pd.DataFrame:
        """Tell what poorer inputs cost: one row a data set, input and method.

        Columns: ``full`` and ``poorer``, the mean headline on both, and ``loss``, their difference,
        with ``sd`` over the draws. A protein without a figure on the poorer input (its gene is not
        on the panel) is left out on both sides.
        """
        keys = [*_SETS_AND_PARTS, "method", "antibody"]
        value = "pearson_clr"
        full = self.per_protein[self.per_protein["input"] == "full"].set_index(keys)[value]
        poorer = self.per_protein[self.per_protein["input"] != "full"]
        if poorer.empty:
            columns = ["dataset", "input", "method", "n_proteins", "full", "poorer", "loss", "sd"]
            return pd.DataFrame(columns=columns)
        joined = poorer.join(full.rename("full"), on=keys).dropna(subset=[value, "full"])
        by_draw = joined.groupby(["dataset", "input", "seed", "method"], sort=False).agg(
            n_proteins=(value, "size"), full=("full", "mean"), poorer=(value, "mean")
        )
        by_draw["loss"] = by_draw["full"] - by_draw["poorer"]
        over = by_draw.groupby(["dataset", "input", "method"], sort=False)
        out = over[["n_proteins", "full", "poorer", "loss"]].mean()
        out["sd"] = over["loss"].std(ddof=1)
        return out.reset_index()

    def headline(self) -> list[str]:
        """Put the model beside the best baseline, a sentence a data set; empty without a model.

        The difference has the 95 % interval of the paired bootstrap over cells; where there are
        several draws of few cells, it is their mean, with its standard deviation over the draws.
        """
        sentences = []
        full = self.summary[self.summary["input"] == "full"]
        for (dataset, part), rows in full.groupby(_SETS_AND_PARTS, sort=False):
            means = rows.groupby("method", sort=False)[_AVERAGED].mean()
            if MODEL not in means.index:
                continue
            others = means.drop(MODEL)
            others = others[others["n_proteins"] == means.loc[MODEL, "n_proteins"]]
            if not np.isfinite(others["pearson_clr"]).any():
                continue
            best = str(others["pearson_clr"].idxmax())
            row, where = others.loc[best], f"{dataset}, {part}" if part else dataset
            leads = rows.loc[rows["method"] == best, "lead"]
            doubt = f"{row['lead_low']:+.3f} to {row['lead_high']:+.3f}"
            if len(leads) > 1:
                doubt = f"SD over {len(leads)} draws {leads.std(ddof=1):.3f}"
            sentences.append(
                f"{where}: model {means.loc[MODEL, 'pearson_clr']:.3f}, best baseline ({best}) "
                f"{row['pearson_clr']:.3f}, difference {row['lead']:+.3f} ({doubt})"
            )
        return sentences


def best_baseline(table: pd.DataFrame) -> str:
    """Name of the predictor with the best mean, the model itself left out."""
    return str(table["mean"].drop(MODEL, errors="ignore").dropna().idxmax())
