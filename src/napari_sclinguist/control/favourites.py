"""Features that the user marked with a star, remembered from one session to the next."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs
from psygnal import Signal

from napari_sclinguist.control.messages import Message
from sclinguist_core.files import replacing

_FORMAT_VERSION = 1


class Favourites:
    """Keys of starred features, such as ``"predicted:CD19"``; the same for all sections.

    Parameters
    ----------
    path
        The file; by default in the user's configuration folder. Call `load` to read it.

    Attributes
    ----------
    keys
        Present favourites.
    """

    changed = Signal()
    message = Signal(object)
    """Message"""

    def __init__(self, path: Path | None = None) -> None:
        folder = platformdirs.user_config_dir("napari-sclinguist", appauthor=False)
        self.path = path or Path(folder) / "favourites.json"
        self.keys: frozenset[str] = frozenset()

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def __len__(self) -> int:
        return len(self.keys)

    def load(self) -> None:
        """Read the file; a damaged one is ignored with a message, and replaced by the next star."""
        self._set(self._read(tell=True) or frozenset())

    def toggle(self, key: str) -> bool:
        """Mark a feature or take its mark away; returns whether it is marked now.

        The file is read again before, so that two windows do not undo each other's stars.
        """
        marked = key not in self.keys
        found = self._read(tell=False)
        others = (self.keys if found is None else found) - {key}
        self._set(others | {key} if marked else others)
        self._write()
        return marked

    def _set(self, keys: frozenset[str]) -> None:
        if keys != self.keys:
            self.keys = keys
            self.changed.emit()

    def _read(self, *, tell: bool) -> frozenset[str] | None:
        """Keys that the file holds; None where there is none, or a damaged one."""
        try:
            content = json.loads(self.path.read_text("utf-8"))
            if content["format_version"] != _FORMAT_VERSION:
                raise ValueError(f"format_version is {content['format_version']!r}")
            return frozenset(str(key) for key in content["favourites"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            if tell:
                self.message.emit(
                    Message(
                        text=f"Your favourites in '{self.path}' were left out, since the file is "
                        "damaged; the next star that you set replaces it.",
                        level="warning",
                        details=f"{type(error).__name__}: {error}",
                    )
                )
            return None

    def _write(self) -> None:
        content = {"format_version": _FORMAT_VERSION, "favourites": sorted(self.keys)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, durable=False) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        except OSError as error:
            self.message.emit(
                Message(
                    text=f"Favourites cannot be kept: '{self.path}' could not be written "
                    f"({error.strerror}); the star holds until the window is closed.",
                    level="warning",
                    details=str(error),
                )
            )
