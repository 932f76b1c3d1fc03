"""``sclinguist embed``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sclinguist_core.cli.common import (
    BatchSizeOption,
    BinSizeOption,
    DeviceOption,
    LayerOption,
    ModelOption,
    TableOutput,
    check_table,
    noun,
    run_with_bar,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ContextOption = Annotated[
    str, typer.Option(help="Neighbours that a row is mixed with: none, spatial or nearest.")
]


def embed(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Space Ranger outs folder, 10x .h5, .h5ad, SpatialData .zarr or Visium HD folder; "
            "several are joined.",
        ),
    ],
    output: TableOutput,
    kind: Annotated[
        str, typer.Option(help="protein (what the model predicts) or latent (its trunk).")
    ] = "protein",
    context: ContextOption = "none",
    correct: Annotated[
        str, typer.Option(help="Correction between data sets: none, center or harmony.")
    ] = "none",
    batch_key: Annotated[
        str | None,
        typer.Option(help="Column of obs to correct for; the input files by default."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Column of obs with cell types: print how well data sets mix."),
    ] = None,
    model: ModelOption = "bundled",
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = None,
    layer: LayerOption = None,
    bin_size: BinSizeOption = None,
) -> None:
    """Embed every spot or cell: obsm["X_sclinguist"], for neighbours, clusters and maps."""
    from sclinguist_core.data.readers import open_sections
    from sclinguist_core.data.write import section_table, write_table
    from sclinguist_core.inference.bag import N_NEIGHBOURS
    from sclinguist_core.inference.embed import attach, check_options, embed_iter
    from sclinguist_core.inference.embed_correct import (
        batches_of,
        check_column,
        check_correction,
        correct_table,
    )
    from sclinguist_core.inference.embed_join import join
    from sclinguist_core.model.checkpoint import load_checkpoint

    check_table(output, *sources)
    check_options(kind, context, N_NEIGHBOURS, batch_size)
    check_correction(correct)
    sections = open_sections(sources, layer=layer, bin_size=bin_size)
    for section in sections:
        if batch_key is not None:
            check_column(section.table, batch_key, section.name)
    if labels is not None and not any(labels in section.table.obs for section in sections):
        check_column(sections[0].table, labels, sections[0].name)
    if (correct != "none" or labels is not None) and len(sections) == 1:
        batches_of(sections[0].table, batch_key)
    checkpoint = load_checkpoint(model)
    embedded = []
    for section in sections:
        steps = embed_iter(
            section,
            kind=kind,
            context=context,
            model=checkpoint,
            device=device,
            batch_size=batch_size,
        )
        embedded.append(run_with_bar(steps, unit=noun(section)))
        for sentence in embedded[-1].warnings:
            typer.echo(f"Note: {section.name}: {sentence}", err=True)
    if len(sections) == 1:
        table = section_table(sections[0])
        attach(table, embedded[0])
    else:
        table, notes = join(sections, embedded)
        for sentence in notes:
            typer.echo(f"Note: {sentence}", err=True)
    correct_table(table, correct, batch_key)
    figures = None if labels is None else _scores(table, labels, batch_key, correct)
    write_table(table, output)
    info = table.uns["sclinguist_embed"]
    typer.echo(
        f"{table.n_obs:,} {noun(sections[0])} in {len(sections)} "
        f"{'input' if len(sections) == 1 else 'inputs'}, {info['dimensions']} dimensions ({kind}), "
        f"context {context}, correction {correct}, model {info['model']} ({info['model_digest']}), "
        f"{info['device']}, {info['seconds']:.1f} s",
        err=True,
    )
    if figures is not None:
        typer.echo(figures, err=True)
    typer.echo(output)


def _scores(table: AnnData, labels: str, batch_key: str | None, correct: str) -> str:
    """Say how data sets mix and cell types stay apart, without and with correction."""
    import pandas as pd

    from sclinguist_core.evaluation.integration import (
        DIRECTIONS,
        integration_scores,
        scib_installed,
    )
    from sclinguist_core.inference.annotate import labels_of
    from sclinguist_core.inference.embed import KEY
    from sclinguist_core.inference.embed_correct import UNCORRECTED, batches_of

    batch, names = batches_of(table, batch_key), labels_of(table, labels, "input")
    columns: dict[str, pd.Series] = {}
    if correct != "none":
        columns["none"] = integration_scores(table.obsm[UNCORRECTED], batch, names)
    columns[correct] = integration_scores(table.obsm[KEY], batch, names)
    figures = pd.DataFrame(columns).dropna(how="all")
    lines = ["higher is better    " + "".join(f"{name:>9}" for name in figures.columns)]
    for name, row in figures.iterrows():
        values = "".join(f"{value:9.3f}" for value in row)
        lines.append(f"{name:<20}{values}  {DIRECTIONS[str(name)]}")
    if not scib_installed():
        lines.append('For iLISI, cLISI and kBET: pip install "napari-sclinguist[integrate]".')
    return "\n".join(lines)
