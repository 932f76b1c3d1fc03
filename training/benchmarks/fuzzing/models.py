"""Readers of checkpoints: our own, and those of others."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np

from faults.small import Small
from fuzzing.target import Files, Target


def tensors(folder: Path, small: Small) -> Target:
    """Read tensors of a safetensors file, with PyTorch and without."""
    from sclinguist_core.model.tensor_file import read_tensors, read_weights

    root = small.copy("model", folder)
    path = root / "model.safetensors"
    content = path.read_bytes()
    # The header decides; of the weights some are enough.
    length = int.from_bytes(content[:8], "little")
    from safetensors.numpy import load, save

    few = dict(list(load(content).items())[:4]) if length else {}
    path.write_bytes(save({name: values.reshape(-1)[:16] for name, values in few.items()}))

    def read() -> None:
        read_tensors(path)
        assert all(values.isfinite().all() for values in read_weights(path).values())

    return Files(paths=[path], read=read)


def model(folder: Path, small: Small) -> Target:
    """Read what stands in a model folder beside its weights."""
    from sclinguist_core.model.checkpoint import read_summary

    root = small.copy("model", folder)
    names = ("config.json", "genes.tsv", "proteins.tsv", "card.md")

    def read() -> None:
        summary = read_summary(root)
        assert isinstance(summary.info.name, str)
        assert np.isfinite(summary.genes["mean"]).all()

    return Files(paths=[root / name for name in names], read=read)


def whole_model(folder: Path, small: Small) -> Target:
    """Load a model with its weights."""
    from sclinguist_core.model.checkpoint import load_checkpoint

    root = small.copy("model", folder)
    names = ("model.safetensors", "config.json", "genes.tsv", "proteins.tsv")

    def read() -> None:
        checkpoint = load_checkpoint(root)
        assert all(values.isfinite().all() for values in checkpoint.model.state_dict().values())

    return Files(paths=[root / name for name in names], read=read)


def beside_model(folder: Path, small: Small) -> Target:
    """Read what a model may have besides: calibration, familiarity, conditioning."""
    from safetensors.numpy import save_file

    from sclinguist_core.model.calibration import FILE as CALIBRATION
    from sclinguist_core.model.calibration import read_calibration
    from sclinguist_core.model.conditioning import FILE as CONDITIONING
    from sclinguist_core.model.conditioning import read_conditioning
    from sclinguist_core.model.familiarity import FILE as FAMILIARITY
    from sclinguist_core.model.familiarity import read_familiarity
    from sclinguist_core.resources import bundled_checkpoint

    genes, proteins = 6, len((bundled_checkpoint() / "proteins.tsv").read_text().splitlines()) - 1
    shutil.copy(bundled_checkpoint() / CALIBRATION, folder)
    save_file(
        {
            "log_profiles": np.log(np.full((2, genes), 1 / genes, np.float16)),
            "levels": np.arange(3, dtype=np.float32),
        },
        folder / FAMILIARITY,
    )
    save_file(
        {
            "cells.loadings": np.ones((proteins, 2), np.float32),
            "cells.noise": np.ones(proteins, np.float32),
        },
        folder / CONDITIONING,
    )

    def read() -> None:
        read_calibration(folder, proteins)
        read_familiarity(folder, genes)
        read_conditioning(folder, proteins)

    return Files(paths=[folder / n for n in (CALIBRATION, FAMILIARITY, CONDITIONING)], read=read)


def pickles(folder: Path, small: Small) -> Target:
    """Read weights of PyTorch archives, of which the pickle is changed, or the archive itself."""
    import torch

    from sclinguist_core.model.tensor_archive import read_lightning_state_dict

    whole, around, program = folder / "model.ckpt", folder / "around.ckpt", folder / "data.pkl"
    weights = {f"layer.{i}": torch.full((3, 4), float(i)) for i in range(3)}
    torch.save({"state_dict": weights, "epoch": 1, "hyper_parameters": {"a": [1, 2]}}, whole)
    with zipfile.ZipFile(whole) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (pickle,) = (name for name in content if name.endswith("data.pkl"))
    program.write_bytes(content[pickle])

    def read() -> None:
        content[pickle] = program.read_bytes()
        with zipfile.ZipFile(around, "w") as archive:
            for name, stored in content.items():
                archive.writestr(name, stored)
        for path in (whole, around):
            assert read_lightning_state_dict(path)

    return Files(paths=[whole, program], read=read)


def orders(folder: Path, small: Small) -> Target:
    """Read the tables of genes and proteins of a published checkpoint."""
    from sclinguist_core.model.hyena_tables import read_gene_order, read_protein_order

    paths = [Path(shutil.copy(path, folder)) for path in small.orders]

    def read() -> None:
        read_gene_order(paths[0])
        read_protein_order(paths[1])

    return Files(paths=paths, read=read)
