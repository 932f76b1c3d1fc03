"""What a benchmark asks: cells to learn from, cells to predict, and how the two were split.

Splits, from hard to easy:

``dataset``
    Given training and test files: other donors, other studies (the default, and the one to read).
``donor``
    One donor of a set after the other is left out; the others, with any training files, teach.
``random``
    Random cells of a set are left out. **Easy**: the cells of the same experiment are all but
    copies of each other, so figures say little about new data.

Few cells of the test set (:mod:`sclinguist_core.evaluation.few_shot`) and proteins that training
never saw (:mod:`sclinguist_core.evaluation.unseen_protein`) are splits of their own.

Shapes: n cells, G genes, P antibodies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.section import RnaCounts, Section
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import inputs
from sclinguist_core.evaluation.features import PairedCells, take_rna
from sclinguist_core.evaluation.scores import Truth

if TYPE_CHECKING:
    from anndata import AnnData

SPLITS = ("dataset", "donor", "random", "few-shot", "protein")
TEST_SHARE = 0.3
MIN_CELLS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredCells:
    """Cells with RNA and protein, and what else a method may use of them.

    Attributes
    ----------
    paired
        Counts and panel.
    obs
        Annotations of the cells (for donors).
    embeddings
        (n, anything) arrays by their key in ``obsm``, computed elsewhere.
    simulated
        Whether the data say that nobody measured them.
    """

    paired: PairedCells
    obs: pd.DataFrame
    embeddings: Mapping[str, np.ndarray] = field(default_factory=dict)
    simulated: bool = False

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.paired.name

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return int(self.paired.rna.counts.shape[0])

    def take(self, rows: np.ndarray) -> MeasuredCells:
        """Return the chosen cells (int64 rows)."""
        paired = replace(
            self.paired,
            rna=take_rna(self.paired.rna, rows),
            protein=self.paired.protein.iloc[rows],
        )
        return replace(
            self,
            paired=paired,
            obs=self.obs.iloc[rows],
            embeddings={key: values[rows] for key, values in self.embeddings.items()},
        )

    def with_rna(self, rna: RnaCounts) -> MeasuredCells:
        """Return the same cells with other RNA, to which no embedding belongs."""
        if rna is self.paired.rna:
            return self
        return replace(self, paired=replace(self.paired, rna=rna), embeddings={})

    def without(self, proteins: Sequence[str]) -> MeasuredCells:
        """Return the same cells without the antibodies of these canonical proteins."""
        kept = ~self.paired.panel["canonical"].isin(list(proteins)).to_numpy()
        panel, protein = self.paired.panel.loc[kept], self.paired.protein.loc[:, kept]
        return replace(self, paired=replace(self.paired, panel=panel, protein=protein))

    def truth(self, proteins: Sequence[str] | None = None) -> Truth:
        """Return the measurement of these proteins (by default all), a column an antibody.

        CLR is centred over the whole panel without isotype controls, also when only a part of it is
        asked for.
        """
        panel = self.paired.panel
        isotype = panel["isotype"].to_numpy(bool)
        canonical = panel["canonical"].to_numpy(str)
        kept = ~isotype & (canonical != "")
        if proteins is not None:
            kept &= np.isin(canonical, list(proteins))
        return Truth(
            antibodies=panel.index[kept].tolist(),
            proteins=canonical[kept].tolist(),
            clr=protein_clr(self.paired.protein, isotype).to_numpy(np.float64)[:, kept],
            raw=self.paired.protein.to_numpy(np.float64)[:, kept],
        )

    def to_section(self) -> Section:
        """Return a section of these cells, for what takes one."""
        return replace(inputs.as_section(self.to_anndata()), name=self.name)

    def to_anndata(self) -> AnnData:
        """Return a table with the counts in X and ``obsm["protein"]``."""
        from anndata import AnnData

        rna = self.paired.rna
        var = pd.DataFrame(index=pd.Index(rna.names.astype(str)))
        if rna.ids is not None:
            var["gene_ids"] = rna.ids
        obs = pd.DataFrame(index=self.obs.index.astype(str))
        table = AnnData(X=rna.counts, obs=obs, var=var)
        if rna.measured is not None:
            table.layers["measured"] = rna.measured
        table.obsm["protein"] = pd.DataFrame(
            self.paired.protein.to_numpy(), index=obs.index, columns=self.paired.protein.columns
        )
        return table


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Learn from these, predict those.

    Attributes
    ----------
    train
        Paired data sets to learn from.
    test
        Cells to predict.
    part
        Which part of a split it is, such as a donor; "" for whole data sets.
    """

    train: list[MeasuredCells]
    test: MeasuredCells
    part: str = ""


