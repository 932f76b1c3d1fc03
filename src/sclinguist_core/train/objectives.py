"""Losses. What is not measured never enters a loss and never counts as zero.

Shapes: B cells, A antibodies.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROBUST_DELTA = 2.0
"""Errors beyond this many standard deviations count linearly (Huber)."""


def masked_robust_error(mean_BA: Tensor, target_BA: Tensor) -> Tensor:
    """Huber error, averaged over what was measured; NaN targets are not measured.

    Returns a scalar; 0 when nothing was measured.
    """
    measured_BA = torch.isfinite(target_BA)
    filled_BA = torch.where(measured_BA, target_BA, mean_BA.detach())
    error_BA = F.huber_loss(mean_BA, filled_BA, delta=ROBUST_DELTA, reduction="none")
    return (error_BA * measured_BA).sum() / measured_BA.sum().clamp(min=1)


def masked_scale_error(mean_BA: Tensor, std_BA: Tensor, target_BA: Tensor) -> Tensor:
    """Laplace-like negative log-likelihood of the error, for the spread alone.

    The mean is detached: learning how uncertain the model is must not trade away how right it is
    (Gaussian likelihoods do, see Seitzer et al. 2022).
    """
    measured_BA = torch.isfinite(target_BA)
    filled_BA = torch.where(measured_BA, target_BA, mean_BA.detach())
    squared_BA = (filled_BA - mean_BA.detach()).square().clamp(max=25.0)
    nll_BA = torch.log(std_BA) + 0.5 * squared_BA / std_BA.square()
    return (nll_BA * measured_BA).sum() / measured_BA.sum().clamp(min=1)
