"""``sclinguist import-checkpoint``."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sclinguist_core.cli.common import run_with_bar

if TYPE_CHECKING:
    from sclinguist_core.inference.progress import Progress
    from sclinguist_core.model.hyena_import import Imported

_MB = 10**6


def import_checkpoint(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT",
            help="Published scLinguist checkpoint: finetune.ckpt, or encoder.ckpt or decoder.ckpt "
            "of its stage 1. It is read, never executed.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder to write.")],
    genes: Annotated[
        Path | None,
        typer.Option(help="gene_order.csv: Ensembl id of every gene position."),
    ] = None,
    proteins: Annotated[
        Path | None,
        typer.Option(help="protein_index_map.csv: name of every protein position."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
) -> None:
    """Turn a published scLinguist checkpoint into a model folder, without executing its pickle."""
    from sclinguist_core.errors import InputError
    from sclinguist_core.model.checkpoint import check_checkpoint_target

    for path in (source, genes, proteins):
        if path is not None and _lies_in(path, output):
            raise InputError(
                f"{path}: lies in {output}, which is to be written anew, expected the output in a "
                "folder of its own; choose another name."
            )
    check_checkpoint_target(output)
    imported = run_with_bar(_save(source, output, genes, proteins, name), unit="MB")
    for sentence in imported.notes:
        typer.echo(f"Note: {sentence}", err=True)
    info = imported.checkpoint.info
    n_weights = sum(weight.numel() for weight in imported.checkpoint.model.parameters())
    typer.echo(f"{info.name}: {n_weights:,} weights, {info.stage}", err=True)
    if info.stage != "post-pretrain":
        typer.echo(
            "It has not learned to predict protein from RNA: start `sclinguist-train "
            "post-pretrain` from it (init).",
            err=True,
        )
    typer.echo(output)


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether replacing the folder would remove the file, by whatever name it is called."""
    places = (path.resolve(), *path.resolve().parents)
    return folder.exists() and any(p.exists() and p.samefile(folder) for p in places)


def _save(
    source: Path, output: Path, genes: Path | None, proteins: Path | None, name: str | None
) -> Generator[Progress, None, Imported]:
    """Import and write; progress as of every other command."""
    from sclinguist_core.inference.progress import Progress
    from sclinguist_core.model.checkpoint import save_checkpoint
    from sclinguist_core.model.hyena_import import import_iter

    steps = import_iter(source, genes=genes, proteins=proteins, name=name)
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            imported: Imported = end.value
            break
        yield Progress(step.done // _MB, step.total // _MB, step.phase)
    yield Progress(step.total // _MB, step.total // _MB, "writing")
    save_checkpoint(imported.checkpoint, output)
    return imported