def open_cells(
    data: AnnData | Section | str | Path, *, embeddings: Sequence[str] = ()
) -> MeasuredCells:
    """Open a paired file.

    Parameters
    ----------
    data
        Cells with RNA and raw antibody counts.
    embeddings
        Keys of ``obsm`` to keep.

    Raises
    ------
    InputError
        If RNA, protein or one of the embeddings is absent.
    """
    section = inputs.as_section(data)
    paired = inputs.paired_cells(section)
    found = {}
    for key in embeddings:
        if key not in section.table.obsm:
            there = ", ".join(sorted(map(str, section.table.obsm))) or "none"
            raise InputError(
                f"{inputs.label(section)}: no obsm[{key!r}] (found: {there}), expected the "
                "embedding in all training and test files; compute it there or drop --embedding"
            )
        values = np.asarray(section.table.obsm[key], np.float32)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise InputError(
                f"{inputs.label(section)}: obsm[{key!r}] has shape {values.shape} or holds NaN, "
                "expected a finite number for each cell and dimension"
            )
        found[key] = values
    return MeasuredCells(
        paired=paired,
        obs=section.table.obs,
        embeddings=found,
        simulated=inputs.is_simulated(section),
    )


def make_tasks(
    split: str,
    train: Sequence[MeasuredCells],
    test: Sequence[MeasuredCells],
    *,
    donor_key: str | None = None,
    seed: int = 0,
) -> Iterator[Task]:
    """Give out the tasks of a split (``dataset``, ``donor`` or ``random``).

    Parameters
    ----------
    split
        One of the three.
    train
        Training sets.
    test
        Test sets, each a task or several.
    donor_key
        Column of ``obs`` that tells donors apart.
    seed
        Of the random split.

    Raises
    ------
    InputError
        If the donor column is absent, has one value, or none of at least 20 cells.
    """
    for data in test:
        if split == "dataset":
            yield Task(train=list(train), test=data)
        elif split == "random":
            rows = np.random.default_rng(seed).permutation(data.n_obs)
            n_test = max(int(TEST_SHARE * data.n_obs), 1)
            yield Task(
                train=[*train, data.take(np.sort(rows[n_test:]))],
                test=data.take(np.sort(rows[:n_test])),
                part=f"random {TEST_SHARE:.0%} of the cells (easy)",
            )
        else:
            yield from _donors(train, data, donor_key)


def _donors(
    train: Sequence[MeasuredCells], data: MeasuredCells, donor_key: str | None
) -> Iterator[Task]:
    if donor_key is None or donor_key not in data.obs:
        columns = ", ".join(map(str, data.obs.columns)) or "none"
        raise InputError(
            f"{data.name}: donor column {donor_key!r} is not in obs (columns: {columns}); name the "
            "column that tells donors apart with --donor-key"
        )
    donors = data.obs[donor_key].astype(str).to_numpy()
    names = pd.unique(donors)
    if len(names) < 2:
        raise InputError(
            f"{data.name}: obs[{donor_key!r}] has one value ({names[0]}), expected at least two "
            "donors; use --split dataset with another file"
        )
    asked = [donor for donor in names if (donors == donor).sum() >= MIN_CELLS]
    if not asked:
        raise InputError(
            f"{data.name}: no donor has {MIN_CELLS} cells (obs[{donor_key!r}] has {len(names)} "
            "values), expected at least one; check --donor-key"
        )
    for donor in asked:
        rest = data.take(np.flatnonzero(donors != donor))
        test = data.take(np.flatnonzero(donors == donor))
        yield Task(train=[*train, rest], test=test, part=f"donor {donor}")
