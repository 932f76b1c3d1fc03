"""``sclinguist knockout``: what the model predicts without a gene, or with more of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

    from sclinguist_core.data.section import Section
    from sclinguist_core.inference.knockout import Knockouts
    from sclinguist_core.inference.perturbation import Perturbation
    from sclinguist_core.inference.screen import Screen

_SHOWN = 10
_SHOWN_IN_GROUPS = 3
_KEY = "protein_change"


def knockout(
    source: InputArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help=".csv to write: the ranking.")],
    gene: Annotated[
        list[str] | None,
        typer.Option(
            help="Gene; several separated by commas are changed together. Repeat it for several "
            "perturbations, each by itself. With --screen: the candidates."
        ),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="All pairs of the given genes, too.")
    ] = False,
    screen: Annotated[
        str | None,
        typer.Option(help="Protein: every gene by itself, ranked by what becomes of this protein."),
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Factor of the expression: 0 knocks out, 2 over-expresses.")
    ] = 0.0,
    group_by: GroupByOption = None,
    background: Annotated[
        int, typer.Option(help="Random genes of like expression to compare with; 19 or more.")
    ] = 20,
    cells: Annotated[
        Path | None,
        typer.Option(help=".h5ad or .zarr to write: the change of every protein in each cell."),
    ] = None,
    proteins: Annotated[
        str | None, typer.Option(help="Comma-separated names in any spelling; all by default.")
    ] = None,
    cells_sample: Annotated[
        int, typer.Option(help="--screen: so many cells stand for all; 0 for all.")
    ] = 300,
    min_cells: Annotated[
        int, typer.Option(help="--screen: skip genes that fewer cells of the sample express.")
    ] = 10,
    exact: Annotated[
        int,
        typer.Option(help="--screen: run so many of the best of each ranking; 0 for all (slow)."),
    ] = 20,
    model: ModelOption = "bundled",
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = None,
    layer: LayerOption = None,
    bin_size: BinSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Take genes of INPUT away, or add to them, and rank the proteins that the model then changes.

    The response of the model, no experiment: it has learnt what goes together, not what causes it.
    """
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.errors import InputError

    check_csv(output)
    if cells is not None:
        check_table(cells, source)
    sets = [names for names in (names_in(one) for one in gene or []) if names]
    if screen is None and not sets:
        raise InputError("--gene: found none, expected a gene such as --gene CD19, or --screen.")
    if screen is not None and (pairs or cells is not None or proteins is not None):
        raise InputError("--screen goes without --pairs, --cells and --proteins; leave these out.")
    section = open_section(source, layer=layer, bin_size=bin_size)
    groups = None if group_by is None else group_labels(section, group_by)
    written = [output]
    if screen is None:
        from sclinguist_core.inference.knockout import knockouts_iter

        steps = knockouts_iter(
            section,
            sets,
            pairs=pairs,
            scale=scale,
            proteins=names_in(proteins),
            model=model,
            device=device,
            batch_size=batch_size,
            background=background,
            seed=seed,
        )
        found = run_with_bar(steps, unit=noun(section))
        table = found.table(groups)
        write_csv(_with_provenance(table, next(iter(found.perturbations.values()))), output)
        if cells is not None:
            written.append(_write_cells(section, found, cells))
        _print_knockouts(section, found, table)
    else:
        from sclinguist_core.inference.screen import screen_iter

        answer = run_with_bar(
            screen_iter(
                section,
                screen,
                genes=[name for names in sets for name in names] or None,
                scale=scale,
                n_cells=cells_sample or None,
                groups=groups,
                min_cells=min_cells,
                n_exact=exact or None,
                model=model,
                device=device,
                batch_size=batch_size,
                seed=seed,
            ),
            unit=noun(section),
        )
        ranked = answer.table.reset_index()
        ranked.insert(0, "protein", answer.protein)
        write_csv(_with_provenance(ranked, answer), output)
        _print_screen(section, answer)
    for path in written:
        typer.echo(path)


def _print_knockouts(section: Section, found: Knockouts, table: pd.DataFrame) -> None:
    """Print a ranking for each perturbation, and how to read it, to standard error."""
    from sclinguist_core.inference.background import FALSE_ALARM
    from sclinguist_core.inference.knockout import READ_AS

    unit = noun(section)
    for name, one in found.perturbations.items():
        info = one.info
        _say("")
        _say(
            f"{name} {_what(info['scale'])}: expressed by {info['n_affected']:,} of "
            f"{info['n_rows']:,} {unit}, which are averaged; the others do not change at all.",
            style="bold",
        )
        for sentence in one.warnings:
            _say(f"Note: {sentence}")
        if not info["n_affected"]:
            continue
        rows = table[table["perturbation"] == name]
        if "group" not in table:
            _show(rows.head(_SHOWN))
        else:
            for group, part in rows.groupby("group", observed=True, sort=False):
                n_rows = part["n_rows"].iloc[0]
                _say(f"{group}: {n_rows:,} {unit[:-1] if n_rows == 1 else unit}")
                if n_rows:
                    _show(part.head(_SHOWN if group == "all" else _SHOWN_IN_GROUPS))
        if name in found.pairs:
            n_both = int(rows["n_both"].iloc[0])
            _say(
                f"{n_both:,} {unit} express genes of both; only there can the change differ from "
                f"the sum of the two single ones. It has no background of its own."
            )
    one = next(iter(found.perturbations.values()))
    n_sets = len(one.random_sets)
    _say("")
    _say(f"Changes are the {READ_AS}, in {one.info['unit']}.")
    if n_sets:
        _say(
            f"Verdict: beyond the background is what moves further, in standard deviations of the "
            f"{n_sets} random sets, than any protein does in any of them (p at most "
            f"{FALSE_ALARM:g}, family-wise over {len(one.names)} proteins, Westfall and Young; the "
            f"smallest possible p is {1 / (n_sets + 1):.3f})."
        )
        if 1 / (n_sets + 1) > FALSE_ALARM:
            _say("Note: so few random sets allow no verdict; give --background 19 or more.")


