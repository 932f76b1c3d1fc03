"""A model against trained baselines on data sets that neither should have seen.

Every test set is predicted by the model and by baselines that learn from the training sets, and
all are scored by :func:`sclinguist_core.evaluation.evaluate.evaluate`. The model itself is not
trained here; what it *was* trained on is read from its configuration, and a test set among it is
said aloud, since such a figure is not one for unseen data.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import inputs
from sclinguist_core.evaluation.evaluate import MODEL, Evaluation, evaluate
from sclinguist_core.evaluation.inputs import as_section

if TYPE_CHECKING:
    from anndata import AnnData

    from sclinguist_core.data.section import Section
    from sclinguist_core.model.checkpoint import Checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class Benchmark:
    """The result of :func:`benchmark`.

    Attributes
    ----------
    summary
        One row a data set and predictor: ``dataset``, ``method`` and the columns of
        ``Evaluation.summary``.
    per_protein
        ``Evaluation.per_protein`` of every data set, with a column ``dataset``.
    evaluations
        The evaluation of each test set by name.
    warnings
        What makes a figure less than it seems, one sentence each.
    """

    summary: pd.DataFrame
    per_protein: pd.DataFrame
    evaluations: dict[str, Evaluation]
    warnings: tuple[str, ...]

    def table(self, column: str = "pearson_clr") -> pd.DataFrame:
        """One row a predictor, one column a data set, and their mean; best mean first."""
        wide = self.summary.pivot(index="method", columns="dataset", values=column)
        wide = wide[list(self.evaluations)]
        wide.columns.name = None
        wide["mean"] = wide.mean(axis=1, skipna=False)
        return wide.sort_values("mean", ascending=False, na_position="last")


def benchmark(
    train: Sequence[AnnData | Section | str | Path],
    test: Sequence[AnnData | Section | str | Path],
    *,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    seed: int = 0,
) -> Benchmark:
    """Score a model beside kNN, ridge, kernel ridge, MLP, cognate mRNA, mean and total count.

    Parameters
    ----------
    train
        Paired data sets that the baselines learn from.
    test
        Paired data sets, or sections with measured protein, to predict. (A `Section` given here
        receives the predictions; an AnnData stays as it was.)
    model
        ``"bundled"``, a checkpoint folder, or a loaded checkpoint.
    device
        Where the model runs; see :func:`sclinguist_core.inference.predict.predict_iter`.
    seed
        Seed of what is random in the baselines.

    Raises
    ------
    InputError
        If a list is empty, a file stands in both, or a file cannot be used.
    """
    from sclinguist_core.inference.predict import predict
    from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint

    if not train or not test:
        raise InputError(
            f"{'train' if not train else 'test'}: found no file, expected at least one; give "
            "--train FILE and --test FILE"
        )
    _refuse_shared_files(train, test)
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    learn_from = [as_section(data) for data in train]
    evaluations: dict[str, Evaluation] = {}
    warnings: list[str] = []
    for data in test:
        section = as_section(data)
        name = _unique(section.name, evaluations)
        known = inputs.seen_in_training(section, checkpoint.info.training_datasets)
        if known:
            warnings.append(
                f"{name}: the model was trained on this data set ({known}), so its figure "
                "is not one for unseen data."
            )
        logger.info("predicting and scoring %s", name)
        predict(section, model=checkpoint, device=device)
        result = evaluate(section, train=learn_from, seed=seed)
        if result.simulated:
            warnings.append(f"{name}: simulated data; its figures say nothing about real tissue.")
        evaluations[name] = result
    return Benchmark(
        summary=pd.concat(
            [
                result.summary.reset_index().assign(dataset=name)
                for name, result in evaluations.items()
            ],
            ignore_index=True,
        ).pipe(_dataset_first),
        per_protein=pd.concat(
            [result.per_protein.assign(dataset=name) for name, result in evaluations.items()],
            ignore_index=True,
        ).pipe(_dataset_first),
        evaluations=evaluations,
        warnings=tuple(warnings),
    )


def best_baseline(table: pd.DataFrame) -> str:
    """Name of the predictor with the best mean, the model itself left out."""
    return str(table["mean"].drop(MODEL).dropna().idxmax())


def _refuse_shared_files(train: Sequence[object], test: Sequence[object]) -> None:
    def paths(data: Sequence[object]) -> set[Path]:
        return {Path(item).resolve() for item in data if isinstance(item, str | Path)}

    shared = paths(train) & paths(test)
    if shared:
        raise InputError(
            f"{sorted(shared)[0]} is given to both --train and --test, expected different data "
            "sets: baselines that have seen the answers prove nothing; leave it out of one"
        )


def _unique(name: str, taken: dict[str, Evaluation]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def _dataset_first(table: pd.DataFrame) -> pd.DataFrame:
    return table[["dataset", *(column for column in table if column != "dataset")]]
