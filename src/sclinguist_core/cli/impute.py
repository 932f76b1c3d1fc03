"""``sclinguist impute``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sclinguist_core.cli.common import (
    BinSizeOption,
    DeviceOption,
    InputArgument,
    LayerOption,
    ModelOption,
    SeedOption,
    check_csv,
    names_in,
    noun,
    open_input,
    run_with_bar,
)

if TYPE_CHECKING:
    from sclinguist_core.data.section import Section
    from sclinguist_core.evaluation.imputation import ImputationScores
    from sclinguist_core.inference.imputation import Imputation

_SHOWN_GENES = 12


def impute(
    source: InputArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=".h5ad or .zarr to write; with --evaluate a .csv, if wanted."
        ),
    ] = None,
    genes: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated names in any spelling, measured or not; by default the model's "
            "genes that INPUT did not measure."
        ),
    ] = None,
    all_genes: Annotated[
        bool, typer.Option("--all", help="All genes of the model, the measured ones among them.")
    ] = False,
    context: Annotated[
        str,
        typer.Option(help="none, spatial or nearest: whether the same gene in neighbours counts."),
    ] = "none",
    neighbours: Annotated[int, typer.Option(help="Neighbours that are the context.")] = 15,
    levels: Annotated[
        bool, typer.Option("--levels", help="Write the five levels, beside the values.")
    ] = False,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="Hide a fifth of all measured entries, impute them, and compare with the gene's "
            "mean and kNN smoothing; writes no table.",
        ),
    ] = False,
    model: ModelOption = "bundled",
    device: DeviceOption = "auto",
    layer: LayerOption = None,
    bin_size: BinSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Impute genes that INPUT lacks, or estimate measured ones from all others."""
    from sclinguist_core.errors import InputError

    if genes is not None and all_genes:
        raise InputError("--genes and --all: found both, expected one of them.")
    if evaluate and (genes is not None or all_genes or levels):
        raise InputError(
            "--evaluate: found together with --genes, --all or --levels, expected it without: "
            "entries of all measured genes are hidden."
        )
    if evaluate:
        _evaluate(
            source, output, context=context, neighbours=neighbours, model=model, device=device,
            layer=layer, bin_size=bin_size, seed=seed,
        )  # fmt: skip
        return
    if output is None:
        raise InputError("--output: found none, expected an .h5ad or .zarr to write (-o FILE).")

    from sclinguist_core.data.write import section_table, write_table
    from sclinguist_core.inference.imputation import attach
    from sclinguist_core.inference.impute import impute_iter

    section = open_input(source, output, layer=layer, bin_size=bin_size)
    steps = impute_iter(
        section,
        genes=names_in(genes),
        all_genes=all_genes,
        context=context,
        n_neighbours=neighbours,
        model=model,
        device=device,
        seed=seed,
    )
    imputation = run_with_bar(steps, unit=noun(section))
    said = describe(section, imputation)
    attach(section.table, imputation, levels=levels)
    write_table(section_table(section), output)
    typer.echo(said, err=True)
    typer.echo(output)


def describe(section: Section, imputation: Imputation) -> str:
    """Say in a few lines what was imputed, how well that goes here, and what to beware of."""
    info, tested = imputation.info, imputation.tested
    lines = [
        f"{section.name}: {len(imputation.names):,} genes for {section.n_obs:,} {noun(section)} "
        f"({info['genes_measured']:,} measured, {info['genes_not_measured']:,} not), model "
        f"{info['model']} ({info['model_digest']}), {info['seconds']:.1f} s"
    ]
    shown = tested[tested["test"] == "measured here"].head(_SHOWN_GENES)
    untested = tested.index[tested["test"] == "untested"]
    if info["genes_measured"]:
        lines.append(
            "Measured genes, hidden and imputed: median Pearson across "
            f"{noun(section)} {info['median_pearson']:.2f}, MCC of all levels {info['mcc']:.2f}"
        )
        each = ", ".join(f"{gene} {r:.2f}" for gene, r in shown["pearson"].items())
        if each:
            more = int((tested["test"] == "measured here").sum()) - len(shown)
            lines.append(f"Pearson here: {each}" + (f" and {more:,} more" if more else ""))
        n_rare = int((tested["test"] == "too rare").sum())
        if n_rare:
            lines.append(f"Too rarely expressed here for a figure of their own: {n_rare:,} genes")
    if info["genes_not_measured"]:
        some = ", ".join(untested[:_SHOWN_GENES])
        n_more = len(untested) - _SHOWN_GENES
        lines.append(
            f"Not measured here, so untested: {some}"
            + (f" and {n_more:,} more" if n_more > 0 else "")
            + "."
        )
        # A network that was trained to guess hidden genes has no such test.
        if "never_measured_mcc" in info:
            lines[-1] += (
                " Measured ones, treated as if they never had been: median Pearson "
                f"{info['never_measured_median_pearson']:.2f}, MCC {info['never_measured_mcc']:.2f}"
            )
    lines += [f"Note: {sentence}" for sentence in imputation.warnings]
    return "\n".join(lines)


def _evaluate(
    source: Path,
    output: Path | None,
    *,
    context: str,
    neighbours: int,
    model: str,
    device: str,
    layer: str | None,
    bin_size: int | str | None,
    seed: int,
) -> None:
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.evaluation.imputation import evaluate_imputation_iter
    from sclinguist_core.files import replacing

    if output is not None:
        check_csv(output, because=" with --evaluate")
    section = open_section(source, layer=layer, bin_size=bin_size)
    steps = evaluate_imputation_iter(
        section,
        contexts=[] if context == "none" else [context],
        n_neighbours=neighbours,
        model=model,
        device=device,
        seed=seed,
    )
    scores = run_with_bar(steps, unit=noun(section))
    _print_scores(section, scores)
    if output is not None:
        with replacing(output) as temporary:
            scores.table.to_csv(temporary, float_format="%.4f", lineterminator="\n")
        typer.echo(output)


def _print_scores(section: Section, scores: ImputationScores) -> None:
    from sclinguist_core.cli.evaluate import number, plain_table, wide_console

    info = scores.info
    typer.echo(
        f"{section.name}: hidden 20 % of all measured entries of {info['n_rows']:,} "
        f"{noun(section)}, {info['n_hidden']:,} of which {info['n_expressed']:,} are expressed, "
        f"of {info['n_genes']:,} genes; model {info['model']} ({info['model_digest']})",
        err=True,
    )
    columns = {
        "MCC\nlevels": "mcc",
        "MCC\nexpressed": "mcc_expressed",
        "Pearson\nall": "pearson",
        "Pearson\nper gene": "pearson_per_gene",
        "Pearson\nper cell": "pearson_per_cell",
    }
    rows = [
        [str(name), *(number(row[column], 3) for column in columns.values())]
        for name, row in scores.table.iterrows()
    ]
    wide_console().print(plain_table(["method", *columns], rows))
    typer.echo(
        f"Per gene: the mean over {info['n_genes_scored']:,} genes with 10 or more expressed "
        "hidden entries.",
        err=True,
    )
    if info["seen_in_training"]:
        typer.echo(
            f"Note: the model was trained on {info['seen_in_training']}; its figures are better "
            "than they would be on new data.",
            err=True,
        )
