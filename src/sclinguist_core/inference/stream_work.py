"""The folder in which a streamed prediction grows: a journal and one file for every block of rows.

``OUTPUT.partial/`` lies beside the output. The journal says of which input, model and options this
is, and where blocks begin; a block's file takes its name when it is whole and on the disk. So
whoever is killed at any moment goes on with the first block that is not there, on any number of
machines that share the disk.

Shapes: n rows, B rows of a block, P proteins.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.files import replacing, sync, sync_names
from sclinguist_core.inference.chunk import Raw
from sclinguist_core.locks import Locked, NoLocks, locked

JOURNAL = "journal.json"
FORMAT = 1
_BLOCK = re.compile(r"block-([0-9]{6,18})\.f32")
_HEADER = 1024
"""Bytes that a block's header has room for, so that arrays begin at a known place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockFacts:
    """What is to be told of a block, beside its predictions.

    Attributes
    ----------
    n_empty
        Rows without counts.
    n_without_reads
        Rows that express none of the model's genes.
    rounded
        Whether fractions were rounded.
    states_error
        Whether the model states an error of any value.
    seconds
        Time that it took.
    """

    n_empty: int
    n_without_reads: int
    rounded: bool
    states_error: bool
    seconds: float


class Vanished(InputError):
    """The folder is gone: the first process has written the output, or somebody removed it."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"'{path}' was removed while blocks were written there, expected it to stay until the "
            "output is complete: give the same command again."
        )


class WorkFolder:
    """Blocks of a prediction that are done, on disk.

    Parameters
    ----------
    output
        Table that is to be written in the end.
    identity
        What the prediction is of: anything that JSON can hold. Blocks of another are never used.
    starts
        First row of every block, and the number of rows, int64, shape (blocks + 1,).
    arrays
        Names of the arrays of `Raw` that are kept, without ``ood``.
    n_proteins
        P.
    with_ood
        Whether there are out-of-distribution scores.

    Raises
    ------
    InputError
        If the folder holds a prediction of something else, or cannot be made.
    """

    def __init__(
        self,
        output: Path,
        identity: dict[str, Any],
        starts: np.ndarray,
        arrays: Sequence[str],
        n_proteins: int,
        *,
        with_ood: bool,
    ) -> None:
        self.path = output.with_name(f"{output.name}.partial")
        self.starts = starts
        self.arrays = tuple(arrays)
        self.n_proteins = n_proteins
        self.with_ood = with_ood
        self._identity = {"format": FORMAT, **identity, "starts": _digest(starts.tobytes())}

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.starts) - 1

    def rows(self, block: int) -> slice:
        """Rows of a block."""
        return slice(int(self.starts[block]), int(self.starts[block + 1]))

    @property
    def block_bytes(self) -> int:
        """Bytes that all blocks take together."""
        n_values = self.n_proteins * len(self.arrays) + self.with_ood
        return int(self.starts[-1]) * n_values * 4 + self.n_blocks * _HEADER

    def check(self) -> bool:
        """Whether work on the same prediction was begun before.

        Raises
        ------
        InputError
            If the folder holds a prediction of something else.
        """
        if not self.path.exists():
            return False
        journal = self.path / JOURNAL
        try:
            found = json.loads(journal.read_text("utf-8"))
        except FileNotFoundError:
            # Hidden ones are those of a process that is just making the journal.
            if any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                self._refuse("files without a journal")
            return False
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            self._refuse("a journal that cannot be read")
        expected = json.loads(json.dumps(self._identity))
        if found != expected:
            keys = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
            changed = ", ".join(_change(key, found.get(key), expected.get(key)) for key in keys)
            self._refuse(f"an unfinished prediction that differs in {changed}")
        return True

    def _refuse(self, what: str) -> None:
        raise InputError(
            f"'{self.path}' holds {what}, expected one of this input, model and options to go on "
            "with: give the former command again, or remove that folder to start anew."
        )

    def create(self) -> None:
        """Make the folder and its journal.

        Raises
        ------
        InputError
            If that is not possible.
        """
        try:
            self.path.mkdir(exist_ok=True)
            with replacing(self.path / JOURNAL) as temporary:
                temporary.write_text(json.dumps(self._identity, indent=1), "utf-8")
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    @contextmanager
    def held(self, worker: int) -> Iterator[None]:
        """Keep a second process from doing the same work while the block runs.

        Blocks that processes of this machine were writing when they were killed are removed.

        Raises
        ------
        InputError
            If another process does.
        Vanished
            If the folder is not there any more.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path / f"worker-{worker}.lock"))
            except Locked as error:
                raise InputError(
                    f"'{self.path}': another process is at work there, expected none; wait for it, "
                    "or end it."
                ) from error
            except NoLocks:  # some network drives: then it is up to the user
                pass
            except FileNotFoundError as error:
                raise Vanished(self.path) from error
            except OSError as error:
                raise _cannot_write(self.path, error) from error
            for unfinished in self.path.glob("block-*.tmp"):
                if _is_of_the_dead(unfinished.name):
                    unfinished.unlink(missing_ok=True)
            yield

    def file(self, block: int) -> Path:
        """File of a block that is done."""
        return self.path / f"block-{block:06d}.f32"

    def present(self) -> np.ndarray:
        """Which blocks have a file, bool, shape (blocks,)."""
        there = np.zeros(self.n_blocks, bool)
        with suppress(FileNotFoundError):
            found = [_BLOCK.fullmatch(name) for name in os.listdir(self.path)]
            numbers = np.array([int(match[1]) for match in found if match], np.int64)
            there[numbers[numbers < self.n_blocks]] = True
        return there

    def has(self, block: int) -> bool:
        """Whether a block has a file."""
        return self.file(block).exists()

    def write(self, block: int, raw: Raw, facts: BlockFacts) -> None:
        """Bring a block to the disk.

        Arrays are kept protein by protein, (P, B), so that one protein of all rows can be read
        without the others.

        Raises
        ------
        InputError
            If the disk does not take it.
        Vanished
            If the folder is not there any more.
        """
        content = b"".join(
            np.ascontiguousarray(getattr(raw, name).T, np.float32).tobytes()
            for name in self._kept()
        )
        header = {
            "rows": [self.rows(block).start, self.rows(block).stop],
            "arrays": list(self._kept()),
            "digest": _digest(content),
            "facts": asdict(facts),
        }
        line = json.dumps(header).encode().ljust(_HEADER - 1) + b"\n"
        assert len(line) == _HEADER
        # The process and its machine in the name: two that do the same block do not meet.
        final = self.file(block)
        temporary = final.with_name(f"{final.name}.{platform.node()}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(line)
                file.write(content)
            sync(temporary)
            os.replace(temporary, final)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not os.path.exists(self.path / JOURNAL):
                raise Vanished(self.path) from error
            raise _cannot_write(self.path, error) from error
        if not os.path.exists(self.path / JOURNAL):
            # It was being removed just then; a block alone would keep the next run from beginning.
            final.unlink(missing_ok=True)
            raise Vanished(self.path)
        sync_names(self.path)

    def _kept(self) -> tuple[str, ...]:
        return (*self.arrays, "ood") if self.with_ood else self.arrays

    def is_whole(self, block: int) -> bool:
        """Whether a block's file is there as it was written; a damaged one is removed."""
        try:
            content = self.file(block).read_bytes()
        except FileNotFoundError:
            return False
        rows = self.rows(block)
        try:
            header = json.loads(content[:_HEADER])
            whole = (
                header["rows"] == [rows.start, rows.stop]
                and header["arrays"] == list(self._kept())
                and len(content) == _HEADER + self._values(block) * 4
                and header["digest"] == _digest(content[_HEADER:])
            )
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            self.file(block).unlink(missing_ok=True)
        return whole

    def _values(self, block: int) -> int:
        rows = self.rows(block)
        return (rows.stop - rows.start) * (self.n_proteins * len(self.arrays) + self.with_ood)

    def facts(self, block: int) -> BlockFacts:
        """Read what is to be told of a block."""
        with open(self.file(block), "rb") as file:
            return BlockFacts(**json.loads(file.read(_HEADER))["facts"])

    def read(self, block: int, array: str, rows: np.ndarray | None = None) -> np.ndarray:
        """Read an array of a block, float32, shape (B, P), or (B,) for ``"ood"``.

        Parameters
        ----------
        block, array
            Which.
        rows
            Only these, counted from the block's first.
        """
        n_rows = self.rows(block).stop - self.rows(block).start
        shape: tuple[int, ...] = (n_rows,) if array == "ood" else (self.n_proteins, n_rows)
        place = self._kept().index(array) * self.n_proteins * n_rows
        with open(self.file(block), "rb") as file:
            values = _values(file, place, int(np.prod(shape))).reshape(shape)
        return values.T if rows is None else values.T[rows]

    @contextmanager
    def columns(self, blocks: range) -> Iterator[Callable[[str, int], np.ndarray]]:
        """Give a function that reads one protein of neighbouring blocks.

        It takes the name of an array and the number of a protein, and returns float32 of shape
        (rows of the blocks,). Any thread may call it.
        """
        with ExitStack() as stack:
            files = [stack.enter_context(open(self.file(block), "rb")) for block in blocks]
            sizes = [int(size) for size in np.diff(self.starts)[blocks.start : blocks.stop]]
            reading = Lock()

            def read(array: str, protein: int) -> np.ndarray:
                place = self._kept().index(array) * self.n_proteins + protein
                with reading:
                    parts = [
                        _values(file, place * n_rows, n_rows)
                        for file, n_rows in zip(files, sizes, strict=True)
                    ]
                return np.concatenate(parts)

            yield read

    def remove(self) -> None:
        """Remove the folder, when the output is written."""
        # The journal last: without it, a run after a kill would not know what the blocks are.
        with suppress(FileNotFoundError):
            for entry in list(self.path.iterdir()):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.name != JOURNAL:
                    with suppress(OSError):
                        entry.unlink()
        shutil.rmtree(self.path, ignore_errors=True)
        # On network drives a file that another process has open keeps its folder for a moment.
        for _ in range(5):
            if not self.path.exists():
                return
            time.sleep(0.2)
            shutil.rmtree(self.path, ignore_errors=True)


def _is_of_the_dead(name: str) -> bool:
    """Whether a temporary file is of a process of this machine that is not there any more."""
    machine, _, process = name.removesuffix(".tmp").partition(".f32.")[2].rpartition(".")
    if machine != platform.node() or not process.isdecimal() or sys.platform == "win32":
        return False  # Windows cannot be asked without ending the process
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is somebody else's, or no number of a process
        pass
    return False


def _values(file: IO[bytes], place: int, n_values: int) -> np.ndarray:
    """Read some of the values of a block's file, counted from the first."""
    file.seek(_HEADER + place * 4)
    return np.fromfile(file, np.float32, n_values)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _change(key: str, former: Any, now: Any) -> str:
    if isinstance(former, str | int) and isinstance(now, str | int) and key != "starts":
        return f"{key} (was {former}, is {now})"
    return key


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(
        f"Writing into '{path}' failed ({error.strerror or error}): what was done before is kept; "
        "check the space and the rights there, then give the same command again."
    )
