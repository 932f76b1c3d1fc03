"""Whether a model was trained on the very data that it is asked about, told by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sclinguist_core.data.section import Section


def dataset_key(name: str) -> str:
    """Reduce a data set's name to what identifies it: letters and digits, lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def seen_in_training(
    section: Section, training_datasets: Iterable[str], *, predicted_from: str = ""
) -> str:
    """Name of the training set that a section is, by its name; "" if it is none.

    Parameters
    ----------
    section
        What is predicted or evaluated.
    training_datasets
        Names of the data sets that the model was trained on.
    predicted_from
        Name that the section had when it was predicted.
    """
    names = {section.name, predicted_from}
    if section.source is not None:
        names.add(section.source.stem)
    keys = {dataset_key(name) for name in names if name}
    return next((name for name in training_datasets if dataset_key(name) in keys), "")


def seen_warning(seen: Sequence[str]) -> str:
    """Say that a model was trained on data sets, of the given names."""
    return (
        f"The model was trained on {', '.join(seen)}: results are better here than they would be "
        "on new data."
    )
