"""Which proteins a run predicts, and whether memory suffices for them.

All of them by default. Of a million cells that takes several gigabytes: where these are not free,
the proteins that the model predicts best are proposed before any work starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from napari_sclinguist.control import names
from sclinguist_core.errors import InputError
from sclinguist_core.reading import free_memory

if TYPE_CHECKING:
    import pandas as pd


_USED = 0.85
"""Part of the free memory that a prediction may take: other programs need some, too."""
_TRUSTED = ("well", "fairly")


class Which(StrEnum):
    """Proteins that are predicted."""

    ALL = "all"
    BEST = "best"
    NAMED = "named"


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """What there is to choose from.

    Attributes
    ----------
    learnt
        All proteins of the model.
    best
        Those that it predicts well or fairly in this kind of section, the best first.
    genes
        Of the model: a protein that it has not learnt is asked for by one of them.
    bytes_each
        Memory that a protein takes during a run, for all rows of the section.
    bytes_each_by_gene
        The same, of each protein, where some are asked for by their genes.
    """

    learnt: frozenset[str]
    best: tuple[str, ...]
    genes: frozenset[str]
    bytes_each: int
    bytes_each_by_gene: int

    @property
    def n_proteins(self) -> int:
        """How many the model has learnt."""
        return len(self.learnt)

    def by_gene(self, chosen: list[str]) -> list[str]:
        """Find those names that are asked for by their genes.

        Raises
        ------
        InputError
            If a name is unknown or ambiguous, or the model knows neither protein nor gene.
        """
        from sclinguist_core.inference.query import asked_protein

        asked = []
        for given in chosen:
            protein = None if given in self.learnt else asked_protein(given)
            if protein is None or protein.name in self.learnt:
                continue
            if not self.genes.intersection(protein.genes):
                shown = given if given == protein.name else f"{given} ({protein.name})"
                raise InputError(
                    f"{shown}: the model knows neither this protein nor a gene that codes for it; "
                    "leave it out."
                )
            asked.append(given)
        return asked


def best_proteins(proteins: pd.DataFrame, context: str) -> tuple[str, ...]:
    """Names of the proteins that a model predicts well or fairly, the best first.

    Parameters
    ----------
    proteins
        ``proteins.tsv`` of the model; one that says nothing about trust gives none.
    context
        ``"spots"`` or ``"cells"``.
    """
    trust, expected = f"trust_{context}", f"expected_r_{context}"
    if not {trust, expected} <= set(proteins.columns):
        return ()
    trusted = proteins[proteins[trust].isin(_TRUSTED)]
    order = trusted[expected].sort_values(ascending=False, kind="stable").index
    return tuple(trusted.loc[order, "name"].astype(str))


class ProteinChoice:
    """The choice, which follows what fits until somebody makes one.

    Parameters
    ----------
    free
        Bytes of memory that are free.

    Attributes
    ----------
    which
        What is chosen.
    text
        Names for `Which.NAMED`, apart by commas.
    offer
        Of the active section and the model; None before it is known.
    """

    def __init__(self, free: Callable[[], int] = free_memory) -> None:
        self._free = free
        self._by_hand = False
        self.which = Which.ALL
        self.text = ""
        self.offer: Offer | None = None
        self._by_gene: list[str] = []
        self._problem = ""

    def take(self, offer: Offer | None) -> None:
        """Take another offer; what was not chosen by hand is chosen anew."""
        self.offer = offer
        if offer is None:
            return
        if not self._by_hand or (self.which is Which.BEST and not offer.best):
            self._by_hand = False
            self.which = (
                Which.BEST
                if offer.best and not self._fits(offer.n_proteins * offer.bytes_each)
                else Which.ALL
            )
        self._check()

    def choose(self, which: Which, text: str | None = None) -> None:
        """Choose by hand."""
        self._by_hand = True
        self.which = which
        self.text = self.text if text is None else text
        self._check()

    def options(self) -> list[tuple[Which, str]]:
        """Choices, and what people read."""
        if self.offer is None:
            return []
        options = [(Which.ALL, f"All {self.offer.n_proteins:,}")]
        if self.offer.best:
            options.append((Which.BEST, f"The {len(self._best(self.offer)):,} predicted best"))
        return [*options, (Which.NAMED, "By name…")]

    @property
    def proteins(self) -> list[str] | None:
        """Names to ask for; None for all of the model."""
        if self.which is Which.BEST and self.offer is not None:
            return list(self._best(self.offer))
        return names.split_list(self.text) if self.which is Which.NAMED else None

    @property
    def number(self) -> int:
        """How many they are."""
        chosen = self.proteins
        if chosen is not None:
            return len(chosen)
        return 0 if self.offer is None else self.offer.n_proteins

    @property
    def need(self) -> int:
        """Bytes of memory that a run takes."""
        offer = self.offer
        if offer is None:
            return 0
        return self.number * (offer.bytes_each_by_gene if self._by_gene else offer.bytes_each)

    @property
    def is_ready(self) -> bool:
        """Whether something is chosen, whose names are known, and fits."""
        return self.number > 0 and not self._problem and self._fits(self.need)

    def note(self, rows: str) -> str:
        """Say in one sentence what stands against the choice, or led to it; "" where nothing.

        Parameters
        ----------
        rows
            Number and name of the rows, such as ``"1,000,000 cells"``.
        """
        offer = self.offer
        if offer is None:
            return ""
        if self.which is Which.NAMED and not self.number:
            return "Type names of proteins, such as CD3, CD19, PD-1."
        if self._problem:
            return self._problem
        if not self._fits(self.need):
            return (
                f"{self.number:,} proteins of {rows} take {_gigabytes(self.need)} of memory, "
                f"{_gigabytes(self._free())} are free: choose fewer proteins, or close other "
                "sections and programs."
            )
        if self._by_gene:
            one = len(self._by_gene) == 1
            return (
                f"No antibody against {', '.join(self._by_gene)} was in training: predicted from "
                f"the coding {'gene' if one else 'genes'}, untested."
            )
        if self.which is Which.BEST and not self._by_hand:
            return (
                f"All {offer.n_proteins:,} proteins of {rows} would take "
                f"{_gigabytes(offer.n_proteins * offer.bytes_each)} of memory, "
                f"{_gigabytes(self._free())} are free."
            )
        return ""

    def _check(self) -> None:
        """Look the typed names up, once."""
        self._by_gene, self._problem = [], ""
        if self.offer is None or self.which is not Which.NAMED:
            return
        try:
            self._by_gene = self.offer.by_gene(names.split_list(self.text))
        except InputError as error:
            self._problem = str(error)

    def _fits(self, n_bytes: int) -> bool:
        return n_bytes <= _USED * self._free()

    def _best(self, offer: Offer) -> tuple[str, ...]:
        fitting = int(_USED * self._free() / max(offer.bytes_each, 1))
        return offer.best[: max(fitting, 1)]


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.1f} GB"
