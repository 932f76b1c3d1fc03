"""From counts in a CSR matrix to tokens where a network runs.

Counts travel as they lie in memory, a gene and a number for every expressed gene and nothing for
the others; on the device they are normalised and padded. So a processor that feeds a card copies a
few kilobytes a cell and computes nothing, and where it runs the network itself the normalised
matrix never exists as a whole.

Shape suffixes: B cells of a batch, T tokens of the longest, N tokens of all, V genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sclinguist_core.data.batches import PADDING

if TYPE_CHECKING:
    import torch

_CUDA_MULTIPLE = 8
"""Kernels of attention read masks whose length is a multiple of this without a copy."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tokens:
    """Expressed genes of B cells, on a device, padded to the longest.

    Attributes
    ----------
    genes
        Gene index of each token, int64, shape (B, T); -1 where the cell has no further token.
    values
        Normalised expression, float32, shape (B, T); 0 where padded.
    pattern
        Measurement pattern of each cell, int64, shape (B,).
    """

    genes: torch.Tensor
    values: torch.Tensor
    pattern: torch.Tensor

    @property
    def n_obs(self) -> int:
        """B."""
        return len(self.pattern)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cells:
    """Cells to be read by a network, in host memory.

    Attributes
    ----------
    values
        Raw counts, or normalised expression, CSR float32, shape (n, V); every stored entry is a
        token.
    pattern
        Measurement pattern of each cell, int64, shape (n,).
    scale
        What counts of each cell are multiplied by before ``log1p``, float32, shape (n,); None for
        `values` that are normalised already.
    """

    values: sparse.csr_matrix
    pattern: np.ndarray
    scale: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each cell, shape (n,)."""
        return np.diff(self.values.indptr)

    def tokens(self, rows: np.ndarray, device: torch.device) -> Tokens:
        """Bring chosen cells to a device; without waiting for the copy where that is a card."""
        import torch

        part = self.values[rows]
        lengths = np.diff(part.indptr)
        n_tokens = max(int(lengths.max(initial=0)), 1)
        if device.type == "cuda":
            n_tokens = -(-n_tokens // _CUDA_MULTIPLE) * _CUDA_MULTIPLE
        genes_N, x_N, lengths_B = (
            _put(each, device)
            for each in (part.indices, part.data.astype(np.float32, copy=False), lengths)
        )
        inside_BT = torch.arange(n_tokens, device=device) < lengths_B[:, None]
        genes_BT = torch.full(inside_BT.shape, PADDING, dtype=torch.int64, device=device)
        genes_BT.masked_scatter_(inside_BT, genes_N.long())
        x_BT = torch.zeros(inside_BT.shape, device=device).masked_scatter_(inside_BT, x_N)
        if self.scale is not None:
            x_BT.mul_(_put(self.scale[rows], device)[:, None]).log1p_()
        return Tokens(genes=genes_BT, values=x_BT, pattern=_put(self.pattern[rows], device))


def _put(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy to a device; to a card from pinned memory, so that nobody waits for it."""
    import torch

    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
