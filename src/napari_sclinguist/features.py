"""Values that a section can be coloured by: proteins predicted or measured, genes, columns."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from sclinguist_core.data.section import Section

PREDICTED = "protein_predicted"
MEASURED = "protein"
TOTAL_COUNTS = "total counts"


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Feature:
    """One value a spot or cell.

    Attributes
    ----------
    label
        What stands at the layer, such as ``"CD19 (predicted)"``.
    values
        (n_obs,) float32; NaN where unknown.
    unit
        Unit of the values, for legends.
    """

    label: str
    values: np.ndarray
    unit: str


def find_feature(section: Section, name: str) -> Feature:
    """Find what a name stands for in a section.

    Predicted proteins come first, then measured proteins, genes and numeric columns of ``obs``;
    a protein may be given by any of its names.

    Raises
    ------
    InputError
        If the section has nothing of this name; the message lists the nearest ones.
    """
    canonical = _canonical_protein(name)
    for protein in dict.fromkeys((name, canonical)):
        if protein in _predicted(section).columns:
            return _predicted_feature(section, protein)
    antibody = _antibody(section, name, canonical)
    if antibody is not None:
        return _measured_feature(section, antibody)
    if section.has_rna and name in _genes(section):
        return _gene_feature(section, name)
    obs = section.table.obs
    if name in obs.columns and pd.api.types.is_numeric_dtype(obs[name]):
        return Feature(label=name, values=_as_float32(obs[name]), unit="")
    nearest = difflib.get_close_matches(name, list(_names(section)), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(nearest)}?" if nearest else "choose a protein or gene of it."
    raise InputError(
        f"Feature '{name}' is not in section '{section.name}': no predicted or measured protein, "
        f"gene or numeric obs column has this name; {hint}"
    )


def default_features(section: Section) -> list[Feature]:
    """Choose what is shown first: the most variable predicted proteins, and total counts.

    Predictions are in standard deviations of the training reference, so that the protein that
    varies most is the one that structures the tissue most. At most three features come back:
    napari's Points become slow with many feature columns.
    """
    spread = _predicted(section).std().sort_values(ascending=False)
    features = [_predicted_feature(section, name) for name in spread.index[:2]]
    if section.has_rna:
        features.append(_total_counts(section))
    elif section.has_protein and not features:
        spread = section.table.obsm[MEASURED].sum().sort_values(ascending=False)
        features.append(_measured_feature(section, spread.index[0]))
    return features


def _predicted(section: Section) -> pd.DataFrame:
    found = section.table.obsm.get(PREDICTED)
    return found if isinstance(found, pd.DataFrame) else pd.DataFrame(index=section.table.obs_names)


def _predicted_feature(section: Section, protein: str) -> Feature:
    unit = str(section.table.uns.get("sclinguist", {}).get("unit", ""))
    values = _as_float32(_predicted(section)[protein])
    return Feature(label=f"{protein} (predicted)", values=values, unit=unit)


def _measured_feature(section: Section, antibody: str) -> Feature:
    from sclinguist_core.data.preprocess import protein_clr

    counts = section.table.obsm[MEASURED]
    panel = section.table.uns.get("protein_panel")
    isotype = None
    if isinstance(panel, pd.DataFrame) and "isotype" in panel:
        isotype = panel["isotype"].reindex(counts.columns, fill_value=False).to_numpy(dtype=bool)
    values = _as_float32(protein_clr(counts, isotype)[antibody])
    return Feature(label=f"{antibody} (measured)", values=values, unit="centred log-ratio")


def _gene_feature(section: Section, gene: str) -> Feature:
    rna = section.rna()
    total = np.asarray(rna.counts.sum(axis=1), dtype=np.float64).ravel()
    of_gene = rna.counts[:, np.flatnonzero(rna.names == gene)]
    counts = np.asarray(of_gene.sum(axis=1), dtype=np.float64).ravel()
    with np.errstate(invalid="ignore", divide="ignore"):  # an empty spot has no value: NaN
        values = np.log1p(10_000.0 * counts / total)
    return Feature(label=f"{gene} (mRNA)", values=_as_float32(values), unit="log1p CP10k")


def _total_counts(section: Section) -> Feature:
    values = np.asarray(section.rna().counts.sum(axis=1)).ravel()
    return Feature(label=TOTAL_COUNTS, values=_as_float32(values), unit="RNA molecules")


def _canonical_protein(name: str) -> str:
    from sclinguist_core.vocabulary.proteins import resolve_protein

    try:
        return resolve_protein(name).name
    except InputError:  # not a protein, or several: the name itself is looked for
        return name


def _antibody(section: Section, name: str, canonical: str) -> str | None:
    """Find the measured antibody of this name or against this protein (the first of several)."""
    if not section.has_protein:
        return None
    columns = section.table.obsm[MEASURED].columns
    if name in columns:
        return name
    panel = section.table.uns.get("protein_panel")
    if isinstance(panel, pd.DataFrame) and "canonical" in panel:
        against = panel.index[panel["canonical"] == canonical].intersection(columns, sort=False)
        if len(against):
            return str(against[0])
    return None


def _genes(section: Section) -> np.ndarray:
    return section.rna().names if section.has_rna else np.empty(0, dtype=object)


def _names(section: Section) -> Iterator[str]:
    yield from map(str, _predicted(section).columns)
    if section.has_protein:
        yield from map(str, section.table.obsm[MEASURED].columns)
    yield from map(str, _genes(section))


def _as_float32(values: object) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)
