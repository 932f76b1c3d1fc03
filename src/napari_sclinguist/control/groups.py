"""Named groups of rows, kept in ``obs`` so that scanpy and others find them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection

GROUP_COLUMN = "sclinguist_group"
"""Column of ``obs`` that holds all groups that were saved one by one."""


def save_group(opened: OpenSection, name: str, column: str = GROUP_COLUMN) -> None:
    """Give the selected rows a name in a categorical column of ``obs``.

    Rows of other names keep theirs, rows without one stay empty (NaN). The section then counts as
    not saved.

    Parameters
    ----------
    opened
        Its ``selected`` rows get the name.
    name
        Name of the group.
    column
        Column of ``obs``; made where it is not there yet.

    Raises
    ------
    InputError
        If nothing is selected, the name is empty, or `column` holds numbers.
    """
    name = name.strip()
    if opened.selected is None:
        raise InputError(
            f"No {opened.noun} of '{opened.name}' are selected: draw around some in the plot or on "
            "the tissue, then save them as a group."
        )
    if not name:
        raise InputError("The group has no name: type one, then save it.")
    obs = opened.section.table.obs
    labels = np.full(len(obs), np.nan, dtype=object)
    if column in obs:
        former = obs[column]
        if pd.api.types.is_numeric_dtype(former):
            raise InputError(
                f"obs['{column}'] of '{opened.name}' holds numbers, expected names of groups: save "
                "the group under another column."
            )
        labels[:] = former.to_numpy(dtype=object)
    labels[opened.selected] = name
    obs[column] = pd.Categorical(labels)
    opened.set_dirty(True)
    opened.contents_changed.emit()
