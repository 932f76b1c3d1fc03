"""A folder unpacked from a ``.tar.gz`` that came over the network, and that nobody has to trust.

Stricter than the filter "data" of `tarfile`, which Python 3.11.0 to 3.11.3 lack: links are refused
even where they stay inside, and only names and contents are taken over, so that modes, owners and
special files do not come up. What is unpacked is counted while it is read, whatever the headers
say.
"""

from __future__ import annotations

import gzip
import tarfile
import unicodedata
import zlib
from collections.abc import Generator
from pathlib import Path, PurePosixPath

from sclinguist_core.data.http_file import megabytes, require_space
from sclinguist_core.errors import InputError

MAX_MEMBERS = 1000
"""Most files and folders in an archive; Space Ranger's ``spatial/`` has about ten."""

_CHUNK_BYTES = 1024 * 1024
_DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}
)
"""Names that are devices on Windows, whatever follows a dot."""
_DAMAGES = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    ValueError,  # a header of PAX that is no number
    gzip.BadGzipFile,
    FileExistsError,  # a file and a folder of one name
    NotADirectoryError,
)
_HEADER_BYTES = 4096
"""Room for the headers of a member, beyond its content."""


def unpack_iter(
    archive: Path, folder: Path, *, wanted: str, max_bytes: int
) -> Generator[None, None, None]:
    """Unpack a ``.tar.gz``; yields after each MB, so that it can be stopped.

    Parameters
    ----------
    archive
        The file.
    folder
        Empty folder to unpack into; holds half an archive after an error, and is to be removed.
    wanted
        The one folder that the archive has to hold.
    max_bytes
        Most bytes that are unpacked.

    Raises
    ------
    InputError
        If the archive is damaged, too large, or holds a link, or a path outside of `wanted`.
    """
    try:
        with _Unzipped(archive, max_bytes + MAX_MEMBERS * _HEADER_BYTES) as unzipped:
            # Read as a stream, each byte once; seeking in a .gz would unpack it many times.
            with tarfile.open(fileobj=unzipped, mode="r|") as members:
                yield from _unpack(members, archive, folder, wanted, max_bytes)
            while unzipped.read(_CHUNK_BYTES):  # to the end, where the checksum is
                yield
    except InputError:
        raise
    except _DAMAGES as error:
        raise InputError(
            f"'{archive.name}' is a damaged archive ({error}): try again, it is fetched anew."
        ) from error
    if not (folder / wanted).is_dir():
        raise _refused(archive, f"holds no folder {wanted}/")


def _unpack(
    members: tarfile.TarFile, archive: Path, folder: Path, wanted: str, max_bytes: int
) -> Generator[None, None, None]:
    total = 0
    seen: dict[str, PurePosixPath] = {}
    for number, member in enumerate(members, start=1):
        if number > MAX_MEMBERS:
            raise _refused(archive, f"holds more than {MAX_MEMBERS:,} files")
        inside = _safe_path(member, archive, wanted)
        _check_distinct(inside, seen, archive)
        path = folder / inside
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        total += member.size
        if total > max_bytes:
            raise _refused(archive, f"unpacks to more than {megabytes(max_bytes)}")
        require_space(folder, member.size)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = members.extractfile(member)
        if content is None or path.exists():
            raise _refused(archive, f"holds '{member.name}' twice")
        with path.open("xb") as file:
            while chunk := content.read(_CHUNK_BYTES):
                file.write(chunk)
                yield


def _safe_path(member: tarfile.TarInfo, archive: Path, wanted: str) -> PurePosixPath:
    """Path of a member below the folder; refuses what is no plain file or folder in `wanted`."""
    if not (member.isfile() or member.isdir()):
        raise _refused(archive, f"holds '{member.name}', which is no file but a link or a device")
    path = PurePosixPath(member.name)
    # Backslashes and colons are separators on Windows.
    if path.is_absolute() or any(part == ".." or set(part) & set("\\:\0") for part in path.parts):
        raise _refused(archive, f"holds '{member.name}', which leads out of its folder")
    if not all(map(_is_name, path.parts)):
        raise _refused(archive, f"holds '{member.name}', which is no name of a file everywhere")
    if path.parts[:1] != (wanted,) and path.parts:
        raise _refused(archive, f"holds '{member.name}', which is not in {wanted}/")
    return path


def _is_name(part: str) -> bool:
    """Whether this can be a file on every system, and shows as what it is."""
    stem = part.partition(".")[0].rstrip().upper()
    return (
        part.isprintable()
        and not set(part) & set('<>"|?*')
        and not part.endswith((".", " "))
        and stem not in _DEVICES
    )


def _check_distinct(path: PurePosixPath, seen: dict[str, PurePosixPath], archive: Path) -> None:
    """Refuse two names that differ in case or in the way of writing an accent.

    On many disks they are one, and the second would take the place of the first.
    """
    for part in (path, *path.parents):
        folded = unicodedata.normalize("NFKC", str(part)).casefold()
        other = seen.setdefault(folded, part)
        if other != part:
            raise _refused(archive, f"holds '{part}' twice, also as '{other}'")


def _refused(archive: Path, found: str) -> InputError:
    return InputError(
        f"'{archive.name}' {found}: this is not the archive that was published; nothing of it was "
        "unpacked; update napari-sclinguist, or try again later."
    )


class _Unzipped(gzip.GzipFile):
    """A stream that ends in an error instead of going on for ever."""

    def __init__(self, archive: Path, max_bytes: int) -> None:
        super().__init__(archive, "rb")
        self._archive = archive
        self._left = max_bytes

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes."""
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _refused(self._archive, "unpacks to more than it says")
        return data
