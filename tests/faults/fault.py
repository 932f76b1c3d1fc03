"""One damaged input, and running a command over it as a user would."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

from faults.small import Small

POSIX = ("linux", "darwin")
LINUX = ("linux",)
ANYWHERE = ("linux", "darwin", "win32")
"""Systems, by `sys.platform`, on which a case can be made."""
MOST_SECONDS = 120
"""A command that takes longer over an input this small is taken to hang, on a busy machine too."""
LONGEST_SENTENCE = 2_200
_BAR = re.compile(r"^[a-z ]+[ ━╸╺]+\d+/\d+.*\n", re.MULTILINE)
"""A line of progress: what was being done."""

Command = Literal["predict", "stream", "model", "output", "evaluate", "import", "recipe", "unpack"]
Ending = Literal["refused", "goes on", "either"]
Make = Callable[[Path, Small], Path]
"""Makes an input in an empty folder, from small valid ones; returns what a command is given."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A damaged or hostile input.

    Attributes
    ----------
    kind
        Group that it is counted in.
    name
        What is wrong with it; distinct within its kind.
    make
        Makes the input in an empty folder, from small valid ones, and returns what is given to the
        command.
    says
        Regular expression that the sentence must match.
    command
        What is run over it: ``predict INPUT`` (also with ``--stream``), ``predict --model INPUT``,
        ``predict -o INPUT``, ``evaluate INPUT``, ``import-checkpoint INPUT``, ``sclinguist-train
        post-pretrain INPUT``, or the unpacking of a download.
    ends
        ``"refused"``: one sentence, a status of 1, and nothing written. ``"goes on"``: a complete
        result, and `says` among the notes. ``"either"``: where chance decides.
    around
        What the command runs within, such as a limit to the size of files.
    systems
        Where the case can be made.
    """

    kind: str
    name: str
    make: Make
    says: str = ""
    command: Command = "predict"
    ends: Ending = "refused"
    around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    systems: tuple[str, ...] = ANYWHERE

    @property
    def label(self) -> str:
        """Name for lists of tests."""
        return f"{self.kind}: {self.name}" + f" ({self.command})" * (self.command != "predict")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did: status, what it printed on standard error, what stands in its folder."""

    status: int
    said: str
    left: tuple[str, ...]
    given: Path
    output: Path


class Hangs(BaseException):
    """A command does not come to an end; no `Exception`, which readers would take for damage."""


def prepare(fault: Fault, folder: Path, small: Small) -> Path:
    """Make an input in an empty folder; returns what is given to the command."""
    (folder / "input").mkdir()
    return fault.make(folder / "input", small)


def execute(fault: Fault, given: Path, folder: Path, small: Small) -> Outcome:
    """Run a fault's command over what `prepare` made, in this process."""
    output = folder / "output"
    output.mkdir()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), _in_time():
        _warm(small)
        with fault.around():
            status = _COMMANDS[fault.command](given, output, small)
    left = tuple(sorted(path.name for path in output.iterdir()))
    return Outcome(status=status, said=said.getvalue(), left=left, given=given, output=output)


def problems(fault: Fault, outcome: Outcome) -> list[str]:
    """What is wrong with what a command did; empty if the fault was handled."""
    if outcome.status == 0:
        return _problems_of_result(fault, outcome)
    found = []
    lines = _BAR.sub("", outcome.said).rstrip("\n").split("\n")
    if fault.ends == "goes on":
        found.append(f"was refused: {outcome.said[:300]}")
    if outcome.status != 1:
        found.append(f"ended with status {outcome.status}")
    if len(lines) != 1 or not lines[0].startswith("Error: "):
        found.append(f"said {len(lines)} lines, not one sentence: {outcome.said[:1000]}")
    if len(outcome.said) > LONGEST_SENTENCE:
        found.append(f"said {len(outcome.said)} characters")
    if fault.ends == "refused" and not re.search(fault.says, lines[0]):
        found.append(f"did not say {fault.says!r} but: {lines[0]}")
    if fault.command != "unpack" and not _names_a_file(outcome):
        found.append(f"named no file: {lines[0]}")
    if not re.search(r"[:;] \w", lines[0].removeprefix("Error: ")):
        found.append(f"gave no remedy: {lines[0]}")
    resumed_from = "result.h5ad.partial"
    if set(outcome.left) - ({resumed_from} if resumed_from in lines[0] else set()):
        found.append(f"left {', '.join(outcome.left)}")
    return found


