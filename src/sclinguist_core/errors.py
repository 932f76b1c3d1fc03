"""The one exception that users see as a sentence instead of a traceback."""

from __future__ import annotations

import unicodedata

_LONGEST = 2_000
"""Characters of a message; names in a file may have any length."""


class InputError(ValueError):
    r"""Something the user gave cannot be used.

    The message is one sentence that names the file or argument, what was found, what was
    expected and what to do. The command line prints it without a traceback and exits with
    status 1; notebooks see an ordinary ``ValueError``.

    Names in the message come from files, so that they may hold anything: line breaks and other
    control characters (some of which move the cursor of a terminal) are written out as ``\n``,
    ``\x1b``, and the middle of a very long message is left out.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_one_line(str(message)))


class NotEnoughMemoryError(InputError):
    """The memory of a device does not suffice for a single cell; another device may do."""


def _one_line(text: str) -> str:
    # Written out, a character may take ten: shortened before, for speed, and after.
    return _shortened(visible(_shortened(text)))


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


def visible(text: str) -> str:
    r"""Write out what does not show, or changes what is around it, such as ``\n`` and ``\u202e``.

    Besides line breaks and control characters that is every mark of the direction of writing, which
    would let one name look like another, and halves of characters, which no file can hold.
    """
    if text.isprintable():
        return text
    return "".join(c if _shows(c) else c.encode("unicode_escape").decode() for c in text)


def _shows(character: str) -> bool:
    # Spaces of other widths are no printable characters to Python.
    return character.isprintable() or unicodedata.category(character) == "Zs"
