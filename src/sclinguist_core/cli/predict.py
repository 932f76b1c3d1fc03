"""``sclinguist predict``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sclinguist_core.cli.common import (
    BatchSizeOption,
    BinSizeOption,
    DeviceOption,
    InputArgument,
    LayerOption,
    ModelOption,
    TableOutput,
    names_in,
    noun,
    open_input,
    run_with_bar,
)

if TYPE_CHECKING:
    from sclinguist_core.data.section import Section
    from sclinguist_core.inference.predict import Prediction


def predict(
    source: InputArgument,
    output: TableOutput,
    model: ModelOption = "bundled",
    proteins: Annotated[
        str | None, typer.Option(help="Comma-separated names in any spelling; all by default.")
    ] = None,
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = None,
    log1p: Annotated[
        bool, typer.Option("--log1p", help="Predict log1p antibody counts too, not calibrated.")
    ] = False,
    layer: LayerOption = None,
    bin_size: BinSizeOption = None,
) -> None:
    """Predict proteins for every spot or cell of INPUT and write them beside its data."""
    from sclinguist_core.data.write import section_table, write_table
    from sclinguist_core.inference.predict import attach

    section = open_input(source, output, layer=layer, bin_size=bin_size)
    prediction = predict_with_bar(
        section,
        model=model,
        proteins=names_in(proteins),
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
    from sclinguist_core.inference.predict import predict_iter

    steps = predict_iter(
        section,
        model=model,
        proteins=proteins,
        device=device,
        batch_size=batch_size,
        log1p=log1p,
    )
    return run_with_bar(steps, unit=noun(section))


def describe(section: Section, prediction: Prediction) -> str:
    """Say in a few lines what was predicted and what to beware of."""
    from collections import Counter

    from sclinguist_core.model.calibration import LABELS

    info = prediction.info
    unit = noun(section)
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
