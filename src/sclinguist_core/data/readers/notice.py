"""Notices beside the data that nobody measured them."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

_WORDS = re.compile(r"\b(simulated|synthetic|not a measurement)\b", re.IGNORECASE)


def says_simulated(source: Path) -> bool:
    """Tell whether a folder of data carries a notice that its counts were made up.

    A notice is a file ``SIMULATED*``, or a README whose first lines say *simulated*, *synthetic*
    or *not a measurement*, in the folder or the one above it. Readers then set
    ``uns["simulated"]``, which stays with the table wherever it is saved.
    """
    if not source.is_dir():
        return False
    for place in (source, source.resolve().parent):
        if any(place.glob("SIMULATED*")):
            return True
        for readme in sorted(place.glob("README*")):
            if readme.is_file():
                with readme.open(encoding="utf-8", errors="replace") as lines:
                    # The first lines say what the data are; the rest may speak of other files.
                    first = "".join(islice(lines, 6))
                if _WORDS.search(first):
                    return True
    return False
