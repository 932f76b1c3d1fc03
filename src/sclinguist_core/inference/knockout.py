"""Several perturbations of a section beside each other, and one for notebooks.

Shapes: n cells or spots, P proteins.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference.gene_names import find_genes
from sclinguist_core.inference.perturb import check_options, perturb_iter
from sclinguist_core.inference.perturbation import Perturbation, row_numbers
from sclinguist_core.inference.perturber import Counter, Perturber, coding_genes
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.inference.progress import Progress, check_memory, finish_in_notebook
from sclinguist_core.inference.screen import MIN_CELLS, N_CELLS, N_EXACT, Screen, screen_iter
from sclinguist_core.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

READ_AS = "response of the model, no experiment"
"""Goes with every table."""
_ALL = object()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Knockouts:
    """What several perturbations of the same rows change.

    Attributes
    ----------
    perturbations
        By name, such as ``"CD19"`` or ``"CD3D+CD3E"``; pairs after what they are made of.
    pairs
        The two perturbations that a pair is made of, by the name of the pair.
    coding
        Genes that code for each protein.
    """

    perturbations: dict[str, Perturbation]
    pairs: dict[str, tuple[str, str]]
    coding: dict[str, tuple[str, ...]]

    def table(self, groups: pd.Categorical | pd.Series | None = None) -> pd.DataFrame:
        """Rank the proteins of every perturbation, one under the other.

        Parameters
        ----------
        groups
            Label of each row, shape (n,): the proteins of each group, too, below those of all.

        Returns
        -------
        DataFrame with the columns ``perturbation``, ``group`` (with groups; ``"all"`` first),
        ``protein``, ``coded`` (whether a perturbed gene codes for it), those of
        `Perturbation.ranked`, and where there are pairs ``sum_of_singles`` and ``interaction``
        (`interaction`) and ``n_both``, rows that express genes of both; NaN for single ones.
        """
        parts = []
        for name, found in self.perturbations.items():
            ranked = found.ranked().reset_index()
            if groups is not None:
                grouped = found.ranked(groups=groups).reset_index()
                ranked = pd.concat([ranked.assign(group="all"), grouped], ignore_index=True)
            genes = set(found.info["genes"])
            coded = [not genes.isdisjoint(self.coding[protein]) for protein in ranked["protein"]]
            first = ["group", "protein"] if groups is not None else ["protein"]
            part = ranked[first].assign(coded=coded).join(ranked.drop(columns=first))
            part.insert(0, "perturbation", name)
            if self.pairs:
                part = part.join(self._interactions(name, part, groups))
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def interaction(self, pair: str) -> np.ndarray:
        """Change by a pair less the changes by its two parts, float32, shape (n, P).

        Exactly 0 where only one of the parts is expressed.
        """
        one, other = (self.perturbations[name].change for name in self.pairs[pair])
        both = self._both(pair)
        beyond = self.perturbations[pair].change - one - other
        # Elsewhere it is rounding, of batches that add up in another order.
        beyond[~both & np.isfinite(beyond[:, 0])] = 0.0
        return beyond

    def _both(self, pair: str) -> np.ndarray:
        one, other = (self.perturbations[name].affected for name in self.pairs[pair])
        return one & other

    def _interactions(
        self, name: str, part: pd.DataFrame, groups: pd.Categorical | pd.Series | None
    ) -> pd.DataFrame:
        """Sum of the single changes and what the pair's is beyond it, for each row of `part`."""
        columns = ["sum_of_singles", "interaction", "n_both"]
        found = pd.DataFrame(np.nan, index=part.index, columns=columns)
        if name not in self.pairs:
            return found
        beyond, both = self.interaction(name), self._both(name)
        affected = self.perturbations[name].affected
        names = self.perturbations[name].names
        # The rows of all cells come first, whatever groups are called.
        labels = pd.Series(_ALL, index=part.index, dtype=object)
        if groups is not None:
            labels[len(names) :] = part["group"].astype(str).to_numpy()[len(names) :]
        for label, rows in part.groupby(labels, sort=False).groups.items():
            inside = affected
            if label is not _ALL:
                inside = affected & np.asarray(pd.Series(groups).astype(str) == label)
            if not inside.any():
                continue
            mean = pd.Series(beyond[inside].mean(axis=0, dtype=np.float64), index=names)
            found.loc[rows, "interaction"] = mean[part.loc[rows, "protein"]].to_numpy()
            found.loc[rows, "n_both"] = int((both & inside).sum())
        found["sum_of_singles"] = part["mean_change"] - found["interaction"]
        return found


