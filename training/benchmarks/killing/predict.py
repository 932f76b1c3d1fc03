"""``sclinguist predict``, in memory and streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from killing.case import Case, program
from killing.tables import table_content, write_older


class PredictCase(Case):
    """``sclinguist predict`` of a table that fits into memory.

    Parameters
    ----------
    folder, suffix
        Where to, and in which format.
    proteins
        Of some proteins over an older table; of all, and nothing is there, by default.
    """

    operation = "predict"

    def __init__(self, folder: Path, suffix: str, proteins: str = "") -> None:
        super().__init__(folder)
        self.suffix, self.proteins = suffix, proteins
        self.name = f"{suffix} {'over an older one' if proteins else 'new'}"

    def prepare(self) -> None:
        """Make the cells, and an older table under the name of the result."""
        from synthetic import paired_cells

        paired_cells(150, 900).write_h5ad(self.folder / "cells.h5ad")
        if self.proteins:
            write_older(self.target(self.older))

    def target(self, trial: Path) -> Path:
        """Name the table."""
        return trial / f"predicted{self.suffix}"

    def run(self, trial: Path) -> None:
        """Run the command."""
        from sclinguist_core.cli import main

        source, options = self.folder / "cells.h5ad", ["--device", "cpu"]
        if self.proteins:
            options += ["--proteins", self.proteins]
        program(main, "sclinguist", "predict", source, "-o", self.target(trial), *options)

    def content(self, path: Path) -> str:
        """Read all of it."""
        return table_content(path)


class StreamCase(PredictCase):
    """``sclinguist predict --stream``, which goes on where it was; in blocks of 16 rows."""

    def __init__(self, folder: Path, suffix: str) -> None:
        super().__init__(folder, suffix, "CD3,CD4,CD19,CD56")
        self.name = f"{suffix} streamed, over an older one"

    def run(self, trial: Path) -> None:
        """Run the command."""
        from sclinguist_core.cli import main
        from sclinguist_core.inference import stream

        stream.BLOCK_BYTES = 16 * 8 * len(self.proteins.split(","))
        program(
            main, "sclinguist", "predict", self.folder / "cells.h5ad", "-o", self.target(trial),
            "--device", "cpu", "--proteins", self.proteins, "--stream",
        )  # fmt: skip

    def look(self, trial: Path, before: str | None) -> dict[str, Any]:
        """Also how many blocks are there."""
        work = trial / f"{self.target(trial).name}.partial"
        return super().look(trial, before) | {"blocks": len(list(work.glob("block-*.f32")))}

    def resumed(self, found: dict[str, Any]) -> bool | None:
        """Find that it says so, and from which row."""
        if not found["blocks"] or found["state"] == "new":
            return None
        assert f"going on at row {min(16 * found['blocks'], 150)}" in self.log.read_text()
        return True
