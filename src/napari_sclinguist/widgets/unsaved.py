"""Before the window closes: what to do with predictions that no file holds."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QMessageBox, QWidget

from napari_sclinguist.widgets.save_group import choose_where_to_save

if TYPE_CHECKING:
    from napari_sclinguist.widgets.dock import ProteinDock


class Answer(StrEnum):
    """What to do with an unsaved section."""

    SAVE = "save"
    DISCARD = "discard"
    CANCEL = "cancel"


def ask(parent: QWidget, name: str) -> Answer:
    """Ask what to do with an unsaved section, in a modal box."""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Not saved yet")
    box.setText(f"What was added to {name} is not saved.")
    box.setInformativeText("Save it, predictions and regions, before the window closes?")
    roles = QMessageBox.ButtonRole
    save = box.addButton("Save…", roles.AcceptRole)
    discard = box.addButton("Discard", roles.DestructiveRole)
    cancel = box.addButton("Cancel", roles.RejectRole)
    box.setDefaultButton(save)
    box.setEscapeButton(cancel)
    box.exec()
    answers = {save: Answer.SAVE, discard: Answer.DISCARD}
    return answers.get(box.clickedButton(), Answer.CANCEL)


def may_close(parent: ProteinDock) -> bool:
    """Whether the window may close now.

    Every unsaved section is asked about. Saving takes its time: the window stays open meanwhile,
    and closes by itself when everything is written.
    """
    workspace = parent.workspace
    wanted, discarded = [], []
    for opened in workspace.dirty:
        answer = ask(parent, opened.name)
        if answer is Answer.CANCEL:
            return False
        if answer is Answer.DISCARD:
            discarded.append(opened)
            continue
        path = choose_where_to_save(parent, parent.panel("Save").saving, opened)
        if path is None:
            return False
        wanted.append((opened, path))

    def let_go() -> None:
        for opened in discarded:
            opened.set_dirty(False)

    if not wanted:
        let_go()
        return True

    def close() -> None:
        let_go()
        parent.window().close()

    parent.panel("Save").saving.save(wanted, when_done=close)
    return False
