"""The data sets that a recipe names, opened, less what is held out.

A held-out data set takes everything with it that holds the same cells: antibody counts of a paired
set are often published once more by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from sclinguist_core.data.section import Section
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.errors import InputError
from sclinguist_core.train.handover import seen_earlier
from sclinguist_core.train.sources import DataEntry, open_entry

if TYPE_CHECKING:
    from sclinguist_core.train.recipe import Recipe


Opened = TypeVar("Opened", bound=Section | StoredCells)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSections(Generic[Opened]):
    """What a recipe names, opened, less what is held out; empty where a stage has no use for it.

    Attributes
    ----------
    paired, rna, protein, validate
        The lists of the recipe; data sets of a store stay on disk.
    earlier
        Names of the data sets that the stages in ``init`` were trained on.
    """

    paired: list[Opened]
    rna: list[Opened]
    protein: list[Opened]
    validate: list[Opened]
    earlier: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the data sets whose cells the weights have seen, in earlier stages too."""
        return self.names_of(*self.paired, *self.rna, *self.protein)

    def names_of(self, *sections: Section | StoredCells) -> tuple[str, ...]:
        """Names of some data sets, and of those that earlier stages were trained on."""
        # Batches of one data set are called set/batch; those of a store are data sets themselves.
        names = [
            section.name if isinstance(section, StoredCells) else section.name.partition("/")[0]
            for section in sections
        ]
        return tuple(dict.fromkeys((*names, *self.earlier)))

    def loaded(self, *, with_rna: bool = True) -> TrainingSections[Section]:
        """Read the data sets of stores into memory, for what cannot stream them.

        Parameters
        ----------
        with_rna
            Whether to read their RNA too.
        """

        def load(sections: Sequence[Section | StoredCells]) -> list[Section]:
            return [
                s.section(with_rna=with_rna) if isinstance(s, StoredCells) else s for s in sections
            ]

        return TrainingSections(
            paired=load(self.paired),
            rna=load(self.rna),
            protein=load(self.protein),
            validate=load(self.validate),
            earlier=self.earlier,
        )


def open_training_sections(
    recipe: Recipe, hold_out: Sequence[str] = (), *, unpaired: Sequence[str] = ("rna",)
) -> TrainingSections[Section | StoredCells]:
    """Open the recipe's data sets, less those held out by name and what holds the same cells.

    Parameters
    ----------
    recipe
        Names the data sets.
    hold_out
        Names to leave out, beside those of the recipe.
    unpaired
        Lists to open beside the paired sets: ``rna``, ``protein``.

    Raises
    ------
    InputError
        If a held-out name is not in the recipe, or a stage in ``init`` has seen what is left out.
    """
    hold_out = (*recipe.hold_out, *hold_out)
    names = [entry.name for entry in (*recipe.paired, *recipe.rna, *recipe.protein)]
    for name in hold_out:
        if name not in {*names, *(known.partition("/")[0] for known in names)}:
            raise InputError(
                f"hold-out {name!r}: not in the recipe, expected one of {', '.join(names)}."
            )
    gone = [*hold_out, *(entry.name for entry in recipe.validate)]
    entries = (*recipe.paired, *recipe.rna, *recipe.protein)
    same_cells = [entry.name for entry in entries if entry.left_out_with(gone)[0]]
    earlier = seen_earlier(recipe.init)
    without = {*gone, *same_cells}
    # A stage that saw all of a set saw each of its batches, and the other way round.
    without |= {name.partition("/")[0] for name in without}
    without |= {name for name in earlier if name.partition("/")[0] in {*gone, *same_cells}}
    seen_earlier(recipe.init, sorted(without))
    return TrainingSections(
        paired=_open(recipe.paired, gone),
        rna=_open(recipe.rna, gone) if "rna" in unpaired else [],
        protein=_open(recipe.protein, gone) if "protein" in unpaired else [],
        validate=_open(recipe.validate, ()),
        earlier=earlier,
    )


def _open(entries: Sequence[DataEntry], hold_out: Sequence[str]) -> list[Section | StoredCells]:
    sections: list[Section | StoredCells] = []
    for entry in entries:
        is_out, batches = entry.left_out_with(hold_out)
        if not is_out:
            kept = {f"{entry.name}/{batch}" for batch in batches}
            sections += [section for section in open_entry(entry) if section.name not in kept]
    return sections
