"""``sclinguist predict``."""

from __future__ import annotations

from pathlib import Path
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
    from sclinguist_core.inference.prediction import Prediction


def predict(
    source: InputArgument,
    output: TableOutput,
    model: ModelOption = "bundled",
    proteins: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Comma-separated names in any spelling, @FILE with such names, or all-genes; any "
            "protein whose gene the model knows. All that it has learnt by default.",
        ),
    ] = None,
    given: Annotated[
        str | None,
        typer.Option(
            metavar="measured|NAMES",
            help="Condition on measured proteins of INPUT: all, or comma-separated names.",
        ),
    ] = None,
    context: Annotated[
        str,
        typer.Option(
            metavar="none|spatial|nearest",
            help="Draw each value half-way to its neighbours on the tissue, or in predicted "
            "protein.",
        ),
    ] = "none",
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
    from sclinguist_core.inference.prediction import attach

    section = open_input(source, output, layer=layer, bin_size=bin_size)
    prediction = predict_with_bar(
        section,
        model=model,
        proteins=protein_names(proteins),
        device=device,
        batch_size=batch_size,
        log1p=log1p,
        given=given if given in (None, "measured") else names_in(given),
        context=context,
    )
    attach(section.table, prediction)
    write_table(section_table(section), output)
    typer.echo(describe(section, prediction), err=True)
    typer.echo(output)


def protein_names(text: str | None) -> list[str] | None:
    """Names of a comma-separated list, or of the file that ``@FILE`` names (also one a line).

    Raises
    ------
    InputError
        If the file cannot be read or is empty.
    """
    if text is None or not text.startswith("@"):
        return names_in(text)
    from sclinguist_core.errors import InputError

    path = Path(text[1:])
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected a text file with names of proteins, found none that can be read "
            f"({error}); give the names themselves, or another file."
        ) from error
    names = [name for line in lines for name in names_in(line.partition("#")[0]) or []]
    if not names:
        raise InputError(f"{path}: found no names, expected one or more names of proteins.")
    return names


def predict_with_bar(
    section: Section,
    *,
    model: str = "bundled",
    proteins: list[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    log1p: bool = False,
    given: str | list[str] | None = None,
    context: str = "none",
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
        given=given,
        context=context,
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
