"""``sclinguist benchmark``: a model against the baselines on the same split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sclinguist_core.evaluation.results import Benchmark

_SHOWN_PROTEINS = 60


def benchmark(
    test: Annotated[
        list[Path], typer.Option(help="File with RNA and protein to be scored on; repeat it.")
    ],
    train: Annotated[
        list[Path] | None,
        typer.Option(help="File with RNA and protein that every method learns from; repeat it."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="'bundled', a checkpoint folder, or 'none' for baselines alone.")
    ] = "bundled",
    recipe: Annotated[
        Path | None,
        typer.Option(help="Train the model anew by this recipe, on the training cells of a split."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="CSV file; tables and plots go beside it.")
    ] = Path("benchmark.csv"),
    split: Annotated[
        str, typer.Option(help="dataset, donor, random (easy), few-shot or protein")
    ] = "dataset",
    donor_key: Annotated[
        str | None, typer.Option(help="Column of obs that tells donors apart (--split donor).")
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(help="Key of obsm, in all files, on which kNN and ridge are run; repeat it."),
    ] = None,
    choose_training_sets: Annotated[
        bool, typer.Option(help="Let each baseline choose its training sets, on these alone.")
    ] = True,
    trees: Annotated[bool, typer.Option(help="Run gradient boosting (slow).")] = True,
    totalvi: Annotated[
        bool, typer.Option(help="Run totalVI, where it is installed (slow).")
    ] = True,
    totalvi_epochs: Annotated[
        int | None, typer.Option(help="Passes over the cells; by default what scvi-tools takes.")
    ] = None,
    published: Annotated[
        bool, typer.Option(help="Train the published scLinguist architecture (slow).")
    ] = False,
    genes: Annotated[
        int | None, typer.Option(help="Also predict from so many random genes.")
    ] = None,
    depth: Annotated[
        float, typer.Option(help="Also predict from this share of the molecules, such as 0.25.")
    ] = 1.0,
    repeats: Annotated[int, typer.Option(help="Draws of genes and of thinned counts.")] = 3,
    cells: Annotated[
        list[int] | None, typer.Option(help="Cells given away (--split few-shot); repeat it.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of these cells.")] = 5,
    resamples: Annotated[int, typer.Option(help="Resamples of the bootstrap over cells.")] = 1000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 0,
) -> None:
    """Score a model beside simple and trained baselines: same cells, same proteins, one table.

    Baselines: protein mean, total count, cognate mRNA, kNN, ridge, kernel ridge, MLP, their mean,
    gradient boosting, totalVI (extra "benchmark"), and kNN and ridge on given embeddings.
    """
    from rich.console import Console

    from sclinguist_core.errors import InputError
    from sclinguist_core.evaluation.benchmark import benchmark as run
    from sclinguist_core.evaluation.benchmark_config import BenchmarkConfig
    from sclinguist_core.evaluation.benchmark_report import write_benchmark
    from sclinguist_core.evaluation.few_shot import SIZES
    from sclinguist_core.evaluation.learners import FOUR, TREES

    if output.suffix != ".csv" or not output.parent.is_dir():
        raise InputError(
            f"{output}: expected the name of a .csv file in a folder that exists; make the folder "
            "or give another --output"
        )
    config = BenchmarkConfig(
        split=split,
        donor_key=donor_key,
        learners=(*FOUR, TREES) if trees else FOUR,
        select_training_sets=choose_training_sets,
        embeddings=tuple(embedding or ()),
        totalvi=totalvi,
        totalvi_epochs=totalvi_epochs,
        published=published,
        n_genes=genes,
        depth=depth,
        repeats=repeats,
        sizes=tuple(sorted(set(cells))) if cells else SIZES,
        draws=draws,
        n_resamples=resamples,
        seed=seed,
        device=device,
    )
    wanted = None
    if recipe is not None:
        from sclinguist_core.train.recipe import read_recipe

        wanted = read_recipe(recipe)
    with Console(stderr=True).status("Opening files ...") as status:
        result = run(
            train or [],
            test,
            model=None if model == "none" else model,
            recipe=wanted,
            config=config,
            progress=lambda words: status.update(f"{words.strip()} ..."),
        )
        written = write_benchmark(result, output)
    show(result)
    for path in written:
        typer.echo(path)


def show(result: Benchmark) -> None:
    """Print proteins, the table, the model's lead, losses and notes to standard output."""
    from sclinguist_core.cli.evaluate import plain_table, wide_console
    from sclinguist_core.evaluation.benchmark_report import loss_table, number

    console = wide_console()
    for dataset in result.datasets:
        names = result.proteins(dataset)
        more = f" and {len(names) - _SHOWN_PROTEINS} more" if len(names) > _SHOWN_PROTEINS else ""
        listed = ", ".join(names[:_SHOWN_PROTEINS])
        console.print(f"{dataset}, {len(names)} proteins: {listed}{more}", highlight=False)
    console.print("Mean per-protein Pearson against CLR", style="bold", highlight=False)
    for table in (result.table(), loss_table(result.losses())):
        if table.empty:
            continue
        rows = [
            [str(name), *map(number, values)]
            for name, values in zip(table.index, table.to_numpy(), strict=True)
        ]
        console.print(plain_table(["predictor", *map(str, table.columns)], rows))
    for sentence in result.headline():
        console.print(sentence, markup=False, highlight=False)
    for warning in result.warnings:
        console.print(f"Note: {warning}", markup=False, highlight=False, style="yellow")
