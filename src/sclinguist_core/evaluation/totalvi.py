"""totalVI as a baseline, through scvi-tools (extra ``benchmark``).

totalVI (Gayoso et al., Nature Methods 18:272, 2021) is a joint model of RNA and protein of a cell.
It learns from training and query cells together, the query's protein being missing; it is
therefore trained anew for every query, and has seen the query's RNA, which the others have not.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.align import align_genes
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.features import MIN_SHARED_GENES, TrainingSets
from sclinguist_core.evaluation.learners import Predictions
from sclinguist_core.evaluation.selection import MANY_SHARED
from sclinguist_core.evaluation.tasks import MeasuredCells, Task

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

TOTALVI = "totalVI"
MAX_GENES = 4_000
NOT_INSTALLED = (
    "totalVI is left out: scvi-tools is not installed; install it with: "
    'pip install "napari-sclinguist[benchmark]"'
)
_QUERY = "query"


def is_installed() -> bool:
    """Whether scvi-tools can be imported."""
    return importlib.util.find_spec("scvi") is not None


class TotalViMethod:
    """totalVI on the genes that the query shares with the training sets of a similar panel.

    It has no notion of a gene that was not measured, so it gets the genes that all of its sets
    share. Training sets that share fewer than 2,000 genes with the query are left out, unless
    that leaves none.

    Parameters
    ----------
    task
        Its training sets are learnt from.
    proteins
        The P proteins.
    max_epochs
        Passes over the cells; None leaves it to scvi-tools.
    seed
        Of weights and batches.
    """

    def __init__(
        self,
        task: Task,
        proteins: Sequence[str],
        *,
        max_epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        self.train = task.train
        self.proteins = list(proteins)
        self.max_epochs = max_epochs
        self.seed = seed
        self.notes: list[str] = []

    def predict(self, query: MeasuredCells) -> Predictions:
        """Train on all cells, predict those of the query: CLR of the denoised protein."""
        import scvi

        table = self.joint_table(query)
        # scvi-tools draws from the global generators; its seed is set for the time of the fit.
        scvi.settings.seed = self.seed
        setup = scvi.model.TOTALVI.setup_anndata
        setup(table, batch_key="batch", protein_expression_obsm_key="protein")
        model = scvi.model.TOTALVI(table)
        model.train(max_epochs=self.max_epochs, enable_progress_bar=False)
        rows = np.flatnonzero(table.obs["batch"].to_numpy() == _QUERY)
        batches = [name for name in table.obs["batch"].unique() if name != _QUERY]
        _, protein = model.get_normalized_expression(
            table,
            indices=rows,
            transform_batch=batches,
            n_samples=10,
            return_mean=True,
        )
        logged = np.log1p(protein.reindex(columns=self.proteins).to_numpy(np.float64))
        known = np.isfinite(logged).any(axis=0)
        clr = logged - logged[:, known].mean(axis=1, keepdims=True)
        return Predictions({TOTALVI: clr}, {TOTALVI: logged})

    def joint_table(self, query: MeasuredCells) -> AnnData:
        """Training and query cells on shared genes; a protein not measured is 0, as it wants.

        Raises
        ------
        InputError
            If fewer than 200 genes are shared.
        """
        from anndata import AnnData

        training = TrainingSets.prepare([data.paired for data in self.train])
        asked = training.align(query.paired.rna)
        measured = np.asarray(asked.measured.all(axis=0))
        panels = np.array([rna.measured.all(axis=0) for rna in training.aligned])
        shared = (panels & measured).sum(axis=1)
        chosen = np.flatnonzero(shared >= MANY_SHARED).tolist() or list(range(len(panels)))
        genes = np.flatnonzero(measured & panels[chosen].all(axis=0))
        if len(genes) < MIN_SHARED_GENES:
            raise InputError(
                f"totalVI: training files and query share {len(genes)} genes, expected at least "
                f"{MIN_SHARED_GENES}; give training files with more of the query's genes"
            )
        space = training.space(measured, sets=chosen, shared=True, max_genes=MAX_GENES)
        symbols = [training.symbols[g] for g in space.genes[space.columns]]
        names, counts, proteins = [], [], []
        known = self.proteins
        for d in chosen:
            data = training.cells[d]
            names += [f"{d}:{data.name}"] * data.rna.counts.shape[0]
            counts.append(align_genes(data.rna, symbols, strict=False).counts)
            raw = data.protein.set_axis(data.panel["canonical"].to_numpy(str), axis=1)
            raw = raw.loc[:, ~data.panel["isotype"].to_numpy(bool)].T.groupby(level=0).mean().T
            proteins.append(raw.reindex(columns=known).fillna(0.0).to_numpy())
        n_query = query.n_obs
        names += [_QUERY] * n_query
        counts.append(align_genes(query.paired.rna, symbols, strict=False).counts)
        proteins.append(np.zeros((n_query, len(known))))
        protein = np.concatenate(proteins)
        measured_somewhere = np.asarray(protein.any(axis=0))
        index = pd.Index([f"cell{i}" for i in range(len(names))])
        table = AnnData(
            X=sparse.csr_matrix(sparse.vstack(counts), dtype=np.float32),
            obs=pd.DataFrame({"batch": names}, index=index),
            var=pd.DataFrame(index=symbols),
        )
        table.obsm["protein"] = pd.DataFrame(
            protein[:, measured_somewhere],
            index=index,
            columns=[name for name, there in zip(known, measured_somewhere, strict=True) if there],
        )
        return table
