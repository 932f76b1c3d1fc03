"""The translator: a set-transformer from expressed genes to proteins.

A cell is the set of its expressed, measured genes. It is read three times:

1. *State.* The least-squares position on a few tens of components of expression, over the genes
   that were measured (`sclinguist_core.model.state`).
2. *Linear read.* Standardised expression times a gene embedding, summed. Unexpressed genes enter
   with the (negative) standardised value of zero, unmeasured genes with nothing at all. As zeros
   contribute the same for every cell of a panel, their sum is computed once per panel
   (`Panels`), so that the read costs only the expressed genes.
3. *Attentive read.* Latents, set up from the linear read, attend to the tokens of the expressed
   genes. Keys and values of a gene are computed once per model, not once per cell: a token is a
   gene part plus a value part, and only the value part depends on the cell.

The latents attend to each other, then one query per protein (a learned id plus the embeddings of
its coding genes) attends to the latents and gives a mean and a standard deviation. That is one
head of several; the others are perceptrons and a ridge regression on the state. Each is trained on
its own and their mean is the prediction: they err differently. To all is added what the protein's
own genes say, as measured and as imputed from the state: where cells or antibody are new, the
cognate mRNA is the best that is left.

Two optional parts serve pretraining on one modality alone (`TranslatorConfig.gene_output` and
`protein_input`): genes are decoded by queries of their own through the same decoder, and measured
proteins are read as tokens by the same latents. A third one, `adapter`, is what fine-tuning
learns from a user's own cells (`TranslatorConfig.adapter_cells`).

Shape suffixes: B cells, K panels, T tokens, V genes, C coding genes, G gene_dim, L latents,
D width, P proteins, R components of the state, Q queries (or hidden genes) of a cell, H heads,
E width of a head, F value features, N levels or heads of the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sclinguist_core.model.adapter import Adapter
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.decoder import ProteinDecoder
from sclinguist_core.model.layers import FeedForward, SelfAttention
from sclinguist_core.model.readers import ProteinReader, TokenReader
from sclinguist_core.model.state import CellState, StateHeads

MIN_STD = 0.05
COGNATE_GAIN = 0.2
"""Weight of the cognate mRNA before training."""


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
    trunk
        Cell trunk, shape (B, G): what the protein queries and fine-tuning read.
    heads
        The predictions that `mean` is the mean of (before an adapter), shape (N, B, P). The first,
        which reads gene by gene, counts by the share of all genes' information that was measured.
    log_heads
        Predictions of standardised ``log1p`` counts, shape (N, B, P); N is 0 where they were not
        asked for, or the network does not make them.
    """

    mean: Tensor
    std: Tensor
    cell: Tensor
    trunk: Tensor
    heads: Tensor
    log_heads: Tensor

    @property
    def log1p(self) -> Tensor:
        """Standardised ``log1p`` counts, shape (B, P); NaN without `log_heads`."""
        return self.log_heads.mean(dim=0)


