"""Where to write a file: one dialog, and one question before something is replaced."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget


def choose_file(
    parent: QWidget,
    title: str,
    proposed: Path,
    filters: str,
    question: Callable[[Path], str] = lambda path: "",
) -> Path | None:
    """Ask for a name to write to; None if nobody wants to write any more.

    Parameters
    ----------
    parent, title
        Of the dialog.
    proposed
        Folder and name that stand in it.
    filters
        As Qt has them: ``"PNG image (*.png);;SVG drawing (*.svg)"``. A name without one of these
        suffixes gets the chosen one.
    question
        Makes the question to ask before a path is replaced; "" for the usual one.
    """
    chosen, kind = QFileDialog.getSaveFileName(
        parent,
        title,
        str(proposed),
        filters,
        options=QFileDialog.Option.DontConfirmOverwrite,  # asked below, in our words
    )
    if not chosen:
        return None
    path = complete(Path(chosen), kind, filters)
    if path.exists() and not may_replace(parent, question(path) or f"Replace '{path.name}'?"):
        return None
    return path


def complete(path: Path, kind: str, filters: str) -> Path:
    """Append the suffix of the chosen kind to a name that has none of those on offer."""
    offered = re.findall(r"\*(\.\w+)", filters)
    if path.suffix.lower() in offered:
        return path
    chosen = re.findall(r"\*(\.\w+)", kind) or offered
    return path.with_name(path.name + chosen[0])


def may_replace(parent: QWidget, question: str) -> bool:
    """Ask before something is replaced; the answer by default is no."""
    buttons = QMessageBox.StandardButton
    answer = QMessageBox.question(
        parent, "Replace?", question, buttons.Yes | buttons.No, buttons.No
    )
    return answer == buttons.Yes
