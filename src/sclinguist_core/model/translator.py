"""The translator: a set-transformer from expressed genes to proteins.

A cell is the set of its expressed, measured genes. It is read twice:

1. *Linear read.* Standardised expression times a gene embedding, summed. Unexpressed genes enter
   with the (negative) standardised value of zero, unmeasured genes with nothing at all. As zeros
   contribute the same for every cell of a panel, their sum is computed once per panel
   (`Panels`), so that the read costs only the expressed genes.
2. *Attentive read.* Latents, set up from the linear read, attend to the tokens of the expressed
   genes. Keys and values of a gene are computed once per model, not once per cell: a token is a
   gene part plus a value part, and only the value part depends on the cell.

The latents attend to each other, then one query per protein (a learned id plus the embeddings of
its coding genes) attends to the latents and gives a mean and a standard deviation. Beside it the
expression of a protein's own genes has a direct, learned weight: where the cells are foreign, the
cognate mRNA is the best that is left.

Shape suffixes: B cells, K panels, T tokens, V genes, C coding genes, G gene_dim, L latents,
D width, P proteins, H heads, E width of a head, F value features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.layers import (
    FeedForward,
    SelfAttention,
    attention,
    merge_heads,
    split_heads,
)

MIN_STD = 0.05
COGNATE_GAIN = 0.2
"""Weight of the cognate mRNA before training."""
_VALUE_RANGE = 6.0  # log1p CP10k rarely exceeds it; soft bins span 0 to this


@dataclass(frozen=True, slots=True)
class Translation:
    """What the translator says about B cells.

    Attributes
    ----------
    mean
        Predicted abundance in standard deviations of the training reference, shape (B, P).
    std
        Predicted standard deviation of the error, same unit, shape (B, P).
    cell
        Cell embedding, shape (B, D).
    """

    mean: Tensor
    std: Tensor
    cell: Tensor


@dataclass(frozen=True, slots=True)
class Tables:
    """What depends on the model alone, not on a cell: computed once and reused.

    Attributes
    ----------
    gene_key_value
        Key and value of every gene, shape (V, 2 D).
    zero
        Standardised value of an unexpressed gene, shape (V,).
    query
        Query of every protein, shape (P, D).
    """

    gene_key_value: Tensor
    zero: Tensor
    query: Tensor


@dataclass(frozen=True, slots=True)
class Panels:
    """What cells share that measured the same genes: the read of a cell that expresses nothing.

    Attributes
    ----------
    read
        Linear read, shape (K, G).
    coding
        Standardised expression of the coding genes, 0 where not measured, shape (K, C).
    """

    read: Tensor
    coding: Tensor

    def of(self, pattern_B: Tensor) -> Panels:
        """Panel of each cell: shapes (B, G) and (B, C)."""
        return Panels(self.read[pattern_B], self.coding[pattern_B])


class ValueFeatures(nn.Module):
    """Soft bins of a value: a small basis in which effects of expression are linear."""

    centers: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        centers = torch.linspace(0.0, _VALUE_RANGE, n_features)
        self.register_buffer("centers", centers, persistent=False)
        self.width = _VALUE_RANGE / max(n_features - 1, 1)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Shape (B, T) -> (B, T, F); each token's features sum to about one."""
        return F.relu(
            1.0 - (x_BT.clamp(max=_VALUE_RANGE)[..., None] - self.centers).abs() / self.width
        )


