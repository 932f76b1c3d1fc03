"""``sclinguist doctor``: what is right and what is wrong with this machine."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from sclinguist_core.doctor import Check

_MARKS = {"ok": "[green]OK[/]", "note": "[yellow]note[/]", "problem": "[bold red]problem[/]"}


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the checks as JSON instead of a table.")
    ] = False,
) -> None:
    """Check Python, PyTorch, GPU, memory, files, napari and OpenGL on this machine.

    Exits with status 1 only if something that prediction from the command line needs is broken.
    """
    from rich.console import Console

    from sclinguist_core.doctor import examine, fit_for_prediction

    console = Console()
    if as_json:
        checks = examine()
    else:
        with Console(stderr=True).status("Examining this machine (a few seconds) ..."):
            checks = examine()
    fit = fit_for_prediction(checks)
    if as_json:
        report = {"fit_for_prediction": fit, "checks": [dataclasses.asdict(c) for c in checks]}
        typer.echo(json.dumps(report, indent=2))
    else:
        console.print(_table(checks))
        console.print(_verdict(checks, fit))
    if not fit:
        raise typer.Exit(1)


def _table(checks: list[Check]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Checked", "", "Found"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        found = escape(check.found)
        if check.remedy:
            found += f"\n[cyan]Remedy:[/] {escape(check.remedy)}"
        table.add_row(check.name, _MARKS[check.status], found)
    return table


def _verdict(checks: list[Check], fit: bool) -> str:
    if not fit:
        return "\nPrediction does not work here yet: see the problems above."
    broken = [check.name for check in checks if check.status == "problem"]
    if broken:
        return f"\nPrediction from the command line works; look at: {', '.join(broken)}."
    return "\nPrediction from the command line works on this machine."
