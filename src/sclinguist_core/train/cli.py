"""``sclinguist-train``: training without a window."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from sclinguist_core.console import Commands, run_app
from sclinguist_core.train.finetune_cli import finetune

app = typer.Typer(
    name="sclinguist-train",
    cls=Commands,
    help="Train translators from RNA to protein.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipePath = Annotated[Path, typer.Argument(help="YAML recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value, such as fit.steps=100 trainer.devices=4")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Run folder; the model lies in its checkpoint/.")
]
HoldOut = Annotated[
    list[str] | None, typer.Option(help="Data set to leave out; repeat for several.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in the folder, if one was begun.")
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda or cuda:<number>; auto leaves it to the recipe")
]


@app.callback()
def _root() -> None:
    """Train translators from RNA to protein."""


@app.command("pretrain-rna")
def pretrain_rna(
    recipe: RecipePath,
    overrides: Overrides = None,
    output: Output = Path("run-rna"),
    hold_out: HoldOut = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Learn from RNA alone: predict hidden genes (stage 1)."""
    _train("pretrain-rna", recipe, overrides, output, hold_out, resume, device)


@app.command("pretrain-protein")
def pretrain_protein(
    recipe: RecipePath,
    overrides: Overrides = None,
    output: Output = Path("run-protein"),
    hold_out: HoldOut = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Learn from protein alone: predict hidden proteins (stage 1)."""
    _train("pretrain-protein", recipe, overrides, output, hold_out, resume, device)


@app.command("post-pretrain")
def post_pretrain(
    recipe: RecipePath,
    overrides: Overrides = None,
    output: Output = Path("run"),
    hold_out: HoldOut = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Learn proteins from paired cells (stage 2)."""
    _train("post-pretrain", recipe, overrides, output, hold_out, resume, device)


app.command("finetune")(finetune)


def _train(
    stage: str,
    recipe: Path,
    overrides: list[str] | None,
    output: Path,
    hold_out: list[str] | None,
    resume: bool,
    device: str,
) -> None:
    from sclinguist_core.train.launch import train_stage
    from sclinguist_core.train.recipe import read_recipe
    from sclinguist_core.train.reporter import Reporter
    from sclinguist_core.train.run_folder import is_first_process
    from sclinguist_core.train.signals import TrainingInterrupted, requeue_under_slurm

    wanted = read_recipe(recipe, [*(overrides or ()), *_device_overrides(device)])
    reporter = Reporter(stage, wanted.fit)
    interrupted: TrainingInterrupted | None = None
    # The other processes of a run have nothing to show.
    with reporter.shown() if is_first_process() else nullcontext() as show:
        try:
            model = train_stage(
                stage, wanted, output, hold_out=hold_out or (), resume=resume, progress=show
            )
        except TrainingInterrupted as stopped:
            interrupted = stopped
    if interrupted is None:
        if is_first_process():
            typer.echo(reporter.summary(output), err=True)
            typer.echo(model)
        return
    if is_first_process():
        typer.echo(_how_to_resume(str(interrupted), requeue_under_slurm()), err=True)
    raise typer.Exit(128 + interrupted.signum)


def _device_overrides(device: str) -> list[str]:
    """Turn ``--device`` into keys of the recipe's trainer section."""
    if device == "auto":
        return []
    from sclinguist_core.model.device import choose_device

    chosen = choose_device(device)
    keys = [f"trainer.accelerator={chosen.type}"]
    return keys if chosen.index is None else [*keys, f"trainer.devices=[{chosen.index}]"]


def _how_to_resume(message: str, requeued: bool) -> str:
    if requeued:
        return f"{message}; everything is saved, and SLURM starts the job again."
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    command = shlex.join(["sclinguist-train", *arguments, "--resume"])
    return f"{message}; everything is saved, continue with: {command}"


def main() -> None:
    """Entry point; an `InputError` becomes one sentence and exit status 1."""
    run_app(app)


if __name__ == "__main__":
    main()
