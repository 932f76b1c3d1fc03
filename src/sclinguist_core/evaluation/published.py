"""The published scLinguist architecture as a baseline: trained on the same cells, from scratch.

The published weights cannot be compared on data that they have seen, and they know other proteins;
so the *architecture* (:mod:`sclinguist_core.model.hyena`) is trained here on the training sets that
all baselines get, in its own normalisation and with its own loss
(:mod:`sclinguist_core.train.published_cells`). Full size - 285 million weights, 85 GFLOP a cell,
three times that in training - is for a GPU; a processor gets a scaled-down one, and what
:func:`describe` says of it in a table says so.

Shapes: n cells, G genes, P proteins, B cells of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.features import MIN_SHARED_GENES, PairedCells
from sclinguist_core.evaluation.metrics import FloatArray
from sclinguist_core.train.published_cells import (
    known_symbols,
    published_error,
    published_expression,
    published_targets,
    variable_genes,
)

if TYPE_CHECKING:
    import torch

    from sclinguist_core.model.hyena import HyenaTranslator
    from sclinguist_core.model.hyena_config import HyenaConfig

logger = logging.getLogger(__name__)

PUBLISHED = "scLinguist architecture"
FULL_SIZE_BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTraining:
    """Size of the network and length of its training; the defaults are the scaled-down ones.

    Attributes
    ----------
    n_genes
        Most variable genes that go in.
    width
        Width of a position.
    full_size
        The published sizes instead: 19,202 gene and 6,427 protein positions of width 128. Genes
        and proteins of the training sets take the first positions, the others stay empty.
    steps, batch_size
        Optimiser steps, and cells in one.
    learning_rate
        Peak of a one-cycle schedule (AdamW).
    """

    n_genes: int = 2_000
    width: int = 16
    full_size: bool = False
    steps: int = 1_000
    batch_size: int = 32
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        for name, least in (("n_genes", 2), ("width", 1), ("steps", 10), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate: expected above 0, found {self.learning_rate}")

    def sizes(self, n_genes: int, n_proteins: int) -> HyenaConfig:
        """Sizes of the network for so many genes and proteins."""
        from sclinguist_core.model.hyena_config import HyenaConfig

        if self.full_size:
            return HyenaConfig()
        return HyenaConfig(n_genes=n_genes, n_proteins=max(n_proteins, 2), width=self.width)


def training_for(device: str) -> PublishedTraining:
    """Training that is bearable on a device: full size on CUDA, scaled down elsewhere."""
    if device.startswith("cuda"):
        return PublishedTraining(
            full_size=True, steps=2_000, batch_size=FULL_SIZE_BATCH, learning_rate=3e-4
        )
    return PublishedTraining()


def describe(training: PublishedTraining) -> str:
    """Say what was trained, in words for a table."""
    if training.full_size:
        return f"published sizes, trained from scratch for {training.steps} steps"
    return (
        f"scaled down to {training.n_genes:,} genes and width {training.width} (published: 19,202 "
        f"and 128), trained from scratch for {training.steps} steps"
    )


@dataclass(frozen=True)
class PublishedPredictor:
    """A trained network of the published architecture; see :func:`train`.

    Attributes
    ----------
    model
        The network, in evaluation mode.
    symbols
        Genes at its first positions.
    proteins
        Proteins at its first positions, canonical names.
    mean, sd
        Of the training targets, float64 (len(proteins),): predictions are given in these units.
    device
        Where it computes.
    """

    model: HyenaTranslator
    symbols: list[str]
    proteins: list[str]
    mean: np.ndarray
    sd: np.ndarray
    device: torch.device

    def predict(self, query: RnaCounts, proteins: Sequence[str]) -> FloatArray:
        """Predict cells, (n, len(proteins)), in SD; NaN columns for proteins never trained on."""
        import torch

        position = {name: i for i, name in enumerate(self.proteins)}
        columns = [i for i, name in enumerate(proteins) if name in position]
        out = np.full((query.counts.shape[0], len(proteins)), np.nan)
        if not columns:
            return out
        chosen = np.array([position[proteins[i]] for i in columns])
        expression = published_expression(query, self.symbols)
        # The positions after the last gene are empty when the published sizes were asked for.
        batch = FULL_SIZE_BATCH if self.model.config.width >= 128 else 256
        with torch.inference_mode():
            tables = self.model.tables(torch.from_numpy(chosen).to(self.device))
            for start in range(0, len(out), batch):
                rows = slice(start, start + batch)
                x = _dense(expression[rows], self.model.config.n_genes).to(self.device)
                with _precision(self.device):
                    y = self.model(x, tables).float().cpu().numpy()
                out[rows, columns] = (y - self.mean[chosen]) / self.sd[chosen]
        return out


def train(
    train_sets: Sequence[PairedCells],
    *,
    measured: Sequence[str] | None = None,
    training: PublishedTraining | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> PublishedPredictor:
    """Train the published architecture on paired cells.

    Parameters
    ----------
    train_sets
        Paired data sets. They may differ in genes and proteins.
    measured
        Canonical symbols of the genes that the cells to predict will have; others are not chosen,
        since a network that finds zeros where it has learnt expression is lost. All when None.
    training
        Size and length; by default what is bearable on the device (:func:`training_for`).
    seed
        Of weights and batches. On a processor the same seed gives the same network.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
    progress
        Called after each step with steps done, all steps, and the loss.

    Raises
    ------
    InputError
        If fewer than 200 genes, or fewer than two proteins, can be learnt from.
    """
    import torch

    from sclinguist_core.model.device import choose_device
    from sclinguist_core.model.hyena import HyenaTranslator

    target_device = choose_device(device)
    training = training or training_for(target_device.type)
    proteins = sorted({name for data in train_sets for name in _canonical(data)})
    y = np.concatenate(
        [published_targets(data.protein, data.panel, proteins) for data in train_sets]
    )
    measured_once = np.isfinite(y).any(axis=0)
    y = y[:, measured_once]
    proteins = [name for name, is_in in zip(proteins, measured_once, strict=True) if is_in]
    if len(proteins) < 2:
        names = ", ".join(data.name for data in train_sets)
        raise InputError(
            f"train: {len(proteins)} known proteins in {names}, expected at least two; give "
            "another --train file"
        )
    n_positions = training.sizes(training.n_genes, len(proteins)).n_genes
    symbols = variable_genes([data.rna for data in train_sets], n_positions, measured)
    fewest = min(MIN_SHARED_GENES, n_positions)
    if len(symbols) < fewest:
        raise InputError(
            f"train: the training files and the prediction share {len(symbols)} genes, expected "
            f"at least {fewest}; leave out the file with the smallest gene panel"
        )
    expression = sparse.vstack(
        [published_expression(data.rna, symbols) for data in train_sets], format="csr"
    )
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.manual_seed(seed)
        model = HyenaTranslator(training.sizes(len(symbols), len(proteins))).to(target_device)
        logger.info("training %s: %s", PUBLISHED, describe(training))
        _fit(model, expression, y, training, np.random.default_rng(seed), progress)
    mean = np.asarray(np.nanmean(y, axis=0, dtype=np.float64))
    sd = np.asarray(np.nanstd(y, axis=0, dtype=np.float64))
    sd[sd <= 0] = 1.0
    return PublishedPredictor(model, symbols, proteins, mean, sd, target_device)


def train_and_predict(
    train_sets: Sequence[PairedCells],
    query: RnaCounts,
    proteins: Sequence[str],
    *,
    seed: int = 0,
    steps: int | None = None,
    training: PublishedTraining | None = None,
    device: str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> FloatArray:
    """Train the published architecture and predict a query: the baseline in one call.

    Parameters
    ----------
    train_sets
        Paired data sets to learn from.
    query
        Raw RNA counts to predict from, n cells.
    proteins
        Canonical names of the proteins wanted.
    seed
        Of weights and batches.
    steps
        Optimiser steps, instead of those of `training`.
    training, device, progress
        See :func:`train`.

    Returns
    -------
    (n, len(proteins)) float64 in standard deviations of the training targets; NaN columns for
    proteins that no training set measured.
    """
    from dataclasses import replace

    from sclinguist_core.model.device import choose_device

    training = training or training_for(choose_device(device).type)
    if steps is not None:
        training = replace(training, steps=steps)
    predictor = train(
        train_sets,
        measured=known_symbols(query),
        training=training,
        seed=seed,
        device=device,
        progress=progress,
    )
    return predictor.predict(query, proteins)


def _fit(
    model: HyenaTranslator,
    expression: sparse.csr_matrix,
    y: np.ndarray,
    training: PublishedTraining,
    rng: np.random.Generator,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """Minimise :func:`published_error` in place; epochs of shuffled cells."""
    import torch

    device = model.decoder.out.weight.device
    # Only positions up to the last protein are computed: nothing looks ahead.
    panel = torch.arange(y.shape[1], device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps, pct_start=0.2
    )
    waiting = np.empty(0, np.int64)
    model.train()
    for step in range(training.steps):
        if len(waiting) < training.batch_size:
            waiting = np.concatenate([waiting, rng.permutation(len(y))])
        rows, waiting = np.split(waiting, [training.batch_size])
        x = _dense(expression[rows], model.config.n_genes).to(device)
        with _precision(device):
            predicted = model(x, model.tables(panel)).float()
        loss = published_error(predicted, torch.from_numpy(y[rows]).to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, training.steps, float(loss.detach()))
    model.eval()


def _precision(device: torch.device) -> torch.autocast:
    """bf16 for products of matrices on CUDA, float32 elsewhere."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _dense(expression: sparse.csr_matrix, n_positions: int) -> torch.Tensor:
    """Float32 tensor (B, n_positions), empty after the last gene."""
    import torch

    x = torch.zeros(expression.shape[0], n_positions)
    x[:, : expression.shape[1]] = torch.from_numpy(expression.toarray())
    return x


def _canonical(data: PairedCells) -> set[str]:
    used = ~data.panel["isotype"].to_numpy(bool)
    return set(data.panel["canonical"].to_numpy(str)[used]) - {""}
