"""The published scLinguist architecture, graph for graph.

A cell is the sequence of its genes in a fixed order, one number each. A value becomes a vector by
one linear map (there is no gene embedding: position is what tells genes apart), a Hyena block mixes
along the genes, a perceptron *over the gene axis* turns 19,202 gene positions into 6,427 protein
positions, a second Hyena block mixes along the proteins, and a linear map reads one number each.
284.8 of the 285.3 million weights, and 73 of the 85 GFLOP of a cell, are in the perceptron.

Given the same weights it agrees with the published code within float32 rounding. How it is made
faster: see `hyena_layers`; besides, since convolutions look only back, a subset of proteins needs
the decoder (and the last layer of the perceptron) only up to the last of them.

Shape suffixes: B cells, G genes, P proteins, K chosen proteins, N positions up to the last chosen
one, D width, C = 3 D channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.model.hyena_layers import HyenaBlock, HyenaStack, Spectrum


@dataclass(frozen=True, slots=True)
class HyenaTables:
    """What depends on weights and on the chosen proteins, not on a cell: computed once, reused.

    Attributes
    ----------
    encoder, decoder
        Spectra of the long filters, one a block.
    proteins
        Positions of the chosen proteins, int64, shape (K,); None for all.
    n_positions
        N: protein positions that have to be computed for them.
    """

    encoder: tuple[Spectrum, ...]
    decoder: tuple[Spectrum, ...]
    proteins: Tensor | None
    n_positions: int


class HyenaEncoder(nn.Module):
    """Values of genes to vectors of genes."""

    def __init__(self, config: HyenaConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(1, config.width)
        self.stack = HyenaStack(config, config.n_genes)

    def forward(self, x_BG: Tensor, spectra: tuple[Spectrum, ...]) -> Tensor:
        """Shape (B, G, D)."""
        block = cast(HyenaBlock, self.stack.blocks[0])
        streams_BCG = block.operator.streams_of_values(x_BG, self.embed, block.norm)
        return self.stack(self.embed(x_BG[..., None]), spectra, first_streams=streams_BCG)


class Bridge(nn.Module):
    """Perceptron over the gene axis: gene positions to protein positions, channel by channel."""

    def __init__(self, config: HyenaConfig) -> None:
        super().__init__()
        sizes = config.bridge_sizes
        self.layers = nn.ModuleList(nn.Linear(*of_layer) for of_layer in pairwise(sizes))
        self.dropout = nn.Dropout(config.bridge_dropout)

    def forward(self, x_BGD: Tensor, n_positions: int | None = None) -> Tensor:
        """First `n_positions` protein positions (all by default), shape (B, N, D)."""
        n_cells, n_genes, width = x_BGD.shape
        # Axis first, cells and channels together: one product of two matrices a layer.
        x = x_BGD.transpose(0, 1).reshape(n_genes, n_cells * width)
        *hidden, last = cast(list[nn.Linear], list(self.layers))
        for layer in hidden:
            x = torch.addmm(layer.bias[:, None], layer.weight, x)
            x = self.dropout(x).relu()
        x = torch.addmm(last.bias[:n_positions, None], last.weight[:n_positions], x)
        return x.view(-1, n_cells, width).transpose(0, 1)


class HyenaDecoder(nn.Module):
    """Vectors of proteins to values of proteins."""

    def __init__(self, config: HyenaConfig) -> None:
        super().__init__()
        # Used when the decoder is trained on proteins alone; a translation does not pass it.
        self.embed = nn.Linear(1, config.width)
        self.stack = HyenaStack(config, config.n_proteins)
        self.out = nn.Linear(config.width, 1)

    def forward(
        self, x_BND: Tensor, spectra: tuple[Spectrum, ...], proteins: Tensor | None = None
    ) -> Tensor:
        """Shape (B, P), or (B, K) for chosen proteins."""
        return self.out(self.stack(x_BND, spectra, keep=proteins)).squeeze(-1)


class HyenaTranslator(nn.Module):
    """Predict protein abundance from a cell's expression, as the published scLinguist does.

    Parameters
    ----------
    config
        Sizes; the defaults are the published ones (285 million weights, 1.1 GB in float32). Parts
        that it leaves out are not there, and a network without all of them predicts nothing.
    """

    encoder: HyenaEncoder
    bridge: Bridge
    decoder: HyenaDecoder

    def __init__(self, config: HyenaConfig) -> None:
        super().__init__()
        self.config = config
        if "encoder" in config.parts:
            self.encoder = HyenaEncoder(config)
        if "bridge" in config.parts:
            self.bridge = Bridge(config)
        if "decoder" in config.parts:
            self.decoder = HyenaDecoder(config)

    def tables(self, proteins: Tensor | None = None) -> HyenaTables:
        """Compute what all cells share; compute it anew after the weights have changed.

        Parameters
        ----------
        proteins
            Positions of the proteins to predict, int64, shape (K,); all by default.
        """
        n_positions = self.config.n_proteins if proteins is None else int(proteins.max()) + 1
        return HyenaTables(
            encoder=self.encoder.stack.spectra(),
            decoder=self.decoder.stack.spectra(n_positions),
            proteins=proteins,
            n_positions=n_positions,
        )

    def forward(self, x_BG: Tensor, tables: HyenaTables | None = None) -> Tensor:
        """Predict the proteins of B cells.

        Parameters
        ----------
        x_BG
            ``log1p`` CP10k of the genes in the model's order, float32; genes that were not
            measured are 0, as in the published training (it knows no missing gene).
        tables
            `tables` of the current weights, computed here when None (training needs that).

        Returns
        -------
        Abundance (per-cell min-max scale), shape (B, P), or (B, K) for chosen proteins.
        """
        if tables is None:
            tables = self.tables()
        encoded_BGD = self.encoder(x_BG, tables.encoder)
        bridged_BND = self.bridge(encoded_BGD, tables.n_positions)
        return self.decoder(bridged_BND, tables.decoder, tables.proteins)
