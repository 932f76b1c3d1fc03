"""``sclinguist store``: tables of any size in a form from which training streams."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sclinguist_core.cli.common import LayerOption, SeedOption

if TYPE_CHECKING:
    from sclinguist_core.data.store.build import BuildReport

app = typer.Typer(help="Tables of any size in a form from which training streams.")


@app.callback()
def _root() -> None:
    """Tables of any size in a form from which training streams."""


@app.command(epilog="Example: sclinguist store build atlas.h5ad pbmc.h5ad -o cells")
def build(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help=".h5ad or AnnData .zarr of any size, 10x .h5, or any folder that opens.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the store.")],
    layer: LayerOption = None,
    protein_key: Annotated[
        str | None,
        typer.Option(help="Key of obsm with raw antibody counts; found by itself by default."),
    ] = None,
    split_by: Annotated[
        str | None,
        typer.Option(help="Column of obs; each value becomes a data set of its own."),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Write tables as shuffled, sharded zarr, or go on with what is missing; print the folder.

    Data sets that the folder holds already stay, and a build that was interrupted goes on when the
    same command is given again.
    """
    from sclinguist_core.console import progress_bar
    from sclinguist_core.data.store.build import build_store

    steps = build_store(
        inputs, output, seed=seed, layer=layer, protein_key=protein_key, split_by=split_by
    )
    with closing(steps):
        # The first step checks names; a bar is shown for work, not above an error.
        progress = next(steps)
        with progress_bar(progress.phase, unit="cells") as bar:
            while True:
                bar.update(progress.done, progress.total, progress.phase)
                try:
                    progress = next(steps)
                except StopIteration as end:
                    report: BuildReport = end.value
                    break
    for note in report.notes:
        typer.echo(f"Note: {note}", err=True)
    for verb, records in (("stored", report.built), ("there already", report.kept)):
        for record in records:
            size = f"{record.n_obs:,} cells, {record.n_genes:,} genes"
            size += f", {record.n_proteins} proteins" if record.n_proteins else ""
            typer.echo(f"{record.name}: {size}, {verb}", err=True)
    typer.echo(output)
