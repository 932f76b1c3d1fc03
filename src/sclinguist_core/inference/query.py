"""Any protein: names that a model has not learnt become queries by their coding genes.

Shapes: n cells or spots, B of them in a batch, V genes, N genes that are read, P chosen proteins of
the model, T learnt proteins with coding genes, Q queries, R components of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.errors import InputError
from sclinguist_core.inference.runner import Outputs, TranslatorRunner
from sclinguist_core.inference.trust import MIN_ROWS, Judged, calibrated_unit
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.feed import Tokens
from sclinguist_core.model.gene_queries import GeneQueries, check_can_query, gene_queries
from sclinguist_core.vocabulary.genes import resolve_genes
from sclinguist_core.vocabulary.proteins import (
    Protein,
    UnknownProteinError,
    find_product,
    resolve_protein,
)

if TYPE_CHECKING:
    import torch

ALL_GENES = "all-genes"
"""In the place of names: the product of every gene of the model."""


class Accuracy(NamedTuple):
    """What predictions by genes alone are worth on proteins that training had left out.

    Attributes
    ----------
    r
        Mean correlation over such proteins.
    slope
        Slope of the measurement on the prediction.
    low, high
        Ends of the interval around the calibrated value: 5 % and 95 % quantiles of its error.
    std
        Standard deviation of that error.
    """

    r: float
    slope: float
    low: float
    high: float
    std: float


ACCURACY = {
    "cells": Accuracy(r=0.43, slope=1.0, low=-1.43, high=1.47, std=0.9),
    "spots": Accuracy(r=0.43, slope=1.19, low=-1.39, high=1.46, std=0.89),
}
"""From ``training/benchmarks/any_protein.py``: proteins, and data sets, that training left out."""


def split_names(
    checkpoint: Checkpoint, proteins: Sequence[str] | None
) -> tuple[list[str] | None, pd.DataFrame]:
    """Part names into those that a model has learnt and those to be asked for by their genes.

    Parameters
    ----------
    checkpoint
        The model.
    proteins
        Names in any spelling, and `ALL_GENES`; None for all that the model has learnt.

    Returns
    -------
    The learnt ones (None for all), and ``name``, ``genes``, ``kind`` of the others.

    Raises
    ------
    InputError
        If a name is unknown or ambiguous, has no coding gene that the model knows, or the model
        cannot be asked.
    """
    known = set(checkpoint.protein_names)
    asked: dict[str, Protein] = {}
    learnt: dict[str, None] | None = {} if proteins is not None else None
    for given in proteins or ():
        if given == ALL_GENES:
            asked |= _every_gene(checkpoint)
            learnt = dict.fromkeys([*(learnt or {}), *checkpoint.protein_names])
            continue
        protein = None if given in known else asked_protein(given)
        if protein is None or protein.name in known:
            assert learnt is not None
            learnt[given if protein is None else protein.name] = None
            continue
        check_can_query(checkpoint, f"{given!r} ({protein.name})")
        _check_genes(checkpoint, given, protein)
        asked[protein.name] = protein
    table = pd.DataFrame(
        [(protein.name, ";".join(protein.genes), protein.kind) for protein in asked.values()],
        columns=["name", "genes", "kind"],
    )
    return None if learnt is None else list(learnt), table


def asked_protein(given: str) -> Protein:
    """Find a protein by its gene's symbol, by any name, or by a former symbol or id of its gene.

    Raises
    ------
    UnknownProteinError
        If it has none of them.
    """
    found = find_product(given)
    if found is not None:
        return found
    try:
        return resolve_protein(given)
    except UnknownProteinError:
        found = find_product(resolve_genes([given], species="human").symbols[0])
        if found is None:
            raise
        return found


def _check_genes(checkpoint: Checkpoint, given: str, protein: Protein) -> None:
    if not protein.genes:
        raise InputError(
            f"protein {given!r} ({protein.name}): no gene codes for it ({protein.kind}), expected "
            "a protein that can be asked for by its gene, or one that the model has learnt."
        )
    if not set(protein.genes) & set(checkpoint.symbols):
        raise InputError(
            f"protein {given!r} ({protein.name}): its gene {' or '.join(protein.genes)} is not "
            f"among the {len(checkpoint.symbols):,} genes that the training data of the model "
            f"{checkpoint.info.name!r} express, expected one of them; leave it out."
        )


def _every_gene(checkpoint: Checkpoint) -> dict[str, Protein]:
    """Products of the model's genes that it has not learnt, by canonical name."""
    check_can_query(checkpoint, repr(ALL_GENES))
    known = set(checkpoint.protein_names)
    products = {
        symbol: find_product(symbol) or Protein(symbol, (symbol,), "protein")
        for symbol in checkpoint.symbols
        if symbol not in known
    }
    return {found.name: found for found in products.values() if found.name not in known}


