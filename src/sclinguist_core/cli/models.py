"""``sclinguist models``."""

from __future__ import annotations

from typing import Annotated

import typer


def models(
    model: Annotated[
        str | None, typer.Argument(help="'bundled' or a checkpoint folder; all by default.")
    ] = None,
    proteins: Annotated[bool, typer.Option(help="List the proteins that it predicts.")] = False,
) -> None:
    """List the installed models, or show the card of one."""
    from sclinguist_core.model.checkpoint import (
        checkpoint_folder,
        read_card,
        read_info,
        read_proteins,
    )
    from sclinguist_core.resources import checkpoints_dir

    if model is not None:
        folder = checkpoint_folder(model)
        if not proteins:
            typer.echo(read_card(folder).rstrip())
            return
        table = read_proteins(folder)
        trust = ("trust", "heldout_r", "trust_cells", "r_cells", "trust_spots", "r_spots")
        wanted = [c for c in ("name", "genes", "kind", *trust) if c in table]
        typer.echo(table[wanted].to_csv(sep="\t", index=False).rstrip())
        return
    found = sorted(p.parent for p in checkpoints_dir().glob("*/config.json"))
    for folder in found:
        info = read_info(folder)
        size = (folder / "model.safetensors").stat().st_size / 2**20
        typer.echo(
            f"{folder.name}\t{info.name}\t{len(read_proteins(folder))} proteins\t{size:.1f} MiB\t"
            f"trained on {', '.join(info.training_datasets)}"
        )
    if not found:
        typer.echo("No model is installed; install napari-sclinguist again.", err=True)
        raise typer.Exit(1)
