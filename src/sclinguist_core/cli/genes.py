"""``sclinguist genes``: gene names of any kind, Ensembl ids and mouse genes to human symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="genes", help="Convert gene names, ids and mouse genes.", no_args_is_help=True
)

_LARGEST_FILE = 64 * 2**20


@app.callback()
def _root() -> None:
    """Convert gene names, ids and mouse genes."""


@app.command("resolve", epilog="Example: sclinguist genes resolve ENSG00000010610 PDL1 Cd8b1")
def resolve(
    names: Annotated[
        list[str] | None, typer.Argument(help="Symbols, aliases or Ensembl ids, human or mouse.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Text file with one name a line; '-' for standard input.")
    ] = None,
    species: Annotated[
        str, typer.Option(help="auto, human or mouse; auto decides by all names together.")
    ] = "auto",
) -> None:
    """Print name, current human symbol, Ensembl id and how it was recognised, tab-separated.

    A name that means nothing, or several genes, has an empty symbol. A summary goes to the error
    stream. Ends with status 1 if not a single name was recognised.
    """
    from sclinguist_core.errors import InputError
    from sclinguist_core.vocabulary.genes import resolve_genes

    given = list(names or ()) + ([] if file is None else _lines(file))
    if not given:
        raise InputError("genes resolve: found no name, expected some; give them, or --file FILE.")
    found = resolve_genes(given, species=species)  # type: ignore[arg-type]
    typer.echo(found.table.to_csv(sep="\t", index=False, lineterminator="\n"), nl=False)
    typer.echo(found.summary(), err=True)
    if not found.n_resolved:
        raise typer.Exit(1)


def _lines(file: Path) -> list[str]:
    """Names of a text file; empty lines are left out."""
    import sys

    from sclinguist_core.errors import InputError

    if str(file) == "-":
        text = sys.stdin.read(_LARGEST_FILE)
    else:
        try:
            if file.stat().st_size > _LARGEST_FILE:
                raise InputError(
                    f"{file}: larger than {_LARGEST_FILE >> 20} MiB, expected a text file with "
                    "one gene a line."
                )
            text = file.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{file}: expected a text file with one gene a line ({error}); check the name."
            ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]
