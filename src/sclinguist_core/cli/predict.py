"""``sclinguist predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sclinguist_core.data.section import Section
    from sclinguist_core.inference.predict import Prediction


def predict(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Space Ranger outs folder, 10x .h5, .h5ad, SpatialData .zarr or Visium HD folder.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help=".h5ad or .zarr to write.")],
    model: Annotated[str, typer.Option(help="'bundled' or a checkpoint folder.")] = "bundled",
    proteins: Annotated[
        str | None, typer.Option(help="Comma-separated names in any spelling; all by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Most cells in a batch.")] = None,
    log1p: Annotated[
        bool, typer.Option("--log1p", help="Predict log1p antibody counts too, not calibrated.")
    ] = False,
    layer: Annotated[
        str | None, typer.Option(help="Layer with the raw counts; found by itself by default.")
    ] = None,
    bin_size: Annotated[int | None, typer.Option(help="Visium HD bin in µm.")] = None,
) -> None:
    """Predict proteins for every spot or cell of INPUT and write them beside its data."""
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.data.write import check_output, section_table, write_table
    from sclinguist_core.errors import InputError
    from sclinguist_core.inference.predict import attach

    check_output(output)
    if source.exists() and output.exists() and output.samefile(source):
        raise InputError(f"{output}: is the input, which stays as it is; choose another name.")
    section = open_section(source, layer=layer, bin_size=bin_size)
    prediction = predict_with_bar(
        section,
        model=model,
        proteins=None if proteins is None else [name.strip() for name in proteins.split(",")],
        device=device,
        batch_size=batch_size,
        log1p=log1p,
    )
    attach(section.table, prediction)
    write_table(section_table(section), output)
    typer.echo(describe(section, prediction), err=True)
    typer.echo(output)


def predict_with_bar(
    section: Section,
    *,
    model: str = "bundled",
    proteins: list[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    log1p: bool = False,
) -> Prediction:
    """Run a prediction under a progress bar on standard error."""
    from sclinguist_core.console import progress_bar
    from sclinguist_core.inference.predict import predict_iter

    unit = "spots" if section.is_spatial else "cells"
    steps = predict_iter(
        section,
        model=model,
        proteins=proteins,
        device=device,
        batch_size=batch_size,
        log1p=log1p,
    )
    # The first step checks the input; a bar is shown for work, not above an error.
    progress = next(steps)
    with progress_bar(progress.phase, unit=unit) as bar:
        while True:
            bar.update(progress.done, progress.total, progress.phase)
            try:
                progress = next(steps)
            except StopIteration as end:
                return end.value


def describe(section: Section, prediction: Prediction) -> str:
    """Say in a few lines what was predicted and what to beware of."""
    from collections import Counter

    from sclinguist_core.model.calibration import LABELS

    info = prediction.info
    unit = "spots" if section.is_spatial else "cells"
    lines = [
        f"{section.name}: {len(prediction.names)} proteins for {section.n_obs:,} {unit}, from "
        f"{info['genes_found']:,} of {info['genes_expected']:,} genes, model "
        f"{info['model']} ({info['model_digest']}), {info['device']}, {info['seconds']:.1f} s"
    ]
    labels = Counter(info.get("trust", {}).values())
    if labels:
        counts = ", ".join(f"{labels[name]} {name}" for name in LABELS if labels[name])
        lines.append(f"Trust in this section, proteins: {counts}")
    lines += [f"Note: {sentence}" for sentence in prediction.warnings]
    return "\n".join(lines)
