"""A model's card, as formatted text in a window of its own."""

from __future__ import annotations

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QTextBrowser, QVBoxLayout, QWidget


def show_card(parent: QWidget, markdown: str) -> QDialog:
    """Open the card beside the window; the window stays usable."""
    dialog = QDialog(parent)
    dialog.setWindowTitle("Model card")
    dialog.resize(640, 720)
    text = QTextBrowser()
    text.setOpenExternalLinks(True)
    text.setMarkdown(markdown)
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
    buttons.rejected.connect(dialog.close)
    layout = QVBoxLayout(dialog)
    layout.addWidget(text)
    layout.addWidget(buttons)
    dialog.setModal(False)
    dialog.show()
    return dialog
