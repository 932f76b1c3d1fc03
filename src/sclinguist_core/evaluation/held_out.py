"""Predictions of data sets by checkpoints that did not see them, kept for calibration.

For every held-out set: single cells, and pseudo-spots (sums of 3 to 15 of its cells in skewed
mixtures) since a spot is predicted differently from a cell. Everything that calibration needs is in
one ``.npz`` file a set, so that it runs again in seconds.

Shapes: n rows, P proteins of the checkpoint, A antibodies of the set.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.preprocess import standardize
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.files import replacing
from sclinguist_core.inference import trust
from sclinguist_core.inference.predict import translate
from sclinguist_core.model.calibration import CONTEXTS, fisher
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.train.augment import pseudo_spots, thin
from sclinguist_core.train.corpus import PairedDataset, paired_dataset

MAX_CELLS = 2_000
N_SPOTS = 1_000
SPOT_CELLS = (3, 15)
_CACHE = "v2"
"""Changes when what is cached does."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldOut:
    """One data set as predicted by a checkpoint that did not see it, for one context.

    Attributes
    ----------
    dataset, context
        Name of the set; ``"cells"`` or ``"spots"``.
    names
        Proteins of the checkpoint, shape (P,).
    column
        Protein of each antibody, int64, shape (A,).
    mean, std
        What the network says of the measured proteins, not calibrated, float32, shape (n, A).
    target
        CLR, standardised over the set's cells or over its spots, float32, shape (n, A); NaN where
        not measured.
    center, spread
        Mean and standard deviation of the predictions of every protein, shape (P,).
    implied, reliability
        What the rows tell of each protein without any measurement
        (`sclinguist_core.inference.trust`), Fisher z, shape (P,).
    """

    dataset: str
    context: str
    names: np.ndarray
    column: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    target: np.ndarray
    center: np.ndarray
    spread: np.ndarray
    implied: np.ndarray
    reliability: np.ndarray

    @property
    def proteins(self) -> np.ndarray:
        """Canonical name of the protein of each antibody, shape (A,)."""
        return self.names[self.column]

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file, whole or not at all."""
        with replacing(path) as temporary:
            arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
            with temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)


def read_held_out(path: Path) -> HeldOut:
    """Read what `HeldOut.save` wrote.

    Raises
    ------
    InputError
        If the file is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {field.name: arrays[field.name] for field in fields(HeldOut)}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: expected held-out predictions, found something else ({error}); delete it"
        ) from error
    values["dataset"], values["context"] = str(values["dataset"]), str(values["context"])
    return HeldOut(**values)


def hold_out(checkpoint: Checkpoint, section: Section, *, seed: int = 0) -> tuple[HeldOut, HeldOut]:
    """Predict the cells and the pseudo-spots of a set that a checkpoint did not see.

    Raises
    ------
    InputError
        If the checkpoint was trained on it.
    """
    if section.name in checkpoint.info.training_datasets:
        raise InputError(
            f"{section.name}: the checkpoint {checkpoint.path or checkpoint.info.name} was trained "
            "on it, expected one that was not."
        )
    rng = np.random.default_rng(seed)
    data = paired_dataset(section, checkpoint.symbols, checkpoint.protein_names)
    rows = np.arange(data.n_obs)
    if len(rows) > MAX_CELLS:
        rows = np.sort(rng.choice(rows, MAX_CELLS, replace=False))
    cells = _record(
        checkpoint, data, "cells", data.rna.take(rows), data.targets(data.antibodies[rows])
    )
    aligned, mix = spots_of(data, N_SPOTS, rng)
    spots = _record(
        checkpoint, data, "spots", aligned, data.targets(mix @ data.antibodies, spots=True)
    )
    return cells, spots


def _record(
    checkpoint: Checkpoint,
    data: PairedDataset,
    context: str,
    aligned: AlignedRna,
    target: np.ndarray,
) -> HeldOut:
    mean, std = translate(checkpoint, aligned)
    spread, implied = trust.spread_and_implied(mean, std)
    sample = aligned.take(trust.sample_rows(aligned.n_obs))
    if context == "spots":
        target = standardize(target)
    return HeldOut(
        dataset=data.name,
        context=context,
        names=np.array(checkpoint.protein_names),
        column=data.protein,
        mean=mean[:, data.protein],
        std=std[:, data.protein],
        target=target.astype(np.float32),
        center=np.asarray(np.nanmean(mean, axis=0, dtype=np.float64)),
        spread=spread,
        implied=implied,
        reliability=trust.reliability(sample, lambda rna: translate(checkpoint, rna)),
    )


