"""The folder of a run: what was asked for, on which data, how it went, and what came out.

``recipe.yaml``   the resolved recipe, with overrides applied and paths written out
``run.json``      command, versions, git state, devices, sizes, fingerprints of the data
``metrics.csv``   one row a report
``heldout.csv``   held-out score of each data set, one row a validation
``state/``        what ``--resume`` continues from
``best/``         model with the best held-out score so far, if something is held out
``checkpoint/``   the final model
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sclinguist_core.errors import InputError
from sclinguist_core.files import remove_leftovers, replacing
from sclinguist_core.train.fit import Step

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
"""Variables by which torchrun, SLURM and Lightning number processes and machines."""


class RunFolder:
    """Where a run keeps its files.

    Parameters
    ----------
    path
        The folder; `create` makes it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def state_path(self) -> Path:
        """State that a run continues from."""
        return self.path / "state" / "last.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        """The final model."""
        return self.path / "checkpoint"

    @property
    def best_path(self) -> Path:
        """Model with the best held-out score so far."""
        return self.path / "best"

    @property
    def recipe_path(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def metrics_path(self) -> Path:
        """One row a report."""
        return self.path / "metrics.csv"

    @property
    def heldout_path(self) -> Path:
        """One row a validation and held-out data set."""
        return self.path / "heldout.csv"

    def create(self, recipe: str, record: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or check that it holds the run that is to be continued.

        Parameters
        ----------
        recipe
            The resolved recipe, YAML.
        record
            What ``run.json`` holds; key ``stage`` has the stage, ``data`` the fingerprints.
        resume
            Whether to continue a run that is there.

        Raises
        ------
        InputError
            If the folder holds another run, or something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file, expected a folder; choose another name.")
        if self.path.exists() and not self._is_unused():
            if not self.recipe_path.is_file():
                raise InputError(
                    f"{self.path}: is not empty and holds no run, expected a new folder or an "
                    "earlier run; choose another name."
                )
            if not resume:
                raise InputError(
                    f"{self.path}: holds a run already; add --resume to continue it, or choose "
                    "another name."
                )
            self._check_same(recipe, record)
        self.state_path.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.state_path, self.best_path):
            remove_leftovers(path)  # a run that had come to its end writes neither again
        self._write(self.path / "run.json", json.dumps(record, indent=2) + "\n")
        self._write(self.recipe_path, recipe)

    def _is_unused(self) -> bool:
        """Whether the folder is empty, but for what a kill in the middle of `create` leaves."""
        ours = {self.state_path.parent.name, "run.json"}
        parts = (".run.json.", f".{self.recipe_path.name}.")
        for path in self.path.iterdir():
            if path.name not in ours and not path.name.startswith(parts):
                return False
        if self.state_path.parent.is_dir() and any(self.state_path.parent.iterdir()):
            return False
        return not (self.path / "run.json").exists() or self._record() is not None

    def _record(self) -> dict[str, Any] | None:
        """Read ``run.json``; None if there is none, or another program's."""
        try:
            record = json.loads((self.path / "run.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and "stage" in record else None

    def _check_same(self, recipe: str, record: Mapping[str, Any]) -> None:
        import yaml

        earlier = self._record()
        if earlier is None:
            raise InputError(
                f"{self.path / 'run.json'}: expected the record of the run in this folder, found "
                "none that can be read; choose another name."
            )
        if earlier.get("stage") != record.get("stage"):
            raise InputError(
                f"{self.path}: holds a run of {earlier.get('stage')}, expected one of "
                f"{record.get('stage')}; choose another name."
            )
        now = yaml.safe_load(recipe)
        try:
            before = yaml.safe_load(self.recipe_path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(
                f"{self.recipe_path}: expected the recipe of the run in this folder, found "
                f"something else ({' '.join(str(error).split())}); choose another name."
            ) from error
        before = before if isinstance(before, dict) else {}
        differing = sorted(
            key for key in {*before, *now} - {"trainer"} if before.get(key) != now.get(key)
        )
        if differing:
            raise InputError(
                f"{self.path}: holds a run of another recipe ({', '.join(differing)} differ), "
                f"expected that of {self.recipe_path}; only the trainer section may change when a "
                "run is continued."
            )
        for entry, fingerprint in record.get("data", {}).items():
            if earlier.get("data", {}).get(entry) != fingerprint:
                raise InputError(
                    f"{entry}: has changed since the run in {self.path} began, expected the same "
                    "data; restore it, or start a new run."
                )

    def remove_if_untouched(self) -> None:
        """Take a folder away in which no step was reported or saved: the input was refused."""
        if self.state_path.is_file() or self.metrics_path.is_file():
            return
        for path in (self.recipe_path, self.path / "run.json"):
            path.unlink(missing_ok=True)
        for folder in (self.state_path.parent, self.path):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def last_step(self) -> int:
        """Step of the saved state; 0 where there is none."""
        if not self.state_path.is_file():
            return 0
        from sclinguist_core.train.state import state_step

        return state_step(self.state_path)

    def cut_metrics(self, step: int) -> None:
        """Drop reports of steps after `step`: they will be made again."""
        for path in (self.metrics_path, self.heldout_path):
            if not path.is_file():
                continue
            # A line that was cut short by a full disk belongs to a step that will come again.
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1].decode("utf-8")
            if not whole:
                path.unlink()
                continue
            header, *rows = csv.reader(io.StringIO(whole, newline=""))
            kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= step]
            with (
                replacing(path) as temporary,
                temporary.open("w", encoding="utf-8", newline="") as file,
            ):
                csv.writer(file, lineterminator="\n").writerows([header, *kept])

    def add_metrics(
        self, step: Step, terms: Mapping[str, float], scores: Mapping[str, float]
    ) -> None:
        """Add one row, and one for each held-out data set if it was validated.

        Parameters
        ----------
        step
            The report.
        terms
            Mean of each term of the loss.
        scores
            Held-out score of each data set at this step, or nothing.
        """
        row = {
            "step": step.done,
            "loss": step.loss,
            **terms,
            "learning_rate": step.learning_rate,
            "cells_per_second": round(step.cells_per_second, 1),
            "heldout": "" if step.score is None else step.score,
        }
        _append(self.metrics_path, [row])
        _append(
            self.heldout_path,
            [
                {"step": step.done, "dataset": name, "score": score}
                for name, score in scores.items()
            ],
        )

    @staticmethod
    def _write(path: Path, text: str) -> None:
        with replacing(path) as temporary:
            temporary.write_text(text, "utf-8")


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    if not path.is_file():
        writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    # In one go, header included, so that a kill leaves a line or none.
    with path.open("ab") as file:
        file.write(lines.getvalue().encode())


def is_first_process() -> bool:
    """Whether this is the process that writes files (others of a run share its work only)."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def plain(value: Any) -> Any:
    """Turn dataclasses and tuples into what YAML and JSON hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value
