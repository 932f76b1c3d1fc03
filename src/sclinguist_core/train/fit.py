"""The training loop of paired cells (stage 2), small enough to read.

Each step sees a few data sets, one micro-batch of each, so that gradients mix studies while every
micro-batch has one panel. Weights are averaged over steps (EMA); the average is what is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sclinguist_core.model.translator import Tables, Translator
from sclinguist_core.train.augment import Augmentation, TrainingBatch, draw_batch
from sclinguist_core.train.corpus import PairedDataset
from sclinguist_core.train.objectives import masked_robust_error, masked_scale_error


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How long and how fast to train.

    Attributes
    ----------
    steps
        Optimiser steps.
    batch_size
        Cells of one micro-batch (one data set).
    sets_per_step
        Data sets that one step sees.
    learning_rate, weight_decay
        AdamW; the rate follows one cycle (Smith & Topin 2019).
    ema
        Decay of the averaged weights.
    balance
        Data sets are drawn in proportion to cells to this power.
    scale_weight
        Weight of the loss of the spread.
    seed
        Seeds every source of randomness.
    """

    steps: int = 1_500
    batch_size: int = 128
    sets_per_step: int = 3
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    ema: float = 0.995
    balance: float = 0.5
    scale_weight: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        # One cycle needs a rise and a fall.
        for name, least in (("steps", 10), ("batch_size", 1), ("sets_per_step", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        for name in ("weight_decay", "balance", "scale_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate: expected above 0, found {self.learning_rate}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: expected 0 <= ema < 1, found {self.ema}")


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of a fit: step number, of how many, and the mean error of the step."""

    done: int
    total: int
    error: float


def batch_error(
    model: Translator, tables: Tables, batch: TrainingBatch, scale_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and (detached) error of the mean for one micro-batch."""
    device = model.gene_embedding.device
    panels = model.panels(torch.from_numpy(batch.measured).to(device), tables)
    names, column = np.unique(batch.protein, return_inverse=True)
    translation = model(
        torch.from_numpy(batch.tokens.genes).to(device),
        torch.from_numpy(batch.tokens.values).to(device),
        panels.of(torch.from_numpy(batch.tokens.pattern).to(device)),
        tables,
        torch.from_numpy(names).to(device),
        attended=(
            torch.from_numpy(batch.attended[0]).to(device),
            torch.from_numpy(batch.attended[1]).to(device),
        ),
    )
    target = torch.from_numpy(batch.target).to(device)
    mean, std = translation.mean[:, column], translation.std[:, column]
    error = masked_robust_error(mean, target)
    return error + scale_weight * masked_scale_error(mean, std, target), error.detach()


def fit(
    model: Translator,
    datasets: Sequence[PairedDataset],
    gene_share: np.ndarray,
    config: FitConfig,
    augmentation: Augmentation,
) -> Iterator[Step]:
    """Train in place; yields once a step. The averaged weights are in the model at the end.

    Parameters
    ----------
    model
        On the device to train on.
    datasets
        Paired sets, aligned to the model's genes and proteins.
    gene_share
        Reference expression of the genes, shape (V,).
    config, augmentation
        How.
    """
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate, total_steps=config.steps, pct_start=0.2
    )
    average = copy.deepcopy(model).requires_grad_(False)
    size = np.array([dataset.n_obs for dataset in datasets], np.float64) ** config.balance
    probability = size / size.sum()
    n_sets = min(config.sets_per_step, len(datasets))
    # One micro-batch counts by the information in it: cells of a wide panel weigh more, less
    # than in proportion.
    weight = np.array([len(dataset.protein) for dataset in datasets]) ** 0.5
    model.train()
    for step in range(config.steps):
        chosen = rng.choice(len(datasets), n_sets, replace=False, p=probability)
        total_weight = weight[chosen].sum()
        errors = []
        loss = torch.zeros((), device=model.gene_embedding.device)
        tables = model.tables()
        for index in chosen:
            batch = draw_batch(datasets[index], gene_share, config.batch_size, augmentation, rng)
            batch_loss, error = batch_error(model, tables, batch, config.scale_weight)
            loss = loss + batch_loss * float(weight[index] / total_weight)
            errors.append(float(error))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        _update_average(average, model, min(config.ema, (step + 1) / (step + 10)))
        yield Step(step + 1, config.steps, float(np.mean(errors)))
    model.load_state_dict(average.state_dict())
    model.eval()


@torch.no_grad()
def _update_average(average: Translator, model: Translator, decay: float) -> None:
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1.0 - decay)
