"""Run the sCT architecture over all cells of a section, bag by bag.

Every cell is in exactly one bag, among cells near it on the section, or among random cells where
there are no positions. What is said of a cell depends on its bag, as the architecture means it to.

Shapes: n cells or spots, C cells of a bag, V genes of the model, m hidden entries, N levels, D
width of the network.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.levels import N_LEVELS, extremes
from sclinguist_core.errors import InputError
from sclinguist_core.inference.impute_calibration import Estimates
from sclinguist_core.inference.progress import Progress
from sclinguist_core.model.architectures import SCT
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.device import choose_device
from sclinguist_core.model.sct_tokens import sct_tokens

if TYPE_CHECKING:
    import torch

    from sclinguist_core.model.sct import SctModel
    from sclinguist_core.model.sct_config import SctConfig

POSITIONS = 1_000_000
"""Positions of one pass: a bag at full size, several where it is small (2.7 GB in float32)."""


def sct_bags(
    n: int, n_cells: int, positions: np.ndarray | None = None, *, seed: int = 0
) -> np.ndarray:
    """Share cells out into bags, int64, shape (bags, C).

    Along a curve that fills the section (Morton order), so that a bag is a patch of tissue; in
    random order without positions, as in training. The last bag is filled up with cells of other
    bags: the first ``n`` entries in reading order are each cell once.

    Parameters
    ----------
    n
        Cells.
    n_cells
        C.
    positions
        Places on the section, any unit, shape (n, 2).
    seed
        Of the random order.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n) if positions is None else np.argsort(_morton(positions))
    n_bags = -(-n // n_cells)
    before = order[: n - n % n_cells][::-1]  # of other bags, those next to the last one first
    fill = np.resize(before if len(before) else order, n_bags * n_cells - n)
    return np.concatenate([order, fill]).reshape(n_bags, n_cells)


def _morton(positions: np.ndarray) -> np.ndarray:
    """Rank places along a Z-shaped curve: the bits of x and y in turn, int64, shape (n,)."""
    places = positions - positions.min(axis=0, initial=np.inf)
    steps = (places / max(places.max(initial=0.0), 1e-12) * (2**16 - 1)).astype(np.int64)
    code = np.zeros(len(steps), np.int64)
    for bit in range(16):
        for axis in (0, 1):
            code |= (steps[:, axis] >> bit & 1) << 2 * bit + axis
    return code


def sct_levels(
    checkpoint: Checkpoint,
    rna: AlignedRna,
    hidden: sparse.csr_matrix,
    *,
    positions: np.ndarray | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Generator[Progress, None, Estimates]:
    """Estimate hidden entries.

    Parameters
    ----------
    checkpoint
        Of this architecture.
    rna
        Counts over its genes; those of hidden entries are not looked at.
    hidden
        True where an entry is hidden, CSR with sorted indices, shape (n, V).
    positions, seed
        See `sct_bags`.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.

    Yields
    ------
    Progress in cells of the bags that have hidden entries.

    Returns
    -------
    Level probabilities, the most probable level, and the value expected from the middles of the
    levels of the cell's visible genes, in the order in which the entries are stored.

    Raises
    ------
    InputError
        If the model is of another architecture.
    """
    import torch

    from sclinguist_core.model.sct import level_probabilities

    model, target = _on_device(checkpoint, device)
    config, share = model.config, checkpoint.gene_share
    lengths = np.diff(hidden.indptr)
    bags = sct_bags(rna.n_obs, config.n_cells, positions, seed=seed)
    n_asked = lengths[bags] * _is_own(bags, rna.n_obs)
    bags, n_asked = bags[n_asked.any(axis=1)], n_asked[n_asked.any(axis=1)]
    value = np.empty(hidden.nnz, np.float32)
    probability = np.empty((hidden.nnz, N_LEVELS), np.float32)
    for part in _passes(len(bags), model):
        rows, n_of_cell = bags[part].ravel(), n_asked[part]
        cells, mask = rna.take(rows), hidden[rows].toarray().astype(bool)
        visible = cells.without(sparse.csr_matrix(mask)).expression(share, config.rna_normalization)
        entries = _ranges(hidden.indptr[rows], n_of_cell.ravel())
        asked, inside = _asked_positions(n_of_cell, hidden.indices[entries], config)
        with _half_on_gpu(target):
            logits = model(
                _tensor(sct_tokens(cells, config, share, mask), config, target),
                torch.from_numpy(asked).to(target),
            )
            said = level_probabilities(logits).cpu().numpy()[inside]
        probability[entries] = said
        middle = _middles(*extremes(visible))
        value[entries] = (said * np.repeat(middle, n_of_cell.ravel(), axis=0)).sum(axis=1)
        yield Progress(part.stop * config.n_cells, bags.size, "imputing")
    level = probability.argmax(axis=1).astype(np.int8)
    return Estimates(value=value, probability=probability, level=level)


class SctImputer:
    """Impute hidden entries by a network that was trained to; an `impute_methods.Imputer`.

    Parameters
    ----------
    checkpoint, positions, device, seed
        See `sct_levels`.
    """

    name = "sct"

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        positions: np.ndarray | None = None,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.checkpoint = checkpoint
        self.positions = positions
        self.device = device
        self.seed = seed

    def estimate(
        self, visible: AlignedRna, hidden: sparse.csr_matrix
    ) -> Generator[Progress, None, Estimates]:
        """See `sclinguist_core.inference.impute_methods.Imputer.estimate`."""
        return sct_levels(
            self.checkpoint, visible, hidden,
            positions=self.positions, device=self.device, seed=self.seed,
        )  # fmt: skip


def sct_embed(
    checkpoint: Checkpoint,
    rna: AlignedRna,
    *,
    positions: np.ndarray | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Generator[Progress, None, np.ndarray]:
    """Embed cells: the mean of the transformer's tokens that stand for a cell.

    Parameters as of `sct_levels`.

    Returns
    -------
    float32, shape (n, D).
    """
    model, target = _on_device(checkpoint, device)
    config = model.config
    bags = sct_bags(rna.n_obs, config.n_cells, positions, seed=seed)
    embedding = np.empty((rna.n_obs, config.width), np.float32)
    for part in _passes(len(bags), model):
        rows, own = bags[part].ravel(), _is_own(bags, rna.n_obs)[part].ravel()
        tokens = sct_tokens(rna.take(rows), config, checkpoint.gene_share)
        with _half_on_gpu(target):
            x = model.embed(_tensor(tokens, config, target)).flatten(0, 1).float().cpu().numpy()
        embedding[rows[own]] = x[own]
        yield Progress(min(part.stop * config.n_cells, rna.n_obs), rna.n_obs, "embedding")
    return embedding


def _on_device(checkpoint: Checkpoint, device: str) -> tuple[SctModel, torch.device]:
    if checkpoint.info.architecture != SCT:
        raise InputError(
            f"model {checkpoint.info.name!r}: its architecture is {checkpoint.info.architecture}, "
            f"expected {SCT}; train one with `sclinguist-train pretrain-rna training/sct.yaml`."
        )
    target = choose_device(device)
    return cast("SctModel", checkpoint.model.to(target)), target


def _is_own(bags: np.ndarray, n: int) -> np.ndarray:
    """Tell the cells of bags from what fills the last one up, bool, shape (bags, C)."""
    return np.arange(bags.size).reshape(bags.shape) < n


def _passes(n_bags: int, model: SctModel) -> Iterator[slice]:
    """Bags of each pass of the network."""
    at_once = max(1, POSITIONS // (model.config.n_cells * model.config.n_genes))
    for start in range(0, n_bags, at_once):
        yield slice(start, min(start + at_once, n_bags))


def _tensor(tokens: np.ndarray, config: SctConfig, device: torch.device) -> torch.Tensor:
    """Tokens of cells, shape (B C, G), as bags, shape (B, C, G)."""
    import torch

    return torch.from_numpy(tokens.reshape(-1, config.n_cells, config.n_genes)).to(device)


@contextmanager
def _half_on_gpu(device: torch.device) -> Iterator[None]:
    """No gradients; on a GPU in bfloat16. Local to a thread, so entered where work is done."""
    import torch

    half = torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")
    with torch.inference_mode(), half:
        yield


def _asked_positions(
    n_of_cell: np.ndarray, genes: np.ndarray, config: SctConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in each bag that are asked for, padded to the longest list.

    Parameters
    ----------
    n_of_cell
        How many of each cell, shape (B, C).
    genes
        Which, cell by cell, shape (m,).
    config
        Sizes of the network.

    Returns
    -------
    Positions ``cell * G + gene`` (int64, 0 where padded), and where they are, shapes (B, Q).
    """
    n_of_bag = n_of_cell.sum(axis=1)
    inside = np.arange(n_of_bag.max()) < n_of_bag[:, None]
    cell = np.repeat(np.tile(np.arange(config.n_cells), len(n_of_cell)), n_of_cell.ravel())
    asked = np.zeros(inside.shape, np.int64)
    asked[inside] = cell * config.n_genes + genes
    return asked, inside


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Join the ranges ``start .. start + length``."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(lengths.sum())


def _middles(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Middle of each level between a cell's extremes, shape (n, N)."""
    part = (np.arange(1, N_LEVELS) - 0.5) / (N_LEVELS - 1)
    middles = low[:, None] + (high - low)[:, None] * part
    return np.column_stack([np.zeros(len(low)), middles])
