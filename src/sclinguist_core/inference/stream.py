"""Prediction of tables that are larger than memory, written as it goes.

Blocks of rows are read from the disk and predicted (`stream_blocks`), and kept as files in a work
folder beside the output (`stream_work`). When all are there, what the section tells of its proteins
is judged, and blocks are calibrated and assembled into the output (`stream_merge`). Memory grows
neither with the rows nor with the size of the file but for a few bytes a row; a process that is
killed goes on where it was when the same is asked for again; several processes each do their share
(`ranks`).

Shapes: n cells or spots, P proteins.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import sclinguist_core
from sclinguist_core.data.backed import BLOCK_VALUES
from sclinguist_core.data.backed_section import BackedSection
from sclinguist_core.data.readers.locate import locate
from sclinguist_core.data.write import check_name, check_output
from sclinguist_core.data.write_stream import CHUNK_ROWS
from sclinguist_core.errors import InputError
from sclinguist_core.files import n_bytes
from sclinguist_core.inference.prepare import Prepared, prepare
from sclinguist_core.inference.progress import Progress, finish_in_notebook
from sclinguist_core.inference.ranks import Rank, device_of, find_rank, share_threads
from sclinguist_core.inference.stream_blocks import Job, file_state
from sclinguist_core.inference.stream_merge import merge
from sclinguist_core.inference.stream_work import WorkFolder
from sclinguist_core.model.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

STREAMED = ("h5ad", "anndata_zarr")
"""Kinds of input, as of `locate`, that can be streamed."""
BLOCK_BYTES = 2**26
"""Most bytes that the network's values of a block take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """A prediction that was written to the disk.

    Attributes
    ----------
    output
        The table; not there yet where this process was not the first of several, which writes it.
    section
        What was predicted; its file is closed.
    names
        Canonical protein names, length P.
    info, warnings
        As of `Prediction`; empty where this process was not the first of several.
    rank
        Which process this was.
    """

    output: Path
    section: BackedSection
    names: list[str]
    rank: Rank
    info: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def predict_to(
    source: str | Path,
    output: str | Path,
    *,
    model: str | Path | Checkpoint = "bundled",
    proteins: str | Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    log1p: bool = False,
    layer: str | None = None,
    results_only: bool = False,
) -> Path:
    """Predict the proteins of a table of any size, and write them to another one.

    The same call again goes on where a former one was interrupted or killed.

    Parameters
    ----------
    source
        ``.h5ad`` file or AnnData ``.zarr``, counts by row (CSR or dense).
    output
        ``.h5ad`` or ``.zarr`` to write; it holds what `predict` and ``write_h5ad`` would give, to
        within rounding of float32.
    model, proteins, device, batch_size, log1p
        See `predict_iter`.
    layer
        Layer that holds the raw counts; found by itself when None.
    results_only
        Leave ``X``, ``layers`` and ``raw`` of the input out.

    Returns
    -------
    Path
        The output.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> scl.predict_to("atlas.h5ad", "atlas_protein.zarr")  # doctest: +SKIP
    """
    steps = predict_to_iter(
        source,
        output,
        model=model,
        proteins=proteins,
        device=device,
        batch_size=batch_size,
        log1p=log1p,
        layer=layer,
        results_only=results_only,
    )
    return finish_in_notebook(steps, logger).output


def predict_to_iter(
    source: str | Path,
    output: str | Path,
    *,
    model: str | Path | Checkpoint = "bundled",
    proteins: str | Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    log1p: bool = False,
    layer: str | None = None,
    results_only: bool = False,
    rank: Rank | None = None,
) -> Generator[Progress, None, Streamed]:
    """Predict as `predict_to` does; yields progress.

    Parameters
    ----------
    source, output, model, proteins, device, batch_size, log1p, layer, results_only
        See `predict_to`.
    rank
        Which share of the rows is this process's; by default as its environment says.

    Yields
    ------
    Progress
        After every batch; a caller that stops iterating loses a block at most.

    Raises
    ------
    InputError
        If the input cannot be streamed, the output not be written, or what `predict_iter` raises.
    """
    started = time.perf_counter()
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected at least 1.")
    target = check_output(output)
    # A link is resolved once: blocks lie on the disk that the table takes its name on in the end.
    final = check_output(os.path.realpath(target))
    located = locate(Path(source).expanduser())
    if located.kind not in STREAMED:
        raise InputError(
            f"'{source}' cannot be streamed: expected an .h5ad or AnnData .zarr, found "
            f"{located.kind}; predict it in memory, or write its table as .h5ad first."
        )
    if target.exists() and located.path.samefile(target):
        raise InputError(f"{target}: is the input, which stays as it is; choose another name.")
    rank = find_rank() if rank is None else rank
    before = file_state(final)
    with BackedSection(located.path, layer=layer) as section:
        yield Progress(0, section.n_obs, "loading model")
        if section.slow and rank.index == 0:
            logger.warning(section.slow)
        share_threads(rank)
        prepared = prepare(
            section, model=model, proteins=proteins, device=device_of(rank, device), by_gene=True
        )
        names = prepared.names
        for name in names:
            check_name(name, "the predicted proteins")
        job = Job(
            section=section,
            prepared=prepared,
            runner=prepared.runner(batch_size, log1p=log1p),
            work=_work_folder(section, prepared, names, final, log1p=log1p),
            rank=rank,
        )
        if rank.index > 0:
            yield from job.share(final, before)
            return Streamed(output=target, section=section, names=names, rank=rank)
        if not job.work.check():
            _check_disk(job.work, final, results_only=results_only, section=section)
            job.work.create()
        with job.work.held(rank.index):
            yield from job.run()
            info, warnings = yield from merge(
                prepared,
                job.runner,
                job.work,
                final,
                names,
                results_only=results_only,
                seconds=lambda: time.perf_counter() - started,
            )
        job.work.remove()
        return Streamed(
            output=target,
            section=section,
            names=names,
            rank=rank,
            info=info,
            warnings=tuple(warnings),
        )


def _work_folder(
    section: BackedSection, prepared: Prepared, names: list[str], target: Path, *, log1p: bool
) -> WorkFolder:
    checkpoint = prepared.checkpoint
    identity = {
        "input": section.fingerprint(),
        "model": checkpoint.info.name,
        "model digest": checkpoint.digest,
        "proteins": names,
        "log1p": log1p,
        # A card rounds as a processor does not: one table is of one of them.
        "device": prepared.device.type,
        "version": sclinguist_core.__version__,
    }
    return WorkFolder(
        target,
        identity,
        plan_blocks(section, len(names)),
        ["mean", "std", *(["log1p"] if log1p else [])],
        len(names),
        with_ood=checkpoint.familiarity is not None,
    )


def plan_blocks(section: BackedSection, n_proteins: int) -> np.ndarray:
    """First row of every block, and the number of rows, int64, shape (blocks + 1,).

    Blocks are bounded by the values that they read and those that they give, so that memory does
    not depend on how many genes a cell expresses; none lies across two chunks of the output.
    """
    matrix = section.table.matrix(section.counts_location)
    most = max(1, BLOCK_BYTES // (8 * n_proteins))
    starts = [0]
    for begin, end in matrix.blocks(BLOCK_VALUES):
        cuts = {*range(begin + most, end, most), end}
        cuts |= set(range(-(-(begin + 1) // CHUNK_ROWS) * CHUNK_ROWS, end, CHUNK_ROWS))
        starts += sorted(cuts)
    return np.array(starts, np.int64)


def _check_disk(
    work: WorkFolder, target: Path, *, results_only: bool, section: BackedSection
) -> None:
    """Refuse to begin what the disk cannot hold: blocks, and the table made of them."""
    copied = 0 if results_only else n_bytes(section.path)
    # Mean, standard deviation and both ends of the interval of every protein.
    results = section.n_obs * work.n_proteins * 4 * (len(work.arrays) + 2)
    need, free = work.block_bytes + copied + results, shutil.disk_usage(target.parent).free
    if need > free:
        raise InputError(
            f"'{target}': predicting takes {need / 1e9:.1f} GB of disk there, {free / 1e9:.1f} GB "
            "are free; free some, write elsewhere, ask for fewer proteins (--proteins), or leave "
            "the input's data out (--results-only)."
        )
