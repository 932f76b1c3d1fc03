"""Proteins that a translator has not learnt, asked for by the genes that code for them.

Two things are known of such a protein: its own mRNA, as measured and as imputed from the cell's
state; and which proteins the network has learnt whose genes are expressed in the same cells. Its
query is a Gaussian process over genes (Rasmussen & Williams 2006): what the network says of a
learnt protein beyond that protein's own mRNA is carried over by how alike the two genes' loadings
on the components of the state are, and the protein's own mRNA is added with the weight that it
typically has.

A query of the gene that the network's own decoder reads does not do it on a corpus of some hundred
antibodies: for proteins that training had left out, it is below their imputed mRNA alone.
``training/benchmarks/any_protein.py`` has the figures.

Shapes: V genes of the model, P proteins of the model, T of them with coding genes, Q queries,
R components of the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.errors import InputError
from sclinguist_core.model.architectures import TRANSLATOR
from sclinguist_core.model.checkpoint import Checkpoint

LENGTH = 0.5
"""How fast likeness falls with the distance of two genes: exp((cosine - 1) / LENGTH)."""
NOISE = 1.0
"""Variance of what is peculiar to a learnt protein, in units of what it shares with others."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeneQueries:
    """How to predict Q proteins from what the network says of those that it has learnt.

    The prediction is ``own + (learnt - own_learnt) @ mixing.T`` with, for either side,
    ``own = measured_gain * measured mRNA + imputed_gain * imputed mRNA``.

    Attributes
    ----------
    table
        Rows as in ``proteins.tsv``: ``name``, ``genes``, ``kind``; Q of them.
    share
        Share of each gene in each protein's own mRNA, CSR float32, shape (Q, V); rows sum to 1.
    learnt
        Positions of the learnt proteins in the model's panel, int64, shape (T,).
    learnt_share
        As `share`, of the learnt proteins, shape (T, V).
    mixing
        Weight of each learnt protein, float32, shape (Q, T).
    measured_gain, imputed_gain
        Weights of own mRNA: medians over the learnt proteins.
    """

    table: pd.DataFrame
    share: sparse.csr_matrix
    learnt: np.ndarray
    learnt_share: sparse.csr_matrix
    mixing: np.ndarray
    measured_gain: float
    imputed_gain: float

    @property
    def names(self) -> list[str]:
        """Canonical names, length Q."""
        return self.table["name"].tolist()


def check_can_query(checkpoint: Checkpoint, asked: str) -> None:
    """Refuse models that know no genes to ask for a protein by.

    Raises
    ------
    InputError
        Naming the protein that was asked for.
    """
    info = checkpoint.info
    if info.architecture != TRANSLATOR:
        reason = f"a network of the architecture {info.architecture} has fixed proteins"
    elif not checkpoint.translator.config.n_components:
        reason = "it was trained without a cell state (model.n_components), which that needs"
    else:
        return
    raise InputError(
        f"protein {asked}: the model {info.name!r} does not predict it and cannot be asked for it "
        f"by its gene ({reason}), expected one of its {len(checkpoint.proteins)} proteins; "
        f"`sclinguist models {checkpoint.path or 'bundled'} --proteins` lists them."
    )


def gene_queries(checkpoint: Checkpoint, table: pd.DataFrame) -> GeneQueries:
    """Set up queries for proteins that a translator has not learnt.

    Parameters
    ----------
    checkpoint
        A translator with a cell state (`check_can_query`).
    table
        ``name``, ``genes`` (symbols joined by ";"), ``kind``; each with a gene that the model
        knows.
    """
    model = checkpoint.translator
    assert model.state is not None
    position = {symbol: i for i, symbol in enumerate(checkpoint.symbols)}
    share = _shares(table["genes"], position)
    every = _shares(checkpoint.proteins["genes"], position)
    learnt = np.flatnonzero(np.diff(every.indptr))
    learnt_share = every[learnt]
    loadings_VR = (model.state.loadings * model.state.scale).detach().cpu().numpy()
    asked_QR, known_TR = _unit(share @ loadings_VR), _unit(learnt_share @ loadings_VR)
    covariance_TT = _likeness(known_TR, known_TR) + NOISE * np.eye(len(learnt))
    mixing_QT = np.linalg.solve(covariance_TT, _likeness(asked_QR, known_TR).T).T
    return GeneQueries(
        table=table.reset_index(drop=True),
        share=share,
        learnt=learnt,
        learnt_share=learnt_share,
        mixing=mixing_QT.astype(np.float32),
        measured_gain=float(model.cognate_gain.detach().cpu()[learnt].median()),
        imputed_gain=float(model.imputed_gain.detach().cpu()[learnt].median()),
    )


def _shares(genes: pd.Series, position: dict[str, int]) -> sparse.csr_matrix:
    """Equal shares of the coding genes that the model knows, CSR float32, (proteins, V)."""
    columns = [[position[g] for g in coding.split(";") if g in position] for coding in genes]
    lengths = np.array([len(found) for found in columns], np.int64)
    values = np.repeat(1.0 / np.maximum(lengths, 1), lengths).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.array([i for found in columns for i in found], np.int64)
    return sparse.csr_matrix((values, indices, indptr), shape=(len(columns), len(position)))


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _likeness(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kernel of unit vectors: 1 for genes of one direction."""
    return np.exp((one @ other.T - 1.0) / LENGTH)
