"""Where a cell lies, whatever genes were measured.

Expression has few directions: some tens of components explain what cells of a tissue differ in.
The *state* of a cell is its least-squares position on such components over the genes that were
measured in it - not their product with what was measured, which shrinks with every gene that a
panel lacks. From the state every gene can be *imputed*, its own mRNA among them: the mean of many
genes is a better witness of a protein than a handful of its own transcripts.

A small panel tells little, and a least-squares position from little is mostly noise. So what the
panel lacks is made up by what is known of cells: the position is drawn to where they usually lie,
by as much as the panel's *share* of all that the genes tell falls short of 1. In training it is
not: a network that has learned from noisy positions reads quiet ones well, and the other way round
it does not.

Components, their use for each protein (a ridge regression) and the place where cells usually lie
are solved for in closed form (`sclinguist_core.train.components`); beside the regression a
perceptron on the state is trained by gradients.

Shape suffixes as in `sclinguist_core.model.translator`, and R components, J panels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.layers import FeedForward

RIDGE = 0.05
"""Added to the diagonal when the state is solved for; loadings of all genes have squares of 1 to 5
together, so it matters only where few genes were measured."""


class CellState(nn.Module):
    """Low-rank model of standardised expression.

    Parameters
    ----------
    n_genes, n_components
        V and R.

    Attributes
    ----------
    loadings
        Weight of each component in each gene, shape (V, R).
    center, scale
        Mean and spread of the training cells' states, shape (R,).
    """

    loadings: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, n_genes: int, n_components: int) -> None:
        super().__init__()
        # Buffers: solved for, not trained by gradients.
        self.register_buffer("loadings", torch.zeros(n_genes, n_components))
        self.register_buffer("center", torch.zeros(n_components))
        self.register_buffer("scale", torch.ones(n_components))

    def gram(self, measured_JV: Tensor) -> Tensor:
        """Products of the components over measured genes, float32, shape (J, R, R)."""
        with torch.autocast(self.loadings.device.type, enabled=False):
            loadings_VR = self.loadings.float()
            return torch.stack(
                [loadings_VR[measured_V].T @ loadings_VR[measured_V] for measured_V in measured_JV]
            )

    def gram_of(self, genes_BQ: Tensor) -> Tensor:
        """Products over some genes of each cell (-1 where padded), shape (B, R, R)."""
        with torch.autocast(self.loadings.device.type, enabled=False):
            seen_BQ1 = (genes_BQ >= 0).unsqueeze(-1)
            loadings_BQR = F.embedding(genes_BQ.clamp(min=0), self.loadings.float()) * seen_BQ1
            return loadings_BQR.transpose(1, 2) @ loadings_BQR

    def read(self, index_BT: Tensor, z_BT: Tensor) -> Tensor:
        """Sum of loadings times standardised expression, float32, shape (B, R)."""
        with torch.autocast(self.loadings.device.type, enabled=False):
            return F.embedding_bag(
                index_BT, self.loadings.float(), per_sample_weights=z_BT.float(), mode="sum"
            )

    def told(self) -> Tensor:
        """Return what all genes tell: the sum of squared loadings, float32, shape ()."""
        return self.loadings.float().square().sum().clamp(min=1e-12)

    def share(self, gram: Tensor, told: Tensor) -> Tensor:
        """Share of what all genes tell that the measured ones do, 0 to 1, shape () or (B,).

        Parameters
        ----------
        gram
            `gram` of the measured genes, (R, R) for all cells or (B, R, R).
        told
            `told` of this state.
        """
        return (gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / told).clamp(0.0, 1.0)

    def solve(self, read_BR: Tensor, gram: Tensor, prior: Tensor) -> Tensor:
        """State of each cell, shape (B, R).

        Parameters
        ----------
        read_BR
            `read` of the cells, less that of unexpressed genes.
        gram
            `gram` of the measured genes, (R, R) for all cells or (B, R, R).
        prior
            How much it counts where cells usually lie, shape () or (B,): at 1 as much as a gene's
            own noise of one standard deviation asks for.
        """
        with torch.autocast(self.loadings.device.type, enabled=False):
            drawn = prior.float()[..., None] / self.scale**2  # (R,) or (B, R)
            ridged = gram + RIDGE * torch.eye(gram.shape[-1], device=gram.device)
            ridged = ridged + torch.diag_embed(drawn)
            read_BR = read_BR.float() + drawn * self.center
            if gram.ndim == 2:
                return torch.linalg.solve(ridged, read_BR.T).T
            return torch.linalg.solve(ridged, read_BR)

    def standardise(self, state_BR: Tensor) -> Tensor:
        """State in units of the training cells' spread, shape (B, R)."""
        return (state_BR - self.center) / self.scale


class Perceptron(nn.Module):
    """Proteins from the standardised state, read by protein queries."""

    def __init__(self, n_components: int, *, width: int, gene_dim: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(n_components, gene_dim)
        self.up_norm = nn.LayerNorm(gene_dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            FeedForward(gene_dim, expansion=1, dropout=dropout) for _ in range(2)
        )
        self.norm = nn.LayerNorm(gene_dim)
        self.query_to_readout = nn.Linear(width, gene_dim)

    def forward(self, state_BR: Tensor, query_PD: Tensor) -> Tensor:
        """Return the prediction, shape (B, P)."""
        x_BG = self.dropout(F.gelu(self.up_norm(self.up(state_BR))))
        for block in self.blocks:
            x_BG = block(x_BG)
        x_BG = self.norm(x_BG)
        return x_BG @ self.query_to_readout(query_PD).T / x_BG.shape[1] ** 0.5


class StateHeads(nn.Module):
    """Predictions from the state: a ridge regression, and perceptrons that start differently.

    Parameters
    ----------
    n_perceptrons
        How many; they differ in their starting weights and in their dropout alone, yet their mean
        is better than each.
    n_components, n_proteins
        R and P.
    width, gene_dim
        Width of the protein queries, and of the perceptrons.
    dropout
        In the perceptrons.

    Attributes
    ----------
    weight, bias
        The regression on the standardised state, shapes (P, R) and (P,); solved for.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        n_perceptrons: int,
        n_components: int,
        n_proteins: int,
        *,
        width: int,
        gene_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_proteins, n_components))
        self.register_buffer("bias", torch.zeros(n_proteins))
        self.perceptrons = nn.ModuleList(
            Perceptron(n_components, width=width, gene_dim=gene_dim, dropout=dropout)
            for _ in range(n_perceptrons)
        )

    @classmethod
    def of(cls, config: TranslatorConfig, n_proteins: int) -> StateHeads:
        """Heads of the sizes that a translator's configuration says."""
        return cls(
            config.n_perceptrons,
            config.n_components,
            n_proteins,
            width=config.width,
            gene_dim=config.gene_dim,
            dropout=config.dropout,
        )

    def forward(
        self, state_BR: Tensor, query_PD: Tensor, bias_P: Tensor, proteins: Tensor | None
    ) -> list[Tensor]:
        """Return one prediction of each head, shapes (B, P).

        Parameters
        ----------
        state_BR
            Standardised state.
        query_PD, bias_P
            Query and offset of each protein asked for.
        proteins
            Their indices; all by default.
        """
        weight_PR, of_regression_P = self.weight, self.bias
        if proteins is not None:
            weight_PR, of_regression_P = weight_PR[proteins], of_regression_P[proteins]
        heads = [perceptron(state_BR, query_PD) + bias_P for perceptron in self.perceptrons]
        return [*heads, F.linear(state_BR, weight_PR, of_regression_P)]
