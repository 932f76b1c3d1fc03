"""Published scLinguist checkpoints into our folders.

The published files are Lightning checkpoints: pickles that refer to their authors' classes. They
are read without being executed (`sclinguist_core.model.restricted_pickle`), one tensor at a time.
Which gene or protein a position belongs to stands in two tables beside them, not in them.

The file of post-pretraining or fine-tuning holds encoder, bridge and decoder. The files of stage 1
hold an autoencoder of one modality each; its encoder (RNA) or decoder (protein) is what the authors
go on with, and the only part that is taken over: a start for training, not a predictor.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Generator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.hyena_checkpoint import hyena_checkpoint
from sclinguist_core.model.hyena_config import PARTS, HyenaConfig
from sclinguist_core.model.hyena_published import load_published_iter, published_config
from sclinguist_core.model.hyena_tables import (
    GeneOrder,
    ProteinOrder,
    read_gene_order,
    read_protein_order,
)
from sclinguist_core.model.tensor_archive import ArchivedWeights, TensorArchive

logger = logging.getLogger(__name__)

_ENCODER, _DECODER = ("encoder",), ("decoder",)
_STAGES = {PARTS: "post-pretrain", _ENCODER: "pretrain-rna", _DECODER: "pretrain-protein"}
_PART_BYTES = 2**24
_SHOWN = 5


# What no checkpoint of a model needs, and what a pickle that means harm begins with.
_RUNS_CODE = re.compile(
    r"((__builtin__|builtins)\.(eval|exec|compile|open|getattr|__import__)"
    r"|(os|posix|nt|subprocess|sys|shutil|runpy|importlib|socket|ctypes|pty|code|webbrowser)\..*)"
)


class Step(NamedTuple):
    """How far an import is, in bytes: ``"checking"`` the file, then ``"reading"`` its weights."""

    done: int
    total: int
    phase: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A published checkpoint in our form.

    Attributes
    ----------
    checkpoint
        Not saved yet. It carries ``published_name`` in its table of proteins.
    notes
        One sentence for everything that the user should know.
    """

    checkpoint: Checkpoint
    notes: tuple[str, ...]


def import_checkpoint(
    path: str | Path,
    *,
    genes: str | Path | None = None,
    proteins: str | Path | None = None,
    name: str | None = None,
) -> Checkpoint:
    """Read a published scLinguist checkpoint without executing it; for notebooks.

    Parameters
    ----------
    path
        ``finetune.ckpt``, or ``encoder.ckpt`` or ``decoder.ckpt`` of stage 1.
    genes
        The authors' ``gene_order.csv``: one row a gene position, Ensembl ids. Not needed for a
        decoder alone.
    proteins
        The authors' ``protein_index_map.csv``: columns ``name`` and ``index``. Not needed for an
        encoder alone.
    name
        Name of the model; by default made from the name of the file.

    Raises
    ------
    InputError
        If a file is not what it should be, or the three do not fit each other.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> model = scl.import_checkpoint(
    ...     "finetune.ckpt", genes="gene_order.csv", proteins="protein_index_map.csv"
    ... )  # doctest: +SKIP
    >>> adata = scl.predict("pbmc.h5ad", model=model, proteins=["CD3", "CD19"])  # doctest: +SKIP
    """
    steps = import_iter(path, genes=genes, proteins=proteins, name=name)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            for sentence in end.value.notes:
                logger.info(sentence)
            return end.value.checkpoint


def import_iter(
    path: str | Path,
    *,
    genes: str | Path | None = None,
    proteins: str | Path | None = None,
    name: str | None = None,
) -> Generator[Step, None, Imported]:
    """Read a published checkpoint; yields progress. Parameters as of `import_checkpoint`."""
    path = Path(path)
    with TensorArchive(path) as archive:
        weights = ArchivedWeights(archive)
        gene_order = None if genes is None else read_gene_order(genes)
        protein_order = None if proteins is None else read_protein_order(proteins)
        parts = _parts(path, weights, gene_order, protein_order)
        config = published_config(weights, parts)
        _check_sizes(path, config, gene_order, protein_order)
        digest = hashlib.sha256()
        total, done = path.stat().st_size, 0
        with path.open("rb") as file:
            while part := file.read(_PART_BYTES):
                digest.update(part)
                done += len(part)
                yield Step(done, total, "checking")
        n_values = sum(prod(weights.records[key].shape) for key in weights)
        reading = load_published_iter(weights, parts)
        while True:
            try:
                done = next(reading)
            except StopIteration as end:
                model = end.value
                break
            yield Step(4 * done, 4 * n_values, "reading")
        suspect = sorted(filter(_RUNS_CODE.fullmatch, archive.names))
    stage = _STAGES[parts]
    name = name or f"scLinguist-{path.stem}"
    gene_order = gene_order if "encoder" in parts else None
    protein_order = protein_order if "decoder" in parts else None
    notes = [order.note for order in (gene_order, protein_order) if order is not None]
    if suspect:
        shown = ", ".join(suspect[:_SHOWN]) + ", ..." * (len(suspect) > _SHOWN)
        notes.append(
            f"The file asks to run {shown}, which a published checkpoint does not; "
            "nothing was run. Only weights were taken over: ask yourself whose they are."
        )
    checkpoint = hyena_checkpoint(
        model,
        name=name,
        genes=GeneOrder.none().table if gene_order is None else gene_order.table,
        proteins=ProteinOrder.none().table if protein_order is None else protein_order.table,
        card=_card(name, path, digest.hexdigest(), stage, model.config, notes),
        stage=stage,
    )
    return Imported(checkpoint=checkpoint, notes=tuple(notes))


