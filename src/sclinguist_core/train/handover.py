"""Start a stage from what earlier stages learned.

Weights are copied by name; rows of genes and proteins by symbol and canonical name, since every
stage has the genes and proteins of its own data. From pretraining on RNA comes what reads a cell,
from pretraining on protein what answers for a protein; with one of them alone, it gives everything
that it has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    load_checkpoint,
    read_info,
)

if TYPE_CHECKING:
    from sclinguist_core.model.translator import Translator

logger = logging.getLogger(__name__)

ROLES = ("rna", "protein")
_BY_GENE = ("gene_embedding",)
_BY_PROTEIN = ("protein_embedding", "protein_bias", "log_bias", "cognate_gain", "imputed_gain")
_ANSWERS = ("decoder.", "protein_embedding", "protein_bias")
_UNTRAINED = {
    # What a stage does not use it has not learned either.
    "rna": (*_BY_PROTEIN, "decoder.head.", "state_heads.", "log_heads."),
    "protein": (
        "reader.gene_to_key_value.", "reader.value_", "reader.query", "reader.out.",
        "reader.feed_forward.", "cognate_gain", "imputed_gain", "state_heads.",
        "log_heads.", "log_bias",
    ),
}  # fmt: skip

Rows = list[int] | slice


def seen_earlier(
    folders: Mapping[str, str | Path], left_out: Sequence[str] = ()
) -> tuple[str, ...]:
    """Name the data sets that earlier stages were trained on.

    Parameters
    ----------
    folders
        Checkpoint folder (or run folder) of each role.
    left_out
        Names of data sets that must leave no trace.

    Raises
    ------
    InputError
        If a folder holds no checkpoint, or one that was trained on a set that is left out.
    """
    seen: list[str] = []
    for role, folder in folders.items():
        names = read_info(checkpoint_folder(folder)).training_datasets
        for name in names:
            if name in left_out:
                raise InputError(
                    f"init.{role}: {folder} was trained on {name}, which is held out or validated "
                    "here, expected a stage that has not seen it; train that stage with the same "
                    "hold_out and validate."
                )
        seen += names
    return tuple(dict.fromkeys(seen))


def initialise(
    model: Translator,
    genes: Sequence[str],
    proteins: Sequence[str],
    folders: Mapping[str, str | Path],
) -> dict[str, int]:
    """Copy what fits from earlier stages into a new network, in place.

    Parameters
    ----------
    model
        The new network.
    genes, proteins
        Its genes (symbols) and proteins (canonical names).
    folders
        Checkpoint folder (or run folder) of each role, ``rna`` and ``protein``.

    Returns
    -------
    dict
        How many ``weights``, ``genes`` and ``proteins`` were taken over.

    Raises
    ------
    InputError
        If a folder holds no checkpoint, or one of other sizes.
    """
    sources = {role: load_checkpoint(folders[role]) for role in folders}
    copied = {"weights": 0, "genes": 0, "proteins": 0}
    # Parameters alone: what is solved for in closed form belongs to the data of its stage.
    state = dict(model.named_parameters())
    # Protein first: where both know something, RNA overwrites all but the answers.
    for role in sorted(sources, key=ROLES.index, reverse=True):
        source = sources[role]
        for name, tensor in source.model.named_parameters():
            if name not in state or name.startswith(_UNTRAINED[role]):
                continue
            if role == "rna" and "protein" in sources and name.startswith(_ANSWERS):
                continue
            rows: Rows
            kept: Rows
            if name in _BY_GENE:
                rows, kept = _matching(genes, source.symbols)
                copied["genes"] = max(copied["genes"], len(rows))
            elif name in _BY_PROTEIN:
                rows, kept = _matching(proteins, source.protein_names)
                copied["proteins"] = max(copied["proteins"], len(rows))
            else:
                rows, kept = slice(None), slice(None)
                copied["weights"] += 1
            _copy(state[name], tensor, rows, kept, name, role, source)
    logger.info("taken over: %s", copied)
    return copied


def _matching(wanted: Sequence[str], found: Sequence[str]) -> tuple[list[int], list[int]]:
    position = {name: i for i, name in enumerate(found)}
    rows = [i for i, name in enumerate(wanted) if name in position]
    return rows, [position[wanted[i]] for i in rows]


def _copy(
    target: Tensor,
    tensor: Tensor,
    rows: Rows,
    kept: Rows,
    name: str,
    role: str,
    source: Checkpoint,
) -> None:
    if target.shape[1:] != tensor.shape[1:] or (
        isinstance(rows, slice) and target.shape != tensor.shape
    ):
        raise InputError(
            f"init.{role}: {source.path}: {name} has the shape {tuple(tensor.shape)}, expected "
            f"{tuple(target.shape)}; use the same model section in all stages."
        )
    with torch.no_grad():
        target[rows] = tensor[kept].to(target)
