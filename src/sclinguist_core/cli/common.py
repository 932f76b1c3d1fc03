"""What commands that run a model over an input have in common: options, opening, the bar."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    import pandas as pd

    from sclinguist_core.data.section import Section
    from sclinguist_core.inference.prepare import RnaSource
    from sclinguist_core.inference.progress import Progress

Result = TypeVar("Result")

InputArgument = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="Space Ranger outs folder, 10x .h5, .h5ad, SpatialData .zarr or Visium HD folder.",
    ),
]
TableOutput = Annotated[Path, typer.Option("--output", "-o", help=".h5ad or .zarr to write.")]
ModelOption = Annotated[str, typer.Option(help="'bundled' or a checkpoint folder.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")]
BatchSizeOption = Annotated[int | None, typer.Option(help="Most cells in a batch.")]
LayerOption = Annotated[
    str | None, typer.Option(help="Layer with the raw counts; found by itself by default.")
]
BinSizeOption = Annotated[
    str | None,
    typer.Option(metavar="UM|cells", help="Visium HD bin in µm, or 'cells' for segmented cells."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of everything that is random.")]
GroupByOption = Annotated[
    str | None, typer.Option(help="Column of obs: the figures for each of its groups, too.")
]


def check_table(output: Path, *sources: Path) -> None:
    """Refuse a table that cannot be written, or that is an input.

    Raises
    ------
    InputError
        Saying which.
    """
    from sclinguist_core.data.write import check_output
    from sclinguist_core.errors import InputError

    check_output(output)
    for source in sources:
        if source.exists() and output.exists() and output.samefile(source):
            raise InputError(f"{output}: is an input, which stays as it is; choose another name.")


def check_csv(output: Path, *, because: str = "") -> None:
    """Refuse a name of a .csv file that cannot be written.

    Raises
    ------
    InputError
        If it has another suffix (`because` says why .csv is expected), or its folder does not
        exist.
    """
    from sclinguist_core.errors import InputError

    if output.suffix.lower() != ".csv":
        raise InputError(
            f"Cannot write '{output}': its suffix is '{output.suffix}', expected .csv{because}; "
            "change the name."
        )
    if not output.parent.is_dir():
        raise InputError(
            f"Cannot write '{output}': the folder '{output.parent}' does not exist; make it first."
        )


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table without its index, whole or not at all."""
    from sclinguist_core.files import replacing

    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def group_labels(section: Section, column: str) -> pd.Series:
    """Labels of a section's rows, for ``--group-by``.

    Raises
    ------
    InputError
        If obs has no such column, or no row a label.
    """
    from sclinguist_core.errors import InputError

    obs = section.table.obs
    if column not in obs:
        names = ", ".join(map(str, obs.columns[:10])) or "none"
        raise InputError(
            f"--group-by {column!r}: {section.name} has no such column in obs, expected one of "
            f"{names}."
        )
    if not obs[column].notna().any():
        raise InputError(
            f"--group-by {column!r}: no row of {section.name} has a label there, expected some; "
            "choose another column."
        )
    return obs[column]


def open_input(
    source: Path, output: Path, *, layer: str | None = None, bin_size: int | str | None = None
) -> Section:
    """Open the input of a command that writes a table, once it is clear that this can be written.

    Raises
    ------
    InputError
        If the output cannot be written or is the input, or the input cannot be read.
    """
    from sclinguist_core.model.torch_libraries import load_ahead

    load_ahead()
    check_table(output, source)
    from sclinguist_core.data.readers import open_section

    return open_section(source, layer=layer, bin_size=bin_size)


def noun(section: RnaSource) -> str:
    """Name the rows of a section: ``"spots"`` or ``"cells"``."""
    return "spots" if section.is_spatial else "cells"


def run_with_bar(steps: Generator[Progress, None, Result], *, unit: str) -> Result:
    """Run a generator of progress to its end under a bar on standard error."""
    from sclinguist_core.console import progress_bar

    # The first step checks the input; a bar is shown for work, not above an error.
    progress = next(steps)
    with progress_bar(progress.phase, unit=unit) as bar:
        while True:
            bar.update(progress.done, progress.total, progress.phase)
            try:
                progress = next(steps)
            except StopIteration as end:
                return end.value


def names_in(text: str | None) -> list[str] | None:
    """Split a comma-separated list; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
