"""The line that a name is typed into, or a list of names is pasted into."""

from __future__ import annotations

import re

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QLineEdit

_KEYS = {
    "Ctrl+F or /": "search",
    "↑ ↓": "step through the list",
    "Enter": "show",
    "Shift+Enter": "add in a second or third colour",
    "Ctrl+D": "set or remove the star",
    ". and ,": "next and previous, while the picture has the focus",
}
_TIP = (
    "<p>Any name will do: PD-1, CD279 and PDCD1 find the same. Paste several names to see just "
    "those.</p><table>"
    + "".join(f"<tr><td>{key}&nbsp;&nbsp;</td><td>{does}</td></tr>" for key, does in _KEYS.items())
    + "</table>"
)
_NEW_LINES = re.compile(r"\s*[\t\r\n\u2028\u2029]+\s*")


class SearchBox(QLineEdit):
    """A line edit whose arrow and Enter keys act on the list below it."""

    stepped = Signal(int)
    """Rows to go down, negative to go up."""
    confirmed = Signal()
    added = Signal()
    starred = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setClearButtonEnabled(True)
        self.setPlaceholderText("Find a protein, gene or column")
        self.setAccessibleName("Find a protein, gene or column")
        self.setToolTip(_TIP)
        self.textChanged.connect(self._join_lines)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrows step, Enter shows, Escape clears."""
        key, modifiers = event.key(), event.modifiers()
        if key in (Qt.Key.Key_Down, Qt.Key.Key_Up):
            self.stepped.emit(1 if key == Qt.Key.Key_Down else -1)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            shift = modifiers & Qt.KeyboardModifier.ShiftModifier
            (self.added if shift else self.confirmed).emit()
        elif key == Qt.Key.Key_Escape and self.text():
            self.clear()
        elif key == Qt.Key.Key_D and modifiers & Qt.KeyboardModifier.ControlModifier:
            self.starred.emit()
        else:
            super().keyPressEvent(event)

    def _join_lines(self, text: str) -> None:
        # A pasted column of a table keeps its line ends, which a line edit cannot show.
        joined = _NEW_LINES.sub(", ", text.strip("\t\r\n\u2028\u2029")) if text else text
        if joined != text and _NEW_LINES.search(text):
            self.setText(joined)
