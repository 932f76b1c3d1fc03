"""``sclinguist download``: public sections."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sclinguist_core.data.datasets import Dataset


def download(
    name: Annotated[
        str | None, typer.Argument(help="Name of a data set; without one, all are listed.")
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="List what can be downloaded, and what is there.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to make; by default one in the cache."),
    ] = None,
) -> None:
    """Download a public section, or go on with a download, and print its folder."""
    from sclinguist_core.data.datasets import find_dataset

    if name is None or list_all:
        if output is not None:
            raise typer.BadParameter("say which data set is to be downloaded", param_hint="NAME")
        _list()
        return
    dataset = find_dataset(name)
    typer.echo(f"{dataset.title}, {dataset.licence}, {dataset.page}", err=True)
    typer.echo(download_with_bar(dataset, output))


def download_with_bar(dataset: Dataset, folder: Path | None = None) -> Path:
    """Download a data set under a progress bar on standard error.

    Not the bar of `sclinguist_core.console`, which counts spots and cells: this one knows bytes,
    and that a total may be unknown.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from sclinguist_core.data.download import download_iter

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=5,
        transient=True,  # an error is to stand alone
        disable=not console.is_terminal,
    )
    with closing(download_iter(dataset, folder)) as steps, bar:
        task = bar.add_task("checking", total=None)
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                return end.value
            bar.update(
                task,
                completed=progress.done,
                total=progress.total,
                description=progress.phase,
            )


def _list() -> None:
    from sclinguist_core.data.datasets import datasets
    from sclinguist_core.data.download import downloaded
    from sclinguist_core.errors import InputError

    for dataset in datasets():
        try:
            folder = downloaded(dataset)
            state = "not downloaded" if folder is None else str(folder)
        except InputError as error:
            state = str(error)
        typer.echo("\t".join((dataset.name, dataset.title, dataset.licence, state, dataset.page)))
