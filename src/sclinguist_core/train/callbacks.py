"""What happens between steps: reports, validation, early stopping, saved state."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from sclinguist_core.train.fit import Step
from sclinguist_core.train.module import TrainingModule
from sclinguist_core.train.objectives import Objective
from sclinguist_core.train.run_folder import RunFolder

Validation = Callable[[Objective], dict[str, float]]
"""Scores an objective (averaged weights, evaluation mode) on held-out data sets, by their names;
higher is better."""


@dataclass(kw_only=True, slots=True)
class Best:
    """The best averaged weights so far.

    Attributes
    ----------
    score
        Mean held-out score; None before the first validation.
    step
        Steps done by then.
    weights
        By name; empty before the first validation.
    scores
        Held-out score of each data set then.
    misses
        Validations since then.
    """

    score: float | None = None
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    misses: int = 0


class RunKeeper(pl.Callback):
    """Report, validate, stop early, save, in this order, after each step where it is due.

    Parameters
    ----------
    validation
        Scores on held-out data sets; None where nothing is held out.
    run
        Folder for state and metrics; None keeps everything in memory.
    progress
        Called with every report.
    on_best
        Called when the held-out score rose, with the averaged weights in the network.
    """

    def __init__(
        self,
        *,
        validation: Validation | None = None,
        run: RunFolder | None = None,
        progress: Callable[[Step], None] | None = None,
        on_best: Callable[[Best], None] | None = None,
    ) -> None:
        self.validation = validation
        self.run = run
        self.progress = progress
        self.on_best = on_best
        self.best = Best()
        self.stopped_early = False
        self.interrupted = False
        self._clock = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to signals in place of Lightning, which gives them back at the end."""
        assert isinstance(pl_module, TrainingModule)
        pl_module.stop.install()
        self._clock = time.perf_counter()
        patience = pl_module.options.patience
        if patience and self.best.misses >= patience:
            # Continued after it had stopped early: there is nothing left to do.
            self.stopped_early = pl_module.is_over = trainer.should_stop = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Do what is due."""
        assert isinstance(pl_module, TrainingModule)
        module, options = pl_module, pl_module.options
        is_last = module.step == module.config.steps
        scores: dict[str, float] = {}
        if self.validation is not None and (module.step % options.validate_every == 0 or is_last):
            scores = self._validate(module)
        if module.step % options.log_every == 0 or is_last or scores:
            self._report(module, scores)
        if options.patience and self.best.misses >= options.patience:
            self.stopped_early = True
        ends = is_last or self.stopped_early
        if not ends and module.stop_requested():
            self.interrupted = ends = True
        if self.run is not None and (ends or module.step % options.save_every == 0):
            trainer.save_checkpoint(self.run.state_path)
        if ends:
            trainer.should_stop = True

    def _report(self, module: TrainingModule, scores: dict[str, float]) -> None:
        means, n_rows = module.report()
        now = time.perf_counter()
        elapsed, self._clock = now - self._clock, now
        terms = dict(zip(module.objective.terms, means.tolist(), strict=True))
        weighted = zip(module.objective.weights, terms.values(), strict=True)
        step = Step(
            done=module.step,
            total=module.config.steps,
            error=next(iter(terms.values())),
            loss=sum(weight * mean for weight, mean in weighted),
            learning_rate=module.learning_rate,
            cells_per_second=n_rows / max(elapsed, 1e-9),
            score=_mean(scores) if scores else None,
        )
        if module.global_rank != 0:
            return
        if self.run is not None:
            self.run.add_metrics(step, terms, scores)
        for logger in module.trainer.loggers:
            values = {"loss": step.loss, "learning_rate": step.learning_rate, **terms}
            values |= {f"heldout/{name}": value for name, value in scores.items()}
            logger.log_metrics(values, step=step.done)
        if self.progress is not None:
            self.progress(step)

    def _validate(self, module: TrainingModule) -> dict[str, float]:
        assert self.validation is not None
        with module.averaged(), torch.no_grad():
            scores = self.validation(module.objective)
            # One process decides, so that all stop at the same step.
            scores = module.trainer.strategy.broadcast(scores)
            score = _mean(scores)
            if self.best.score is None or score > self.best.score:
                self.best = Best(
                    score=score, step=module.step, weights=module.average(), scores=scores
                )
                if self.on_best is not None and module.global_rank == 0:
                    self.on_best(self.best)
            else:
                self.best.misses += 1
        return scores

    def state_dict(self) -> dict[str, Any]:
        """Tell what a continued run must know."""
        return {name: getattr(self.best, name) for name in Best.__dataclass_fields__}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best = Best(**state_dict)


def _mean(scores: dict[str, float]) -> float:
    return sum(scores.values()) / len(scores)