def _show(rows: pd.DataFrame) -> None:
    from rich.console import Console

    from sclinguist_core.cli.evaluate import WIDTH_OF_A_PIPE, number, plain_table

    verdicts = {"lowered": "beyond: lowered", "raised": "beyond: raised"}
    columns = {
        "mean_change": ("change", 3),
        "effect_size": ("effect\nsize", 2),
        "interaction": ("beyond\nthe sum", 4),
        "z": ("z against\nrandom genes", 1),
        "p_value": ("p", 3),
    }
    kept = {key: value for key, value in columns.items() if key in rows and rows[key].notna().any()}
    lines = []
    for _, row in rows.iterrows():
        line = [str(row["protein"]) + (" (coded)" if row["coded"] else "")]
        line += [number(row[key], digits) for key, (_, digits) in kept.items()]
        line.append(f"{row['share_lowered']:.0%}")
        line.append(verdicts.get(row.get("verdict"), row.get("verdict", "no background")))
        lines.append(line)
    headings = ["protein", *(title for title, _ in kept.values()), "lowered\nin", "verdict"]
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=WIDTH_OF_A_PIPE)
    console.print(plain_table(headings, lines))


def _print_screen(section: Section, answer: Screen) -> None:
    from rich.console import Console

    from sclinguist_core.cli.evaluate import WIDTH_OF_A_PIPE, number, plain_table
    from sclinguist_core.inference.knockout import READ_AS

    info, unit = answer.info, noun(section)
    sample = f"{info['n_sample']:,} of {info['n_rows']:,} {unit}"
    if info["n_sample"] < info["n_rows"]:
        sample += f", spread over {info['sample_spread_over']}"
    _say(
        f"{answer.protein}, {info['n_genes']:,} genes {_what(info['scale'])} one at a time in "
        f"{sample}; {info['n_run']:,} of the genes run, the others estimated by first order. "
        f"{info['n_skipped']:,} genes are skipped: fewer than {info['min_cells']} {unit} of the "
        "sample express them.",
        style="bold",
    )
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=WIDTH_OF_A_PIPE)
    headings = ["gene", "change", "effect\nsize", f"change over\nall {unit}", unit, "z", "rank",
                "rank over\nall"]  # fmt: skip
    for title, rank in (
        (f"Largest change in the {unit} that express the gene", "rank"),
        (f"Largest change over all {unit} of the sample", "rank_all"),
    ):
        _say("")
        _say(title)
        lines = [
            [
                f"{gene} (coding)" if row["coded"] else str(gene),
                number(row["mean_change"], 4),
                number(row["effect_size"], 3),
                number(row["mean_change_all"], 4),
                f"{row['n_cells']:,}",
                number(row["z"], 1),
                f"{row['rank']}",
                f"{row['rank_all']}",
            ]
            for gene, row in answer.table.sort_values(rank).head(_SHOWN).iterrows()
        ]
        console.print(plain_table(headings, lines))
    _say("")
    _say(
        f"Changes are the {READ_AS}, in {info['unit']}. z: against the 200 genes that are "
        f"expressed in most nearly as many {unit}."
    )
    for sentence in answer.warnings:
        _say(f"Note: {sentence}")


def _say(text: str, style: str | None = None) -> None:
    typer.secho(text, err=True, bold=style == "bold")


def _what(scale: float) -> str:
    return "knocked out" if scale == 0 else f"x {scale:g}"


def _with_provenance(table: pd.DataFrame, found: Perturbation | Screen) -> pd.DataFrame:
    from sclinguist_core.inference.knockout import READ_AS

    info = found.info
    return table.assign(
        scale=info["scale"],
        unit=info["unit"],
        model=f"{info['model']} ({info['model_digest']})",
        read_as=READ_AS,
    )


def _write_cells(section: Section, found: Knockouts, path: Path) -> Path:
    """Write the input with the changes of each perturbation in ``obsm``."""
    import pandas as pd

    from sclinguist_core.data.write import section_table, write_table
    from sclinguist_core.inference.knockout import READ_AS

    table = section_table(section)
    single = len(found.perturbations) == 1
    # What an earlier run left says nothing of this one.
    for key in [key for key in table.obsm if key.startswith(_KEY)]:
        del table.obsm[key]
    said = {}
    for name, one in found.perturbations.items():
        key = _KEY if single else f"{_KEY}_{name}"
        table.obsm[key] = pd.DataFrame(one.change, index=table.obs_names, columns=one.names)
        info = {k: v for k, v in one.info.items() if k != "background_genes"}
        said[key] = {**info, "read_as": READ_AS}
    table.uns["sclinguist_knockout"] = said
    return write_table(table, path)
