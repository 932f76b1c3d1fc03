"""Model randomisation: attributions that do not depend on the weights explain nothing.

Weights are drawn anew, part after part from the proteins back to the genes, and the same rows are
explained again; the ranking of the genes must fall apart. (Adebayo et al., NeurIPS 2018.)
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from sclinguist_core.data.section import Section
from sclinguist_core.inference.explain import explain_iter, explainable, sampled
from sclinguist_core.inference.explain_agreement import agreement
from sclinguist_core.inference.explanation import Explanation
from sclinguist_core.inference.progress import Progress
from sclinguist_core.model.checkpoint import Checkpoint

PARTS = ("reading out proteins", "latents, trunk and perceptrons", "reading genes")
"""In the order in which they are drawn anew; each keeps the earlier ones drawn."""
MAX_ROWS = 100
_READOUT = (
    "protein_embedding",
    "protein_bias",
    "cognate_gain",
    "imputed_gain",
    "decoder.",
    "state_heads.weight",
    "state_heads.bias",
    "adapter.",
)
_KEPT = {"state.center", "state.scale", "adapter.center", "adapter.width"}
_MIDDLE = ("latents", "layers.", "trunk", "state_heads.", "log_")


def randomised(checkpoint: Checkpoint, n_parts: int, *, seed: int = 0) -> Checkpoint:
    """Draw the weights of the first `n_parts` of `PARTS` anew, in a copy.

    Every tensor becomes normal noise of its own mean square. What was solved in closed form (the
    loadings of the state, the ridge regression) is drawn anew like the rest; means and standard
    deviations, which describe data, stay.
    """
    import torch

    model = copy.deepcopy(checkpoint.model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if _part(name) < n_parts and name not in _KEPT:
                size = tensor.float().square().mean().sqrt()
                noise = torch.randn(tensor.shape, generator=generator) * size.cpu()
                tensor.copy_(noise)
    return replace(checkpoint, model=model, digest="")


def _part(name: str) -> int:
    if name.startswith(_READOUT) or "query_to_readout" in name:
        return 0
    return 1 if name.startswith(_MIDDLE) else 2


def randomisation_iter(
    section: Section,
    explanation: Explanation,
    *,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> Generator[Progress, None, pd.DataFrame]:
    """Explain with weights drawn anew; yields progress, returns the agreement.

    Parameters
    ----------
    section, explanation
        What was explained, by `model`.
    model, device
        As for the explanation.
    max_rows
        A sample of so many of the explained rows is used.
    seed
        Draws weights and rows.

    Returns
    -------
    DataFrame, a row for each protein and part: ``protein``, ``redrawn`` (the last part that was),
    ``rank_correlation`` and ``jaccard`` with the true model's ranking over the same rows.
    """
    true = explanation.take(sampled(np.arange(len(explanation.rows)), max_rows, seed))
    checkpoint = explainable(model)
    total = len(PARTS) * len(true.rows)
    parts = []
    for i, name in enumerate(PARTS):
        steps = explain_iter(
            section,
            true.names,
            method=true.info["method"],
            rows=true.rows,
            max_rows=None,
            steps=true.info["steps"] or 1,
            model=randomised(checkpoint, i + 1, seed=seed),
            device=device,
        )
        random = yield from _counted(steps, i * len(true.rows), total)
        parts.append(agreement(true, random).reset_index().assign(redrawn=name))
    table = pd.concat(parts, ignore_index=True)
    return table[["protein", "redrawn", "rank_correlation", "jaccard"]]


def _counted(
    steps: Generator[Progress, None, Explanation], before: int, total: int
) -> Generator[Progress, None, Explanation]:
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value
        yield Progress(before + progress.done, total, "explaining with random weights")
