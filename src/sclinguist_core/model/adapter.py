"""What fine-tuning adds to a translator: a correction learnt from a user's own cells.

The correction of a cell is a weighted sum of its likeness to the cells that were fine-tuned on
(kernel ridge regression on the residual of the translator's own prediction, solved in closed form
by `sclinguist_core.train.residual`). A cell unlike all of them gets hardly any correction: far
from the user's data the model falls back to what it said before.

Likeness is seen twice: in the cell trunk, what the model has learnt to look at, and in principal
components of the user's own expression, what it has not. Both are Gaussian kernels.

Shape suffixes as in `sclinguist_core.model.translator`, and N cells that were fine-tuned on,
F components of their expression.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Adapter(nn.Module):
    """Correct the predictions of a translator; without effect until it is filled.

    Parameters
    ----------
    n_cells, n_components
        N and F.
    gene_dim, n_genes, n_proteins
        G, V and P of the translator.

    Attributes
    ----------
    gain, bias
        Factor and offset of the translator's own prediction, shape (P,); 1 and 0 for proteins
        that were not fine-tuned.
    weight
        Weight of the likeness to each cell, shape (N, P).
    trunk, own
        The cells: their trunk (N, G) and their components (N, F).
    basis, center
        Principal axes of expression (V, F), and the mean expression that is subtracted, shape
        (V,). A gene that a cell did not measure counts as this mean.
    width
        Squared widths of the kernels of trunk and components, shape (2,).
    share
        Share of the second kernel in the mixture of both, shape (P,).
    """

    gain: Tensor
    bias: Tensor
    weight: Tensor
    trunk: Tensor
    own: Tensor
    basis: Tensor
    center: Tensor
    width: Tensor
    share: Tensor

    def __init__(
        self, n_cells: int, n_components: int, *, gene_dim: int, n_genes: int, n_proteins: int
    ) -> None:
        super().__init__()
        # Buffers: solved for, not trained by gradients.
        self.register_buffer("gain", torch.ones(n_proteins))
        self.register_buffer("bias", torch.zeros(n_proteins))
        self.register_buffer("weight", torch.zeros(n_cells, n_proteins))
        self.register_buffer("trunk", torch.zeros(n_cells, gene_dim))
        self.register_buffer("own", torch.zeros(n_cells, n_components))
        self.register_buffer("basis", torch.zeros(n_genes, n_components))
        self.register_buffer("center", torch.zeros(n_genes))
        self.register_buffer("width", torch.ones(2))
        self.register_buffer("share", torch.zeros(n_proteins))

    def unexpressed(self, measured_KV: Tensor) -> Tensor:
        """Components of cells that measured these genes and express none, shape (K, F)."""
        return -(measured_KV.to(self.center.dtype) * self.center) @ self.basis

    def hidden(self, genes_BQ: Tensor) -> Tensor:
        """Components to add when genes (-1 where padded) count as not measured, shape (B, F)."""
        index_BQ = genes_BQ.clamp(min=0)
        weight_BQ = self.center[index_BQ].masked_fill(genes_BQ < 0, 0.0)
        return F.embedding_bag(index_BQ, self.basis, per_sample_weights=weight_BQ, mode="sum")

    def components(self, genes_BT: Tensor, x_BT: Tensor, unexpressed_BF: Tensor) -> Tensor:
        """Components of each cell's expression, shape (B, F); tokens as in the translator."""
        read_BF = F.embedding_bag(
            genes_BT.clamp(min=0),
            self.basis,
            per_sample_weights=x_BT.masked_fill(genes_BT < 0, 0.0),
            mode="sum",
        )
        return read_BF + unexpressed_BF

    def forward(
        self, mean_BP: Tensor, trunk_BG: Tensor, own_BF: Tensor, proteins: Tensor | None = None
    ) -> Tensor:
        """Return the corrected mean, shape (B, P); `proteins` are those that `mean_BP` holds."""
        gain_P, bias_P, share_P, weight_NP = self.gain, self.bias, self.share, self.weight
        if proteins is not None:
            gain_P, bias_P, share_P = gain_P[proteins], bias_P[proteins], share_P[proteins]
            weight_NP = weight_NP[:, proteins]
        in_trunk_BN = torch.exp(-_squared_distance(trunk_BG, self.trunk) / self.width[0])
        in_own_BN = torch.exp(-_squared_distance(own_BF, self.own) / self.width[1])
        added_BP = in_trunk_BN @ (weight_NP * (1 - share_P)) + in_own_BN @ (weight_NP * share_P)
        return gain_P * mean_BP + bias_P + added_BP


def _squared_distance(a_BG: Tensor, b_NG: Tensor) -> Tensor:
    """Squared Euclidean distances, shape (B, N)."""
    squares = (a_BG * a_BG).sum(1)[:, None] + (b_NG * b_NG).sum(1)
    return (squares - 2 * a_BG @ b_NG.T).clamp(min=0)
