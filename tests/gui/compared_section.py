"""A section with what a comparison meets: measured, untested and isotype antibodies."""

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.section import Section, SectionImage
from sclinguist_core.vocabulary.proteins import resolve_panel

GENES = ["CD19", "CD3D", "CD3E", "ACTA2", "MKI67"]
ANTIBODIES = ["CD19", "CD3", "CD20_1", "CD20_2", "ACTA2", "mouse-IgG2b"]


def make_section(n=60, *, measured=True, predicted=True, image=True, seed=0):
    """A lattice of `n` spots.

    ACTA2 is measured but not predicted, CD20 by two antibodies, CD45 predicted alone; CD3E follows
    the measured CD3 and CD3D does not.
    """
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n)))
    places = np.column_stack([np.arange(n) % side, np.arange(n) // side]) * 100.0 + 50.0
    b, t = rng.normal(size=(2, n))
    noise = rng.normal(size=(n, 3))
    rna = rng.poisson(5, (n, len(GENES)))
    rna[:, 0] = rng.poisson(np.exp(b + 1))
    rna[:, 2] = rng.poisson(np.exp(t + 3))
    rna[:, 3] = rng.poisson(np.exp(noise[:, 0] + 2))
    table = ad.AnnData(
        sparse.csr_matrix(rna.astype(np.float32)),
        obs=pd.DataFrame(index=[f"spot{i}" for i in range(n)]),
        var=pd.DataFrame({"feature_types": "Gene Expression"}, index=GENES),
    )
    table.obsm["spatial"] = places
    if measured:
        rates = np.exp(
            np.column_stack([b + 4, t + 4, b + 3, 3 + 0 * b, noise[:, 0] + 4, 2 + 0 * b])
        )
        table.obsm["protein"] = pd.DataFrame(
            rng.poisson(rates), index=table.obs_names, columns=ANTIBODIES
        )
        panel = resolve_panel(ANTIBODIES)
        panel.loc[["CD20_1", "CD20_2"], "canonical"] = "CD20"
        table.uns["protein_panel"] = panel
    if predicted:
        table.obsm["protein_predicted"] = pd.DataFrame(
            {
                "CD19": b + 0.5 * noise[:, 1],
                "CD3": t + 0.5 * noise[:, 2],
                "CD20": b,
                "CD45": noise[:, 1],
            },
            index=table.obs_names,
        ).astype(np.float32)
        table.uns["sclinguist"] = {
            "unit": "SD",
            "trust": {"CD19": "well", "CD3": "fairly", "CD45": "untested"},
            "expected_r": {"CD19": 0.83, "CD3": 0.6},
        }
    pixels = np.full((side * 25, side * 25, 3), 230, np.uint8)
    images = {"hires": SectionImage(pixels, 0.25, "hires")} if image else {}
    return Section(
        name="compared",
        table=table,
        images=images,
        spot_diameter=60.0,
        microns_per_pixel=0.5,
        assay="visium",
    )
