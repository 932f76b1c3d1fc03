"""Train a network: the one function that all stages, fine-tuning and scripts use.

``run_training`` learns proteins from paired cells. ``run_objective`` trains any `Objective` on any
`ChunkSource`; the pretraining stages use it. Underneath is Lightning's ``Trainer``: devices,
precision, DDP, FSDP and SLURM are its business. What is ours is written so that a run can be killed
at any moment and continued bit for bit on a processor, and so that several processes learn what
one would.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.train.augment import Augmentation
from sclinguist_core.train.corpus import PairedDataset
from sclinguist_core.train.fit import FitConfig, Step
from sclinguist_core.train.options import TrainerConfig

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import Tensor

    from sclinguist_core.model.translator import Translator
    from sclinguist_core.train.callbacks import Best, Validation
    from sclinguist_core.train.chunks import ChunkSource
    from sclinguist_core.train.objectives import Objective
    from sclinguist_core.train.run_folder import RunFolder
    from sclinguist_core.train.streamed_pairs import StreamedPairs

__all__ = ["TrainerConfig", "TrainingResult", "run_objective", "run_training"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """How a run ended.

    Attributes
    ----------
    steps
        Steps done.
    stopped_early
        Whether held-out scores had stopped rising.
    kept_step
        Step whose averaged weights were kept.
    weights
        The network's state with these weights, on the CPU. The network holds it too, except under
        FSDP, which leaves it spread over the devices.
    score
        Best mean held-out score; None where nothing is held out.
    scores
        Held-out score of each data set at that step.
    """

    steps: int
    stopped_early: bool
    kept_step: int
    weights: dict[str, Tensor] = field(repr=False)
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)


def run_training(
    model: Translator,
    datasets: Sequence[PairedDataset | StreamedPairs],
    gene_share: np.ndarray,
    config: FitConfig,
    augmentation: Augmentation,
    options: TrainerConfig | None = None,
    *,
    held_out: Sequence[PairedDataset] = (),
    run: RunFolder | None = None,
    resume: bool = False,
    progress: Callable[[Step], None] | None = None,
    on_best: Callable[[Best], None] | None = None,
) -> TrainingResult:
    """Train a translator on paired cells, in place.

    Parameters
    ----------
    model
        The network. Parameters without ``requires_grad`` stay as they are.
    datasets
        Paired sets, aligned to the model's genes and proteins.
    gene_share
        Reference expression of the genes, shape (V,).
    config, augmentation
        Schedule and augmentation.
    options
        Devices, precision, reports, early stopping.
    held_out
        Paired sets that are not trained on but scored (mean per-protein Pearson against CLR), for
        early stopping and for the choice of the best weights.
    run
        Folder that keeps state and metrics, so that the run can be continued.
    resume
        Continue from the folder's state; from the start where there is none yet.
    progress
        Called with every report.
    on_best
        Called when the held-out score rose; the network holds the averaged weights then.

    Returns
    -------
    TrainingResult
        The averaged weights are in the model, on the CPU, in evaluation mode (but see `weights`
        there).

    Raises
    ------
    InputError
        If the devices asked for are not there, or are more than there are chunks in a step.
    TrainingInterrupted
        If a signal ended the run early; its state is in the folder then.
    """
    from sclinguist_core.train.chunks import PairedChunks
    from sclinguist_core.train.heldout import HeldOutCorrelation
    from sclinguist_core.train.objectives import PairedObjective

    return run_objective(
        PairedObjective(model, config.scale_weight),
        PairedChunks(datasets, gene_share, config, augmentation),
        config,
        options,
        validation=HeldOutCorrelation(held_out, gene_share) if held_out else None,
        run=run,
        resume=resume,
        progress=progress,
        on_best=on_best,
    )


def run_objective(
    objective: Objective,
    chunks: ChunkSource,
    config: FitConfig,
    options: TrainerConfig | None = None,
    *,
    validation: Validation | None = None,
    run: RunFolder | None = None,
    resume: bool = False,
    progress: Callable[[Step], None] | None = None,
    on_best: Callable[[Best], None] | None = None,
) -> TrainingResult:
    """Train any objective; parameters as of `run_training`."""
    import torch

    from sclinguist_core.train.callbacks import RunKeeper
    from sclinguist_core.train.module import TrainingModule
    from sclinguist_core.train.signals import StopRequest, TrainingInterrupted

    options = options or TrainerConfig()
    stop = StopRequest()
    module = TrainingModule(objective, chunks, config, options, stop)
    keeper = RunKeeper(validation=validation, run=run, progress=progress, on_best=on_best)
    objective.train()
    if options.compile:
        objective.model.compile(dynamic=True)
    state = run.state_path if run is not None and resume and run.state_path.is_file() else None
    # The seeds of dropout are set chunk by chunk; the caller's own random numbers stay as they are.
    with torch.random.fork_rng(), _quiet():
        trainer = _lightning_trainer(config, options, keeper, run, objective.uses_all)
        trainer.fit(module, ckpt_path=state)
    if keeper.interrupted:
        # Another process of this run may have got the signal.
        raise TrainingInterrupted(stop.signum or signal.SIGTERM, f"stopped at step {module.step}")
    best = keeper.best
    keeps_best = options.keep == "best" and best.score is not None
    weights = best.weights if keeps_best else module.average()
    _keep(objective.model, weights, spread=options.strategy == "fsdp")
    return TrainingResult(
        steps=module.step,
        stopped_early=keeper.stopped_early,
        kept_step=best.step if keeps_best else module.step,
        weights=weights,
        score=best.score,
        scores=best.scores,
    )


def _keep(model: Translator, weights: dict[str, Tensor], *, spread: bool) -> None:
    """Leave the chosen weights in the network, on the CPU, unless it is spread over devices."""
    model.eval()
    if spread:
        return
    model.cpu().load_state_dict(weights)


def _lightning_trainer(
    config: FitConfig,
    options: TrainerConfig,
    keeper: pl.Callback,
    run: RunFolder | None,
    uses_all: bool,
) -> pl.Trainer:
    import pytorch_lightning as pl
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from sclinguist_core.train.state import SafeCheckpointIO

    devices: Any = options.devices if isinstance(options.devices, int) else list(options.devices)
    try:
        return pl.Trainer(
            accelerator=options.accelerator,
            devices=devices,
            num_nodes=options.nodes,
            strategy=_strategy(options, uses_all),
            precision="bf16-mixed" if options.precision == "bf16-mixed" else "32-true",
            max_steps=config.steps,
            callbacks=[keeper],
            plugins=[SafeCheckpointIO()],
            logger=_tensorboard(run),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=None if run is None else run.path,
        )
    except (MisconfigurationException, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"trainer: accelerator {options.accelerator!r} with devices {options.devices!r} cannot "
            f"be used ({reason}); see `sclinguist doctor`, or set trainer.accelerator=cpu."
        ) from error


def _strategy(options: TrainerConfig, uses_all: bool) -> Any:
    n_devices = options.devices if isinstance(options.devices, int) else len(options.devices)
    if options.strategy == "fsdp":
        from sclinguist_core.train.sharding import ShardedStrategy

        return ShardedStrategy(n_devices * options.nodes)
    if options.strategy == "ddp" or n_devices * options.nodes > 1:
        from pytorch_lightning.strategies import DDPStrategy

        return DDPStrategy(find_unused_parameters=not uses_all)
    return "auto"


def _tensorboard(run: RunFolder | None) -> Any:
    """TensorBoard's logger where it is installed; metrics.csv is written in any case."""
    from importlib.util import find_spec

    if run is None or not (find_spec("tensorboard") or find_spec("tensorboardX")):
        return False
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(run.path, name="tensorboard", version="")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Lightning says about choices that were made on purpose."""
    from pytorch_lightning.utilities.warnings import PossibleUserWarning

    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)  # advertisements and hardware that is not there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 with torch 2.13: their own affair, and without effect.
            warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
