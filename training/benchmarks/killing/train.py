"""``sclinguist-train``, which goes on bit for bit where it was."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

from killing.case import Case, checksum, program


class TrainCase(Case):
    """``sclinguist-train post-pretrain``, continued with ``--resume``."""

    operation = "train"
    name = "post-pretrain"
    recipe = (
        "name: small\n"
        "paired: [{folder}/one.h5ad]\n"
        "validate: [{folder}/two.h5ad]\n"
        "model: {{gene_dim: 8, width: 8, n_latents: 2, n_heads: 2, n_layers: 1}}\n"
        "fit: {{steps: 12, batch_size: 16, sets_per_step: 2}}\n"
        "trainer: {{accelerator: cpu, log_every: 1, save_every: 1, validate_every: 3}}\n"
    )

    def prepare(self) -> None:
        """Make cells and recipe."""
        from synthetic import paired_cells

        for seed, name in enumerate(("one", "two")):
            cells = paired_cells(80, 250, seed=seed, name=name)
            cells.write_h5ad(self.folder / f"{name}.h5ad")
        (self.folder / "recipe.yaml").write_text(self.recipe.format(folder=self.folder))

    def target(self, trial: Path) -> Path:
        """Name the run's folder."""
        return trial / "run"

    def run(self, trial: Path) -> None:
        """Run the command."""
        self._train(trial)

    def again(self, trial: Path) -> None:
        """Go on with it."""
        self._train(trial, "--resume")

    def _train(self, trial: Path, *options: str) -> None:
        from sclinguist_core.train.cli import main

        recipe = self.folder / "recipe.yaml"
        program(
            main, "sclinguist-train", "post-pretrain", recipe, "-o", self.target(trial), *options
        )

    def look(self, trial: Path, before: str | None) -> dict[str, Any]:
        """Whatever has a name is whole: state, models, recipe; and no model is another's."""
        from sclinguist_core.model.checkpoint import load_checkpoint
        from sclinguist_core.train.recipe import read_recipe
        from sclinguist_core.train.run_folder import RunFolder
        from sclinguist_core.train.state import read_state

        run = RunFolder(self.target(trial))
        if not run.path.exists():
            return {"state": "absent"}
        found = {"state": "part", "step": 0}
        try:
            if run.recipe_path.exists():
                read_recipe(run.recipe_path)
            if run.state_path.exists():
                found["step"] = read_state(run.state_path)["sclinguist"]["step"]
            if run.best_path.exists():
                load_checkpoint(run.best_path)
            if run.checkpoint_path.exists():
                load_checkpoint(run.checkpoint_path)
                found["state"] = "new" if self.content(run.path) == self.wanted else "broken"
        except Exception as error:  # whatever a reader says of half a file
            return {"state": "broken", "why": str(error)}
        return found

    def content(self, path: Path) -> str:
        """Read everything but times: state, metrics and weights, bit for bit."""
        from sclinguist_core.train.run_folder import RunFolder

        run = RunFolder(path)
        digest = hashlib.sha256(run.state_path.read_bytes())
        for folder in (run.checkpoint_path, run.best_path):
            digest.update(checksum(folder).encode())
        for table in (run.metrics_path, run.heldout_path):
            with table.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    row.pop("cells_per_second", None)
                    digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def resumed(self, found: dict[str, Any]) -> bool | None:
        """Find that it says so, and from which step."""
        step = found.get("step", 0)
        if not step:
            return None
        assert f"going on after step {step}" in self.log.read_text(), self.log.read_text()
        return True