def knockouts_iter(
    section: Section,
    sets: Sequence[Sequence[str]],
    *,
    pairs: bool = False,
    scale: float = 0.0,
    rows: np.ndarray | None = None,
    proteins: Sequence[str] | None = None,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    background: int = 20,
    seed: int = 0,
) -> Generator[Progress, None, Knockouts]:
    """Perturb several sets of genes, each by itself; yields progress.

    Parameters
    ----------
    section
        With RNA.
    sets
        Names in any spelling; those of a set are perturbed together.
    pairs
        Perturb all pairs of sets, too.
    scale, rows, proteins, model, device, batch_size, seed
        See `perturb.perturb_iter`.
    background
        As there; by default so many random sets that a verdict is possible.

    Yields
    ------
    Progress
        After every batch; a caller that stops iterating cancels within one batch.

    Raises
    ------
    InputError
        As of `perturb.perturb_iter`; or if pairs are asked of a single set, or the changes of all
        sets do not fit into memory.
    """
    check_options(scale, batch_size, background)
    chosen = row_numbers(rows, section.n_obs)
    yield Progress(0, len(chosen), "loading model")
    prepared = prepare(section, model=model, proteins=proteins, device=device)
    symbols = prepared.checkpoint.symbols
    genes: dict[str, np.ndarray] = {}
    for one in sets:
        targets = find_genes(prepared, one)
        genes["+".join(symbols[gene] for gene in targets)] = targets
    if not genes:
        raise InputError("genes: found an empty list, expected at least one name.")
    made_of: dict[str, tuple[str, str]] = {}
    if pairs:
        if len(genes) < 2:
            raise InputError("pairs: found a single set of genes, expected two or more.")
        for one_name, other_name in combinations(list(genes), 2):
            together = list(dict.fromkeys([*genes[one_name], *genes[other_name]]))
            name = "+".join(symbols[gene] for gene in together)
            # A pair that is one of the sets itself has nothing to be compared with.
            if name not in genes:
                genes[name] = np.array(together, np.int64)
                made_of[name] = one_name, other_name
    # Kept in float32, and one of them once more while it is summed up.
    check_memory(
        section.n_obs * len(prepared.proteins) * 4 * (len(genes) + 2),
        f"{section.name}: the changes of {len(prepared.proteins):,} proteins in "
        f"{section.n_obs:,} rows by {len(genes):,} perturbations",
        "ask for fewer genes or proteins.",
    )
    perturber = Perturber(prepared, chosen, batch_size=batch_size)
    plans = {
        name: perturber.plan(targets, scale=scale, background=background, seed=seed)
        for name, targets in genes.items()
    }
    counter = Counter(total=sum(plan.n_runs for plan in plans.values()))
    found = {}
    for name, plan in plans.items():
        found[name] = yield from perturber.run(plan, counter)
    coding = coding_genes(prepared.checkpoint)
    return Knockouts(
        perturbations=found,
        pairs=made_of,
        coding={name: tuple(symbols[gene] for gene in own) for name, own in coding.items()},
    )


def knockout(
    source: AnnData | Section | str | Path,
    genes: Sequence[str],
    *,
    scale: float = 0.0,
    rows: np.ndarray | None = None,
    proteins: Sequence[str] | None = None,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    background: int = 20,
    seed: int = 0,
    layer: str | None = None,
) -> Perturbation:
    """Knock genes out, or scale them, and see which proteins the model lowers; for notebooks.

    Parameters
    ----------
    source
        AnnData with raw counts, a `Section`, or a path that `open_section` reads. Not changed.
    genes
        Names in any spelling, perturbed together.
    scale, rows, proteins, model, device, batch_size, background, seed
        See `perturb.perturb_iter`.
    layer
        Layer that holds the raw counts; found by itself when None.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> found = scl.knockout("pbmc.h5ad", ["CD19"])  # doctest: +SKIP
    >>> found.ranked().head()  # one row a protein  # doctest: +SKIP
    >>> found.ranked(groups=adata.obs["cell_type"])  # doctest: +SKIP
    """
    return finish_in_notebook(
        perturb_iter(
            as_section(source, layer=layer),
            genes,
            scale=scale,
            rows=rows,
            proteins=proteins,
            model=model,
            device=device,
            batch_size=batch_size,
            background=background,
            seed=seed,
        ),
        logger,
    )


def screen(
    source: AnnData | Section | str | Path,
    protein: str,
    *,
    genes: Sequence[str] | None = None,
    scale: float = 0.0,
    n_cells: int | None = N_CELLS,
    groups: pd.Series | pd.Categorical | None = None,
    min_cells: int = MIN_CELLS,
    n_exact: int | None = N_EXACT,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    layer: str | None = None,
) -> Screen:
    """Knock every gene out by itself and rank them by what becomes of a protein; for notebooks.

    Parameters
    ----------
    source, layer
        As of `knockout`.
    protein, genes, scale, n_cells, groups, min_cells, n_exact, model, device, batch_size, seed
        See `screen.screen_iter`.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> scl.screen("pbmc.h5ad", "CD19").table.head()  # doctest: +SKIP
    """
    return finish_in_notebook(
        screen_iter(
            as_section(source, layer=layer),
            protein,
            genes=genes,
            scale=scale,
            n_cells=n_cells,
            groups=groups,
            min_cells=min_cells,
            n_exact=n_exact,
            model=model,
            device=device,
            batch_size=batch_size,
            seed=seed,
        ),
        logger,
    )