@dataclass(frozen=True, slots=True)
class Tables:
    """What depends on the model alone, not on a cell: computed once and reused.

    Attributes
    ----------
    token
        Key and value of every gene, and of every value feature, shape (V + F, 2 D).
    scale
        What standardises a gene's expression, shape (V, 4): factor, offset, the standardised
        value of an unexpressed gene, and the gene's weight in the linear read.
    query
        Query of every protein, shape (P, D).
    imputed
        Weight of the state's components in the mean expression of each protein's genes, shape
        (P, R); R is 0 without a state.
    told
        What all genes tell of the state (`CellState.told`), shape ().
    """

    token: Tensor
    scale: Tensor
    query: Tensor
    imputed: Tensor
    told: Tensor

    @property
    def zero(self) -> Tensor:
        """Standardised value of an unexpressed gene, shape (V,)."""
        return self.scale[:, 2]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the translator has read of B cells.

    Attributes
    ----------
    trunk
        Cell trunk, shape (B, G).
    latents
        Cell latents, shape (B, L, D).
    coding
        Standardised expression of the coding genes, shape (B, C).
    state
        Position on the components, shape (B, R).
    share
        Share of what all genes tell that the measured ones do, shape () or (B,).
    """

    trunk: Tensor
    latents: Tensor
    coding: Tensor
    state: Tensor
    share: Tensor


@dataclass(frozen=True, slots=True)
class Panels:
    """What cells share that measured the same genes: the read of a cell that expresses nothing.

    Attributes
    ----------
    read
        Linear read, shape (K, G).
    coding
        Standardised expression of the coding genes, 0 where not measured, shape (K, C).
    own
        Components that the adapter reads, shape (K, F); F is 0 without an adapter.
    state
        What the state is solved from, shape (K, R); R is 0 without a state.
    gram
        Products of the state's components over measured genes, shape (K, R, R); (R, R) in panels
        of cells that all measured the same.
    """

    read: Tensor
    coding: Tensor
    own: Tensor
    state: Tensor
    gram: Tensor

    def of(self, pattern_B: Tensor) -> Panels:
        """Panel of each cell: B rows instead of K."""
        return Panels(
            self.read[pattern_B],
            self.coding[pattern_B],
            self.own[pattern_B],
            self.state[pattern_B],
            self.gram[0] if len(self.gram) == 1 else self.gram[pattern_B],
        )


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
    gene_weight: Tensor
    protein_gene_index: Tensor
    protein_gene_share: Tensor
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
        # Of the linear read: genes that hardly vary teach it noise.
        self.register_buffer("gene_weight", torch.ones(n_genes), persistent=False)
        protein_genes = protein_genes.to_sparse_coo().coalesce()
        # As two dense buffers: processes that train together cannot exchange sparse ones.
        self.register_buffer("protein_gene_index", protein_genes.indices(), persistent=False)
        self.register_buffer("protein_gene_share", protein_genes.values(), persistent=False)
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
        self.state: CellState | None = None
        if config.n_components:
            self.state = CellState(n_genes, config.n_components)
            self.state_heads = StateHeads.of(config, n_proteins)
            self.imputed_gain = nn.Parameter(torch.full((n_proteins,), COGNATE_GAIN))
        if config.log_output:
            self.log_heads = StateHeads.of(config, n_proteins)
            self.log_bias = nn.Parameter(torch.zeros(n_proteins))
        if config.protein_input:
            self.protein_reader = ProteinReader(config)
        self.adapter: Adapter | None = None
        if config.adapter_cells:
            self.adapter = Adapter(
                config.adapter_cells,
                config.adapter_components,
                gene_dim=config.gene_dim,
                n_genes=n_genes,
                n_proteins=n_proteins,
            )

    @property
    def protein_genes(self) -> Tensor:
        """Share of each gene in each protein's query, sparse COO, shape (P, V)."""
        return torch.sparse_coo_tensor(
            self.protein_gene_index,
            self.protein_gene_share,
            (self.n_proteins, self.n_genes),
            is_coalesced=True,
            check_invariants=False,
        )

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
        offset_V = -self.gene_mean / self.gene_std
        zero_V = offset_V.clamp(-self.config.clip, self.config.clip)
        return Tables(
            token=self.reader.table(self.gene_embedding),
            scale=torch.stack([1.0 / self.gene_std, offset_V, zero_V, self.gene_weight], dim=1),
            query=self.protein_embedding + self.decoder.gene_to_query(genes_PG),
            imputed=(
                self.protein_embedding.new_zeros(self.n_proteins, 0)
                if self.state is None
                else self.protein_coding @ self.state.loadings[self.coding_genes]
            ),
            told=offset_V.new_zeros(()) if self.state is None else self.state.told(),
        )

    def panels(self, measured_KV: Tensor, tables: Tables) -> Panels:
        """Read cells that express nothing, one for each set of measured genes."""
        zero_KV = measured_KV.to(tables.zero.dtype) * tables.zero
        none = zero_KV.new_zeros(len(zero_KV), 0)
        return Panels(
            read=(zero_KV * self.gene_weight) @ self.gene_embedding,
            coding=zero_KV[:, self.coding_genes],
            own=none if self.adapter is None else self.adapter.unexpressed(measured_KV),
            state=none if self.state is None else zero_KV @ self.state.loadings,
            gram=none[..., None] if self.state is None else self.state.gram(measured_KV),
        )

    def hide(self, panel: Panels, genes_BQ: Tensor, tables: Tables) -> Panels:
        """Count some measured genes of each cell as not measured.

        Parameters
        ----------
        panel
            Panel of each cell, one row a cell.
        genes_BQ
            Genes to hide, each at most once a cell and measured there; -1 where padded. They must
            not be among the cell's tokens either.
        tables
            `tables` of this model.
        """
        index_BQ = genes_BQ.clamp(min=0)
        zero_BQ = tables.zero[index_BQ].masked_fill(genes_BQ < 0, 0.0)
        read_BG = F.embedding_bag(
            index_BQ,
            self.gene_embedding,
            per_sample_weights=zero_BQ * self.gene_weight[index_BQ],
            mode="sum",
        )
        coding_BC = F.pad(panel.coding, (0, 1)).scatter_add(
            1, self.coding_column[index_BQ], -zero_BQ
        )
        own_BF = panel.own
        if self.adapter is not None:
            own_BF = own_BF + self.adapter.hidden(genes_BQ)
        state_BR, gram = panel.state, panel.gram
        if self.state is not None:
            state_BR = state_BR - self.state.read(index_BQ, zero_BQ)
            gram = gram - self.state.gram_of(genes_BQ)
        return Panels(panel.read - read_BG, coding_BC[:, :-1], own_BF, state_BR, gram)

    def standardise(self, genes_BT: Tensor, x_BT: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
        """Standardised expression above that of an unexpressed gene, and the genes' weights.

        Both of shape (B, T); expression is 0 where padded.
        """
        factor_BT, offset_BT, zero_BT, weight_BT = F.embedding(
            genes_BT.clamp(min=0), tables.scale
        ).unbind(dim=-1)
        z_BT = torch.addcmul(offset_BT, x_BT, factor_BT)
        z_BT = z_BT.clamp(-self.config.clip, self.config.clip) - zero_BT
        return z_BT.masked_fill(genes_BT < 0, 0.0), weight_BT

    def linear_read(
        self, genes_BT: Tensor, x_BT: Tensor, panel: Panels, tables: Tables
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Standardise expression and sum it up.

        Returns the product with the gene embeddings, shape (B, G), the standardised expression
        of the coding genes, shape (B, C), the state, shape (B, R), and the panel's share, shape
        () or (B,), which is 1 in training.
        """
        index_BT = genes_BT.clamp(min=0)
        z_BT, weight_BT = self.standardise(genes_BT, x_BT, tables)
        read_BG = F.embedding_bag(
            index_BT, self.gene_embedding, per_sample_weights=z_BT * weight_BT, mode="sum"
        )
        coding_BC = F.pad(panel.coding, (0, 1)).scatter_add(1, self.coding_column[index_BT], z_BT)
        state_BR = panel.state
        share = read_BG.new_ones(())
        if self.state is not None:
            if not self.training:
                share = self.state.share(panel.gram, tables.told)
            told_BR = panel.state + self.state.read(index_BT, z_BT)
            state_BR = self.state.solve(told_BR, panel.gram, 1.0 - share)
        return read_BG + panel.read, coding_BC[:, :-1], state_BR, share

    def forward(
        self,
        genes_BT: Tensor,
        x_BT: Tensor,
        panel: Panels,
        tables: Tables,
        proteins: Tensor | None = None,
        *,
        attended: tuple[Tensor, Tensor] | None = None,
        log1p: bool = False,
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
        log1p
            Whether to predict ``log1p`` counts too, if the model can.
        """
        reading = self.encode(genes_BT, x_BT, panel, tables, attended)
        trunk_BG, latents_BLD = reading.trunk, reading.latents
        query_PD: Tensor = tables.query
        bias_P: Tensor = self.protein_bias
        if proteins is not None:
            query_PD, bias_P = query_PD[proteins], bias_P[proteins]
        raw_BP2 = self.decoder(query_PD, latents_BLD, trunk_BG)
        own_mrna_BP = self._own_mrna(reading, tables, proteins)
        heads = [raw_BP2[..., 0] + bias_P]
        if self.state is not None:
            state_BR = self.state.standardise(reading.state)
            heads += self.state_heads(state_BR, query_PD, bias_P, proteins)
        heads_NBP = torch.stack(heads) + own_mrna_BP
        # The heads on the state make up for genes that a panel lacks; the first cannot.
        lacking = (1.0 - reading.share)[..., None]
        mean_BP = (heads_NBP.sum(dim=0) - lacking * heads_NBP[0]) / (len(heads_NBP) - lacking)
        log_heads_NBP = mean_BP.new_zeros(0, *mean_BP.shape)
        if log1p and self.config.log_output:
            log_heads_NBP = self._log_heads(reading, query_PD, own_mrna_BP, proteins)
        if self.adapter is not None:
            own_BF = self.adapter.components(genes_BT, x_BT, panel.own)
            mean_BP = self.adapter(mean_BP, trunk_BG, own_BF, proteins)
        std_BP = F.softplus(raw_BP2[..., 1]) + MIN_STD
        return Translation(
            mean_BP, std_BP, latents_BLD.mean(dim=1), trunk_BG, heads_NBP, log_heads_NBP
        )

    def _log_heads(
        self, reading: Reading, query_PD: Tensor, own_mrna_BP: Tensor, proteins: Tensor | None
    ) -> Tensor:
        """Predict ``log1p`` counts by each head, shape (N, B, P)."""
        assert self.state is not None
        bias_P = self.log_bias if proteins is None else self.log_bias[proteins]
        # What is shared with the CLR belongs to the CLR: its error alone trains it.
        state_BR = self.state.standardise(reading.state)
        heads = self.log_heads(state_BR, query_PD.detach(), bias_P, proteins)
        return torch.stack(heads) + own_mrna_BP.detach()

    def _own_mrna(self, reading: Reading, tables: Tables, proteins: Tensor | None) -> Tensor:
        """Weigh what a protein's own genes say, as measured and as imputed, shape (B, P)."""
        cognate_PC = self.cognate_gain[:, None] * self.protein_coding
        if proteins is not None:
            cognate_PC = cognate_PC[proteins]
        said_BP = reading.coding @ cognate_PC.T
        if self.state is not None:
            imputed_PR = self.imputed_gain[:, None] * tables.imputed
            if proteins is not None:
                imputed_PR = imputed_PR[proteins]
            said_BP = said_BP + (reading.state - self.state.center) @ imputed_PR.T
        return said_BP

    def encode(
        self,
        genes_BT: Tensor,
        x_BT: Tensor,
        panel: Panels,
        tables: Tables,
        attended: tuple[Tensor, Tensor] | None = None,
    ) -> Reading:
        """Read B cells; parameters as of `forward`."""
        read_BG, coding_BC, state_BR, share = self.linear_read(genes_BT, x_BT, panel, tables)
        trunk_BG, latents_BLD = self._begin(read_BG)
        token_genes, token_x = (genes_BT, x_BT) if attended is None else attended
        latents_BLD = self.reader(latents_BLD, tables.token, token_genes, token_x)
        for layer in self.layers:
            latents_BLD = layer(latents_BLD)
        return Reading(trunk_BG, latents_BLD, coding_BC, state_BR, share)

    def _begin(self, read_BG: Tensor) -> tuple[Tensor, Tensor]:
        """Trunk (B, G) and latents (B, L, D) of cells, before these attend to anything."""
        trunk_BG = self.trunk_dropout(F.gelu(self.read_norm(read_BG + self.read_bias)))
        for block in self.trunk:
            trunk_BG = block(trunk_BG)
        trunk_BG = self.trunk_norm(trunk_BG)
        latents_BLD = self.latents + self.trunk_to_latents(trunk_BG).view(
            len(trunk_BG), self.config.n_latents, self.config.width
        )
        return trunk_BG, latents_BLD

    def reconstruct(
        self,
        genes_BT: Tensor,
        x_BT: Tensor,
        panel: Panels,
        tables: Tables,
        genes_BQ: Tensor,
        *,
        attended: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict genes of each cell from its other genes (needs ``gene_output``).

        A gene's query is made from its embedding alone, as the part of a protein's query is that
        comes from its coding genes.

        Parameters
        ----------
        genes_BT, x_BT, panel, tables, attended
            As of `forward`; the genes asked for are hidden from the panel (`hide`).
        genes_BQ
            Genes that are asked for, int64, -1 where padded.

        Returns
        -------
        The value (``log1p`` CP10k), shape (B, Q), and the logits of its level, shape (B, Q, N).
        """
        reading = self.encode(genes_BT, x_BT, panel, tables, attended)
        index_BQ = genes_BQ.clamp(min=0)
        embedding_BQG = F.embedding(index_BQ, self.gene_embedding)
        query_BQD = self.decoder.gene_to_query(self.reader.gene_norm(embedding_BQG))
        raw = self.decoder.genes(query_BQD, reading.latents, reading.trunk)
        return raw[..., 0] + self.gene_mean[index_BQ], raw[..., 1:]

    def complete_proteins(
        self, proteins_BT: Tensor, x_BT: Tensor, tables: Tables, proteins: Tensor
    ) -> Translation:
        """Predict proteins of cells from others, without RNA (needs ``protein_input``).

        Parameters
        ----------
        proteins_BT
            Proteins that are given, int64, -1 where padded.
        x_BT
            Their standardised abundance.
        tables
            `tables` of this model.
        proteins
            Indices of the proteins to predict, shape (P,).
        """
        # Through the same trunk as RNA: what answers for a protein then learns from both.
        read_BG = self.protein_reader.linear_read(tables.query, proteins_BT, x_BT)
        trunk_BG, latents_BLD = self._begin(read_BG)
        latents_BLD = self.protein_reader(latents_BLD, tables.query, proteins_BT, x_BT)
        for layer in self.layers:
            latents_BLD = layer(latents_BLD)
        raw_BP2 = self.decoder(tables.query[proteins], latents_BLD, trunk_BG)
        mean_BP = raw_BP2[..., 0] + self.protein_bias[proteins]
        std_BP = F.softplus(raw_BP2[..., 1]) + MIN_STD
        latent_BD = latents_BLD.mean(dim=1)
        no_heads = mean_BP.new_zeros(0, *mean_BP.shape)
        return Translation(mean_BP, std_BP, latent_BD, trunk_BG, mean_BP[None], no_heads)
