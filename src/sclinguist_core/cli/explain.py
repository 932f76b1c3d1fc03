"""``sclinguist explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sclinguist_core.cli.common import (
    BatchSizeOption,
    BinSizeOption,
    DeviceOption,
    GroupByOption,
    InputArgument,
    LayerOption,
    ModelOption,
    SeedOption,
    check_csv,
    check_table,
    group_labels,
    names_in,
    noun,
    run_with_bar,
    write_csv,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from sclinguist_core.data.section import Section
    from sclinguist_core.evaluation.deletion import Deletion
    from sclinguist_core.inference.explanation import Explanation
    from sclinguist_core.model.checkpoint import Checkpoint

_SHOWN_GENES = 10
_GENES_PER_CELL = 50


def explain(
    source: InputArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help=".csv to write: ranked genes.")],
    protein: Annotated[
        list[str] | None,
        typer.Option(
            help="Name in any spelling; repeat it, or separate names by commas. By default the six "
            "that the model predicts best."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="gradients (integrated) or attention (x value; quick and coarse).")
    ] = "gradients",
    group_by: GroupByOption = None,
    cells: Annotated[
        Path | None,
        typer.Option(help=".h5ad or .zarr to write: attributions of the top 50 genes per cell."),
    ] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Gene-protein network: table, figure, GraphML.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Deletion curves, and the same with random weights."),
    ] = False,
    also_model: Annotated[
        list[str] | None,
        typer.Option(help="Another checkpoint, to see whether its genes are the same; repeat it."),
    ] = None,
    max_cells: Annotated[
        int, typer.Option(help="Explain a random sample of so many cells; 0 for all.")
    ] = 1_000,
    steps: Annotated[int, typer.Option(help="Points on the way of integrated gradients.")] = 8,
    model: ModelOption = "bundled",
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = None,
    layer: LayerOption = None,
    bin_size: BinSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Rank the genes that predicted proteins of INPUT rest on: of the model, not causes."""
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.inference.explain import best_predicted, explain_iter, explainable
    from sclinguist_core.inference.explain_agreement import across_models, agreement
    from sclinguist_core.inference.prepare import select_proteins

    check_csv(output)
    if cells is not None:
        check_table(cells, source)
    section = open_section(source, layer=layer, bin_size=bin_size)
    groups = None if group_by is None else group_labels(section, group_by)
    checkpoint = explainable(model)
    others = [explainable(other) for other in also_model or []]
    proteins = None if protein is None else names_in(",".join(protein))
    if proteins is None:
        proteins = best_predicted(checkpoint, noun(section))
    for each in (checkpoint, *others):
        select_proteins(each, proteins)  # refused before work is spent
    options: dict[str, Any] = {
        "method": method,
        "steps": steps,
        "device": device,
        "batch_size": batch_size,
    }
    limit = max_cells or None
    unit = noun(section)
    explanation = run_with_bar(
        explain_iter(
            section, proteins, model=checkpoint, max_rows=limit, seed=seed, **options
        ),
        unit=unit,
    )  # fmt: skip
    ranked = explanation.ranked(seed=seed)
    typer.echo(describe(section, explanation, ranked), err=True)
    if others:
        every = [explanation]
        for other in others:
            steps_of = explain_iter(
                section, explanation.names, model=other, rows=explanation.rows, max_rows=None,
                **options,
            )  # fmt: skip
            every.append(run_with_bar(steps_of, unit=unit))
        ranked = ranked.join(across_models(every))
        for name, one in zip(also_model or [], every[1:], strict=True):
            typer.echo(_describe_agreement(name, agreement(explanation, one)), err=True)
    # All is worked out before anything is written: who stops it half-way finds no half of a set.
    grouped = None if groups is None else explanation.grouped(groups)
    checks = _checks(section, explanation, checkpoint, device, seed) if check else None
    written = [_csv(ranked.reset_index(), output)]
    if grouped is not None:
        written.append(_csv(grouped.reset_index(), _beside(output, "groups")))
    if network:
        written += _write_network(ranked, output)
    if checks is not None:
        written += _write_checks(*checks, output)
    if cells is not None:
        written.append(_write_cells(section, explanation, ranked, cells))
    for path in written:
        typer.echo(path)


