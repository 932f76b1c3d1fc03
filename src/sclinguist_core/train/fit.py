"""How long and how fast to train, and what a step reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How long and how fast to train.

    One step sees `sets_per_step` chunks of `batch_size` rows: that is the global batch, on one
    device or on many.

    Attributes
    ----------
    steps
        Optimiser steps.
    batch_size
        Rows of one chunk (one data set).
    sets_per_step
        Chunks of one step. They come from different data sets while there are enough.
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
        for name, least in (("steps", 10), ("batch_size", 1), ("sets_per_step", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        for name in ("weight_decay", "balance", "scale_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate: expected above 0, found {self.learning_rate}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: expected 0 <= ema < 1, found {self.ema}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Progress of a training run.

    Attributes
    ----------
    done, total
        Steps.
    error
        First term of the loss, averaged over measured entries since the last report.
    loss
        The whole loss, likewise.
    learning_rate
        Of this step.
    cells_per_second
        Rows that all processes trained on, per second, since the last report.
    score
        Held-out score, if it was computed at this step (higher is better).
    """

    done: int
    total: int
    error: float
    loss: float
    learning_rate: float
    cells_per_second: float
    score: float | None = None
