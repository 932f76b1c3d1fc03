"""Reads the tables that lie beside this module (tab-separated, ``#`` starts a comment line)."""

from __future__ import annotations

import gzip
from importlib import resources


def read_table(name: str) -> list[list[str]]:
    """Return the rows of ``tables/<name>`` below its header, split at tabs.

    Parameters
    ----------
    name
        File name; one that ends in ``.gz`` is decompressed.

    Returns
    -------
    list of list of str
        Every row has as many fields as the header. Nothing is converted, so that a gene called
        ``NAN`` or ``1-Mar`` stays what it is.
    """
    data = resources.files(__package__).joinpath("tables", name).read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    lines = [line for line in data.decode("utf-8").split("\n") if line and line[0] != "#"]
    width = lines[0].count("\t") + 1
    rows = [line.split("\t") for line in lines[1:]]
    for row in rows:
        if len(row) != width:
            raise AssertionError(f"{name}: {len(row)} fields instead of {width} in {row}")
    return rows
