"""Building a store from tables of any size, in bounded memory, so that it may be interrupted.

Each data set is written into a hidden folder ``.NAME….part`` and takes its name when it is
complete: what has a name is whole, whatever happened. Called again with the same sources the build
goes on with those that are missing or have changed.

Shapes: n cells, G genes, A antibodies.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from sclinguist_core.data.store.data_set import BuildProgress, DataSet, write_data_set
from sclinguist_core.data.store.index import (
    SUFFIX,
    Options,
    Record,
    SourceMark,
    data_sets,
    read_record,
    write_index,
)
from sclinguist_core.data.store.source import Source, open_source
from sclinguist_core.errors import InputError
from sclinguist_core.files import holder, remove_all_leftovers
from sclinguist_core.locks import Locked, NoLocks, locked

__all__ = ["BuildProgress", "BuildReport", "build_store"]

_LOCK = ".lock"
_NO_NAME = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
"""What no name of a folder on Windows holds."""
_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)


@dataclass(kw_only=True, slots=True)
class BuildReport:
    """What a build did.

    Attributes
    ----------
    built, kept
        Records of data sets that were written, and of those that were there already.
    notes
        What the user should know, one sentence each.
    """

    built: list[Record] = field(default_factory=list)
    kept: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build_store(
    sources: Sequence[Path],
    store: Path,
    *,
    seed: int = 0,
    layer: str | None = None,
    protein_key: str | None = None,
    split_by: str | None = None,
) -> Generator[BuildProgress, None, BuildReport]:
    """Add sources to a store; what it holds of them already stays.

    Parameters
    ----------
    sources
        Anything that `open_section` opens. The name of a data set is that of its file or folder.
    store
        Folder; made where it is not there.
    seed
        Of the order of the rows.
    layer
        Place of raw counts, where they are not to be searched for.
    protein_key
        Key of ``obsm`` with antibody counts (AnnData).
    split_by
        Column of ``obs``; each of its values becomes a data set ``source/value``.

    Yields
    ------
    BuildProgress

    Raises
    ------
    InputError
        If a source cannot be used, or the folder not be written to. Data sets that were finished
        before stay.
    """
    options = Options(seed=seed, layer=layer, protein_key=protein_key, split_by=split_by)
    names = _names(sources)
    report = BuildReport()
    with _store_folder(store):
        for path, name in zip(sources, names, strict=True):
            yield BuildProgress(0, 0, f"looking at {name}")
            yield from _add_source(path, name, store, options, report)
        write_index(store)
    return report


def _names(sources: Sequence[Path]) -> list[str]:
    from sclinguist_core.data.readers.locate import locate

    names = [_name(locate(path).path) for path in sources]
    folded = [_folded(name) for name in names]
    for name, key in zip(names, folded, strict=True):
        if folded.count(key) > 1:
            paths = " and ".join(str(p) for p, k in zip(sources, folded, strict=True) if k == key)
            raise InputError(
                f"{paths} would both be called '{name}' in the store: rename one of them."
            )
    return names


def _name(path: Path) -> str:
    # Folders and files of a sequencing run are called alike for every sample.
    while path.parent != path and (
        path.stem in {"outs", "filtered_feature_bc_matrix", "raw_feature_bc_matrix"}
    ):
        path = path.absolute().parent
    return path.stem if path.suffix in {".h5ad", ".h5", ".hdf5", ".zarr"} else path.name


@contextmanager
def _store_folder(store: Path) -> Iterator[None]:
    """Make the folder, hold its lock, and turn errors of the disk into sentences."""
    try:
        if store.exists() and not store.is_dir():
            raise InputError(f"'{store}' is a file, expected a folder: choose another name.")
        if store.suffix == SUFFIX:
            raise InputError(
                f"'{store}': a store is a folder with one .zarr a data set in it; choose a name "
                "without .zarr."
            )
        if read_record(store) is None and (store / "zarr.json").exists():
            raise InputError(f"'{store}' is a zarr store of its own: choose another folder.")
        store.mkdir(parents=True, exist_ok=True)
        try:
            with locked(store / _LOCK):
                # Nobody else builds here: what is unfinished was left by builds that were killed.
                for folder in (store, *store.glob("[!.]*/")):
                    remove_all_leftovers(folder)
                yield
        except NoLocks:
            yield
    except Locked as error:
        raise InputError(
            f"'{store}' is being built by another process: wait for it, or choose another folder."
        ) from error
    except OSError as error:
        raise InputError(
            f"Writing '{store}' failed ({error.strerror or error}): finished data sets are there; "
            "check the space and the rights, and call it again to go on."
        ) from error


def _add_source(
    path: Path, name: str, store: Path, options: Options, report: BuildReport
) -> Generator[BuildProgress, None, None]:
    mark = SourceMark.of(path)
    right: dict[str, Record] = {}
    stale: dict[str, Path] = {}
    for folder, record in data_sets(store):
        if record.name.partition("/")[0] != name:
            continue
        why = _why_stale(record, mark, options, path, store)
        if why is None:
            right[record.name] = record
        else:
            stale[record.name] = folder
            report.notes += [why] if why not in report.notes else []
    planned = {part for record in right.values() for part in record.parts}
    if not planned or planned - right.keys():
        with open_source(path) as source:
            for done, total in source.look(options.layer, options.protein_key):
                yield BuildProgress(done, total, f"looking for counts in {name}")
            report.notes += source.notes
            parts = _split(source, name, options.split_by, path)
            planned = set(parts)
            for part in [part for part in parts if part not in right]:
                job = DataSet(part, parts[part], tuple(parts), store, options, mark)
                report.built.append((yield from write_data_set(source, job)))
                write_index(store)
    report.kept += right.values()
    for gone in stale.keys() - planned:
        _remove(stale[gone])


def _why_stale(
    record: Record, mark: SourceMark, options: Options, path: Path, store: Path
) -> str | None:
    """Say why a data set is to be built anew; None where it is right."""
    if not record.source.is_same_content(mark):
        if record.source.path != mark.path:
            raise InputError(
                f"'{store}' holds a data set '{record.name}' of {record.source.path}, found "
                f"'{path}' for the same name: rename one of them, or use another folder."
            )
        return f"'{path}' has changed since it was stored, and was stored anew."
    if record.options != options:
        return f"'{path}' was stored with other options, and was stored anew."
    return None


def _remove(folder: Path) -> None:
    """Remove a data set, in one step for whoever looks."""
    with holder(folder) as hidden:
        os.replace(folder, hidden / folder.name)


def _split(source: Source, name: str, split_by: str | None, path: Path) -> dict[str, np.ndarray]:
    """Rows of each data set that a source becomes, by name."""
    n_obs = len(source.obs_names)
    if split_by is None:
        return {name: np.arange(n_obs)}
    if split_by not in source.obs_columns:
        raise InputError(
            f"'{path}': --split-by {split_by!r} is not in obs, which holds "
            f"{', '.join(source.obs_columns) or 'no column'}."
        )
    values = pd.Series(source.obs_column(split_by))
    labels = values.astype(object).where(values.notna(), "unknown").astype(str)
    rows = labels.groupby(labels).indices
    parts = {f"{name}/{_folder_name(str(label))}": rows[label] for label in rows}
    if len({_folded(part) for part in parts}) < len(rows):
        raise InputError(
            f"'{path}': values of {split_by!r} differ by upper and lower case or by characters "
            "that folders cannot have alone, expected names that are folders of their own on "
            "every disk: rename them."
        )
    return parts


def _folder_name(label: str) -> str:
    """Make a name that a folder can have on any system of a label.

    Hidden ones are those of unfinished builds. A dot or space at the end, which Windows drops, is
    not the end of the folder's name: that is ``.zarr``.
    """
    name = _NO_NAME.sub("-", label).lstrip(".") or "unnamed"
    # Windows keeps these for devices, whatever follows after a dot.
    return f"{name}-" if _DEVICE.fullmatch(name.partition(".")[0].strip()) else name


def _folded(name: str) -> str:
    """Name as disks compare it that do not tell upper from lower case (macOS, Windows)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
