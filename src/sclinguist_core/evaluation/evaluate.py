"""Predicted against measured protein, beside the baselines, as tables.

The headline is the mean over proteins of the Pearson correlation across cells against the
CLR-transformed measurement; see :mod:`sclinguist_core.evaluation.metrics` for why, and for every
other figure.

Shapes: n cells or spots, P evaluated antibodies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclinguist_core.data.preprocess import protein_clr, protein_minmax
from sclinguist_core.data.section import Section
from sclinguist_core.data.seen import seen_in_training
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import baselines, inputs, metrics

if TYPE_CHECKING:
    from anndata import AnnData

MODEL = "model"
"""Row of the summary that holds the evaluated predictions."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes
    ----------
    per_protein
        One row an antibody, best predicted first. Columns: ``antibody`` (the study's name),
        ``canonical``, ``genes``, ``n_cells`` (measured and predicted), ``detection`` (share of
        cells with a count), ``mean_count``, ``r_clr``, ``r_log1p``, ``spearman``, ``rmse``,
        ``rmse_z``, ``cognate_gene``, ``trust``, and ``r_clr_<baseline>`` for each baseline.
    per_cell
        One row a cell: ``barcode``, ``pearson`` (over proteins, both sides z-scored),
        ``n_proteins``.
    summary
        One row a predictor (index ``method``): ``n_proteins`` with a defined correlation,
        ``pearson_clr`` (the headline) with its 95 % interval over cells ``pearson_clr_low``,
        ``pearson_clr_high``; ``model_same_cells``, the model's headline on just these
        proteins and cells; ``pearson_log1p``, ``spearman``, ``per_cell``, ``rmse``, ``rmse_z``,
        ``flattened`` (inflated), ``mmd``; ``better_than_model``, the number of proteins on
        which this predictor has the higher ``r_clr`` (0 for the model itself).
    notes
        What a reader of the figures must know, one sentence each.
    section
        What was predicted: table, images and positions.
    predicted, measured, cognate
        (n, P) DataFrames with a column an antibody, NaN where unknown: the prediction in its own
        unit, the measurement as CLR, the cognate mRNA as log1p CP10k.
    provenance
        ``uns["sclinguist"]`` of the prediction.
    simulated
        Whether the data say that nobody measured them.
    """

    per_protein: pd.DataFrame
    per_cell: pd.DataFrame
    summary: pd.DataFrame
    notes: tuple[str, ...]
    section: Section
    predicted: pd.DataFrame
    measured: pd.DataFrame
    cognate: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)
    simulated: bool = False

    @property
    def headline(self) -> str:
        """The result in one sentence: the model, what is trivial, and the best that was trained."""
        r = self.summary["pearson_clr"]
        beside = [baselines.TOTAL_COUNT, baselines.COGNATE_MRNA]
        shown = [f"{name} {_figure(r[name])}" for name in beside if np.isfinite(r[name])]
        trained = r.drop([MODEL, baselines.PROTEIN_MEAN, *beside]).dropna()
        if len(trained):
            best = str(trained.idxmax())
            shown.append(f"best trained baseline, {best}, {_figure(trained[best])}")
        n = int(self.summary.loc[MODEL, "n_proteins"])
        noun = "antibody" if n == 1 else "antibodies"
        return f"Mean per-protein Pearson against CLR over {n} {noun}: {_figure(r[MODEL])}" + (
            f" ({'; '.join(shown)})" if shown else ""
        )


def _figure(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00") if np.isfinite(value) else "undefined"


def evaluate(
    pred: AnnData | Section | str | Path,
    truth: AnnData | Section | str | Path | None = None,
    train: Sequence[AnnData | Section | str | Path] | None = None,
    *,
    seed: int = 0,
) -> Evaluation:
    """Compare predicted with measured protein.

    Parameters
    ----------
    pred
        Output of ``sclinguist predict``: has ``obsm["protein_predicted"]``, and the measured
        protein too unless ``truth`` is given.
    truth
        Another file with the measured protein of the same cells, joined by barcode.
    train
        Files with RNA and protein of the same cells. With them kNN, ridge, kernel ridge and MLP
        baselines are trained and shown beside the model.
    seed
        Seed of what is random in the trained baselines.

    Raises
    ------
    InputError
        If predictions or measurements are absent, fit each other in no protein, or do not
        belong to the same cells.
    """
    section = inputs.as_section(pred)
    predicted_all = inputs.predicted_protein(section)
    notes: list[str] = []
    if truth is None:
        source = section
        rows = truth_rows = np.arange(section.n_obs)
    else:
        source = inputs.as_section(truth)
        rows, truth_rows = inputs.match_cells(section, source)
        notes.append(
            f"{len(rows):,} of {section.n_obs:,} predicted cells were matched to the measurement "
            "by barcode."
        )
    counts, panel = inputs.measured_protein(source, wanted_by=section)
    counts = counts.iloc[truth_rows]
    panel = _match_antibodies(panel, predicted_all, section, notes)
    columns = panel.index[panel["evaluated"]]
    part = panel.loc[columns]
    isotype = panel["isotype"].to_numpy(bool)

    barcodes = section.table.obs_names[rows]
    clr = protein_clr(counts, isotype)[columns].to_numpy(np.float64)
    predicted = predicted_all[part["column"]].iloc[rows].to_numpy(np.float64)
    gene_lists = [genes.split(";") if genes else [] for genes in part["genes"]]
    rna_from = next((s for s in (section, source) if s.has_rna), None)
    if rna_from is None:
        cognate = baselines.CognateMrna(np.full(clr.shape, np.nan), ("",) * len(columns))
        notes.append("The file has no RNA: cognate mRNA and trained baselines are not shown.")
    else:
        rna = inputs.take_cells(rna_from.rna(), rows if rna_from is section else truth_rows)
        cognate = baselines.cognate_mrna(rna, gene_lists, clr)
    _note_cognate(part, cognate, notes)

    predictors: dict[str, np.ndarray] = {
        MODEL: predicted,
        baselines.TOTAL_COUNT: baselines.total_count(counts)[:, : len(columns)],
        baselines.PROTEIN_MEAN: baselines.protein_mean(counts[columns]),
        baselines.COGNATE_MRNA: cognate.values,
    }
    if train and rna_from is not None:
        from sclinguist_core.evaluation.learners import learn_and_predict

        names = list(dict.fromkeys(part["column"]))
        paired = [inputs.paired_cells(data) for data in train]
        learned = learn_and_predict(paired, rna, names, seed=seed)
        order = [names.index(name) for name in part["column"]]
        predictors |= {method: values[:, order] for method, values in learned.items()}
        notes.append(
            "Trained baselines learnt from "
            + ", ".join(f"{data.name} ({data.rna.counts.shape[0]:,} cells)" for data in paired)
            + "."
        )
    for values in predictors.values():
        # Every predictor is judged on the same cells: those that the model has an answer for.
        values[~np.isfinite(predicted)] = np.nan

    info = inputs.provenance(section)
    seen = seen_in_training(
        section,
        [str(name) for name in info.get("training_datasets", ())],
        predicted_from=str(info.get("input", "")),
    )
    if seen:
        notes.insert(
            0,
            f"The model was trained on a data set of this name ({seen}): these figures are not "
            "those of unseen data.",
        )
    simulated = inputs.is_simulated(section) or inputs.is_simulated(source)
    if simulated:
        notes.insert(0, "These data are simulated: the figures say nothing about real tissue.")
    r_clr = {name: metrics.pearson(x, clr) for name, x in predictors.items()}
    undefined = columns[~np.isfinite(r_clr[MODEL])]
    if len(undefined):
        notes.append(
            "Without a correlation, since prediction or measurement is constant or absent: "
            f"{_list(list(undefined))}."
        )
    raw = counts[columns].to_numpy(np.float64)
    published = protein_minmax(counts, isotype)[columns].to_numpy() if _is_minmax(info) else None
    per_protein = _per_protein(part, predicted, raw, clr, cognate.genes, r_clr, info)
    per_cell = metrics.pearson_per_cell(predicted, clr)
    known = np.isfinite(predicted) & np.isfinite(clr)
    return Evaluation(
        per_protein=per_protein,
        per_cell=pd.DataFrame(
            {"barcode": barcodes, "pearson": per_cell, "n_proteins": known.sum(axis=1)}
        ),
        summary=_summary(predictors, raw, clr, published, r_clr),
        notes=tuple(notes),
        section=section,
        predicted=pd.DataFrame(predicted, index=barcodes, columns=columns),
        measured=pd.DataFrame(clr, index=barcodes, columns=columns),
        cognate=pd.DataFrame(cognate.values, index=barcodes, columns=columns),
        provenance=info,
        simulated=simulated,
    )


def _is_minmax(info: Mapping[str, Any]) -> bool:
    """Whether predictions are in the per-cell min-max unit of published scLinguist."""
    unit = str(info.get("unit", "")).lower()
    return "min" in unit and "max" in unit


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"


def _match_antibodies(
    panel: pd.DataFrame, predicted: pd.DataFrame, section: Section, notes: list[str]
) -> pd.DataFrame:
    """Add ``column`` (of the prediction) and ``evaluated`` to a panel; say what is left out."""
    panel = panel.copy()
    available = set(predicted.columns)
    panel["column"] = [
        canonical if canonical in available else (name if name in available else "")
        for name, canonical in zip(panel.index, panel["canonical"], strict=True)
    ]
    panel["evaluated"] = (panel["column"] != "") & ~panel["isotype"]
    n_isotype = int(panel["isotype"].sum())
    if n_isotype:
        plural = "s are" if n_isotype > 1 else " is"
        notes.append(f"{n_isotype} isotype control{plural} not evaluated.")
    left_out = panel.index[~panel["evaluated"] & ~panel["isotype"]]
    unknown = [name for name in left_out if panel.loc[name, "canonical"] == ""]
    unpredicted = [name for name in left_out if panel.loc[name, "canonical"] != ""]
    if unpredicted:
        notes.append(f"Measured but not predicted, so not evaluated: {_list(unpredicted)}.")
    if unknown:
        notes.append(f"Antibodies whose target is not known, not evaluated: {_list(unknown)}.")
    if not panel["evaluated"].any():
        raise InputError(
            f"{inputs.label(section)}: none of the {len(panel) - n_isotype} measured proteins "
            f"({_list(list(left_out)[:4])}) is among the {len(available)} predicted ones; predict "
            "them with: sclinguist predict INPUT -o PRED --proteins NAMES"
        )
    repeated = panel.loc[panel["evaluated"], "column"].value_counts()
    for name in repeated.index[repeated > 1]:
        many = (
            "two antibodies; both are"
            if repeated[name] == 2
            else f"{repeated[name]} antibodies; each is"
        )
        notes.append(f"{name} has {many} evaluated.")
    return panel


def _note_cognate(part: pd.DataFrame, cognate: baselines.CognateMrna, notes: list[str]) -> None:
    unmeasured = []
    for (name, row), gene in zip(part.iterrows(), cognate.genes, strict=True):
        if row["kind"] == "glycan":
            notes.append(f"{name} is a glycan: no gene codes for it, so it has no cognate mRNA.")
        elif row["genes"] and not gene:
            unmeasured.append(f"{name} ({row['genes'].replace(';', ', ')})")
    if unmeasured:
        notes.append(f"Coding genes not measured in this file: {_list(unmeasured)}.")


def _per_protein(
    part: pd.DataFrame,
    predicted: np.ndarray,
    raw: np.ndarray,
    clr: np.ndarray,
    cognate_genes: Sequence[str],
    r_clr: Mapping[str, np.ndarray],
    info: Mapping[str, Any],
) -> pd.DataFrame:
    known = np.isfinite(predicted) & np.isfinite(clr)
    raw = np.where(known, raw, np.nan)
    detected = np.where(known, (raw > 0).astype(np.float64), np.nan)
    no_sd = _is_minmax(info)
    table = pd.DataFrame(
        {
            "antibody": part.index.to_numpy(),
            "canonical": np.where(part["canonical"] != "", part["canonical"], part["column"]),
            "genes": part["genes"].to_numpy(),
            "n_cells": known.sum(axis=0),
            "detection": metrics.column_mean(detected),
            "mean_count": metrics.column_mean(raw),
            "r_clr": r_clr[MODEL],
            "r_log1p": metrics.pearson(predicted, np.log1p(raw)),
            "spearman": metrics.spearman(predicted, clr),
            "rmse": np.nan if no_sd else metrics.rmse(predicted, clr),
            "rmse_z": metrics.rmse_z(predicted, clr),
            "cognate_gene": list(cognate_genes),
            "trust": _trust(part["column"], info),
        }
    )
    for name, r in r_clr.items():
        if name not in {MODEL, baselines.PROTEIN_MEAN}:
            table[f"r_clr_{name.replace(' ', '_').lower()}"] = r
    return table.sort_values("r_clr", ascending=False, kind="stable", ignore_index=True)


def _trust(names: pd.Series, info: Mapping[str, Any]) -> list[str]:
    trust = info.get("trust")
    if isinstance(trust, pd.DataFrame):
        trust = trust["trust"].to_dict() if "trust" in trust else None
    if not isinstance(trust, Mapping):
        return [""] * len(names)
    return [str(trust.get(name, "")) for name in names]


_IN_SD_UNITS = {
    MODEL,
    baselines.PROTEIN_MEAN,
    "kNN",
    "ridge",
    "kernel ridge",
    "MLP",
    "mean of four",
}


def _summary(
    predictors: Mapping[str, np.ndarray],
    raw: np.ndarray,
    clr: np.ndarray,
    published: np.ndarray | None,
    r_clr: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    logged = np.log1p(raw)
    rows = {}
    for name, x in predictors.items():
        defined = np.isfinite(r_clr[name])
        _, low, high = metrics.mean_pearson_interval(x, clr)
        in_sd = name in _IN_SD_UNITS and not (name == MODEL and published is not None)
        flattened = (
            metrics.flattened_pearson(x, published)
            if name == MODEL and published is not None
            else metrics.flattened_pearson(metrics.on_scale_of(x, logged), logged)
        )
        # A gene that some cells did not measure gives mRNA of the others alone, which may be the
        # easier ones: the model is compared on just those cells.
        same_cells = metrics.pearson(np.where(np.isfinite(x), predictors[MODEL], np.nan), clr)
        better = r_clr[name] > same_cells
        rows[name] = {
            "n_proteins": int(defined.sum()),
            "pearson_clr": metrics.nan_mean(r_clr[name]),
            "pearson_clr_low": low,
            "pearson_clr_high": high,
            "model_same_cells": metrics.nan_mean(same_cells[defined]),
            "pearson_log1p": metrics.nan_mean(metrics.pearson(x, logged)),
            "spearman": metrics.nan_mean(metrics.spearman(x, clr)),
            "per_cell": metrics.nan_mean(metrics.pearson_per_cell(x, clr)),
            "rmse": metrics.nan_mean(metrics.rmse(x, clr)) if in_sd else np.nan,
            "rmse_z": metrics.nan_mean(metrics.rmse_z(x, clr)),
            "flattened": flattened,
            "mmd": metrics.mmd_rbf(x, clr),
            "better_than_model": int(better.sum()),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    return table.astype({"n_proteins": int, "better_than_model": int})
