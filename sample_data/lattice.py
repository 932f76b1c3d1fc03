"""The spot lattice of a 6.5 mm Visium capture area."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fields import CANVAS_UM
from tissue import BACKGROUND, LUMEN, REGION_NAMES, VESSEL, Tissue

ROWS, COLUMNS = 78, 128
PITCH_UM, SPOT_UM = 100.0, 55.0
DISC_POINTS = 61  # points at which the disc of a spot is looked at


@dataclass(frozen=True)
class Lattice:
    """All 4,992 spots, in tissue or not.

    Attributes
    ----------
    array_row, array_col
        Position in the array; ``array_col`` has the parity of ``array_row``.
    x, y
        Centres in micrometres on the canvas.
    in_tissue
        Whether at least half of the spot lies on tissue.
    region
        Name of the compartment that covers most of the tissue under the spot.
    barcode
        Made up: 16 bases and "-1".
    """

    array_row: np.ndarray
    array_col: np.ndarray
    x: np.ndarray
    y: np.ndarray
    in_tissue: np.ndarray
    region: np.ndarray
    barcode: np.ndarray


def _barcodes(number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw unique barcodes, no base four times in a row."""
    found: dict[str, None] = {}
    while len(found) < number:
        code = "".join(np.array(list("ACGT"))[rng.integers(0, 4, 16)])
        if not any(base * 4 in code for base in "ACGT"):
            found[code + "-1"] = None
    return np.array(list(found))


def make_lattice(tissue: Tissue, seed: int) -> Lattice:
    """Lay the lattice over the tissue and name the compartment under each spot."""
    row, half = (
        a.ravel() for a in np.meshgrid(np.arange(ROWS), np.arange(COLUMNS // 2), indexing="ij")
    )
    col = 2 * half + row % 2
    height = PITCH_UM * np.sqrt(3) / 2
    x = (CANVAS_UM - (COLUMNS - 1) * PITCH_UM / 2) / 2 + col * PITCH_UM / 2
    y = (CANVAS_UM - (ROWS - 1) * height) / 2 + row * height

    # points of a sunflower spiral cover the disc evenly
    k = np.arange(DISC_POINTS) + 0.5
    r, phi = SPOT_UM / 2 * np.sqrt(k / DISC_POINTS), k * np.pi * (3 - np.sqrt(5))
    under = tissue.at(tissue.region, x[:, None] + r * np.cos(phi), y[:, None] + r * np.sin(phi))
    shares = np.stack([(under == c).mean(1) for c in range(len(REGION_NAMES))], 1)
    in_tissue = shares[:, BACKGROUND] < 0.5
    named = shares.copy()
    named[:, VESSEL] += named[:, LUMEN]
    named[:, [BACKGROUND, LUMEN]] = 0
    region = np.array(REGION_NAMES)[named.argmax(1)]
    region[~in_tissue] = REGION_NAMES[BACKGROUND]
    barcode = _barcodes(len(x), np.random.default_rng([seed, 6]))
    return Lattice(row, col, x, y, in_tissue, region, barcode)
