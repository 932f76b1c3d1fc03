"""Names as they are: Qt takes what looks like markup for markup, and fetches pictures it names."""

from __future__ import annotations

from html import escape
from typing import TypeVar

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

Label = TypeVar("Label", bound=QLabel)


def plain(label: Label) -> Label:
    """Let a label show every text as it is."""
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label


def as_tip(text: str) -> str:
    """Return what shows a text as it is when it is given as a tooltip, which has no format."""
    return f"<qt>{escape(text)}</qt>" if Qt.mightBeRichText(text) else text
