"""Writing files and folders so that nobody ever meets half of one.

Everything is written in a hidden folder beside its final name, ``.NAME.<random>.part``, brought to
the disk, and takes the name in one step. An exception, Ctrl-C included, removes the hidden folder.
A process that is killed leaves it behind; whoever writes the same name next removes it, which is
safe because the system lets go of a dead writer's lock (`sclinguist_core.locks`).
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path

from sclinguist_core.locks import Locked, NoLocks, locked

logger = logging.getLogger(__name__)

_SUFFIX = ".part"
_LOCK = ".lock"
_OLD = "old"
"""Folder in a holder for what makes way; it comes back if the writer is killed just then."""
_NAME_CHARACTERS = 60
"""With four bytes a character, dots, random part and suffix: the 255 bytes a name may have."""
_SYNCS_AT_ONCE = 16
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name to write a file to; it takes the place of `path` when all went well.

    The name has the same suffix and lies on the same disk. After an exception, Ctrl-C included, an
    older file of that name is as it was. Where `path` is a link, the file that it leads to is
    replaced, and the link stays. The new file has the rights of the older one, or those that any
    new file of this user has.

    Parameters
    ----------
    path
        The file's name.
    durable
        Wait until the disk has it, so that it also outlives a power cut. A busy disk may take
        seconds, which is too long for what a window remembers of itself.

    Raises
    ------
    OSError
        If the file cannot be written or brought to the disk.
    """
    final = Path(os.path.realpath(path))
    with holder(final) as folder:
        new = folder / final.name
        yield new
        if durable:
            sync(new)
        # Some libraries write for the owner alone; results are there to be shown. Last, since the
        # older file may be one that nobody may write to.
        new.chmod(_rights(final, folder))
        os.replace(new, final)
        if durable:
            sync_names(final.parent)


@contextmanager
def holder(final: Path) -> Iterator[Path]:
    """Give an empty hidden folder beside `final` to write in; it is removed in the end.

    Raises
    ------
    OSError
        If no folder can be made there.
    """
    remove_leftovers(final)
    with ExitStack() as stack:
        yield _make_holder(final, stack)


def remove_leftovers(final: Path) -> None:
    """Remove what writers of `final` that were killed have left beside it.

    Killed in the moment between two names (see `replace_folder`), the older folder comes back.
    """
    for folder in _leftovers(final.parent, _beginning(final)):
        _remove_leftover(folder)


def remove_all_leftovers(folder: Path) -> None:
    """Remove what killed writers of anything in a folder have left, as `remove_leftovers` does."""
    for leftover in _leftovers(folder, "."):
        _remove_leftover(leftover)


def replace_folder(new: Path, final: Path) -> None:
    """Give a complete folder its final name; an older one of that name is removed.

    Linux and macOS swap two folders in one step. Where the system or the file system cannot, there
    is a moment without either: an interrupt in it brings the old one back at once, a kill when the
    same name is written next.

    Parameters
    ----------
    new
        Folder on the same disk.
    final
        Its name to be; absent or a folder.
    """
    if not final.exists():
        os.replace(new, final)
    elif _swap(new, final):
        shutil.rmtree(new, ignore_errors=True)
    else:
        with holder(final) as spare:
            (spare / _OLD).mkdir()
            try:
                os.replace(final, spare / _OLD / final.name)
                os.replace(new, final)
            except BaseException:
                # Ctrl-C may come when either is done already: what has which name decides.
                _bring_back(spare)
                raise


def sync(path: Path) -> None:
    """Bring a file to the disk, or a folder with everything in it.

    Raises
    ------
    OSError
        If the disk does not take it.
    """
    if not path.is_dir():
        # Windows brings to the disk only what was opened for writing.
        _sync(path, os.O_RDWR)
        return
    folders = list(os.walk(path))
    files = [Path(folder, name) for folder, _, names in folders for name in names]
    # A disk brings many files down together in the time that one takes.
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        for _ in pool.map(_sync, files, repeat(os.O_RDWR)):
            pass
        for _ in pool.map(sync_names, [Path(folder) for folder, _, _ in folders]):
            pass


def sync_names(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can do so.

    They are right for every reader before and after: this is about a power cut alone, and so a
    failure is told and no reason to call what was written lost.
    """
    if sys.platform == "win32":
        return  # Windows cannot open folders
    try:
        _sync(folder, os.O_RDONLY)
    except OSError as error:
        logger.warning("%s: new names may not outlive a power cut (%s)", folder, error.strerror)


def n_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _sync(path: Path, mode: int) -> None:
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


def _beginning(final: Path) -> str:
    return f".{final.name[:_NAME_CHARACTERS]}."


def _rights(final: Path, holder: Path) -> int:
    """Rights of the older file, else those that a new one has here (by umask, say)."""
    if not final.exists():
        final = holder / ".rights"
        final.touch()
    return final.stat().st_mode & 0o777


def _leftovers(parent: Path, begin: str) -> list[Path]:
    """List the holders in a folder whose names begin so; none where it cannot be looked into."""
    try:
        return [
            Path(entry.path)
            for entry in os.scandir(parent)
            if entry.name.startswith(begin)
            and entry.name.endswith(_SUFFIX)
            and entry.is_dir(follow_symlinks=False)
            and _is_holder(entry.path)
        ]
    except OSError:
        return []  # whoever writes there will say what is wrong


def _is_holder(folder: str) -> bool:
    """Whether a folder is one of ours: its lock is in it, or nothing but what had to make way.

    Empty is one whose writer was killed before it had its lock.
    """
    found = os.listdir(folder)
    return _LOCK in found or set(found) <= {_OLD}


def _remove_leftover(folder: Path) -> None:
    """Remove a holder whose writer is dead."""
    try:
        with locked(folder / _LOCK):
            _discard(folder)
    except (Locked, OSError):
        return  # its writer lives, or it belongs to somebody else
    if sys.platform == "win32":  # where the file of a lock that is held cannot be removed
        shutil.rmtree(folder, ignore_errors=True)


def _discard(folder: Path) -> None:
    _bring_back(folder)  # if that fails, nothing is removed
    shutil.rmtree(folder, ignore_errors=True)


def _make_holder(final: Path, stack: ExitStack) -> Path:
    """Make a folder whose lock is held until `stack` ends, which also removes the folder."""
    while True:
        made = tempfile.mkdtemp(prefix=_beginning(final), suffix=_SUFFIX, dir=final.parent)
        path = Path(made)
        with ExitStack() as undo:
            undo.callback(_discard, path)
            try:
                undo.enter_context(locked(path / _LOCK))
            except (Locked, FileNotFoundError):
                continue  # before it was locked, somebody took it for a dead one's
            except NoLocks:
                pass  # then nobody takes it away either
            stack.push(undo.pop_all())
            return path


def _bring_back(folder: Path) -> None:
    """Give what had to make way its name again, unless something else has it by now."""
    if (folder / _OLD).is_dir():
        for old in (folder / _OLD).iterdir():
            final = folder.parent / old.name
            if not final.exists():
                os.replace(old, final)


def _swap(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where that is not to be had."""
    import ctypes

    here, swap = -100, 2  # AT_FDCWD of Linux; RENAME_EXCHANGE of Linux is RENAME_SWAP of macOS
    names = os.fsencode(one), os.fsencode(other)
    try:
        system = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            done = system.renameat2(here, names[0], here, names[1], swap)
        elif sys.platform == "darwin":
            done = system.renamex_np(*names, swap)
        else:
            return False
    except (AttributeError, OSError, TypeError):  # an old C library, or none to be asked
        return False
    return bool(done == 0)
