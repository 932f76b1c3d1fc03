"""Public sections that can be downloaded: what they are, and where they lie."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from sclinguist_core.data.http_answer import check_url
from sclinguist_core.errors import InputError
from sclinguist_core.resources import cache_dir

MIRROR_VARIABLE = "SCLINGUIST_MIRROR"
"""Environment variable with the address of a folder that has the files under their names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file of a data set.

    Attributes
    ----------
    url
        ``https``, or ``http`` on this machine.
    max_bytes
        Most bytes that are accepted.
    unpacks
        Folder that the file, then a ``.tar.gz``, holds and that is unpacked from it; None for a
        file that stays as it is.
    max_unpacked_bytes
        Most bytes that are unpacked.
    begins_with
        First bytes of every file of this kind.
    sha256
        Checksum in hexadecimal digits where the publisher gives one. Where there is none, that of
        the first download is recorded.
    """

    url: str
    max_bytes: int
    unpacks: str | None = None
    max_unpacked_bytes: int = 0
    begins_with: bytes = b""
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_url(self.url)

    @property
    def name(self) -> str:
        """Name of the file."""
        return urlsplit(self.url).path.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A data set that becomes a folder that `open_section` reads.

    Attributes
    ----------
    name
        What it is asked for by.
    title
        What it is called on the screen.
    licence
        Terms under which the publisher gives it.
    page
        Address of its description.
    files
        What is fetched.
    """

    name: str
    title: str
    licence: str
    page: str
    files: tuple[RemoteFile, ...]

    @property
    def folder(self) -> Path:
        """Where it is kept unless another folder is named."""
        return cache_dir() / "datasets" / self.name


HUMAN_TONSIL = "human-tonsil"

_HUMAN_TONSIL_FILES = (
    "https://cf.10xgenomics.com/samples/spatial-exp/2.1.0/"
    "CytAssist_FFPE_Protein_Expression_Human_Tonsil/CytAssist_FFPE_Protein_Expression_Human_Tonsil"
)

_DATASETS = (
    Dataset(
        name=HUMAN_TONSIL,
        title="Human tonsil (10x Genomics, real)",
        licence="CC BY 4.0",
        page=(
            "https://www.10xgenomics.com/datasets/"
            "gene-protein-expression-library-of-human-tonsil-cytassist-ffpe-2-standard"
        ),
        files=(
            RemoteFile(
                url=f"{_HUMAN_TONSIL_FILES}_filtered_feature_bc_matrix.h5",
                max_bytes=500_000_000,
                begins_with=b"\x89HDF\r\n\x1a\n",
            ),
            RemoteFile(
                url=f"{_HUMAN_TONSIL_FILES}_spatial.tar.gz",
                max_bytes=500_000_000,
                unpacks="spatial",
                max_unpacked_bytes=1_000_000_000,
                begins_with=b"\x1f\x8b",
            ),
        ),
    ),
)


def datasets() -> tuple[Dataset, ...]:
    """List what can be downloaded.

    Where ``SCLINGUIST_MIRROR`` is set, as in an institute that keeps copies behind its firewall,
    the files come from that address, under the same names.

    Raises
    ------
    InputError
        If the variable holds no address that may be used.
    """
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip().rstrip("/")
    if not mirror:
        return _DATASETS
    return tuple(
        replace(
            dataset,
            files=tuple(replace(file, url=f"{mirror}/{file.name}") for file in dataset.files),
        )
        for dataset in _DATASETS
    )


def find_dataset(name: str) -> Dataset:
    """Find a data set by its name.

    Raises
    ------
    InputError
        If there is none of this name; the message lists the names.
    """
    known = {dataset.name: dataset for dataset in datasets()}
    if name in known:
        return known[name]
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else "see `sclinguist download --list`."
    raise InputError(
        f"Data set '{name}' is unknown, expected one of: {', '.join(sorted(known))}; {hint}"
    )
