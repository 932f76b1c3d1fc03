"""Download of a public section: one generator for the command line, the window and the tests.

The folder of a data set appears by a rename, complete, with a ``download.json`` that records where
each file came from and its SHA-256. Until then everything lies in a hidden folder beside it, from
which the next call goes on, whatever stopped the last one:

1. files, one after the other (`sclinguist_core.data.http_file`);
2. archives unpacked under a temporary name, then renamed;
3. ``download.json``, which says that all of the above is done;
4. archives removed, and the folder renamed.

Not built on pooch, which fetches a file in one call: it does not go on from a part of one, and a
caller can neither stop it while it waits for a server nor ask how far it is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sclinguist_core.data.datasets import Dataset, RemoteFile
from sclinguist_core.data.download_record import (
    RECORD,
    changed_file,
    read_record,
    sha256,
    write_record,
)
from sclinguist_core.data.http_answer import BEAT, described
from sclinguist_core.data.http_file import (
    PATIENCE,
    Patience,
    check_size,
    fetch_iter,
    remote_size,
    require_space,
)
from sclinguist_core.data.partial_file import PartialFile
from sclinguist_core.data.unpack import unpack_iter
from sclinguist_core.errors import InputError
from sclinguist_core.locks import Locked, NoLocks, locked, remove_stale

Step = TypeVar("Step")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadProgress:
    """How far a download is.

    Attributes
    ----------
    done
        Bytes on the disk, of all files; fewer than before where a file had to be started over.
    total
        Bytes of all files; None where the server does not tell.
    phase
        What is going on: ``"connecting"``, ``"downloading"``, ``"unpacking"``, ``"checking"``.
    """

    done: int
    total: int | None
    phase: str


def download_iter(
    dataset: Dataset,
    folder: Path | None = None,
    *,
    patience: Patience = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[DownloadProgress, None, Path]:
    """Download a data set, or go on with it; what is there already is only checked.

    Parameters
    ----------
    dataset
        What to download; see `sclinguist_core.data.datasets.find_dataset`.
    folder
        Folder that is to appear; `dataset.folder` if None.
    patience
        Timeout and retries of a connection.
    clock
        Seconds, for the pace of the reports.

    Yields
    ------
    DownloadProgress
        About five times a second, and when the phase changes. Close the generator to stop; what
        has come so far stays for the next call.

    Returns
    -------
    Path
        `folder`, which `open_section` reads.

    Raises
    ------
    InputError
        In one sentence: no network, no space, a file that is not what was published, files that
        changed since they were downloaded, another download of the same that is running.
    """
    folder = dataset.folder if folder is None else folder
    with closing(_steps(dataset, folder, patience)) as steps:
        shown: tuple[float, str] | None = None
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                return end.value
            now = clock()
            if shown is None or now - shown[0] >= BEAT or progress.phase != shown[1]:
                shown = (now, progress.phase)
                yield progress


def downloaded(dataset: Dataset, folder: Path | None = None) -> Path | None:
    """Find a data set that was downloaded earlier.

    Parameters
    ----------
    dataset, folder
        As for `download_iter`.

    Returns
    -------
    Path or None
        The folder; None if it is not there.

    Raises
    ------
    InputError
        If a file in it changed since it was downloaded, or it is another folder.
    """
    folder = dataset.folder if folder is None else folder
    with _disk_errors(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
        record = read_record(folder)
        if record is None or record.get("name") != dataset.name:
            raise InputError(
                f"'{folder}' is there and was not made by a download of {dataset.name}, expected a "
                "new folder or an empty one: choose another."
            )
        changed = changed_file(folder, record)
    if changed is not None:
        raise InputError(
            f"'{folder / changed}' is missing or not as it was downloaded (the SHA-256 in {RECORD} "
            f"is another): remove the folder '{folder}' and download it again."
        )
    return folder


def _steps(
    dataset: Dataset, folder: Path, patience: Patience
) -> Generator[DownloadProgress, None, Path]:
    yield DownloadProgress(done=0, total=None, phase="checking")
    lock = folder.with_name(f".{folder.name}.lock")
    if downloaded(dataset, folder) is not None:
        remove_stale(lock)
        return folder
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as holding:
            try:
                holding.enter_context(locked(lock))
            except NoLocks:
                lock.unlink(missing_ok=True)  # then nobody can be kept from the same download
            except Locked as error:
                raise InputError(
                    f"'{folder}' is being downloaded already, by another window or command: wait "
                    "until that is finished, or cancel it there."
                ) from error
            # Perhaps another process has finished it since the look above.
            if downloaded(dataset, folder) is None:
                download = _Download(dataset, folder, patience)
                try:
                    yield from download.steps()
                finally:
                    download.tidy_up()
    return folder


class _Download:
    """A download that nobody else works on."""

    def __init__(self, dataset: Dataset, folder: Path, patience: Patience) -> None:
        self.dataset = dataset
        self.folder = folder
        self.patience = patience
        self.staging = folder.with_name(f".{folder.name}.download")
        self.total: int | None = None

    def steps(self) -> Generator[DownloadProgress, None, None]:
        """Do everything; see the head of this module."""
        self.staging.mkdir(exist_ok=True)
        record = read_record(self.staging)
        if record is not None and changed_file(self.staging, record) is not None:
            shutil.rmtree(self.staging)  # the power failed while it was written
            self.staging.mkdir()
            record = None
        if record is None:
            yield from self._measure()
            for file in self._missing():
                yield from self._fetch(file)
            yield self._progress("checking")
            sources = self._sources()
            for file in self.dataset.files:
                if file.unpacks is not None:
                    yield from self._unpack(file, file.unpacks)
            record = write_record(self.staging, self.dataset, sources=sources, files=self._files())
        self._remove_all_but(record)
        if self.folder.is_dir():
            self.folder.rmdir()  # it is empty; Windows renames onto nothing
        self.staging.replace(self.folder)

    def tidy_up(self) -> None:
        """Leave no empty folder behind, as without a network."""
        if self.staging.is_dir() and not any(self.staging.iterdir()):
            self.staging.rmdir()

    def _measure(self) -> Generator[DownloadProgress, None, None]:
        """Find out how much is to come, and whether the disk takes it."""
        sizes: list[int | None] = [self._present()]
        needed = 0
        yield self._progress("connecting")
        for file in self._missing():
            asked = remote_size(file.url, self.patience)
            size = yield from _reporting(asked, lambda _: self._progress("connecting"))
            sizes.append(size)
            if size is not None:
                check_size(file.url, size, file.max_bytes)
                needed += size - PartialFile(self._path(file), file.url).size
                needed += 0 if file.unpacks is None else size  # unpacked it is hardly smaller
        require_space(self.staging.parent, needed)
        self.total = None if None in sizes else sum(size or 0 for size in sizes)

    def _fetch(self, file: RemoteFile) -> Generator[DownloadProgress, None, None]:
        before = self._present()
        fetched = fetch_iter(
            file.url,
            self._path(file),
            max_bytes=file.max_bytes,
            begins_with=file.begins_with,
            patience=self.patience,
        )
        yield from _reporting(fetched, lambda size: self._progress("downloading", before + size))

    def _sources(self) -> dict[str, dict[str, Any]]:
        """Size and SHA-256 of each file as it came, by address."""
        sources = {}
        for file in self.dataset.files:
            path = self._path(file)
            digest = sha256(path)
            if file.sha256 is not None and digest != file.sha256.lower():
                path.unlink()
                raise InputError(
                    f"{described(file.url)} has the SHA-256 {digest}, expected {file.sha256}, "
                    "which was published: update napari-sclinguist, or try again later."
                )
            sources[file.url] = {"bytes": path.stat().st_size, "sha256": digest}
        return sources

    def _unpack(self, file: RemoteFile, wanted: str) -> Generator[DownloadProgress, None, None]:
        archive, final = self._path(file), self.staging / wanted
        temporary = self.staging / "unpacking"
        for folder in (temporary, final):
            if folder.exists():
                shutil.rmtree(folder)
        temporary.mkdir()
        unpacked = unpack_iter(archive, temporary, wanted=wanted, max_bytes=file.max_unpacked_bytes)
        try:
            yield from _reporting(unpacked, lambda _: self._progress("unpacking"))
        except InputError:
            archive.unlink()  # so that the next call does not meet it again
            raise
        (temporary / wanted).replace(final)

    def _files(self) -> list[Path]:
        """Files that stay, unpacked ones included."""
        files: list[Path] = []
        for file in self.dataset.files:
            if file.unpacks is None:
                files.append(self._path(file))
            else:
                files += [p for p in (self.staging / file.unpacks).rglob("*") if p.is_file()]
        return files

    def _remove_all_but(self, record: dict[str, Any]) -> None:
        """Remove archives, and what calls that were killed have left."""
        kept = {RECORD, *(name.partition("/")[0] for name in record["sha256"])}
        for path in self.staging.iterdir():
            if path.name in kept:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _missing(self) -> list[RemoteFile]:
        return [file for file in self.dataset.files if not self._path(file).exists()]

    def _present(self) -> int:
        """Bytes of the files that are complete."""
        paths = map(self._path, self.dataset.files)
        return sum(path.stat().st_size for path in paths if path.exists())

    def _path(self, file: RemoteFile) -> Path:
        return self.staging / file.name

    def _progress(self, phase: str, done: int | None = None) -> DownloadProgress:
        done = self._present() if done is None else done
        return DownloadProgress(done=done, total=self.total, phase=phase)


def _reporting(
    steps: Generator[Step, None, Result], report: Callable[[Step], DownloadProgress]
) -> Generator[DownloadProgress, None, Result]:
    """Run a generator to its end, and report at each of its steps."""
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return end.value
            yield report(step)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Say in a sentence that the disk does not do what is asked."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"'{error.filename or folder}' cannot be written or read ({error.strerror}): free some "
            "space, or choose another folder; what has come so far is kept."
        ) from error
