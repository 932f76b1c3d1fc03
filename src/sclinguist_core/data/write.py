"""Writing a table so that a reader never meets half of one.

Everything goes to a temporary name in the same folder first, is brought to disk, and takes the
final name in one step. Until then an older file of that name stays as it was.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclinguist_core.data.hdf5_output import new_hdf5
from sclinguist_core.data.readers.memory import around_same_arrays
from sclinguist_core.errors import InputError
from sclinguist_core.files import holder, replace_folder, sync, sync_names
from sclinguist_core.reading import check_path, reason

if TYPE_CHECKING:
    from anndata import AnnData

    from sclinguist_core.data.section import Section, SectionImage

logger = logging.getLogger(__name__)

_CANNOT_BE_WRITTEN = (ValueError, TypeError, NotImplementedError)
"""What libraries raise over content that a format has no place for, such as a zero in a name."""

ASSAY = "assay"
"""Where ``metadata`` in ``uns["spatial"]`` says what kind of section it is."""


def write_table(adata: AnnData, path: str | os.PathLike[str]) -> Path:
    """Write a table to ``.h5ad`` or ``.zarr``, completely or not at all.

    Parameters
    ----------
    adata
        Table; not changed.
    path
        File (``.h5ad``) or folder (``.zarr``); one that is there is replaced at the end.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    InputError
        If the suffix is another, the folder does not exist or cannot be written to, or something
        else than a table has the name already.
    """
    steps = write_table_iter(adata, path)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def write_table_iter(adata: AnnData, path: str | os.PathLike[str]) -> Generator[str, None, Path]:
    """Write as `write_table` does, in steps: a caller that stops iterating changes nothing.

    Yields
    ------
    str
        What comes next: ``"writing"``, then ``"finishing"`` when all is written but does not have
        its name yet.
    """
    target = check_output(path)
    _check_names(adata)
    suffix = target.suffix.lower()
    # Resolved, so that a link keeps pointing to its file, which is what is replaced.
    final = Path(os.path.realpath(target))
    yield "writing"
    with ExitStack() as stack:
        try:
            new = stack.enter_context(holder(final)) / final.name
        except OSError as error:
            raise InputError(
                f"Cannot write into '{final.parent}' ({error.strerror}): choose another folder."
            ) from error
        try:
            if suffix == ".h5ad":
                _write_h5ad(adata, new)
            else:
                _write_zarr(adata, new)
            sync(new)
            yield "finishing"
            if suffix == ".h5ad":
                os.replace(new, final)
            else:
                replace_folder(new, final)
        except OSError as error:
            raise InputError(
                f"Writing '{target}' failed ({error.strerror or error}): nothing was changed; "
                "check the space and the rights there."
            ) from error
        except InputError:
            raise
        except _CANNOT_BE_WRITTEN as error:
            raise InputError(
                f"Writing '{target}' failed ({reason(error)}): nothing was changed; rename or "
                "remove what such a file cannot hold."
            ) from error
        sync_names(final.parent)
    logger.info("Wrote %s", target)
    return target


def section_table(section: Section) -> AnnData:
    """Make the table of a section that opens as the same section when it is written.

    Some formats keep size, scale and image beside their table; here they are in
    ``uns["spatial"]``, in scanpy's layout. The kind of section goes into its ``metadata``.

    Returns
    -------
    AnnData around the same arrays, so that keys can be added to it; the section's own table is
    not changed.
    """
    copy = around_same_arrays(section.table)
    if not section.is_spatial:
        return copy
    library = section.library_id or section.name
    libraries = copy.uns.get("spatial")
    libraries = dict(libraries) if isinstance(libraries, dict) else {}
    content = dict(libraries.get(library, {}))
    scalefactors = dict(content.get("scalefactors") or {})
    images = dict(content.get("images") or {})
    if section.microns_per_pixel is not None:
        scalefactors["microns_per_pixel"] = section.microns_per_pixel
    if section.spot_diameter is not None:
        scalefactors["spot_diameter_fullres"] = section.spot_diameter
    image = section.image
    if image is not None and not _holds(images, scalefactors, image):
        images[image.name] = image.pixels
        scalefactors[f"tissue_{image.name}_scalef"] = image.scale
    metadata = {**(content.get("metadata") or {}), ASSAY: section.assay}
    libraries[library] = content | {
        "images": images,
        "scalefactors": scalefactors,
        "metadata": metadata,
    }
    copy.uns["spatial"] = libraries
    return copy


def without_matrices(adata: AnnData) -> AnnData:
    """Make a table without ``X``, ``layers`` and ``raw``; everything else is shared, not copied."""
    return type(adata)(
        obs=adata.obs,
        var=adata.var,
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
    )


def _holds(images: dict[str, Any], scalefactors: dict[str, Any], image: SectionImage) -> bool:
    """Whether an image is among those of a table, under its own name or another."""
    return any(
        scalefactors.get(f"tissue_{name}_scalef") == image.scale
        and np.shape(pixels)[:2] == image.shape
        for name, pixels in images.items()
    )


def check_output(path: str | os.PathLike[str]) -> Path:
    """Refuse a path that `write_table` could not write, before work is spent on its content.

    Raises
    ------
    InputError
        If the suffix is another, the folder does not exist, or something else than a table has
        the name already.
    """
    target = check_path(Path(path).expanduser())
    suffix = target.suffix.lower()
    if suffix not in {".h5ad", ".zarr"}:
        raise InputError(
            f"Cannot write '{target}': its suffix is '{target.suffix}', expected .h5ad or .zarr; "
            "change the name."
        )
    if not target.parent.is_dir():
        raise InputError(
            f"Cannot write '{target}': the folder '{target.parent}' does not exist; make it first."
        )
    above = Path(os.path.realpath(target)).parents
    store = next((one for one in above if one.suffix.lower() == ".zarr"), None)
    if store is not None:
        raise InputError(
            f"Cannot write '{target}': it lies inside the store '{store.name}'; choose another "
            "folder."
        )
    if suffix == ".h5ad" and target.is_dir():
        raise InputError(f"Cannot write '{target}': it is a folder; choose another name.")
    if suffix == ".zarr" and target.exists() and not _is_table(target):
        raise InputError(
            f"Cannot write '{target}': it exists and is no AnnData table (a SpatialData store "
            "or other data), so it is not replaced; choose another name."
        )
    return target


def _check_names(adata: AnnData) -> None:
    """Refuse names that HDF5 and zarr would take for folders."""
    for place, name in _names(adata):
        check_name(name, place)


def check_name(name: str, place: str) -> None:
    """Refuse a name that HDF5 and zarr would take for folders."""
    if "/" in name:
        raise InputError(
            f"'{name}' in {place} has a slash, which files cannot have in names: rename it, "
            f"such as to '{name.replace('/', '-')}'."
        )


def _names(adata: AnnData) -> Iterator[tuple[str, str]]:
    frames = {"obs": adata.obs, "var": adata.var}
    for part in ("obsm", "varm", "layers", "obsp", "varp", "uns"):
        for key, value in getattr(adata, part).items():
            yield part, str(key)
            if isinstance(value, pd.DataFrame):
                frames[f"{part}['{key}']"] = value
    for place, frame in frames.items():
        yield from ((place, str(name)) for name in frame.columns)


def _is_table(store: Path) -> bool:
    """Whether a folder is a zarr store that holds an AnnData table and nothing else."""
    for name in ("zarr.json", ".zattrs"):
        try:
            content = json.loads((store / name).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        attributes = content.get("attributes", {}) if name == "zarr.json" else content
        return bool(attributes.get("encoding-type") == "anndata")
    return False


def _write_h5ad(adata: AnnData, path: Path) -> None:
    """Write as `AnnData.write_h5ad` does, uncompressed too: gzip is slow to write and to stream."""
    from anndata.io import write_elem

    with new_hdf5(path) as file:
        write_elem(file, "/", adata)


def _write_zarr(adata: AnnData, path: Path) -> None:
    with zarr_as_we_write():
        adata.write_zarr(path, convert_strings_to_categoricals=False)


@contextmanager
def zarr_as_we_write() -> Iterator[None]:
    """Have anndata write zarr of format 3, without shards and without warnings about either."""
    import anndata

    # Said explicitly, because the defaults change between versions of anndata.
    wanted = {"zarr_write_format": 3, "auto_shard_zarr_v3": False}
    known = {key: value for key, value in wanted.items() if hasattr(anndata.settings, key)}
    with anndata.settings.override(**known), warnings.catch_warnings():
        # anndata always adds consolidated metadata; readers that do not know them ignore them.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        yield