def _length(weights: ArchivedWeights, side: str) -> int | None:
    """Positions of encoder or decoder, from the shape of its first filter's features."""
    name = f"{side}.transformer.backbone.layers.0.mixer.filter_fn.pos_emb.z"
    found = weights.records.get(name)
    return found.shape[1] if found is not None and len(found.shape) == 3 else None


def _parts(
    path: Path,
    weights: ArchivedWeights,
    genes: GeneOrder | None,
    proteins: ProteinOrder | None,
) -> tuple[str, ...]:
    """Tell what a checkpoint is for: translation, or one modality."""
    n_in, n_out = _length(weights, "encoder"), _length(weights, "decoder")
    if n_in is None and n_out is None:
        shown = ", ".join(list(weights)[:3])
        raise InputError(
            f"{path}: found {len(weights)} weights (such as {shown}), expected those of a "
            "published scLinguist, under encoder., translator. and decoder.; give its "
            "finetune.ckpt, encoder.ckpt or decoder.ckpt."
        )
    if n_in is not None and n_out is not None and n_in != n_out:
        return PARTS
    # An autoencoder of one modality (or a part of one): which, its length tells.
    n_positions = n_out if n_in is None else n_in
    if n_in is not None and genes is not None and len(genes.table) == n_positions:
        return _ENCODER
    if n_out is not None and proteins is not None and len(proteins.table) == n_positions:
        return _DECODER
    found = [f"{len(order.table)} rows in {order.path}" for order in (genes, proteins) if order]
    raise InputError(
        f"{path}: holds an autoencoder of {n_positions} positions (stage 1), found "
        f"{' and '.join(found) or 'no table'}, expected as many rows in the table of genes or of "
        "proteins; give --genes for encoder.ckpt, --proteins for decoder.ckpt."
    )


def _check_sizes(
    path: Path, config: HyenaConfig, genes: GeneOrder | None, proteins: ProteinOrder | None
) -> None:
    for part, option, n_positions, order in (
        ("encoder", "genes", config.n_genes, genes),
        ("decoder", "proteins", config.n_proteins, proteins),
    ):
        if part not in config.parts:
            continue
        if order is None:
            raise InputError(
                f"{path}: has {n_positions} positions for {option} without their names, expected "
                f"the authors' table of them; give it as --{option}."
            )
        if len(order.table) != n_positions:
            raise InputError(
                f"{order.path}: {len(order.table)} rows, expected {n_positions}, one for each "
                f"position of {path}; give the table that belongs to this checkpoint."
            )


def _card(
    name: str, path: Path, digest: str, stage: str, config: HyenaConfig, notes: list[str]
) -> str:
    if config.parts == PARTS:
        what = (
            f"Published scLinguist, {config.n_genes:,} genes in, {config.n_proteins:,} proteins "
            "out. In: `log1p` CP10k over these genes, a gene that was not measured is 0. Out: "
            "min-max of the cell's proteins, as its authors trained it; an order within a cell "
            "and a protein, without an interval."
        )
    else:
        what = (
            f"The {config.parts[0]} of published scLinguist, from pretraining on one modality "
            f"({stage}). A start for training, not a predictor."
        )
    lines = "\n".join(f"- {sentence}" for sentence in notes)
    return f"""# {name}

{what}

- Imported from `{path.name}`, SHA-256 `{digest}`, without executing it.
{lines}
- Which data sets its authors trained it on does not stand in the file. A figure on a public data
  set may be one on cells that it has seen.
- The weights are its authors'; see <https://github.com/zy-fang/scLinguist> for their terms.
"""