def spots_of(
    data: PairedDataset, n_rows: int, rng: np.random.Generator
) -> tuple[AlignedRna, sparse.csr_matrix]:
    """Pseudo-spots of a set: their RNA, thinned to spot depth, and which cells are in each."""
    pattern = data.rna.pattern
    wanted = np.bincount(pattern) * min(n_rows, data.n_obs) / data.n_obs
    mixes, patterns = [], []
    # Cells that measured different genes cannot be summed.
    for index in np.flatnonzero(wanted >= 1):
        pool = np.flatnonzero(pattern == index)
        n = round(float(wanted[index]))
        mixes.append(pseudo_spots(pool, data.groups, n, SPOT_CELLS, rng))
        patterns.append(np.full(n, index))
    mix = sparse.csr_matrix(sparse.vstack(mixes))
    depth = 1.0 / np.sqrt(np.asarray(mix.sum(axis=1)).ravel())
    counts = thin(sparse.csr_matrix(mix @ data.rna.counts), depth, rng)
    counts.sort_indices()
    aligned = AlignedRna(
        counts=counts, measured=data.rna.measured, pattern=np.concatenate(patterns)
    )
    return aligned, mix


def agreement(checkpoints: Sequence[Checkpoint], sections: Sequence[Section]) -> pd.Series:
    """How far networks that were trained on different sets agree, Fisher z by protein name.

    The mean, over RNA that none of them has measured proteins of and over pairs of networks that
    know the protein, of the correlation of their predictions. Networks that agree rest on what
    their training sets have in common.
    """
    values: dict[str, list[float]] = {}
    for section in sections:
        rna = section.rna()
        predicted = []
        for checkpoint in checkpoints:
            aligned = align_genes(rna, checkpoint.symbols, source=section.name)
            sample = aligned.take(trust.sample_rows(aligned.n_obs))
            mean = translate(checkpoint, sample)[0]
            predicted.append(pd.DataFrame(mean, columns=checkpoint.protein_names))
        for one, other in combinations(predicted, 2):
            shared = one.columns.intersection(other.columns)
            r = column_correlation(one[shared].to_numpy(), other[shared].to_numpy())
            for name, z in zip(shared, fisher(r), strict=True):
                if np.isfinite(z):
                    values.setdefault(str(name), []).append(float(z))
    return pd.Series({name: float(np.mean(z)) for name, z in sorted(values.items())}, dtype=float)


def collect(
    checkpoints: Sequence[Checkpoint], sections: Sequence[Section], cache: Path
) -> list[HeldOut]:
    """Predict every section with the checkpoint that did not see it, or read it from the cache.

    Parameters
    ----------
    checkpoints
        Of the folds, loaded from their folders; each section is left out by exactly one.
    sections
        Paired data sets.
    cache
        Folder for one file a set and context; the checkpoint's digest is in the name, so that new
        checkpoints are not mixed up with old ones.

    Raises
    ------
    InputError
        If no checkpoint, or more than one, left a section out.
    """
    cache.mkdir(parents=True, exist_ok=True)
    records = []
    for section in sections:
        name = section.name
        unseen = [c for c in checkpoints if name not in c.info.training_datasets]
        if len(unseen) != 1:
            raise InputError(
                f"{name}: expected one checkpoint that was not trained on it, found {len(unseen)}"
            )
        made_by = f"{_CACHE}-{unseen[0].digest}"
        paths = [cache / f"{name}-{context}-{made_by}.npz" for context in CONTEXTS]
        if not all(path.is_file() for path in paths):
            for path, record in zip(paths, hold_out(unseen[0], section), strict=True):
                record.save(path)
        records += [read_held_out(path) for path in paths]
    return records


def collect_agreement(
    checkpoints: Sequence[Checkpoint], sections: Sequence[Section], cache: Path
) -> pd.Series:
    """`agreement`, or what the cache has of these very checkpoints."""
    cache.mkdir(parents=True, exist_ok=True)
    digests = "-".join(sorted(checkpoint.digest[:6] for checkpoint in checkpoints))
    path = cache / f"agreement-{digests}.csv"
    if not path.is_file():
        with replacing(path) as temporary:
            agreement(checkpoints, sections).rename("z").to_csv(temporary, index_label="protein")
    return pd.read_csv(path, index_col="protein", keep_default_na=False)["z"].astype(float)
