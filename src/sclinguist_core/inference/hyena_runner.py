"""The published architecture over rows: every gene of a cell is a position, expressed or not.

Shapes: n cells or spots, B of them in a batch, P proteins, G gene positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from sclinguist_core.inference.runner import Outputs, Runner
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.feed import Tokens

if TYPE_CHECKING:
    import torch

    from sclinguist_core.model.hyena import HyenaTranslator

_SHOWN = 5


class HyenaRunner(Runner):
    """Runs a `HyenaTranslator`; parameters as of `Runner`.

    It knows no missing gene: what was not measured enters as 0, as in the published training.
    """

    # At full size a cell's streams take 30 MB.
    cpu_batch: ClassVar[int] = 4
    cuda_batch: ClassVar[int] = 64
    # Its operations are large enough to be shared, and two batches take twice the memory.
    batch_a_thread: ClassVar[bool] = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        proteins: np.ndarray,
        batch_size: int | None,
    ) -> None:
        import torch

        super().__init__(checkpoint, device, proteins, batch_size)
        self.n_genes = len(checkpoint.genes)
        self.model = cast("HyenaTranslator", checkpoint.model).to(device)
        with torch.inference_mode():
            self.tables = self.model.tables(torch.from_numpy(proteins).to(device))

    def gene_warnings(self, not_found: Sequence[str]) -> list[str]:
        """Say which genes enter as 0 although nobody looked for them."""
        if not not_found:
            return []
        shown = ", ".join(not_found[:_SHOWN]) + ", ..." * (len(not_found) > _SHOWN)
        return [
            f"{len(not_found):,} of the model's {self.n_genes:,} genes were not found ({shown}); "
            "this architecture knows no missing gene, so that they enter as 0, as if not expressed."
        ]

    def _shared(self, measured: np.ndarray) -> None:
        return None

    def _forward(self, batch: Tokens, shared: None) -> Outputs:
        n_genes = self.model.config.n_genes
        # Padding goes to a last column, which nobody reads.
        place_BT = batch.genes.masked_fill(batch.genes < 0, n_genes)
        x_BG = batch.values.new_zeros(batch.n_obs, n_genes + 1)
        x_BG.scatter_(1, place_BT, batch.values)
        mean = self.model(x_BG[:, :n_genes], self.tables).float().cpu().numpy()
        return Outputs(mean, np.full_like(mean, np.nan), None)
