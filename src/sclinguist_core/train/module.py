"""One training step, as a Lightning module.

The loss of a step is a sum over measured entries divided by their number in the *whole* step: over
all chunks, passes and processes. Gradients therefore do not depend, but for rounding, on how the
chunks are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from sclinguist_core.errors import InputError
from sclinguist_core.train.chunks import Chunk, ChunkSource, StepChunks
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.objectives import Objective
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.sharding import shard, share_of, whole
from sclinguist_core.train.signals import StopRequest


class TrainingModule(pl.LightningModule):
    """Objective, optimiser, averaged weights, and the count of steps.

    Parameters
    ----------
    objective
        Network and loss.
    chunks
        What the steps see.
    config, options
        Schedule; devices and the like.
    stop
        Set by signals; processes agree on it once a step.
    """

    def __init__(
        self,
        objective: Objective,
        chunks: ChunkSource,
        config: FitConfig,
        options: TrainerConfig,
        stop: StopRequest,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective = objective
        self.chunks = chunks
        self.config = config
        self.options = options
        self.stop = stop
        self.step = 0
        """Steps done."""
        self.learning_rate = 0.0
        """Rate of the last step."""
        self.is_over = False
        """Whether no further step is to be taken."""
        self._stop_flag = torch.zeros(())
        self._average: list[Tensor] | None = None
        n_terms = len(objective.terms)
        # Sums of the terms, their counts and rows since the last report (this process).
        self.window = torch.zeros(2 * n_terms + 1, dtype=torch.float64)

    # --- what is trained on ---

    def train_dataloader(self) -> Iterable[list[Chunk]]:
        """Yield steps from where the state stands; workers draw ahead where asked for."""
        steps = StepChunks(
            self.chunks,
            self.step,
            self.config.steps,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
        )
        if not self.options.workers:
            return steps
        return torch.utils.data.DataLoader(
            _IterableSteps(steps),
            batch_size=None,
            num_workers=self.options.workers,
            pin_memory=self.device.type == "cuda",
        )

    def transfer_batch_to_device(
        self, batch: list[Chunk], device: torch.device, dataloader_idx: int
    ) -> list[Chunk]:
        """Move chunks."""
        return [chunk.to(device) for chunk in batch]

    # --- how ---

    def trained(self) -> list[tuple[str, Tensor]]:
        """Names and parameters that are trained."""
        return [(n, p) for n, p in self.objective.named_parameters() if p.requires_grad]

    def configure_model(self) -> None:
        """Spread the network over the devices (FSDP); otherwise it stays whole."""
        if self.options.strategy == "fsdp" and not self._is_sharded:
            mesh = self.device_mesh
            assert mesh is not None
            shard(self.objective, mesh["data_parallel"])

    @property
    def _is_sharded(self) -> bool:
        return hasattr(self.objective, "unshard")

    def configure_optimizers(self) -> Any:
        """AdamW under one cycle of the learning rate."""
        optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self.trained()],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.config.learning_rate,
            total_steps=self.config.steps,
            pct_start=0.2,
        )
        return [optimizer], [schedule]

    def on_fit_start(self) -> None:
        """Check that every process has something to do; start the average."""
        if self.trainer.world_size > self.chunks.n_chunks:
            raise InputError(
                f"fit.sets_per_step: {self.chunks.n_chunks} chunks a step for "
                f"{self.trainer.world_size} processes, expected at least one for each; raise "
                "fit.sets_per_step, or use fewer devices."
            )
        if self._is_sharded and self.chunks.n_chunks % self.trainer.world_size:
            # Every pass of a sharded network is a conversation of all processes.
            raise InputError(
                f"fit.sets_per_step: {self.chunks.n_chunks} chunks a step for "
                f"{self.trainer.world_size} processes, expected a multiple under strategy fsdp."
            )
        if self._average is None:
            self._average = [parameter.detach().clone() for _, parameter in self.trained()]
        else:
            self._average = self._shared(self._average)
        self.window = self.window.to(self.device)

    def on_train_batch_start(self, batch: list[Chunk], batch_idx: int) -> int | None:
        """Skip what is left where the run is over (-1 says so to Lightning)."""
        return -1 if self.is_over else None

    def training_step(self, batch: list[Chunk], batch_idx: int) -> None:
        """Take one optimiser step on this process's chunks."""
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        counts = torch.tensor([chunk.counts for chunk in batch], dtype=torch.float64).sum(0)
        asked = torch.tensor([float(self.stop.signum > 0)], dtype=torch.float64)
        shared = self._over_processes(torch.cat([counts, asked]).to(self.device))
        self._stop_flag = shared[-1]
        weights = torch.tensor(self.objective.weights, device=self.device)
        per_entry = weights / shared[:-1].clamp(min=1e-12)
        # Distributed training averages gradients over processes; the loss is a sum over them.
        per_entry = (per_entry * self.trainer.world_size).float()
        done = torch.zeros(len(self.objective.terms), device=self.device)
        groups = _groups(batch, self.options.accumulate)
        for number, group in enumerate(groups):
            with self._no_sync() if number + 1 < len(groups) else nullcontext():
                sums = self.objective(group)
                self.manual_backward((sums * per_entry).sum())
            done += sums.detach()
        n_rows = torch.tensor([float(sum(chunk.n_rows for chunk in batch))])
        self.window += torch.cat([done, counts.to(done), n_rows.to(done)])
        if self.options.gradient_clip > 0:
            parameters = [parameter for _, parameter in self.trained()]
            torch.nn.utils.clip_grad_norm_(parameters, self.options.gradient_clip)
        self.learning_rate = float(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        self._update_average()
        self.step += 1

    def stop_requested(self) -> bool:
        """Whether any process received a signal before this step; all processes agree."""
        # Alone, a process need not wait for its device to know.
        return self.stop.signum > 0 if self.trainer.world_size == 1 else bool(self._stop_flag > 0)

    def _over_processes(self, values: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    def _no_sync(self) -> AbstractContextManager[None]:
        """Keep gradients to this process until the last pass of a step."""
        if self._is_sharded:
            return self._no_reduction()
        wrapped = self.trainer.strategy.model
        no_sync = getattr(wrapped, "no_sync", None)
        return nullcontext() if no_sync is None else no_sync()

    @contextmanager
    def _no_reduction(self) -> Iterator[None]:
        sharded: Any = self.objective
        sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            sharded.set_requires_gradient_sync(True)

    # --- the average of the weights, which is what is kept ---

    @torch.no_grad()
    def _update_average(self) -> None:
        assert self._average is not None
        decay = min(self.config.ema, (self.step + 1) / (self.step + 10))
        new = [parameter.detach() for _, parameter in self.trained()]
        torch._foreach_lerp_(self._average, new, 1.0 - decay)

    def _shared(self, values: list[Tensor]) -> list[Tensor]:
        """Place tensors, in the order of `trained`, as its parameters are placed."""
        parameters = [parameter.detach() for _, parameter in self.trained()]
        return [share_of(v, like) for v, like in zip(values, parameters, strict=True)]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the network, in evaluation mode, for a while."""
        live = [parameter.detach().clone() for _, parameter in self.trained()]
        self.load_average()
        self.objective.eval()
        sharded: Any = self.objective if self._is_sharded else None
        if sharded is not None:
            sharded.unshard()
        try:
            yield
        finally:
            if sharded is not None:
                sharded.reshard()
            self._set(live)
            self.objective.train()

    def load_average(self) -> None:
        """Put the averaged weights into the network for good."""
        assert self._average is not None
        self._set(self._average)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for (_, parameter), value in zip(self.trained(), values, strict=True):
            parameter.copy_(value)

    def average(self) -> dict[str, Tensor]:
        """State of the network with averaged weights, whole and on the CPU (all processes ask)."""
        assert self._average is not None
        state = dict(self.objective.model.state_dict())
        names = [name.removeprefix("model.") for name, _ in self.trained()]
        state |= dict(zip(names, self._average, strict=True))
        return {name: whole(value).detach().to("cpu", copy=True) for name, value in state.items()}

    # --- reports and state ---

    def report(self) -> tuple[Tensor, float]:
        """Means of the terms since the last report, over all processes, and the rows seen."""
        n_terms = len(self.objective.terms)
        window = self._over_processes(self.window.clone()).cpu()
        self.window.zero_()
        return window[:n_terms] / window[n_terms:-1].clamp(min=1e-12), float(window[-1])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the average, the step and the open report."""
        assert self._average is not None
        checkpoint["sclinguist"] = {
            "step": self.step,
            "average": {
                name: whole(average)
                for (name, _), average in zip(self.trained(), self._average, strict=True)
            },
            "window": self._over_processes(self.window.clone()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        ours = checkpoint["sclinguist"]
        self.step = ours["step"]
        # Before the network goes to its device, or (sharded) after: `on_fit_start` moves it on.
        self._average = self._shared([ours["average"][name] for name, _ in self.trained()])
        if self.global_rank == 0:
            self.window = ours["window"]


class _IterableSteps(torch.utils.data.IterableDataset[list[Chunk]]):
    """A data loader asks for this class to work with steps in order."""

    def __init__(self, steps: StepChunks) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[list[Chunk]]:
        return iter(self.steps)


def _groups(batch: list[Chunk], n_passes: int) -> list[list[Chunk]]:
    """Split chunks into at most `n_passes` passes of like size."""
    n_passes = max(1, min(n_passes, len(batch)))
    return [batch[start::n_passes] for start in range(n_passes)]
