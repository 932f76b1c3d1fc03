"""What goes wrong, as one sentence with details to copy."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sclinguist_core import __version__
from sclinguist_core.errors import InputError

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """Something that a message offers to do.

    Attributes
    ----------
    label
        What stands on the button.
    run
        What it does.
    """

    label: str
    run: Callable[[], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One sentence for the user.

    Attributes
    ----------
    text
        The sentence.
    level
        How bad it is.
    details
        What "Copy details" copies; "" where there is nothing to add.
    action
        A remedy that one press brings, or None.
    """

    text: str
    level: Level = "info"
    details: str = ""
    action: Action | None = None


def from_exception(error: BaseException, doing: str, action: Action | None = None) -> Message:
    """Turn an exception into a message; expected ones carry their own sentence.

    Parameters
    ----------
    error
        What was raised.
    doing
        What was being done, such as ``"Predicting proteins"``.
    action
        Remedy to offer.
    """
    trace = "".join(traceback.format_exception(error))
    details = (
        f"napari-sclinguist {__version__}, Python {platform.python_version()}, {doing}\n{trace}"
    )
    if isinstance(error, InputError):
        text = str(error)
    else:
        said = str(error).strip().splitlines()
        kind = type(error).__name__
        text = f"{doing} failed unexpectedly ({kind}{': ' + said[0][:200] if said else ''})."
    return Message(text=text, level="error", details=details, action=action)