def _problems_of_result(fault: Fault, outcome: Outcome) -> list[str]:
    found = []
    if fault.ends == "refused":
        found.append(f"was not refused; said: {outcome.said[:500]}")
    if fault.ends == "goes on" and not re.search(fault.says, outcome.said):
        found.append(f"did not say {fault.says!r} but: {outcome.said[:500]}")
    if len(outcome.left) != 1 and fault.command not in ("unpack", "output"):
        found.append(f"wrote {', '.join(outcome.left) or 'nothing'}")
    if fault.command in ("predict", "stream", "model") and not _is_complete(outcome):
        found.append("wrote a result without predictions of every row")
    return found


def _is_complete(outcome: Outcome) -> bool:
    """Whether a table can be read back in which every row has a value, or a reason for none."""
    import anndata as ad

    with quiet():
        table = ad.read_h5ad(outcome.output / "result.h5ad")
    predicted = table.obsm["protein_predicted"]
    missing = predicted.isna().all(axis=1).to_numpy()
    said = " ".join(map(str, table.uns["sclinguist"]["warnings"]))
    explained = "they get no value (NaN)" in said
    return len(predicted) == table.n_obs > 0 and (explained or not missing.any())


def _names_a_file(outcome: Outcome) -> bool:
    """Whether the sentence names the input (a section by its name), a file in it, or the output."""
    name = outcome.given.stem
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    places = (shown[:80], str(outcome.given.parent)[:80], str(outcome.output))
    return any(place in outcome.said for place in places)


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    if sys.platform == "win32":  # which has no alarms
        yield
        return

    def late(*_: object) -> None:
        raise Hangs(f"still running after {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _warm(small: Small) -> None:
    """Write what commands are given beside the fault, before anything is limited."""
    for name in ("model", "h5ad", "orders"):
        getattr(small, name)


def _sclinguist(*arguments: object) -> int:
    from sclinguist_core.cli import main

    return _called(main, "sclinguist", *arguments)


def _called(main: Callable[[], None], *words: object) -> int:
    """Run a program's entry point; an exception that it lets through is reported as status 70."""
    with mock.patch.object(sys, "argv", [str(word) for word in words]):
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        except (Exception, Hangs) as error:  # a traceback, for a user
            sys.stderr.write(f"Traceback: {type(error).__name__}: {error}")
            return 70
    return 0


def _predict(given: Path, output: Path, small: Small) -> int:
    return _sclinguist("predict", given, "-o", output / "result.h5ad", "--model", small.model)


def _stream(given: Path, output: Path, small: Small) -> int:
    return _sclinguist(
        "predict", given, "-o", output / "result.h5ad", "--model", small.model, "--stream"
    )


def _with_model(given: Path, output: Path, small: Small) -> int:
    return _sclinguist("predict", small.h5ad, "-o", output / "result.h5ad", "--model", given)


def _to_output(given: Path, output: Path, small: Small) -> int:
    return _sclinguist("predict", small.h5ad, "-o", given, "--model", small.model)


def _evaluate(given: Path, output: Path, small: Small) -> int:
    return _sclinguist("evaluate", given, "-o", output / "evaluation")


def _import(given: Path, output: Path, small: Small) -> int:
    genes, proteins = small.orders
    return _sclinguist(
        "import-checkpoint", given, "--genes", genes, "--proteins", proteins, "-o", output / "model"
    )


def _recipe(given: Path, output: Path, small: Small) -> int:
    from sclinguist_core.train.cli import main

    return _called(main, "sclinguist-train", "post-pretrain", given, "-o", output / "run")


def _unpack(given: Path, output: Path, small: Small) -> int:
    from sclinguist_core.data.unpack import unpack_iter
    from sclinguist_core.errors import InputError

    folder = output.parent / "unpacked"
    folder.mkdir()
    try:
        for _ in unpack_iter(given, folder, wanted="spatial", max_bytes=2**20):
            pass
    except InputError as error:
        sys.stderr.write(f"Error: {error}")
        return 1
    finally:
        shutil.rmtree(folder)
    return 0


_COMMANDS: dict[str, Callable[[Path, Path, Small], int]] = {
    "predict": _predict,
    "stream": _stream,
    "model": _with_model,
    "output": _to_output,
    "evaluate": _evaluate,
    "import": _import,
    "recipe": _recipe,
    "unpack": _unpack,
}


def quiet() -> contextlib.AbstractContextManager[None]:
    """Silence what a maker's libraries say while they write odd files."""
    return warnings.catch_warnings(action="ignore")
