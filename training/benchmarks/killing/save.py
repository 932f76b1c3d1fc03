"""What the window does to save and to export, without a window; and a model that is saved."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from killing.case import Case, checksum
from killing.tables import table_content, write_older


class SaveTableCase(Case):
    """What Save in the window does: a larger table over an older one."""

    operation = "save"

    def __init__(self, folder: Path, suffix: str) -> None:
        super().__init__(folder)
        self.suffix = suffix
        self.name = f"table {suffix}"

    def target(self, trial: Path) -> Path:
        """Name the table."""
        return trial / f"section{self.suffix}"

    def prepare(self) -> None:
        """Make the cells, and an older table under the name of the result."""
        from synthetic import paired_cells

        paired_cells(1_500, 900, seed=2).write_h5ad(self.folder / "cells.h5ad")
        write_older(self.target(self.older))

    def run(self, trial: Path) -> None:
        """Save as the window's job does."""
        from napari_sclinguist.control.saving import save_steps
        from napari_sclinguist.control.view import View
        from sclinguist_core.data.readers import open_section

        section = open_section(self.folder / "cells.h5ad")
        for _ in save_steps(section, View(), self.target(trial)):
            pass

    def content(self, path: Path) -> str:
        """Read all of it."""
        return table_content(path)


class CheckpointCase(Case):
    """A model saved over an older one."""

    operation = "save"
    name = "checkpoint"

    def target(self, trial: Path) -> Path:
        """Name the model's folder."""
        return trial / "model"

    def prepare(self) -> None:
        """Save the older one."""
        self._save(self.older, half=True)

    def run(self, trial: Path) -> None:
        """Save another over it: of full precision."""
        self._save(trial, half=False)

    def _save(self, trial: Path, *, half: bool) -> None:
        from sclinguist_core.model.checkpoint import load_checkpoint, save_checkpoint

        save_checkpoint(load_checkpoint(), self.target(trial), half=half)

    def content(self, path: Path) -> str:
        """Load it as a prediction does."""
        from sclinguist_core.model.checkpoint import load_checkpoint

        return load_checkpoint(path).digest + checksum(path)


class ExportCase(Case):
    """A table or a picture exported over an older file, through the functions of the window."""

    operation = "save"

    def __init__(self, folder: Path, suffix: str) -> None:
        super().__init__(folder)
        self.suffix = suffix
        self.name = f"export {suffix}"

    def prepare(self) -> None:
        """Make the section, and an older file under the name of the result."""
        write_sample(self.folder / "section.h5ad")
        self.target(self.older).write_bytes(b"an older file")

    def target(self, trial: Path) -> Path:
        """Name the file."""
        return trial / f"exported{self.suffix}"

    def run(self, trial: Path) -> None:
        """Export as the window's job does."""
        import matplotlib as mpl

        from napari_sclinguist.control.export import FigureOptions, figure_steps, plan_figure
        from napari_sclinguist.control.table_export import TableOptions, table_steps

        # Names and dates in an SVG are those of any run.
        os.environ["SOURCE_DATE_EPOCH"] = "0"
        mpl.rcParams["svg.hashsalt"] = "kills"
        section, target = opened(self.folder / "section.h5ad"), self.target(trial)
        if self.suffix in {".csv", ".xlsx"}:
            steps: Iterator[Any] = table_steps(section, TableOptions(), target)
        else:
            plan = plan_figure(section, FigureOptions(dpi=150))
            steps = figure_steps(section, plan, target)
        for _ in steps:
            pass

    def content(self, path: Path) -> str:
        """Read all of it."""
        if self.suffix != ".xlsx":
            return checksum(path)
        import openpyxl

        book = openpyxl.load_workbook(path)
        rows = [[[c.value for c in row] for row in sheet.rows] for sheet in book.worksheets]
        return hashlib.sha256(repr(rows).encode()).hexdigest()


def write_sample(path: Path) -> None:
    """Write some spots of the sample section with made-up predictions."""
    from dataclasses import replace

    from sclinguist_core.data.readers import open_section
    from sclinguist_core.data.write import section_table, write_table
    from sclinguist_core.resources import sample_section_path

    section = open_section(sample_section_path())
    section = replace(section, table=section.table[::5, ::50].copy())
    names = ["CD3", "CD4", "CD8", "CD14", "CD19", "CD20", "CD27", "CD45", "CD56", "CD68", "CD79a"]
    values = np.random.default_rng(0).normal(size=(section.n_obs, len(names))).astype(np.float32)
    section.table.obsm["protein_predicted"] = pd.DataFrame(
        values, index=section.table.obs_names, columns=names
    )
    write_table(section_table(section), path)


def opened(path: Path) -> Any:
    """Open a section as the window does, as far as exports look at it."""
    from napari_sclinguist.control.catalogue import Catalogue
    from napari_sclinguist.control.view import View
    from sclinguist_core.data.readers import open_section

    section = open_section(path)
    return SimpleNamespace(
        name=section.name, noun="spots", section=section, catalogue=Catalogue(section),
        view=View(keys=("predicted:CD19",)), selected=None,
    )  # fmt: skip
