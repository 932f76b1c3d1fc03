"""The one exception that users see as a sentence instead of a traceback."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence that names the file or argument, what was found, what was
    expected and what to do. The command line prints it without a traceback and exits with
    status 1; notebooks see an ordinary ``ValueError``.
    """


class NotEnoughMemoryError(InputError):
    """The memory of a device does not suffice for a single cell; another device may do."""
