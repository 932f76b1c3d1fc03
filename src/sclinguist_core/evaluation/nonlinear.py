"""Two more learners: a small network on genes, gradient-boosted trees on principal components.

Shapes: n cells, F genes, C principal components, P proteins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sclinguist_core.evaluation.features import Rna
from sclinguist_core.evaluation.metrics import FloatArray
from sclinguist_core.evaluation.solvers import Groups, Predictor

MLP_WIDTH = 256
MLP_EPOCHS = 8
MLP_BATCH = 256
TREES = 50
TREE_CELLS = 5_000


def fit_mlp(parts: Sequence[Rna], targets: Sequence[np.ndarray], seed: int) -> Predictor:
    """Train a small network for all proteins at once; a missing target has no loss.

    Parameters
    ----------
    parts
        RNA of each data set.
    targets
        (n, P) float32 of each data set, NaN = not measured.
    seed
        Of weights, dropout and order.
    """
    import torch
    from torch import nn

    y = np.concatenate(targets)
    weight = np.isfinite(y).astype(np.float32)
    # Cells of a wide panel would drown the others: a cell counts by the root of its proteins.
    weight /= np.sqrt(np.maximum(weight.sum(axis=1, keepdims=True), 1.0))
    y = np.nan_to_num(y)
    owner = np.repeat(np.arange(len(parts)), [part.n for part in parts])
    first = np.concatenate([[0], np.cumsum([part.n for part in parts])])
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(len(parts[0].mean), MLP_WIDTH),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(MLP_WIDTH, MLP_WIDTH),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(MLP_WIDTH, y.shape[1]),
        )
        per_epoch = max(len(y) // MLP_BATCH, 1)
        steps = MLP_EPOCHS * per_epoch
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        net.train()
        for step in range(steps):
            offset = step % per_epoch * MLP_BATCH
            if offset == 0:
                order = rng.permutation(len(y))
            rows = np.sort(order[offset : offset + MLP_BATCH])
            x = np.concatenate(
                [parts[d].rows(rows[owner[rows] == d] - first[d]) for d in np.unique(owner[rows])]
            )
            error = net(torch.from_numpy(x)) - torch.from_numpy(y[rows])
            known = torch.from_numpy(weight[rows])
            loss = (known * error**2).sum() / known.sum().clamp(min=1e-6)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        net.eval()

    def predict(query: Rna) -> FloatArray:
        with torch.inference_mode():
            return np.concatenate(
                [net(torch.from_numpy(z)).numpy() for z in query.chunks()]
            ).astype(np.float64)

    return predict


class BoostedTrees:
    """Gradient-boosted trees, one model a protein, on principal components.

    scikit-learn's histogram-based trees (after LightGBM; Ke et al., NIPS 2017).
    """

    def __init__(
        self, pcs: Sequence[np.ndarray], targets: Sequence[np.ndarray], groups: Groups, seed: int
    ) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        self.n_proteins = targets[0].shape[1]
        self.models: dict[int, HistGradientBoostingRegressor] = {}
        rng = np.random.default_rng(seed)
        for sets, columns in groups:
            x = np.concatenate([pcs[d] for d in sets])
            y = np.concatenate([targets[d][:, columns] for d in sets])
            kept = np.sort(rng.permutation(len(x))[:TREE_CELLS])
            for j, column in enumerate(columns):
                rows = kept[np.isfinite(y[kept, j])]
                if len(rows) == 0:
                    continue
                self.models[int(column)] = HistGradientBoostingRegressor(
                    max_iter=TREES,
                    learning_rate=0.12,
                    max_leaf_nodes=15,
                    l2_regularization=1.0,
                    early_stopping=False,
                    random_state=seed,
                ).fit(x[rows], y[rows, j])

    def __call__(self, pcs: np.ndarray) -> FloatArray:
        """Predict cells by their components, (n, C): (n, P)."""
        out = np.full((len(pcs), self.n_proteins), np.nan)
        for column, model in self.models.items():
            out[:, column] = model.predict(pcs)
        return out
