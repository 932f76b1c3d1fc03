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
    check_table,
    names_in,
    noun,
    open_input,
    run_with_bar,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from sclinguist_core.inference.prediction import Prediction
    from sclinguist_core.inference.prepare import RnaSource
    from sclinguist_core.inference.progress import Progress
    from sclinguist_core.inference.ranks import Rank
    from sclinguist_core.inference.stream import Streamed


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
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Read INPUT and write the output in blocks of rows, which can be resumed; by "
            "default for .h5ad and .zarr of more than 50,000 rows, or larger than memory.",
        ),
    ] = None,
    results_only: Annotated[
        bool,
        typer.Option("--results-only", help="Leave X, layers and raw of INPUT out of the output."),
    ] = False,
) -> None:
    """Predict proteins for every spot or cell of INPUT and write them beside its data."""
    from sclinguist_core.data.write import section_table, without_matrices, write_table
    from sclinguist_core.inference.prediction import attach
    from sclinguist_core.inference.stream_choice import streams
    from sclinguist_core.model.torch_libraries import load_ahead

    check_table(output, source)
    load_ahead()
    names = protein_names(proteins)
    whole = [
        option
        for option, is_given in (
            ("--given", given is not None),
            ("--context", context != "none"),
            ("--bin-size", bin_size is not None),
        )
        if is_given
    ]
    n_proteins = 300 if names is None else 20_000 if "all-genes" in names else len(names)
    if streams(source, stream, whole=whole, n_proteins=n_proteins):
        from sclinguist_core.inference.ranks import find_rank
        from sclinguist_core.inference.stream import predict_to_iter

        rank = find_rank()
        blocks = predict_to_iter(
            source,
            output,
            model=model,
            proteins=names,
            device=device,
            batch_size=batch_size,
            log1p=log1p,
            layer=layer,
            results_only=results_only,
            rank=rank,
        )
        streamed = _stream(blocks, output, rank)
        if streamed is not None:
            typer.echo(describe(streamed.section, streamed), err=True)
            typer.echo(output)
        return
    section = open_input(source, output, layer=layer, bin_size=bin_size)

    from sclinguist_core.inference.predict import predict_iter

    steps = predict_iter(
        section,
        model=model,
        proteins=names,
        device=device,
        batch_size=batch_size,
        log1p=log1p,
        given=given if given in (None, "measured") else names_in(given),
        context=context,
    )
    prediction = run_with_bar(steps, unit=noun(section))
    attach(section.table, prediction)
    table = section_table(section)
    write_table(without_matrices(table) if results_only else table, output)
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


def _stream(
    steps: Generator[Progress, None, Streamed], output: Path, rank: Rank
) -> Streamed | None:
    """Run a streamed prediction; None where another process of several writes the output.

    The first of several processes has a bar on standard error; Ctrl-C there says how to go on.
    """
    from sclinguist_core.inference.progress import finish

    if rank.index > 0:
        finish(steps)
        return None
    try:
        return run_with_bar(steps, unit="rows")
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted: what is done is kept in '{output}.partial', and the same command goes "
            "on from there.",
            err=True,
        )
        raise


def describe(section: RnaSource, prediction: Prediction | Streamed) -> str:
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
