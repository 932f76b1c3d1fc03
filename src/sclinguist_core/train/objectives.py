"""Losses. What is not measured never enters a loss and never counts as zero.

Terms are *sums* over measured entries; the trainer divides each by the number of measured entries
in the whole step, over all chunks and all processes. Means of means would depend on how the work
is shared.

Shapes: B cells, A antibodies, Q queried genes, N levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from sclinguist_core.model.translator import Tables, Translator
    from sclinguist_core.train.chunks import Chunk

ROBUST_DELTA = 2.0
"""Errors beyond this many standard deviations count linearly (Huber)."""


def robust_error_sum(mean_BA: Tensor, target_BA: Tensor) -> Tensor:
    """Huber error, summed over what was measured; NaN targets are not measured."""
    measured_BA = torch.isfinite(target_BA)
    filled_BA = torch.where(measured_BA, target_BA, mean_BA.detach())
    error_BA = F.huber_loss(mean_BA, filled_BA, delta=ROBUST_DELTA, reduction="none")
    return (error_BA * measured_BA).sum()


def scale_error_sum(mean_BA: Tensor, std_BA: Tensor, target_BA: Tensor) -> Tensor:
    """Gaussian negative log-likelihood of the error, for the spread alone, summed.

    The mean is detached: learning how uncertain the model is must not trade away how right it is
    (Gaussian likelihoods do, see Seitzer et al. 2022). Errors beyond five standard deviations of
    the study count as five.
    """
    measured_BA = torch.isfinite(target_BA)
    filled_BA = torch.where(measured_BA, target_BA, mean_BA.detach())
    squared_BA = (filled_BA - mean_BA.detach()).square().clamp(max=25.0)
    nll_BA = torch.log(std_BA) + 0.5 * squared_BA / std_BA.square()
    return (nll_BA * measured_BA).sum()


def level_error_sum(logits_BQN: Tensor, level_BQ: Tensor) -> Tensor:
    """Cross-entropy of levels, summed; negative levels are padding."""
    return F.cross_entropy(
        logits_BQN.flatten(0, 1), level_BQ.flatten(), ignore_index=-1, reduction="sum"
    )


class Objective(nn.Module):
    """A translator and what it is trained for.

    Subclasses name the terms of their loss, give each a weight, and compute the terms' sums for
    one chunk. The first term is the error that is reported.

    Parameters
    ----------
    model
        The network; its parameters with ``requires_grad`` are trained.
    """

    terms: tuple[str, ...] = ("error",)
    uses_all = False
    """Whether every trained parameter gets a gradient in every pass; DDP then need not look."""

    def __init__(self, model: Translator, weights: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.weights = tuple(float(weight) for weight in weights)

    def sums(self, chunk: Chunk, tables: Tables) -> Tensor:
        """Sum of each term over the entries of one chunk, shape (len(terms),)."""
        raise NotImplementedError

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Sum of each term over the chunks, float32, shape (len(terms),).

        The chunks share one computation of the model's tables. Dropout is seeded for each chunk,
        so that it does not depend on which process computes it.
        """
        tables = self.model.tables()
        total = torch.zeros(len(self.terms), device=tables.zero.device)
        for chunk in chunks:
            torch.manual_seed(chunk.seed)
            total = total + self.sums(chunk, tables)
        return total


class PairedObjective(Objective):
    """Proteins of paired cells: robust error of the mean, and the likelihood of its spread.

    A third term is the robust error of ``log1p`` counts, where the model predicts them.
    """

    terms = ("error", "scale", "log1p")

    def __init__(self, model: Translator, scale_weight: float) -> None:
        super().__init__(model, (1.0, scale_weight, 1.0))
        # The parts for pretraining have nothing to do here.
        self.uses_all = not (model.config.gene_output or model.config.protein_input)

    def sums(self, chunk: Chunk, tables: Tables) -> Tensor:
        """Sum of each term; entries weigh by the width of their panel."""
        t = chunk.tensors
        panel = self.model.panels(t["measured"], tables).of(t["pattern"])
        translation = self.model(
            t["genes"],
            t["values"],
            panel,
            tables,
            t["proteins"],
            attended=(t["attended_genes"], t["attended_values"]),
            log1p=True,
        )
        # Losses in full precision, whatever the network computes in.
        mean = translation.mean[:, t["column"]].float()
        std = translation.std[:, t["column"]].float()
        # Each head by itself: heads that are trained together lean on each other, and their mean
        # is no ensemble.
        heads, log_heads = (
            each[:, :, t["column"]].float() for each in (translation.heads, translation.log_heads)
        )
        terms = (
            _mean_error_sum(heads, t["target"]),
            scale_error_sum(mean, std, t["target"]),
            _mean_error_sum(log_heads, t["log_target"]),
        )
        return t["weight"] * torch.stack(terms)


def _mean_error_sum(heads_NBA: Tensor, target_BA: Tensor) -> Tensor:
    """Mean over the heads of each one's error; 0 where there is none."""
    if not len(heads_NBA):
        return heads_NBA.new_zeros(())
    return torch.stack([robust_error_sum(head, target_BA) for head in heads_NBA]).mean()