def describe(section: Section, explanation: Explanation, ranked: pd.DataFrame) -> str:
    """Say in a few lines which genes lead, and what to beware of."""
    info = explanation.info
    many = f"{info['n_rows']:,}" + (
        f" of {section.n_obs:,}" if info["n_rows"] < section.n_obs else ""
    )
    lines = [
        f"{section.name}: {len(explanation.names)} proteins explained in {many} {noun(section)}, "
        f"model {info['model']} ({info['model_digest']}), {info['device']}, {info['seconds']:.1f} s"
    ]
    if info["completeness_error"] is not None:
        lines.append(
            "Attributions add up to the predictions but for "
            f"{info['completeness_error']:.1%} of their spread."
        )
    for protein in explanation.names:
        first = ranked.loc[protein].head(_SHOWN_GENES)
        names = ", ".join(
            f"{gene} {row['share']:.1%}{' (lowers)' if row['direction'] == 'lowers' else ''}"
            for gene, row in first.iterrows()
        )
        lines.append(f"{protein}: {names}")
    lines += [f"Note: {sentence}" for sentence in explanation.warnings]
    return "\n".join(lines)


def _describe_agreement(name: str, table: pd.DataFrame) -> str:
    each = ", ".join(f"{protein} {row['jaccard']:.2f}" for protein, row in table.iterrows())
    return f"{name}: overlap (Jaccard) of the first 20 genes: {each}"


def _csv(table: pd.DataFrame, path: Path) -> Path:
    write_csv(table, path)
    return path


def _beside(output: Path, suffix: str, ending: str = ".csv") -> Path:
    return output.with_name(f"{output.stem}_{suffix}{ending}")


def _write_figure(figure: Figure, path: Path) -> list[Path]:
    from sclinguist_core.evaluation.overlay import save_figure

    return [save_figure(figure, path.with_suffix(suffix), dpi=150) for suffix in (".png", ".svg")]


def _write_network(ranked: pd.DataFrame, output: Path) -> list[Path]:
    from sclinguist_core.evaluation.network import network_figure, network_table, write_graphml
    from sclinguist_core.files import replacing

    path = _beside(output, "network")
    edges = network_table(ranked)
    written = [_csv(edges, path)]
    if edges.empty:
        typer.echo("Note: no gene is stable enough for a network; its table is empty.", err=True)
        return written
    written += _write_figure(network_figure(edges), path)
    with replacing(path.with_suffix(".graphml")) as temporary:
        write_graphml(edges, temporary)
    return [*written, path.with_suffix(".graphml")]


def _checks(
    section: Section,
    explanation: Explanation,
    checkpoint: Checkpoint,
    device: str,
    seed: int,
) -> tuple[Deletion, pd.DataFrame]:
    from sclinguist_core.evaluation.deletion import deletion_iter
    from sclinguist_core.evaluation.randomisation import randomisation_iter

    options: dict[str, Any] = {"model": checkpoint, "device": device, "seed": seed}
    unit = noun(section)
    deletion = run_with_bar(deletion_iter(section, explanation, **options), unit=unit)
    typer.echo(deletion.describe(), err=True)
    random = run_with_bar(randomisation_iter(section, explanation, **options), unit=unit)
    last = random.groupby("redrawn", sort=False)["rank_correlation"].mean()
    each = ", ".join(f"{name} {value:.2f}" for name, value in last.items())
    typer.echo(f"Rank correlation with random weights, redrawn down to: {each}", err=True)
    return deletion, random


def _write_checks(deletion: Deletion, random: pd.DataFrame, output: Path) -> list[Path]:
    from sclinguist_core.evaluation.deletion import deletion_figure

    path = _beside(output, "deletion")
    return [
        _csv(deletion.table, path),
        *_write_figure(deletion_figure(deletion), path),
        _csv(random, _beside(output, "randomisation")),
    ]


def _write_cells(
    section: Section, explanation: Explanation, ranked: pd.DataFrame, path: Path
) -> Path:
    from sclinguist_core.data.write import section_table, write_table

    table = section_table(section)
    for protein in explanation.names:
        genes = ranked.loc[protein].index[:_GENES_PER_CELL].tolist()
        values = explanation.per_row(protein, genes)
        table.obsm[f"explained_{protein}"] = values.set_index(table.obs_names)
    info = {key: value for key, value in explanation.info.items() if value is not None}
    table.uns["sclinguist_explained"] = info
    return write_table(table, path)
