"""Draw the picture at the top of the README: the simulated sample section with predicted proteins.

python docs/make_picture.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

import sclinguist_core as scl
from sclinguist_core.evaluation.overlay import (
    Feature,
    histology_figure,
    overlay_figure,
    save_figure,
)
from sclinguist_core.resources import sample_section_path

HERE = Path(__file__).resolve().parent
SHOWN = ("CD19", "CD3", "CD21")
HEIGHT = 620


def main() -> None:
    """Predict, draw the stain and three proteins side by side, save one small PNG."""
    section = scl.open_section(sample_section_path())
    table = scl.predict(section, proteins=SHOWN)
    predicted = table.obsm["protein_predicted"]
    unit = table.uns["sclinguist"]["unit"]
    features = [
        Feature(values=predicted[name].to_numpy(), title=f"{name}, predicted", unit=unit)
        for name in SHOWN
    ]
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    parts = []
    for name, figure in {
        "stain": histology_figure(section, width=4.2),
        "proteins": overlay_figure(section, features, width=4.2, columns=3),
    }.items():
        path = save_figure(figure, folder / f"{name}.png", dpi=160)
        picture = Image.open(path).convert("RGB")
        parts.append(picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT)))
        path.unlink()
    joined = Image.fromarray(np.concatenate([np.asarray(part) for part in parts], axis=1))
    joined.quantize(160).save(folder / "overlay.png", optimize=True)


if __name__ == "__main__":
    main()
