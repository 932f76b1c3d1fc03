"""Writing a table so that a reader never meets half of one.

Everything goes to a temporary name in the same folder first, is brought to disk, and takes the
final name in one step. Until then an older file of that name stays as it was.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from sclinguist_core.errors import InputError
from sclinguist_core.files import replace_folder

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

#: Every HDF5 library reads gzip (R's has no lzf or zstd); level 1 is nearly as small as 4 on
#: counts, at a third of the time.
_COMPRESSION = {"compression": "gzip", "compression_opts": 1}


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
    target = check_output(path)
    suffix = target.suffix.lower()
    # Resolved, so that a link keeps pointing to its file, which is what is replaced.
    final = target.resolve()
    try:
        holder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent))
    except OSError as error:
        raise InputError(
            f"Cannot write into '{final.parent}' ({error.strerror}): choose another folder."
        ) from error
    try:
        new = holder / final.name
        if suffix == ".h5ad":
            adata.write_h5ad(new, convert_strings_to_categoricals=False, **_COMPRESSION)
            _sync(new)
            os.replace(new, final)
        else:
            _write_zarr(adata, new)
            replace_folder(new, final)
        _sync(final.parent)
    except OSError as error:
        raise InputError(
            f"Writing '{target}' failed ({error.strerror or error}): nothing was changed; check "
            "the space and the rights there."
        ) from error
    finally:
        # Also after KeyboardInterrupt: nothing half-written stays behind.
        shutil.rmtree(holder, ignore_errors=True)
    logger.info("Wrote %s", target)
    return target


def check_output(path: str | os.PathLike[str]) -> Path:
    """Refuse a path that `write_table` could not write, before work is spent on its content.

    Raises
    ------
    InputError
        If the suffix is another, the folder does not exist, or something else than a table has
        the name already.
    """
    target = Path(path).expanduser()
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
    if suffix == ".h5ad" and target.is_dir():
        raise InputError(f"Cannot write '{target}': it is a folder; choose another name.")
    if suffix == ".zarr" and target.exists() and not _is_table(target):
        raise InputError(
            f"Cannot write '{target}': it exists and is no AnnData table (a SpatialData store "
            "or other data), so it is not replaced; choose another name."
        )
    return target


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


def _write_zarr(adata: AnnData, path: Path) -> None:
    import anndata

    # Said explicitly, because the defaults change between versions of anndata.
    wanted = {"zarr_write_format": 3, "auto_shard_zarr_v3": False}
    known = {key: value for key, value in wanted.items() if hasattr(anndata.settings, key)}
    with anndata.settings.override(**known), warnings.catch_warnings():
        # anndata always adds consolidated metadata; readers that do not know them ignore them.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        adata.write_zarr(path, convert_strings_to_categoricals=False)
    for folder, _, files in os.walk(path):
        for name in files:
            _sync(Path(folder) / name)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
