"""Every command shows an example, which it would understand."""

from __future__ import annotations

import shlex

import click
import pytest
import typer

from sclinguist_core.cli import app

PREFIX = "Example: sclinguist "
ROOT = typer.main.get_command(app)


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str | None]:
    """Epilog of every command that is no mere group of others."""
    children = getattr(command, "commands", {})
    found = {}
    for name, child in children.items():
        found |= leaves(child, (*path, name))
    if path and (not children or getattr(command, "invoke_without_command", False)):
        found[path] = command.epilog
    return found


COMMANDS = {path: epilog for path, epilog in leaves(ROOT).items() if path != ("proteins",)}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_example_is_a_command_line_that_parses(path):
    epilog = COMMANDS[path]
    assert epilog is not None
    assert epilog.startswith(PREFIX + " ".join(path))
    words = shlex.split(epilog.removeprefix(PREFIX))[len(path) :]
    command = ROOT
    for name in path:
        command = command.commands[name]
    # Unknown options and missing arguments raise; values are not looked at here.
    context = command.make_context(path[-1], words, resilient_parsing=False)
    assert not context.args