class TokenReader(nn.Module):
    """Latents attend to the tokens of a cell's expressed genes."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.gene_norm = nn.LayerNorm(config.gene_dim)
        self.gene_to_key_value = nn.Linear(config.gene_dim, 2 * config.width)
        self.features = ValueFeatures(config.value_dim)
        self.value_to_key_value = nn.Linear(config.value_dim, 2 * config.width, bias=False)
        self.value_gain = nn.Linear(config.value_dim, 1)
        self.query_norm = nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.feed_forward = FeedForward(config.width, dropout=config.dropout)

    def gene_table(self, embedding_VG: Tensor) -> Tensor:
        """Key and value of every gene, before its expression is known, shape (V, 2 D)."""
        return self.gene_to_key_value(self.gene_norm(embedding_VG))

    def forward(
        self, latents_BLD: Tensor, table_V2D: Tensor, genes_BT: Tensor, x_BT: Tensor
    ) -> Tensor:
        """Return updated latents (B, L, D); tokens with a negative gene index are padding."""
        seen_BT = genes_BT >= 0
        features_BTF = self.features(x_BT)
        gene_BT2D = F.embedding(genes_BT.clamp(min=0), table_V2D)
        token_BT2D = gene_BT2D * (1.0 + self.value_gain(features_BTF)) + self.value_to_key_value(
            features_BTF
        )
        k, v = (split_heads(part, self.n_heads) for part in token_BT2D.chunk(2, dim=-1))
        q = split_heads(self.query(self.query_norm(latents_BLD)), self.n_heads)
        read = attention(q, k, v, seen_BT[:, None, None, :].expand(-1, -1, q.shape[2], -1))
        return self.feed_forward(latents_BLD + self.out(merge_heads(read)))


class ProteinDecoder(nn.Module):
    """One query per protein reads the latents; beside it a bilinear path from the cell."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.gene_to_query = nn.Linear(config.gene_dim, config.width)
        self.query = nn.Linear(config.width, config.width)
        self.latent_norm = nn.LayerNorm(config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.feed_forward = FeedForward(config.width, dropout=config.dropout)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, 2)
        self.query_to_readout = nn.Linear(config.width, config.gene_dim)

    def forward(self, query_PD: Tensor, latents_BLD: Tensor, trunk_BG: Tensor) -> Tensor:
        """Return the mean and the raw scale of each protein, shape (B, P, 2)."""
        b = latents_BLD.shape[0]
        q = split_heads(self.query(query_PD)[None], self.n_heads).expand(b, -1, -1, -1)
        k, v = (
            split_heads(part, self.n_heads)
            for part in self.key_value(self.latent_norm(latents_BLD)).chunk(2, dim=-1)
        )
        x_BPD = query_PD + self.out(merge_heads(attention(q, k, v)))
        raw_BP2 = self.head(self.norm(self.feed_forward(x_BPD)))
        bilinear_BP = trunk_BG @ self.query_to_readout(query_PD).T / trunk_BG.shape[1] ** 0.5
        return raw_BP2 + F.pad(bilinear_BP[..., None], (0, 1))


