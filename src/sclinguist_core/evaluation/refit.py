"""The model as a recipe: trained anew on a task's training sets, for splits that it must not know.

Shapes: none; see :mod:`sclinguist_core.train.stages`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sclinguist_core.data.seen import dataset_key
from sclinguist_core.evaluation.tasks import MeasuredCells

if TYPE_CHECKING:
    from sclinguist_core.model.checkpoint import Checkpoint
    from sclinguist_core.train.recipe import Recipe

logger = logging.getLogger(__name__)


def refit(
    recipe: Recipe, train: Sequence[MeasuredCells], *, hold_out: Sequence[str] = ()
) -> Checkpoint:
    """Train a recipe on these cells instead of its own paired data sets.

    Its unpaired data sets stay, but for those that hold the same cells as a held-out set. What it
    was initialised from is dropped, since that may have seen the test data.

    Parameters
    ----------
    recipe
        Sizes, schedule, augmentation, unpaired data.
    train
        Paired data sets.
    hold_out
        Names of data sets that must leave no trace.
    """
    from sclinguist_core.train.sources import DataEntry
    from sclinguist_core.train.stages import post_pretrain

    gone = {dataset_key(name) for name in hold_out}
    with tempfile.TemporaryDirectory(prefix="sclinguist-benchmark-") as folder:
        entries = []
        for number, data in enumerate(train):
            path = Path(folder) / f"{number}.h5ad"
            data.to_anndata().write_h5ad(path)
            entries.append(DataEntry(path=str(path), name=f"{data.name}-{number}"))
        own = replace(
            recipe,
            paired=tuple(entries),
            rna=tuple(e for e in recipe.rna if not _holds(e, gone)),
            protein=tuple(e for e in recipe.protein if not _holds(e, gone)),
            validate=(),
            hold_out=(),
            init={},
        )
        logger.info("training %s on %d sets", recipe.name, len(entries))
        return post_pretrain(own)


def _holds(entry: object, gone: set[str]) -> bool:
    """Whether an unpaired data set is, or holds cells of, a held-out one."""
    same = getattr(entry, "same_cells_as", ())
    names = same.values() if isinstance(same, dict) else same
    return bool({dataset_key(n) for n in (getattr(entry, "name", ""), *names)} & gone)
