"""``sclinguist benchmark``: a model against the baselines on the same split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def benchmark(
    train: Annotated[
        list[Path], typer.Option(help="File with RNA and protein for the baselines; repeat it.")
    ],
    test: Annotated[
        list[Path], typer.Option(help="File with RNA and protein to be scored on; repeat it.")
    ],
    model: Annotated[str, typer.Option(help="'bundled' or a checkpoint folder.")] = "bundled",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="CSV file; one of each protein goes beside it.")
    ] = Path("benchmark.csv"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of what is random in the baselines.")] = 0,
) -> None:
    """Score a model beside mean, cognate mRNA, kNN, ridge, kernel ridge and MLP."""
    from rich.console import Console

    from sclinguist_core.cli.evaluate import number, plain_table, wide_console
    from sclinguist_core.errors import InputError
    from sclinguist_core.evaluation.benchmark import benchmark as run
    from sclinguist_core.evaluation.report import write_text

    if not output.parent.is_dir():
        raise InputError(
            f"{output}: its folder does not exist, expected one to write to; make it or give "
            "another --output"
        )
    with Console(stderr=True).status("Training baselines and scoring (a minute a test set) ..."):
        result = run(train, test, model=model, device=device, seed=seed)
    per_protein = output.with_name(f"{output.stem}_per_protein.csv")
    write_text(per_protein, result.per_protein.to_csv(index=False))
    write_text(output, result.summary.to_csv(index=False))
    table = result.table()
    console = wide_console()
    console.print("Mean per-protein Pearson against CLR", style="bold", highlight=False)
    rows = [
        [str(name), *(number(value, 3) for value in values)]
        for name, values in zip(table.index, table.to_numpy(), strict=True)
    ]
    console.print(plain_table(["predictor", *map(str, table.columns)], rows))
    for warning in result.warnings:
        console.print(f"Note: {warning}", markup=False, highlight=False, style="yellow")
    typer.echo(output)
    typer.echo(per_protein)
