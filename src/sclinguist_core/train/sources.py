"""Where training data come from: the entries of a recipe's data lists, and how they are opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sclinguist_core.data.section import Section
from sclinguist_core.data.store.index import data_sets, is_store, read_record
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.errors import InputError
from sclinguist_core.model.config import dataclass_from_dict

if TYPE_CHECKING:
    from anndata import AnnData

_TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_ANNDATA_ONLY = ("protein_key", "gene_column", "measured_layer")
_TABLE_ONLY = ("transpose",)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataEntry:
    """One data set of a recipe: a path, and what is not to be guessed. It works as a path too.

    Attributes
    ----------
    path
        Anything that `open_section` opens, or a data set of a store; for antibody counts alone
        also CSV or TSV, gzipped or not.
    name
        Name of the data set; by default that of the file.
    layer
        Layer of raw RNA counts.
    protein_key
        Key of ``obsm`` with raw antibody counts (AnnData).
    gene_column
        Column of ``var`` with gene symbols (AnnData).
    measured_layer
        Layer that says which gene was measured for which cell (AnnData).
    batch_key
        Column of ``obs`` (of a CSV: any column) by which the data set is split: each batch then
        is standardised and drawn as a data set of its own.
    transpose
        Whether a CSV holds one protein a row (and not one cell).
    same_cells_as
        Names of paired data sets that hold the very same cells: when one of them is held out, this
        entry is left out too. With `batch_key` a mapping from batch to such a name, which leaves
        out that batch alone.
    """

    path: str
    name: str = ""
    layer: str | None = None
    protein_key: str | None = None
    gene_column: str | None = None
    measured_layer: str | None = None
    batch_key: str | None = None
    transpose: bool = False
    same_cells_as: tuple[str, ...] | Mapping[str, str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path: expected a file or folder, found nothing")
        # As text, which names of batches and data sets are: YAML reads a bare 3 as a number.
        if isinstance(self.same_cells_as, str):
            object.__setattr__(self, "same_cells_as", (self.same_cells_as,))
        elif isinstance(self.same_cells_as, list):
            object.__setattr__(self, "same_cells_as", tuple(map(str, self.same_cells_as)))
        elif isinstance(self.same_cells_as, Mapping):
            texts = {str(batch): str(name) for batch, name in self.same_cells_as.items()}
            object.__setattr__(self, "same_cells_as", texts)
        if not isinstance(self.same_cells_as, tuple | Mapping):
            raise ValueError(
                f"same_cells_as: expected names of data sets, found {self.same_cells_as!r}"
            )
        if isinstance(self.same_cells_as, Mapping) and self.batch_key is None:
            raise ValueError("same_cells_as: a mapping of batches needs batch_key")
        if not self.name:
            object.__setattr__(self, "name", _stem(self.path))

    def __fspath__(self) -> str:
        return self.path

    @property
    def is_table(self) -> bool:
        """Whether the file is a CSV or TSV of antibody counts."""
        return self.path.lower().endswith(_TABLES)

    def left_out_with(self, hold_out: Sequence[str]) -> tuple[bool, tuple[str, ...]]:
        """Whether a hold-out removes all of this entry, and the batches that it removes."""
        if isinstance(self.same_cells_as, Mapping):
            gone = tuple(b for b, name in self.same_cells_as.items() if name in hold_out)
            return self.name in hold_out, gone
        # A source that was split in a store: its name stands for all parts.
        names = {self.name, self.name.partition("/")[0], *self.same_cells_as}
        return bool(names & set(hold_out)), ()

    def to_plain(self) -> str | dict[str, Any]:
        """Say what a recipe says: the path alone, or a mapping of what differs from the default."""
        values: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)
        }
        if isinstance(self.same_cells_as, tuple) and self.same_cells_as:
            values["same_cells_as"] = list(self.same_cells_as)
        if self.name == _stem(self.path):
            values.pop("name", None)
        return self.path if set(values) == {"path"} else values


def _stem(path: str) -> str:
    name = Path(path).name
    for ending in sorted((*_TABLES, ".h5ad", ".h5", ".zarr"), key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def read_entry(value: Any, recipe: Path, key: str) -> DataEntry:
    """Read one entry of a data list: a path, or a mapping.

    Paths may hold environment variables; relative ones are seen from the recipe's folder.

    Raises
    ------
    InputError
        For unknown keys and unset variables.
    """
    source = f"{recipe} ({key})"
    values = dict(value) if isinstance(value, dict) else {"path": value}
    if not isinstance(values.get("path"), str):
        raise InputError(
            f"{source}: expected a path, or a mapping with the key path, found {value!r}."
        )
    values["path"] = expand_path(values["path"], recipe)
    entry: DataEntry = dataclass_from_dict(DataEntry, values, source=source)
    return entry


def expand_store(entry: DataEntry) -> list[DataEntry]:
    """Let a store stand for its data sets, one entry each; any other entry stays as it is.

    Raises
    ------
    InputError
        If the store is empty or damaged, or one name is given to several data sets.
    """
    path = Path(entry.path)
    record = read_record(path)
    if record is not None:
        found = [(path, record)]
    elif is_store(path):
        found = data_sets(path)
    else:
        return [entry]
    if not found:
        raise InputError(
            f"'{path}' is a store without data sets, expected one at least: add some with "
            "`sclinguist store build`."
        )
    is_named = entry.name != _stem(entry.path)
    if is_named and len(found) > 1:
        raise InputError(
            f"'{path}' holds {len(found)} data sets, found the one name {entry.name!r} for them: "
            "leave it out, they have names of their own."
        )
    return [
        replace(entry, path=str(folder), name=entry.name if is_named else record.name)
        for folder, record in found
    ]


def expand_path(path: str, recipe: Path) -> str:
    """Put environment variables in, and see a relative path from the recipe's folder.

    Raises
    ------
    InputError
        If a variable is not set.
    """
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise InputError(
            f"{recipe}: {path}: the environment variable in it is not set, expected the folder of "
            "the data; set it, or write the path out."
        )
    return str(recipe.parent / Path(expanded).expanduser())


def open_entry(entry: DataEntry) -> Sequence[Section | StoredCells]:
    """Open a data set; one section, or one a batch where the entry has a `batch_key`.

    A data set of a store stays on disk.

    Raises
    ------
    InputError
        If it cannot be opened, or an option does not fit the format.
    """
    from sclinguist_core.data.readers import open_section

    _check_options(entry)
    if read_record(Path(entry.path)) is not None:
        return [StoredCells(Path(entry.path), entry.name)]
    if entry.is_table:
        from sclinguist_core.train.antibody_table import read_antibody_table

        section = read_antibody_table(entry)
    elif any(getattr(entry, option) for option in _ANNDATA_ONLY):
        section = _open_anndata(entry)
    else:
        section = open_section(entry.path, layer=entry.layer, name=entry.name)
    return [section] if entry.batch_key is None else _split(section, entry)


def _check_options(entry: DataEntry) -> None:
    if read_record(Path(entry.path)) is not None:
        for option in ("layer", *_ANNDATA_ONLY, "batch_key", "transpose"):
            if getattr(entry, option):
                raise InputError(
                    f"{entry.path}: the option {option} comes too late for a data set of a store; "
                    "leave it out, and see the options of `sclinguist store build`."
                )
    is_anndata = entry.path.endswith((".h5ad", ".zarr"))
    for options, fits, wanted in (
        (_ANNDATA_ONLY, is_anndata, ".h5ad or .zarr"),
        (_TABLE_ONLY, entry.is_table, "CSV or TSV"),
    ):
        for option in options:
            if getattr(entry, option) and not fits:
                raise InputError(
                    f"{entry.path}: the option {option} is for {wanted}; leave it out."
                )


def _open_anndata(entry: DataEntry) -> Section:
    from sclinguist_core.data.features import ORIGINAL_NAME
    from sclinguist_core.data.readers.h5ad import read_anndata, section_of

    path = Path(entry.path)
    if not path.exists():
        raise InputError(f"{path}: no such file, expected AnnData (.h5ad or .zarr).")
    table = read_anndata(path)
    if entry.protein_key is not None:
        table.obsm["protein"] = _one_of(table.obsm, entry.protein_key, "protein_key", path, "obsm")
        table.uns.pop("protein_panel", None)
    if entry.gene_column is not None:
        names = _one_of(table.var, entry.gene_column, "gene_column", path, "var")
        table.var[ORIGINAL_NAME] = names.astype(str).to_numpy(dtype=object)
    if entry.measured_layer is not None:
        table.layers["measured"] = _one_of(
            table.layers, entry.measured_layer, "measured_layer", path, "layers"
        )
    return section_of(table, path, layer=entry.layer, name=entry.name)


def _one_of(owner: Any, key: str, option: str, path: Path, place: str) -> Any:
    if key not in owner:
        found = ", ".join(map(str, owner.keys())) or "nothing"
        raise InputError(f"{path}: {option} {key!r} is not in {place}, which holds {found}.")
    return owner[key]


def _split(section: Section, entry: DataEntry) -> list[Section]:
    """One section a batch, named ``set/batch``."""
    table: AnnData = section.table
    if entry.batch_key not in table.obs:
        found = ", ".join(map(str, table.obs.columns)) or "no column"
        raise InputError(
            f"{entry.path}: batch_key {entry.batch_key!r} is not in obs, which holds {found}."
        )
    batch = table.obs[entry.batch_key].astype(str).to_numpy()
    return [
        replace(section, name=f"{entry.name}/{value}", table=table[batch == value].copy())
        for value in np.unique(batch)
    ]
