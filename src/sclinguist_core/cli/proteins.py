"""``sclinguist proteins``: the proteins by name, and what a name means."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="proteins",
    help="List the proteins of the vocabulary, or ask what a name means.",
    no_args_is_help=False,
)


@app.callback(invoke_without_command=True)
def list_all(
    context: typer.Context,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write comma-separated values, aliases included.")
    ] = False,
) -> None:
    """List every protein: canonical name, coding genes, kind and note."""
    if context.invoked_subcommand is not None:
        return
    from sclinguist_core.vocabulary.proteins import list_proteins

    proteins = list_proteins()
    if csv:
        typer.echo(proteins.to_csv(lineterminator="\n"), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(proteins)} proteins")
    table.add_column("protein", style="bold", no_wrap=True)
    for column in ("genes", "kind", "note"):
        table.add_column(column)
    for name, row in proteins.iterrows():
        table.add_row(str(name), row["genes"].replace(";", " "), row["kind"], row["note"])
    Console().print(table)


@app.command("resolve", epilog='Example: sclinguist proteins resolve "PD-1 (CD279)" CD8a')
def resolve(
    names: Annotated[
        list[str], typer.Argument(help='Names as written by a study, such as "PD-1 (CD279)".')
    ],
) -> None:
    """Print the canonical name of each protein, one a line.

    Genes, kind and notes go to the error stream, so that the output holds names alone. Ends with
    status 1 if a name is unknown or ambiguous.
    """
    from sclinguist_core.errors import InputError
    from sclinguist_core.vocabulary.proteins import resolve_protein

    failed = False
    for name in names:
        try:
            protein = resolve_protein(name)
        except InputError as error:
            typer.echo(f"Error: {error}", err=True)
            failed = True
            continue
        typer.echo(protein.name)
        genes = f"genes {', '.join(protein.genes)}" if protein.genes else "no coding gene"
        details = "; ".join(filter(None, (genes, protein.kind, protein.note)))
        typer.echo(f"  {name} is {protein.name}: {details}", err=True)
    if failed:
        raise typer.Exit(1)
