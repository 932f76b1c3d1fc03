"""What is remembered from one session of the window to the next, in a small JSON file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import platformdirs

from sclinguist_core.files import replacing

logger = logging.getLogger(__name__)

MAX_RECENT_MODELS = 8
_RATES = "rates_of_work"


class Remembered:
    """Recent models, and how fast this computer was.

    Parameters
    ----------
    path
        The file; by default in the user's configuration folder. A damaged one counts as empty.
    """

    def __init__(self, path: Path | None = None) -> None:
        folder = platformdirs.user_config_dir("napari-sclinguist", appauthor=False)
        self.path = path or Path(folder) / "window.json"
        self._content = self._read()

    @property
    def recent_models(self) -> list[str]:
        """Folders of models that were used, the latest first; those that are gone are left out."""
        found = self._content.get("recent_models")
        found = found if isinstance(found, list) else []
        return [str(folder) for folder in found if Path(str(folder)).is_dir()]

    def add_model(self, folder: str) -> None:
        """Put a folder first among the recent models."""
        others = [one for one in self.recent_models if one != folder]
        self._write("recent_models", [folder, *others][:MAX_RECENT_MODELS])

    def rate(self, device: str, model: str) -> float | None:
        """Work a second (see `predicting.work`) when this model last ran on this device."""
        rates = self._content.get(_RATES)
        value = rates.get(f"{device} {model}") if isinstance(rates, dict) else None
        return float(value) if isinstance(value, int | float) and value > 0 else None

    def set_rate(self, device: str, model: str, rate: float) -> None:
        """Remember how fast a run was."""
        rates = self._content.get(_RATES)
        rates = dict(rates) if isinstance(rates, dict) else {}
        self._write(_RATES, rates | {f"{device} {model}": round(rate, 1)})

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s); starting afresh", self.path, error)
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self, key: str, value: Any) -> None:
        self._content[key] = value
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, durable=False) as temporary:
                temporary.write_text(json.dumps(self._content, indent=1) + "\n", "utf-8")
        except OSError as error:  # a read-only home folder must not stop a prediction
            logger.warning("%s cannot be written (%s)", self.path, error)
