"""The end of a streamed prediction: blocks are judged, calibrated and assembled into a table.

Values are calibrated protein by protein, a slab of rows at a time, so that memory depends on
neither.

Shapes: n cells or spots, P proteins, L of them learnt by the model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sclinguist_core.data.backed_section import BackedSection
from sclinguist_core.data.readers.assemble import empty_rows_note
from sclinguist_core.data.write_stream import CHUNK_ROWS, PartWriter
from sclinguist_core.errors import InputError
from sclinguist_core.files import replace_folder, sync_names
from sclinguist_core.inference import trust
from sclinguist_core.inference.chunk import empty_warning
from sclinguist_core.inference.judging import prediction_info, section_verdict
from sclinguist_core.inference.prepare import Prepared
from sclinguist_core.inference.progress import Progress
from sclinguist_core.inference.query import judge_queries, query_center, query_warning
from sclinguist_core.inference.runner import Runner
from sclinguist_core.inference.stream_work import BlockFacts, WorkFolder

_PIECE_ROWS = 2**15
"""Rows that are calibrated at a time: their intermediate values stay in the cache."""
_MATRICES = ("X", "layers", "raw")
_FORMER = ("obs/sclinguist_ood", "uns/sclinguist")
"""Results that the input may have had."""

Read = Callable[[str, int], np.ndarray]
"""Reads a protein of an array; see `WorkFolder.columns`."""
Calibrate = Callable[[np.ndarray, np.ndarray], trust.Judged]


def merge(
    prepared: Prepared,
    runner: Runner,
    work: WorkFolder,
    target: Path,
    names: list[str],
    *,
    results_only: bool,
    seconds: Callable[[], float],
) -> Generator[Progress, None, tuple[dict[str, Any], list[str]]]:
    """Write the table when all blocks are there.

    Parameters
    ----------
    prepared, runner
        Section, of type `BackedSection`, and model.
    work
        The blocks.
    target
        Table to write, no link; one that is there is replaced at the end.
    names
        Of the P proteins.
    results_only
        Leave the matrices of the input out.
    seconds
        Tells how long this run has taken.

    Yields
    ------
    Progress
        Of rows.

    Returns
    -------
    What ``uns["sclinguist"]`` says but for its warnings, and the warnings.
    """
    total, n_learnt = work.starts[-1].item(), len(prepared.table)
    mean, std = _sample(work)
    verdict = yield from section_verdict(prepared, runner, mean[:, :n_learnt], std[:, :n_learnt])
    center = query_center(mean[:, n_learnt:], prepared.context)

    def calibrate(protein: int) -> Calibrate:
        if protein < n_learnt:
            return verdict.take(np.array([protein])).apply
        own = None if center is None else center[[protein - n_learnt]]
        return lambda mean, _: judge_queries(mean, prepared.context, own)

    judged = verdict.apply(mean[:0, :n_learnt], std[:0, :n_learnt])
    if prepared.queries is not None:
        asked = judge_queries(mean[:0, n_learnt:], prepared.context)
        judged = trust.beside(judged, asked)
    facts = [work.facts(block) for block in range(work.n_blocks)]
    # Of what is asked for by genes the error is known, and the same for all.
    asked_any = prepared.queries is not None and sum(f.n_without_reads for f in facts) < total
    states_error = asked_any or any(fact.states_error for fact in facts)
    warnings = _warnings(prepared, runner, work, facts)
    section: Any = prepared.section
    new = work.path / f"table{target.suffix.lower()}"
    try:
        _remove(new)
        with PartWriter(section.table, new, _left_out(section, results_only)) as writer:
            columns = [calibrate(protein) for protein in range(work.n_proteins)]
            yield from _write(writer, work, names, columns, states_error=states_error)
            info = prediction_info(
                prepared,
                judged,
                names,
                neighbours="none",
                extra={"seconds": round(seconds(), 3)},
            )
            writer.add_uns("sclinguist", {**info, "warnings": warnings})
            if section.is_simulated:
                writer.add_uns("simulated", True)
            yield Progress(total, total, "bringing it to the disk")
            writer.finish()
        if new.is_dir():
            replace_folder(new, target)
        else:
            os.replace(new, target)
        sync_names(target.parent)
    except OSError as error:
        raise InputError(
            f"Writing '{target}' failed ({error.strerror or error}): the predictions are kept in "
            f"'{work.path}'; check the space and the rights there, then give the same command "
            "again."
        ) from error
    return info, warnings


def _sample(work: WorkFolder) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the network for `trust.spread_rows`, each (rows, P)."""
    rows = np.arange(work.starts[-1])[trust.spread_rows(work.starts[-1].item())]
    of_block = np.searchsorted(work.starts, rows, side="right") - 1
    parts: dict[str, list[np.ndarray]] = {"mean": [], "std": []}
    for block in np.unique(of_block).tolist():
        inside = rows[of_block == block] - work.starts[block]
        for name, found in parts.items():
            found.append(np.ascontiguousarray(work.read(block, name, inside)))
    return np.concatenate(parts["mean"]), np.concatenate(parts["std"])


