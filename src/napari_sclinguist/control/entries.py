"""A feature in the list: what it is, what it is called, what its values mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np


class Kind(StrEnum):
    """What a feature is; the order is that of the search results."""

    PREDICTED = "predicted"
    MEASURED = "measured"
    GENE = "mRNA"
    UNCERTAINTY = "uncertainty"
    CHANGE = "change"
    COLUMN = "column"


KIND_ORDER = {kind: place for place, kind in enumerate(Kind)}
TRUST_ORDER = ("well", "fairly", "poorly", "untested", "not verifiable here", "")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A feature in the list.

    Attributes
    ----------
    kind
        What it is.
    name
        Name of its kind: a protein, an antibody of the study, a gene, a column of ``obs``.
    unit
        Unit of the values.
    protein
        Canonical protein that it stands for, "" if none.
    trust
        Trust label of a predicted protein in this section, "" for others.
    expected_r
        Correlation with the measured protein to be expected; NaN where unknown.
    title
        What people read, where that is not the name: an antibody's protein.
    """

    kind: Kind
    name: str
    title: str = ""
    unit: str = ""
    protein: str = ""
    trust: str = ""
    expected_r: float = float("nan")

    @cached_property
    def key(self) -> str:
        """Identity of the feature within its section, such as ``"predicted:CD19"``."""
        return f"{self.kind}:{self.name}"

    @property
    def label(self) -> str:
        """What stands at the layer, such as ``"CD19 (predicted)"``."""
        title = self.title or self.name
        return title if self.kind is Kind.COLUMN else f"{title} ({self.kind})"

    @property
    def diverging(self) -> bool:
        """Whether zero is the natural middle of its colours."""
        return self.kind is Kind.CHANGE


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Feature:
    """A feature with its values.

    Attributes
    ----------
    entry
        What it is.
    values
        (n,) float32; NaN where unknown.
    """

    entry: Entry
    values: np.ndarray

    @property
    def label(self) -> str:
        """See `Entry.label`."""
        return self.entry.label

    @property
    def unit(self) -> str:
        """See `Entry.unit`."""
        return self.entry.unit
