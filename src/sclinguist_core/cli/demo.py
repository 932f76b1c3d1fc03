"""``sclinguist demo``: the main job, end to end, on the sample section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sclinguist_core.evaluation.evaluate import Evaluation

SHOWN = ("CD3", "CD19", "CD4", "CD8", "CD14", "CD20", "CD21", "CD279", "HLA-DR", "CD31")
"""Proteins of which the demo draws predicted beside measured beside mRNA."""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path(
        "demo_output"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")] = "auto",
    model: Annotated[str, typer.Option(help="'bundled' or a checkpoint folder.")] = "bundled",
    napari: Annotated[bool, typer.Option("--napari", help="Open the result in napari.")] = False,
) -> None:
    """Predict proteins on the simulated sample section, compare, write pictures and a report."""
    from sclinguist_core.cli.common import noun, run_with_bar
    from sclinguist_core.cli.evaluate import print_evaluation
    from sclinguist_core.cli.predict import describe
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.data.write import write_table
    from sclinguist_core.errors import InputError
    from sclinguist_core.evaluation.evaluate import evaluate
    from sclinguist_core.evaluation.report import write_report
    from sclinguist_core.inference.predict import predict_iter
    from sclinguist_core.inference.prediction import attach
    from sclinguist_core.resources import sample_section_path

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{output}: cannot be made a folder ({error.strerror}); choose another with -o."
        ) from error
    section = open_section(sample_section_path(), name="tonsil_simulated")
    steps = predict_iter(section, model=model, device=device)
    prediction = run_with_bar(steps, unit=noun(section))
    attach(section.table, prediction)
    predicted = write_table(section.table, output / "predicted.h5ad")
    typer.echo(describe(section, prediction), err=True)
    result = evaluate(section)
    pictures = _draw(result, output / "overlays")
    report = write_report(result, output, title="Sample section: simulated tonsil")
    print_evaluation(result)
    print_proteins(result)
    typer.echo("")
    typer.echo(f"predictions  {predicted}")
    typer.echo(f"overlays     {pictures}")
    typer.echo(f"table        {output / 'per_protein.csv'}")
    typer.echo(f"report       {report.html}")
    if napari:
        from napari_sclinguist.launch import show_section

        show_section(section, feature="CD19")


def _draw(result: Evaluation, folder: Path) -> Path:
    """Write a PNG a protein: predicted, measured and cognate mRNA over the histology."""
    from sclinguist_core.evaluation.figures import comparison_figure
    from sclinguist_core.evaluation.overlay import save_figure

    folder.mkdir(exist_ok=True)
    table = result.per_protein.set_index("canonical")
    for name in SHOWN:
        if name in table.index:
            antibody = table.loc[[name], "antibody"].iloc[0]
            save_figure(comparison_figure(result, antibody), folder / f"{name}.png", dpi=150)
    return folder


def print_proteins(result: Evaluation) -> None:
    """Print a row a protein, best predicted first."""
    from sclinguist_core.cli.evaluate import number, plain_table, wide_console

    rows = [
        [
            row["antibody"],
            row["canonical"],
            number(row["r_clr"]),
            number(row["r_clr_cognate_mrna"]),
            number(row["rmse"]),
            row["trust"],
        ]
        for _, row in result.per_protein.iterrows()
    ]
    headings = [
        "antibody",
        "protein",
        "Pearson\nCLR",
        "cognate\nmRNA",
        "RMSE\nSD",
        "trust",
    ]
    console = wide_console()
    console.print("")
    console.print(plain_table(headings, rows))