class QueryRunner(TranslatorRunner):
    """Predicts chosen proteins of the model, and after them those of `GeneQueries`.

    The standard deviation of the latter is NaN: the network states none.

    Parameters
    ----------
    checkpoint, device, proteins, batch_size
        See `Runner`.
    queries
        The others.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        proteins: np.ndarray,
        batch_size: int | None,
        queries: GeneQueries,
    ) -> None:
        import torch

        super().__init__(checkpoint, device, np.arange(len(checkpoint.proteins)), batch_size)
        self.n_proteins = len(proteins) + len(queries.table)
        self.chosen, self.learnt = proteins, queries.learnt
        state = self.model.state
        assert state is not None
        share = sparse.vstack([queries.share, queries.learnt_share], format="csr")
        read = np.unique(share.indices)
        self.read = torch.from_numpy(read.astype(np.int64)).to(device)
        # Genes that nobody asks for share a last column, which nobody reads.
        column = np.full(share.shape[1], len(read), np.int64)
        column[read] = np.arange(len(read))
        self.column = torch.from_numpy(column).to(device)
        gains = queries.measured_gain, queries.imputed_gain
        share_SN = share[:, read].tocoo()
        self.measured_SN = (
            torch.sparse_coo_tensor(
                torch.from_numpy(np.stack([share_SN.row, share_SN.col]).astype(np.int64)),
                torch.from_numpy((gains[0] * share_SN.data).astype(np.float32)),
                share_SN.shape,
                check_invariants=True,
            )
            .coalesce()
            .to(device)
        )
        loadings_NR = state.loadings[self.read].cpu().numpy()
        self.imputed_SR = torch.from_numpy(
            (gains[1] * (share_SN @ loadings_NR)).astype(np.float32)
        ).to(device)
        self.mixing_QT = torch.from_numpy(queries.mixing).to(device)

    def _shared(self, measured: np.ndarray) -> Any:
        """Panels, and the standardised expression of a cell that expresses nothing, (K, N + 1)."""
        import torch

        seen_KN = torch.from_numpy(measured).to(self.device)[:, self.read]
        zero_KN = seen_KN * self.tables.zero[self.read]
        return super()._shared(measured), torch.nn.functional.pad(zero_KN, (0, 1))

    def _forward(self, batch: Tokens, shared: Any) -> Outputs:
        import torch

        model, tables = self.model, self.tables
        assert model.state is not None
        genes_BT, x_BT = batch.genes, batch.values
        panels, zero_KN = shared
        panel = panels.of(batch.pattern)
        out = model(genes_BT, x_BT, panel, tables)
        state_BR = model.linear_read(genes_BT, x_BT, panel, tables)[2] - model.state.center
        # What `linear_read` does for the coding genes of the panel, for the asked ones.
        z_BT, _ = model.standardise(genes_BT, x_BT, tables)
        column_BT = self.column[genes_BT.clamp(min=0)]
        z_BN = zero_KN[batch.pattern].scatter_add(1, column_BT, z_BT)[:, :-1]
        with torch.autocast(self.device.type, enabled=False):
            measured_BS = torch.sparse.mm(self.measured_SN, z_BN.T).T
        own_BS = measured_BS + state_BR @ self.imputed_SR.T
        n_asked = len(self.mixing_QT)
        beyond_BT = out.mean[:, self.learnt] - own_BS[:, n_asked:]
        asked_BQ = own_BS[:, :n_asked] + beyond_BT @ self.mixing_QT.T
        mean = torch.cat([out.mean[:, self.chosen], asked_BQ], dim=1).float().cpu().numpy()
        std = np.full_like(mean, np.nan)
        std[:, : len(self.chosen)] = out.std[:, self.chosen].float().cpu().numpy()
        return Outputs(mean, std, None)


def query_center(mean: np.ndarray, context: str) -> np.ndarray | None:
    """Average around which predictions by genes are given, shape (Q,); None where it is 0.

    Spots are mixtures around an average that is not known for a protein that no set measured: the
    section's own is taken for it.

    Parameters
    ----------
    mean
        Of `QueryRunner`, for `trust.spread_rows` of the section, shape (n, Q).
    context
        What the rows are.
    """
    if context == "spots" and len(mean) >= MIN_ROWS and np.isfinite(mean).any():
        return np.asarray(np.nanmean(mean, axis=0, dtype=np.float64))
    return None


def judge_queries(mean: np.ndarray, context: str, center: np.ndarray | None = None) -> Judged:
    """Calibrate what was asked for by genes, by how well that does on average (`ACCURACY`).

    Parameters
    ----------
    mean
        Of `QueryRunner`, shape (n, Q).
    context
        What the rows are.
    center
        From `query_center`.
    """
    accuracy = ACCURACY[context]
    if center is not None:
        mean = mean - center
    value = (accuracy.slope * mean).astype(np.float32)
    n_queries = mean.shape[1]
    return Judged(
        mean=value,
        std=np.where(np.isfinite(value), np.float32(accuracy.std), np.float32(np.nan)),
        low=value + np.float32(accuracy.low),
        high=value + np.float32(accuracy.high),
        labels=["untested"] * n_queries,
        expected_r=np.full(n_queries, accuracy.r),
        unit=calibrated_unit(context),
    )


def query_warning(queries: GeneQueries, measured: np.ndarray, context: str) -> str:
    """Say which proteins were predicted from genes alone, and what to expect of them.

    Parameters
    ----------
    measured
        Which of the model's genes the input has, bool, shape (V,).
    """
    names, n = queries.names, len(queries.names)
    shown = ", ".join(names[:5]) + (f" and {n - 5} more" if n > 5 else "")
    lacking = int(((queries.share @ measured.astype(np.float32)) == 0).sum())
    genes = "gene" if n == 1 else "genes"
    sentence = (
        f"{shown}: no antibody against {'it' if n == 1 else 'them'} was in training; predicted "
        f"from the coding {genes}, untested (such proteins correlated by "
        f"{ACCURACY[context].r:.2f} on average, many hardly at all)"
    )
    if lacking:
        sentence += f"; the input lacks the {genes} of {lacking}, whose mRNA is imputed"
    return sentence + "."


__all__ = [
    "ACCURACY",
    "ALL_GENES",
    "Accuracy",
    "QueryRunner",
    "gene_queries",
    "judge_queries",
    "query_center",
    "query_warning",
    "split_names",
]