def _warnings(
    prepared: Prepared, runner: Runner, work: WorkFolder, facts: list[BlockFacts]
) -> list[str]:
    section: Any = prepared.section
    found = list(prepared.warnings)
    if any(fact.rounded for fact in facts) and not any("rounded" in one for one in found):
        found.append(
            f"Some counts in {section.counts_location} of '{section.path}' are fractional and were "
            "rounded."
        )
    found += empty_rows_note(sum(fact.n_empty for fact in facts), section.n_obs, section.assay)
    checkpoint, aligner, queries = prepared.checkpoint, prepared.aligner, prepared.queries
    found += runner.gene_warnings(aligner.not_found(checkpoint.symbols))
    found += empty_warning(sum(fact.n_without_reads for fact in facts), section.n_obs)
    if queries is not None:
        measured = np.isin(np.arange(len(checkpoint.genes)), aligner.move.indices)
        found.append(query_warning(queries, measured, prepared.context))
    if work.with_ood:
        ood = np.concatenate([work.read(block, "ood") for block in range(work.n_blocks)])
        if sentence := trust.strange_rows_warning(ood, prepared.context):
            found.append(sentence)
    return found


def _left_out(section: BackedSection, results_only: bool) -> list[str]:
    former = [key for key in section.table.names("obsm") if key.startswith("protein_predicted")]
    return [
        *(f"obsm/{key}" for key in former),
        *(key for key in _FORMER if key.partition("/")[2] in section.table.names(key[:3])),
        *(_MATRICES if results_only else ()),
    ]


def _write(
    writer: PartWriter,
    work: WorkFolder,
    names: list[str],
    columns: list[Calibrate],
    *,
    states_error: bool,
) -> Generator[Progress, None, None]:
    """Write predictions, slab by slab and in it protein by protein."""
    import torch

    frames = {"mean": writer.add_frame("protein_predicted", names)}
    if states_error:
        for part in ("low", "high", "std"):
            frames[part] = writer.add_frame(f"protein_predicted_{part}", names)
    logged = None
    if "log1p" in work.arrays:
        logged = writer.add_frame("protein_predicted_log1p", names)
    ood = writer.add_obs("sclinguist_ood") if work.with_ood else None
    total, n_threads = work.starts[-1].item(), torch.get_num_threads()
    for start in range(0, total, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, total)
        first, last = np.searchsorted(work.starts, [start, stop]).tolist()
        blocks = range(first, last)
        if ood is not None:
            ood[start:stop] = np.concatenate([work.read(block, "ood") for block in blocks])

        with work.columns(blocks) as read, ThreadPoolExecutor(n_threads, "sclinguist") as pool:

            def write(protein: int, rows: slice, read: Read) -> None:
                calibrate = columns[protein]
                values = _calibrated(calibrate, read("mean", protein), read("std", protein))
                for part, arrays in frames.items():
                    arrays[protein][rows] = values[part]
                if logged is not None:
                    logged[protein][rows] = read("log1p", protein)

            rows = slice(start, stop)
            running = [pool.submit(write, protein, rows, read) for protein in range(len(columns))]
            try:
                for n_done, future in enumerate(running, start=1):
                    future.result()
                    done = start + (stop - start) * n_done // len(columns)
                    yield Progress(done, total, "writing")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _calibrated(calibrate: Calibrate, mean: np.ndarray, std: np.ndarray) -> dict[str, np.ndarray]:
    """Calibrate one protein: mean, std, low and high, float32, shape (rows,)."""
    made = {part: np.empty_like(mean) for part in ("mean", "std", "low", "high")}
    for start in range(0, len(mean), _PIECE_ROWS):
        rows = slice(start, start + _PIECE_ROWS)
        judged = calibrate(mean[rows, None], std[rows, None])
        for part, values in made.items():
            values[rows] = getattr(judged, part)[:, 0]
    return made


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
