"""The few colours that are ours; everything else is napari's theme."""

PRIMARY_BUTTON = """
QPushButton { background-color: #2f6fb5; color: white; font-weight: bold; }
QPushButton:hover { background-color: #3a80cc; }
QPushButton:disabled { background-color: rgba(128, 128, 128, 60); color: rgba(128, 128, 128, 200); }
"""
"""The one thing to press; readable in the dark and in the light theme."""

LEVEL_COLOURS = {"info": "#3f7fbf", "warning": "#c98a1b", "error": "#c8434b"}
"""Edge of a message, by `napari_sclinguist.control.messages.Level`."""
