"""How well a trained sCT model tells hidden levels, beside guesses that need no network.

    SCLINGUIST_DATA=DATA python training/benchmarks/sct_levels.py RUN [--chunks 40]

RUN is a run folder of ``pretrain-rna`` with ``architecture: sct``. Bags are drawn from data sets
that it was not trained on, 15 % of the measured genes are hidden, zeros among them, and all guesses
are scored on the same hidden entries by the Matthews correlation of the five levels (the published
figure is of this kind):

- *network*: its most probable level;
- *most frequent*: of the gene in the training sets;
- *mean*: of the gene in the training sets, rounded;
- *mean of the bag*: of the gene in the visible cells of the bag, rounded.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sclinguist_core.data.levels import N_LEVELS
from sclinguist_core.data.readers import open_section
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.model.sct_tokens import sct_tokens
from sclinguist_core.train.recipe import read_recipe
from sclinguist_core.train.sct_stage import SctCells, SctChunks, guesses, matthews
from sclinguist_core.train.sources import open_entry

TESTS = ("rna_only/pbmc1k_5prime.h5ad", "citeseq/malt_1000.h5ad")


def level_counts(cells: list[SctCells], config, share: np.ndarray) -> np.ndarray:
    """How often each gene has each level in some sets, shape (G, 5)."""
    counts = np.zeros((config.n_genes, N_LEVELS), np.int64)
    for each in cells:
        for start in range(0, each.rna.n_obs, 500):
            rows = np.arange(start, min(start + 500, each.rna.n_obs))
            tokens = sct_tokens(each.rna.take(rows), config, share)
            counts += np.stack([(tokens == level).sum(axis=0) for level in range(N_LEVELS)], 1)
    return counts


def rounded_mean(counts: np.ndarray) -> np.ndarray:
    """Mean level, rounded; 0 where nothing was seen."""
    return np.rint(counts @ np.arange(N_LEVELS) / np.maximum(counts.sum(axis=-1), 1)).astype(int)


def scores(model, chunks: SctChunks, known: np.ndarray) -> dict[str, float]:
    """Matthews correlation of each way to guess, and what was scored."""
    drawn = [chunks.chunk(0, number) for number in range(chunks.n_chunks)]
    simple: dict[str, list[np.ndarray]] = {name: [] for name in ("true", "f", "m", "b")}
    most, mean = known.argmax(axis=1), rounded_mean(known)
    for chunk in drawn:
        tokens, level = (chunk.tensors[name].numpy() for name in ("tokens", "level"))
        in_bag = np.stack([(tokens == each).sum(axis=1) for each in range(N_LEVELS)], axis=-1)
        bag, cell, gene = np.nonzero(level >= 0)
        simple["true"].append(level[bag, cell, gene].astype(np.int64))
        for name, guess in (
            ("f", most[gene]), ("m", mean[gene]), ("b", rounded_mean(in_bag)[bag, gene]),
        ):  # fmt: skip
            simple[name].append(guess)
    said = {name: np.concatenate(parts) for name, parts in simple.items()}
    truth, by_network = guesses(model, drawn)
    return {
        "hidden": len(truth),
        "zeros": (truth == 0).mean(),
        "network": matthews(truth, by_network),
        "most frequent": matthews(said["true"], said["f"]),
        "mean": matthews(said["true"], said["m"]),
        "mean of the bag": matthews(said["true"], said["b"]),
    }


def main() -> None:
    """Print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_recipe(options.run / "recipe.yaml")
    made = load_checkpoint(options.run)
    config = made.info.model
    trained = [
        SctCells.of(section, made.symbols)
        for entry in (*recipe.paired, *recipe.rna)
        for section in open_entry(entry)
    ]
    known = level_counts(trained, config, made.gene_share)
    fit = replace(recipe.fit, sets_per_step=options.chunks)
    rows = []
    for test in TESTS:
        section = open_section(Path(os.environ["SCLINGUIST_DATA"]) / test)
        assert section.name not in made.info.training_datasets
        chunks = SctChunks(
            [SctCells.of(section, made.symbols)], made.gene_share, config, fit,
            recipe.masking.gene_rate,
        )  # fmt: skip
        rows.append({"dataset": section.name, **scores(made.model, chunks, known)})
    table = pd.DataFrame(rows)
    print(f"{date.today()}, model {made.digest}, torch {torch.__version__}")
    print(made.card.strip().splitlines()[-1])
    print(table.round(3).to_string(index=False))
    table.to_csv(options.output / "sct.csv", index=False, float_format="%.4f", lineterminator="\n")


if __name__ == "__main__":
    main()
