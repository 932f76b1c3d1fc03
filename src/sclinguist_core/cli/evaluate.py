"""``sclinguist evaluate``: predicted against measured protein."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from sclinguist_core.evaluation.evaluate import Evaluation

WIDTH_OF_A_PIPE = 140
"""Columns of a table that goes to a file or another program, where no terminal sets a width."""


def evaluate(
    pred: Annotated[
        Path, typer.Argument(metavar="PRED", help="What `sclinguist predict` wrote (.h5ad, .zarr).")
    ],
    truth: Annotated[
        Path | None,
        typer.Option(help="File with the measured protein of the same cells, if PRED has none."),
    ] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with RNA and protein of other cells, to train baselines on; repeat it."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; PRED_evaluation by default."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the report.")] = None,
) -> None:
    """Compare predicted with measured protein, beside the trivial baselines; CSV and HTML."""
    from rich.console import Console

    from sclinguist_core.evaluation.evaluate import evaluate as compare
    from sclinguist_core.evaluation.report import write_report

    with Console(stderr=True).status("Comparing predicted with measured protein ..."):
        result = compare(pred, truth, train)
    folder = output or Path(f"{pred.name.removesuffix(pred.suffix)}_evaluation")
    with Console(stderr=True).status("Drawing the report ..."):
        written = write_report(result, folder, title=title)
    print_evaluation(result)
    typer.echo(written.html)


def print_evaluation(result: Evaluation) -> None:
    """Print headline, summary table and notes to standard output."""
    console = wide_console()
    if result.simulated:
        console.print("[bold yellow]Simulated data: nobody measured these counts.[/]")
    console.print(result.headline, markup=False, highlight=False, style="bold")
    console.print(summary_table(result.summary))
    for note in result.notes:
        console.print(note, markup=False, highlight=False, style="dim")


def wide_console() -> Console:
    """Console on standard output that does not squeeze tables when it is a pipe."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_OF_A_PIPE)


def summary_table(summary: pd.DataFrame) -> Table:
    """Lay the summary of an evaluation out for a terminal, the model's row in colour."""
    columns = {
        "Pearson\nCLR": "pearson_clr",
        "Spearman\nCLR": "spearman",
        "per\ncell": "per_cell",
        "RMSE\nSD": "rmse",
        "Pearson\nlog1p": "pearson_log1p",
        "flattened\n(inflated)": "flattened",
        "MMD²": "mmd",
    }
    rows: list[list[str]] = []
    for name, row in summary.iterrows():
        better = "-" if name == "model" else number(row["better_than_model"], 0)
        rows.append(
            [
                str(name),
                number(row["n_proteins"], 0),
                *(number(row[column], 3 if column == "mmd" else 2) for column in columns.values()),
                better,
            ]
        )
    return plain_table(["predictor", "proteins", *columns, "better than\nthe model"], rows)


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay out a table without lines: names to the left, figures to the right, "model" in colour."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row), style="green" if row[0] == "model" else "")
    return table


def number(value: float, digits: int = 2) -> str:
    """Format a figure; a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
