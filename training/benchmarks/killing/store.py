"""``sclinguist store build``, which goes on with the data sets that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from killing.case import Case, checksum, program


class StoreCase(Case):
    """``sclinguist store build`` of three tables, which goes on with those that are missing.

    Parameters
    ----------
    folder
        Where to.
    replaces
        Over a store of the same tables in another order of their cells.
    """

    operation = "store"
    tables = ("one", "two", "three")

    def __init__(self, folder: Path, *, replaces: bool) -> None:
        super().__init__(folder)
        self.replaces = replaces
        self.name = "over an older one" if replaces else "new"

    def prepare(self) -> None:
        """Make the tables, and an older store."""
        from synthetic import paired_cells

        for seed, name in enumerate(self.tables):
            paired_cells(300, 250, seed=seed, name=name).write_h5ad(self.folder / f"{name}.h5ad")
        if self.replaces:
            self._build(self.older, seed=1)

    def target(self, trial: Path) -> Path:
        """Name the store."""
        return trial / "store"

    def run(self, trial: Path) -> None:
        """Run the command."""
        self._build(trial, seed=0)

    def _build(self, trial: Path, *, seed: int) -> None:
        from sclinguist_core.cli import main

        inputs = [self.folder / f"{name}.h5ad" for name in self.tables]
        try:
            program(
                main, "sclinguist", "store", "build", *inputs, "-o", self.target(trial),
                "--seed", str(seed),
            )  # fmt: skip
        except SystemExit as ended:
            if ended.code:
                raise

    def content(self, path: Path) -> str:
        """Read all data sets and the index, byte for byte."""
        return checksum(path)

    def look(self, trial: Path, before: str | None) -> dict[str, Any]:
        """Every data set that has its name is the new one or, as it was, the older one."""
        from sclinguist_core.data.store.index import data_sets

        found = super().look(trial, before)
        if found["state"] != "broken":
            return found
        store, there = self.target(trial), []
        try:
            for path, record in data_sets(store):
                sums = checksum(path)
                if sums == checksum(self.target(self.reference) / path.name):
                    there.append(record.name)
                elif not self.replaces or sums != checksum(self.target(self.older) / path.name):
                    return {"state": "broken", "why": f"{path.name} is neither old nor new"}
        except Exception as error:  # whatever a reader says of half a file
            return {"state": "broken", "why": str(error)}
        if self.replaces and len(data_sets(store)) < len(self.tables):
            return {"state": "absent"}
        return {"state": "part", "there": there}

    def resumed(self, found: dict[str, Any]) -> bool | None:
        """Find that data sets that were done are not built again."""
        there = found.get("there", [])
        log = self.log.read_text()
        for name in there:
            assert any(f"{name}: " in line and "there already" in line for line in log.splitlines())
        return True if there else None
