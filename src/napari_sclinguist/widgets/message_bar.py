"""One sentence at the bottom of the dock, with its details and its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from napari_sclinguist.control.jobs import State
from napari_sclinguist.widgets.plain import plain
from napari_sclinguist.widgets.style import LEVEL_COLOURS

if TYPE_CHECKING:
    from napari_sclinguist.control.messages import Message
    from napari_sclinguist.control.workspace import Workspace


class MessageBar(QFrame):
    """Shows the latest message until it is closed or replaced."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.setObjectName("sclinguistMessage")
        self.message: Message | None = None
        self.text = plain(QLabel())
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.action = QPushButton()
        self.copy = QPushButton("Copy details")
        self.dismiss = QPushButton("Close")
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        for button in (self.action, self.copy, self.dismiss):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        self.copy.clicked.connect(self._copy)
        self.dismiss.clicked.connect(self.clear)
        self.action.clicked.connect(self._act)
        workspace.message.connect(self.show_message)
        workspace.jobs.state_changed.connect(self._on_job)
        self.hide()

    def show_message(self, message: Message) -> None:
        """Replace what is shown."""
        self.message = message
        self.text.setText(message.text)
        self.copy.setVisible(bool(message.details))
        self.action.setVisible(message.action is not None)
        if message.action is not None:
            self.action.setText(message.action.label)
        self.setStyleSheet(
            "#sclinguistMessage { border-left: 4px solid " + LEVEL_COLOURS[message.level] + "; }"
        )
        self.show()

    def clear(self) -> None:
        """Show nothing."""
        self.message = None
        self.hide()

    def _on_job(self, state: State) -> None:
        """Clear what went wrong before: something new was started."""
        if state is State.RUNNING:
            self.clear()

    def _copy(self) -> None:
        if self.message is not None:
            QApplication.clipboard().setText(f"{self.message.text}\n\n{self.message.details}")

    def _act(self) -> None:
        message = self.message
        self.clear()
        if message is not None and message.action is not None:
            message.action.run()