class Translator(nn.Module):
    """Predict protein abundance from the expressed genes of a cell.

    Parameters
    ----------
    config
        Sizes.
    n_genes, n_proteins
        V and P.
    protein_genes
        Share of each gene in each protein's query, shape (P, V), sparse COO or dense; rows sum to
        1, or to 0 for proteins without a coding gene (glycans).
    """

    gene_mean: Tensor
    gene_std: Tensor
    protein_genes: Tensor
    coding_genes: Tensor
    coding_column: Tensor
    protein_coding: Tensor

    def __init__(
        self, config: TranslatorConfig, n_genes: int, n_proteins: int, protein_genes: Tensor
    ) -> None:
        super().__init__()
        self.config = config
        self.gene_embedding = nn.Parameter(torch.randn(n_genes, config.gene_dim) / n_genes**0.5)
        self.protein_embedding = nn.Parameter(0.5 * torch.randn(n_proteins, config.width))
        self.protein_bias = nn.Parameter(torch.zeros(n_proteins))
        # From genes.tsv, not from the weights: half precision is too coarse for them.
        self.register_buffer("gene_mean", torch.zeros(n_genes), persistent=False)
        self.register_buffer("gene_std", torch.ones(n_genes), persistent=False)
        protein_genes = protein_genes.to_sparse_coo().coalesce()
        self.register_buffer("protein_genes", protein_genes, persistent=False)
        coding_genes = protein_genes.indices()[1].unique()
        self.register_buffer("coding_genes", coding_genes, persistent=False)
        # Genes that code for no protein share a last column, which nobody reads.
        column = torch.full((n_genes,), len(coding_genes))
        column[coding_genes] = torch.arange(len(coding_genes))
        self.register_buffer("coding_column", column, persistent=False)
        protein_coding = protein_genes.index_select(1, coding_genes).to_dense()
        self.register_buffer("protein_coding", protein_coding, persistent=False)
        self.cognate_gain = nn.Parameter(torch.full((n_proteins,), COGNATE_GAIN))
        self.read_norm = nn.LayerNorm(config.gene_dim)
        self.read_bias = nn.Parameter(torch.zeros(config.gene_dim))
        self.trunk = nn.ModuleList(
            FeedForward(config.gene_dim, expansion=1, dropout=config.dropout) for _ in range(2)
        )
        self.trunk_norm = nn.LayerNorm(config.gene_dim)
        self.trunk_dropout = nn.Dropout(config.dropout)
        self.latents = nn.Parameter(0.5 * torch.randn(config.n_latents, config.width))
        self.trunk_to_latents = nn.Linear(config.gene_dim, config.n_latents * config.width)
        self.reader = TokenReader(config)
        self.layers = nn.ModuleList(
            SelfAttention(config.width, config.n_heads, dropout=config.dropout)
            for _ in range(config.n_layers)
        )
        self.decoder = ProteinDecoder(config)

    @property
    def n_genes(self) -> int:
        """V, the genes that the model knows."""
        return self.gene_embedding.shape[0]

    @property
    def n_proteins(self) -> int:
        """P, the proteins that the model knows."""
        return self.protein_embedding.shape[0]

    def tables(self) -> Tables:
        """Compute what all cells share; recompute it after the weights have changed."""
        genes_PG = torch.sparse.mm(self.protein_genes, self.reader.gene_norm(self.gene_embedding))
        clip = self.config.clip
        return Tables(
            gene_key_value=self.reader.gene_table(self.gene_embedding),
            zero=(-self.gene_mean / self.gene_std).clamp(-clip, clip),
            query=self.protein_embedding + self.decoder.gene_to_query(genes_PG),
        )

    def panels(self, measured_KV: Tensor, tables: Tables) -> Panels:
        """Read cells that express nothing, one for each set of measured genes."""
        zero_KV = measured_KV.to(tables.zero.dtype) * tables.zero
        return Panels(read=zero_KV @ self.gene_embedding, coding=zero_KV[:, self.coding_genes])

    def linear_read(
        self, genes_BT: Tensor, x_BT: Tensor, panel: Panels, tables: Tables
    ) -> tuple[Tensor, Tensor]:
        """Standardise expression and sum it up.

        Returns the product with the gene embeddings, shape (B, G), and the standardised
        expression of the coding genes, shape (B, C).
        """
        index_BT = genes_BT.clamp(min=0)
        z_BT = (x_BT - self.gene_mean[index_BT]) / self.gene_std[index_BT]
        z_BT = z_BT.clamp(-self.config.clip, self.config.clip) - tables.zero[index_BT]
        z_BT = z_BT.masked_fill(genes_BT < 0, 0.0)
        read_BG = F.embedding_bag(
            index_BT, self.gene_embedding, per_sample_weights=z_BT, mode="sum"
        )
        coding_BC = F.pad(panel.coding, (0, 1)).scatter_add(1, self.coding_column[index_BT], z_BT)
        return read_BG + panel.read, coding_BC[:, :-1]

    def forward(
        self,
        genes_BT: Tensor,
        x_BT: Tensor,
        panel: Panels,
        tables: Tables,
        proteins: Tensor | None = None,
        *,
        attended: tuple[Tensor, Tensor] | None = None,
    ) -> Translation:
        """Translate B cells.

        Parameters
        ----------
        genes_BT
            Gene indices of the expressed genes, int64, -1 where padded.
        x_BT
            Their normalised expression (``log1p`` CP10k over measured genes), float.
        panel
            `panels` of what each cell measured, one row a cell (`Panels.of`).
        tables
            `tables` of this model.
        proteins
            Indices of the proteins to predict; all by default.
        attended
            Tokens for the attentive read when they differ from those of the linear read (a
            random subset in training).
        """
        read_BG, coding_BC = self.linear_read(genes_BT, x_BT, panel, tables)
        trunk_BG = self.trunk_dropout(F.gelu(self.read_norm(read_BG + self.read_bias)))
        for block in self.trunk:
            trunk_BG = block(trunk_BG)
        trunk_BG = self.trunk_norm(trunk_BG)
        b = trunk_BG.shape[0]
        latents_BLD = self.latents + self.trunk_to_latents(trunk_BG).view(
            b, self.config.n_latents, self.config.width
        )
        token_genes, token_x = (genes_BT, x_BT) if attended is None else attended
        latents_BLD = self.reader(latents_BLD, tables.gene_key_value, token_genes, token_x)
        for layer in self.layers:
            latents_BLD = layer(latents_BLD)
        query_PD: Tensor = tables.query
        cognate_PC = self.cognate_gain[:, None] * self.protein_coding
        bias_P: Tensor = self.protein_bias
        if proteins is not None:
            query_PD, bias_P = query_PD[proteins], bias_P[proteins]
            cognate_PC = cognate_PC[proteins]
        raw_BP2 = self.decoder(query_PD, latents_BLD, trunk_BG)
        mean_BP = raw_BP2[..., 0] + coding_BC @ cognate_PC.T + bias_P
        std_BP = F.softplus(raw_BP2[..., 1]) + MIN_STD
        return Translation(mean_BP, std_BP, latents_BLD.mean(dim=1))
