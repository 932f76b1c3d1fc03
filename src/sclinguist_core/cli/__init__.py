"""``sclinguist``: the command line, one module a command."""

from __future__ import annotations

from typing import Annotated

import typer

import sclinguist_core
from sclinguist_core.cli import genes, proteins, store
from sclinguist_core.cli.annotate import annotate
from sclinguist_core.cli.benchmark import benchmark
from sclinguist_core.cli.demo import demo
from sclinguist_core.cli.doctor import doctor
from sclinguist_core.cli.download import download
from sclinguist_core.cli.embed import embed
from sclinguist_core.cli.evaluate import evaluate
from sclinguist_core.cli.explain import explain
from sclinguist_core.cli.import_checkpoint import import_checkpoint
from sclinguist_core.cli.impute import impute
from sclinguist_core.cli.knockout import knockout
from sclinguist_core.cli.models import models
from sclinguist_core.cli.predict import predict
from sclinguist_core.console import Commands, run_app

app = typer.Typer(
    name="sclinguist",
    cls=Commands,
    help="Predict surface protein from the RNA of tissue sections and cells.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(epilog="Example: sclinguist demo -o demo_output")(demo)
app.command(epilog="Example: sclinguist predict outs -o predicted.h5ad --proteins CD3,PD-1")(
    predict
)
app.command(epilog="Example: sclinguist evaluate predicted.h5ad")(evaluate)
app.command(epilog="Example: sclinguist benchmark --train a.h5ad --test b.h5ad -o scores.csv")(
    benchmark
)
app.command(epilog="Example: sclinguist impute pbmc.h5ad --genes FOXP3,CD19 -o imputed.h5ad")(
    impute
)
app.command(epilog="Example: sclinguist explain pbmc.h5ad --protein CD3,CD19 -o drivers.csv")(
    explain
)
app.command(epilog="Example: sclinguist embed a.h5ad b.h5ad --correct center -o embedded.h5ad")(
    embed
)
app.command(
    epilog="Example: sclinguist annotate pbmc.h5ad --reference labelled.h5ad --labels cell_type "
    "-o annotated.h5ad"
)(annotate)
app.command(epilog="Example: sclinguist knockout pbmc.h5ad --gene CD19 -o knockout.csv")(knockout)
app.add_typer(proteins.app, name="proteins")
app.add_typer(genes.app, name="genes")
app.add_typer(store.app, name="store")
app.command(epilog="Example: sclinguist models bundled --proteins")(models)
app.command(epilog="Example: sclinguist download human-tonsil -o sections")(download)
app.command(
    epilog="Example: sclinguist import-checkpoint finetune.ckpt --genes gene_order.csv "
    "--proteins protein_index_map.csv -o scLinguist"
)(import_checkpoint)
app.command(epilog="Example: sclinguist doctor")(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(sclinguist_core.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Predict surface protein from the RNA of tissue sections and cells."""


def main() -> None:
    """Entry point; an `InputError` becomes one sentence and exit status 1."""
    run_app(app)
