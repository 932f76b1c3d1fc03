"""``sclinguist-train finetune``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from sclinguist_core.errors import InputError


def finetune(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="Cells or sections with RNA and measured protein: .h5ad, 10x .h5, Space Ranger "
            "outs. Of several, cross-validation leaves whole ones out.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder to write.")],
    model: Annotated[str, typer.Option(help="'bundled' or a checkpoint folder.")] = "bundled",
    name: Annotated[str | None, typer.Option(help="Name of the new model.")] = None,
    table: Annotated[
        Path | None, typer.Option(help=".csv for the comparison of before and after.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer with the raw counts; found by itself by default.")
    ] = None,
    max_cells: Annotated[int, typer.Option(help="Most cells that are fine-tuned on.")] = 1500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")] = "auto",
    seed: Annotated[int, typer.Option(help="Of cross-validation and of drawing cells.")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(min=10, help="Optimiser steps; for a published scLinguist alone."),
    ] = None,
) -> None:
    """Adapt a model to your own cells or sections with measured protein (20 cells or more)."""
    from sclinguist_core.files import replacing
    from sclinguist_core.model.architectures import HYENA
    from sclinguist_core.model.checkpoint import (
        check_checkpoint_target,
        read_summary,
        save_checkpoint,
    )
    from sclinguist_core.train.finetune import finetune as run
    from sclinguist_core.train.fit import FitConfig
    from sclinguist_core.train.hyena_finetune import BATCH_SIZE
    from sclinguist_core.train.reporter import Reporter

    check_checkpoint_target(output)
    if Path(model).is_dir() and output.is_dir() and output.samefile(model):
        raise InputError(f"{output}: is the model itself, which stays; choose another name.")
    if table is not None and (table.suffix != ".csv" or not table.parent.is_dir()):
        raise InputError(f"{table}: expected a .csv in a folder that exists; choose another name.")
    # The others are solved for in one go: there are no steps to show.
    steps_are_taken = read_summary(model).info.architecture == HYENA
    reporter = Reporter("finetune", FitConfig(batch_size=BATCH_SIZE, sets_per_step=1))
    with reporter.shown() if steps_are_taken else nullcontext() as show:
        result = run(
            data, model=model, name=name, layer=layer, max_cells=max_cells, device=device,
            seed=seed, steps=steps, progress=show,
        )  # fmt: skip
    folder = save_checkpoint(result.checkpoint, output)
    if table is not None:
        with replacing(table) as temporary:
            result.comparison.to_csv(temporary, index=False, float_format="%.4f")
    for sentence in result.warnings:
        typer.echo(f"Note: {sentence}", err=True)
    typer.echo(result.headline, err=True)
    typer.echo(folder)
