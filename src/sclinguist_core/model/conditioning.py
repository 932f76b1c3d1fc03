"""How the errors of a model's proteins go together: what a measured protein says of the others.

Where a prediction of CD3 is too low, so is that of CD5: the cell was taken for another. The errors
on data sets that were held out have a correlation over proteins, once for cells and once for spots;
it is kept as a factor model, so that it is positive definite whatever the panels were, and small:
``conditioning.safetensors`` beside the weights. It has no part in predictions from RNA alone.

Shapes: P proteins, K factors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.model.tensor_file import read_tensors, writing_tensors

FILE = "conditioning.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ErrorFactors:
    """Correlation of errors: ``loadings @ loadings.T + diag(noise)``, with a diagonal of 1.

    Attributes
    ----------
    loadings
        float32, shape (P, K); 0 for proteins that no held-out set measures.
    noise
        What each protein does not share, float32, shape (P,).
    """

    loadings: np.ndarray
    noise: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Which proteins have something in common with others, bool, shape (P,)."""
        return np.asarray(self.loadings.any(axis=1))

    def between(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Correlations of some proteins with others (positions), float64, without the noise."""
        return self.loadings[one].astype(np.float64) @ self.loadings[other].astype(np.float64).T

    def among(self, proteins: np.ndarray) -> np.ndarray:
        """Correlations of some proteins, float64, positive definite."""
        return self.between(proteins, proteins) + np.diag(self.noise[proteins].astype(np.float64))


Conditioning = dict[str, ErrorFactors]
"""Factors by context: ``"cells"``, ``"spots"``."""


def extended(conditioning: Conditioning | None, n_proteins: int) -> Conditioning | None:
    """Make room for proteins that were added to a model; they share no errors with others."""
    if conditioning is None:
        return None
    grown = {}
    for context, factors in conditioning.items():
        n_new = n_proteins - len(factors.noise)
        grown[context] = ErrorFactors(
            loadings=np.pad(factors.loadings, ((0, n_new), (0, 0))),
            noise=np.pad(factors.noise, (0, n_new), constant_values=1.0),
        )
    return grown


def digest(conditioning: Conditioning) -> str:
    """SHA-256 of the factors as they are stored, first 12 hexadecimal digits."""
    found = hashlib.sha256()
    for context in sorted(conditioning):
        for values in (conditioning[context].loadings, conditioning[context].noise):
            found.update(np.ascontiguousarray(values, np.float16).tobytes())
    return found.hexdigest()[:12]


def write_conditioning(conditioning: Conditioning, folder: Path) -> None:
    """Write ``conditioning.safetensors`` (float16)."""
    from safetensors.numpy import save_file

    tensors = {}
    for context, factors in conditioning.items():
        tensors[f"{context}.loadings"] = factors.loadings.astype(np.float16)
        tensors[f"{context}.noise"] = factors.noise.astype(np.float16)
    with writing_tensors():
        save_file(tensors, folder / FILE)
    (folder / FILE).chmod(0o644)


def read_conditioning(folder: Path, n_proteins: int) -> Conditioning | None:
    """Read ``conditioning.safetensors`` of a checkpoint folder; None where there is none.

    Raises
    ------
    InputError
        If the file is damaged or does not fit the model's proteins.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    tensors = read_tensors(path)
    contexts = sorted({name.split(".")[0] for name in tensors})
    found = {}
    for context in contexts:
        loadings, noise = tensors.get(f"{context}.loadings"), tensors.get(f"{context}.noise")
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if (
            loadings is None
            or noise is None
            or loadings.ndim != 2
            or not len(loadings) == len(noise) == n_proteins
            or not np.isfinite(loadings).all()
            or not ((noise > 0) & np.isfinite(noise)).all()
        ):
            raise InputError(
                f"{path}: expected finite loadings and positive noise of {n_proteins} proteins, "
                f"found {shapes}; install or train the checkpoint again"
            )
        found[context] = ErrorFactors(
            loadings=loadings.astype(np.float32), noise=noise.astype(np.float32)
        )
    return found
