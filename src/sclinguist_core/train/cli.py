"""``sclinguist-train``: training without a window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sclinguist_core.console import progress_bar, run_app

app = typer.Typer(
    name="sclinguist-train",
    help="Train translators from RNA to protein.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Train translators from RNA to protein."""


@app.command("post-pretrain")
def post_pretrain(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as fit.steps=100")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Checkpoint folder to write.")
    ] = Path("checkpoint"),
    hold_out: Annotated[
        list[str] | None, typer.Option(help="Data set to leave out; repeat for several.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>")] = "auto",
) -> None:
    """Learn proteins from paired cells (stage 2)."""
    from sclinguist_core.model.checkpoint import check_checkpoint_target, save_checkpoint
    from sclinguist_core.model.device import choose_device
    from sclinguist_core.train.recipe import read_recipe
    from sclinguist_core.train.stages import post_pretrain as run

    check_checkpoint_target(output)
    steps = run(
        read_recipe(recipe, overrides or ()),
        hold_out=hold_out or (),
        device=str(choose_device(device)),
    )
    with progress_bar("training", unit="steps") as bar:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                checkpoint = end.value
                break
            bar.update(step.done, step.total, f"training, error {step.error:.3f}")
    typer.echo(save_checkpoint(checkpoint, output))


def main() -> None:
    """Entry point; an `InputError` becomes one sentence and exit status 1."""
    run_app(app)
