"""How much a few own cells with measured protein are worth, and which way to use them.

    python training/benchmarks/few_shot.py DATA CHECKPOINTS [--gradient] [--also NAME=CHECKPOINTS]

CHECKPOINTS holds ``fold_a`` and ``fold_b`` as ``training/train_bundled.py`` leaves them: models
that did not see the data sets named in `SETS`. From each set 20, 100 and 500 cells are drawn, five
times; every method learns from them and is scored on the same cells that were not drawn (mean over
proteins of Pearson against CLR, over the antibodies that the model knows). Writes
``docs/results/few_shot.csv`` and ``docs/images/few_shot.png``.

Methods: the model as it is (zero-shot); `sclinguist_core.finetune` (closed form); gradient training
of all weights or of the decoder alone with early stopping on a fifth of the cells (``--gradient``;
slow); from scratch, without any model: ridge and kernel ridge on the cells' own principal
components; and ridge on the model's components of expression, which come from RNA alone: what
pretraining on RNA gives without that on pairs.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import huber_loss

import sclinguist_core as scl
from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.metrics import nan_mean, pearson
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.model import feed
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.train.own_cells import components, own_cells, project
from sclinguist_core.train.residual import Cells, correct, kernel_widths, likeness

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "pbmc1k": "fold_a",
    "teaseq_pbmc": "fold_a",
    "eccite_pbmc": "fold_a",
    "bmmc_neurips2021": "fold_b",
    "pbmc5k": "fold_b",
}
CELLS = (20, 100, 500)
LEAST_TEST_CELLS = 100
ZERO_SHOT, CLOSED = "zero-shot", "fine-tuned"
SCRATCH = ("ridge, from scratch", "kernel ridge, from scratch")
RNA_ALONE = "ridge, pretrained on RNA alone"
GRADIENT = {
    # Learning rates: the better of 3e-4 and 1e-3 on pbmc1k and teaseq_pbmc.
    "gradient, all weights": (3e-4, ""),
    "gradient, decoder alone": (1e-3, "decoder."),
}
EPOCHS, PATIENCE, BATCH, TOKENS = 15, 3, 32, 256


@dataclass(frozen=True, kw_only=True)
class Task:
    """One draw: cells to learn from, cells to predict, and what was measured in these."""

    learn: Section
    test: Section
    clr: np.ndarray
    """CLR of the test cells, shape (n, A)."""
    protein: list[str]
    """Canonical name of each antibody, length A."""


def draws(section: Section, known: set[str], n: int, count: int, most: int) -> Iterator[Task]:
    """Draw `n` cells `count` times; at most `most` of the others are predicted."""
    counts, panel = section.table.obsm["protein"], section.table.uns["protein_panel"]
    clr = protein_clr(counts, panel["isotype"].to_numpy(bool))
    wanted = ((panel["status"] == "resolved") & panel["canonical"].isin(known)).to_numpy()
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(section.n_obs)
        learn, test = np.sort(order[:n]), np.sort(order[n:][:most])
        yield Task(
            learn=replace(section, table=section.table[learn].copy()),
            test=replace(section, table=section.table[test].copy()),
            clr=clr.loc[:, wanted].to_numpy(np.float64)[test],
            protein=panel.loc[wanted, "canonical"].tolist(),
        )


def predicted(task: Task, model: Checkpoint) -> np.ndarray:
    """Predict the test cells with a checkpoint, (n, A)."""
    prediction = finish(predict_iter(task.test, model=model, device="cpu"))
    return prediction.mean[:, [prediction.names.index(name) for name in task.protein]]


def closed_form(task: Task, model: Checkpoint) -> np.ndarray:
    """Fine-tune as users do."""
    return predicted(task, scl.finetune(task.learn, model=model, device="cpu").checkpoint)


def states(model: Checkpoint, rna: Sequence[AlignedRna]) -> np.ndarray:
    """Components of cells in the space that the model learned from RNA, (n, R)."""
    network, found = model.model, []
    assert network.state is not None
    for part in rna:
        expression = part.expression(model.gene_share, model.info.model.rna_normalization)
        read = feed.Cells(values=expression, pattern=part.pattern)
        tokens = read.tokens(np.arange(part.n_obs), torch.device("cpu"))
        with torch.inference_mode():
            tables = network.tables()
            panel = network.panels(torch.from_numpy(part.measured), tables)
            _, _, state, _ = network.linear_read(
                tokens.genes, tokens.values, panel.of(tokens.pattern), tables
            )
            found.append(network.state.standardise(state).numpy().astype(np.float64))
    return np.concatenate(found)


def from_scratch(
    task: Task, model: Checkpoint, *, kernel: bool = False, pretrained: bool = False
) -> np.ndarray:
    """Learn from the drawn cells alone, by their components; penalty by cross-validation.

    From the checkpoint comes the list of genes, and the components if `pretrained`.
    """
    rng = np.random.default_rng(0)
    learn = own_cells([task.learn], model, max_cells=100_000, rng=rng)
    test = (align_genes(task.test.rna(), model.symbols),)
    if pretrained:
        x, new = states(model, learn.rna), states(model, test)
    else:
        center, basis = components(model, learn, rng)
        x, new = (project(model, rna, center, basis) for rna in (learn.rna, test))
    y = learn.target
    assert np.isfinite(y).all()
    if kernel:
        # Without a zero-shot prediction and with the components in place of the trunk.
        cells, others = (
            Cells(zero_shot=np.zeros((len(v), y.shape[1])), trunk=v, own=v[:, :0]) for v in (x, new)
        )
        widths = kernel_widths(cells)
        group = np.zeros(len(x), np.int64)
        found = correct(cells, y, group, np.zeros(y.shape[1]), widths=widths)
        out = likeness(others, cells, widths, 0.0) @ found.weight
    else:
        from sklearn.linear_model import RidgeCV

        out = RidgeCV(np.logspace(-1, 5, 13)).fit(x, y).predict(new)
    names = learn.proteins["name"].tolist()
    constant = np.zeros(len(new))
    return np.stack([out[:, names.index(p)] if p in names else constant for p in task.protein], 1)


def gradient(task: Task, model: Checkpoint, *, rate: float, part: str) -> np.ndarray:
    """Train the weights whose names start with `part`; keep the best epoch on held-out cells."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    cells = own_cells([task.learn], model, max_cells=100_000, rng=rng)
    column = pd.Index(model.protein_names).get_indexer(cells.proteins["name"])
    target = torch.from_numpy(cells.target[:, column >= 0].astype(np.float32))
    proteins = torch.from_numpy(column[column >= 0])
    (rna,) = cells.rna
    expression = rna.expression(model.gene_share, model.info.model.rna_normalization)
    read = feed.Cells(values=expression, pattern=rna.pattern)
    measured = torch.from_numpy(rna.measured)
    network = copy.deepcopy(model.model)
    for name, weight in network.named_parameters():
        weight.requires_grad_(name.startswith((part, "protein_", "cognate_gain")))
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.01)

    def mean_of(rows: np.ndarray, most: int | None = None) -> torch.Tensor:
        tokens = read.tokens(rows, torch.device("cpu"))
        genes, values = tokens.genes, tokens.values
        tables = network.tables()
        attended = None
        if most is not None and genes.shape[1] > most:
            rank = rng.random(genes.shape)
            rank[genes.numpy() < 0] = 2.0
            kept = np.argpartition(rank, most - 1, axis=1)[:, :most]
            attended = tuple(a.gather(1, torch.from_numpy(kept)) for a in (genes, values))
        panel = network.panels(measured, tables).of(tokens.pattern)
        return network(genes, values, panel, tables, proteins, attended=attended).mean

    order = rng.permutation(cells.n_obs)
    held, learn = order[: max(len(order) // 5, 4)], order[max(len(order) // 5, 4) :]
    best, kept, since = np.inf, copy.deepcopy(network.state_dict()), 0
    for epoch in range(EPOCHS + 1):
        if epoch:
            network.train()
            for rows in np.array_split(rng.permutation(learn), max(len(learn) // BATCH, 1)):
                loss = huber_loss(mean_of(rows, TOKENS), target[rows], delta=2.0)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
        network.eval()
        with torch.inference_mode():
            error = float(huber_loss(mean_of(held), target[held], delta=2.0))
        if error < best:
            best, kept, since = error, copy.deepcopy(network.state_dict()), 0
        elif (since := since + 1) >= PATIENCE:
            break
    network.load_state_dict(kept)
    return predicted(task, replace(model, model=network))


def methods(
    model: Checkpoint, others: dict[str, Checkpoint], with_gradient: bool
) -> dict[str, Callable[[Task], np.ndarray]]:
    """Every method by name."""
    found: dict[str, Callable[[Task], np.ndarray]] = {
        ZERO_SHOT: lambda task: predicted(task, model),
        CLOSED: lambda task: closed_form(task, model),
        SCRATCH[0]: lambda task: from_scratch(task, model),
        SCRATCH[1]: lambda task: from_scratch(task, model, kernel=True),
        RNA_ALONE: lambda task: from_scratch(task, model, pretrained=True),
    }
    for name, other in others.items():
        found[f"{name}, zero-shot"] = lambda task, other=other: predicted(task, other)
        found[f"{name}, fine-tuned"] = lambda task, other=other: closed_form(task, other)
    if with_gradient:
        for name, (rate, part) in GRADIENT.items():
            found[name] = lambda task, rate=rate, part=part: gradient(
                task, model, rate=rate, part=part
            )
    return found


def measure(
    data: Path,
    checkpoints: Path,
    also: dict[str, Path],
    *,
    cells: tuple[int, ...],
    count: int,
    most: int,
    with_gradient: bool,
) -> pd.DataFrame:
    """One row a data set, number of cells, draw and method: ``r`` and ``seconds``."""
    rows = []
    for name, fold in SETS.items():
        model = load_checkpoint(checkpoints / fold)
        others = {label: load_checkpoint(folder / fold) for label, folder in also.items()}
        for checkpoint in (model, *others.values()):
            assert name not in checkpoint.info.training_datasets, f"{fold} has seen {name}"
        section = scl.open_section(data / "citeseq" / f"{name}.h5ad")
        known = set(model.protein_names).intersection(*(c.protein_names for c in others.values()))
        for n in cells:
            if section.n_obs < n + LEAST_TEST_CELLS:
                print(f"{name}: too small for {n} cells", flush=True)
                continue
            for draw, task in enumerate(draws(section, known, n, count, most)):
                for method, run in methods(model, others, with_gradient).items():
                    started = time.perf_counter()
                    r = nan_mean(np.nan_to_num(pearson(run(task), task.clr)))
                    seconds = time.perf_counter() - started
                    rows.append((name, n, draw, method, len(task.protein), r, seconds))
            part = pd.DataFrame(rows[-count * len(methods(model, others, with_gradient)) :])
            print(name, n, part.groupby(3, sort=False)[5].mean().round(3).to_dict(), flush=True)
    columns = ["dataset", "cells", "draw", "method", "proteins", "r", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def plot(table: pd.DataFrame, path: Path, ran_on: str) -> None:
    """One panel a data set: r over cells, with the standard deviation over draws."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(table["dataset"].unique())
    order = list(table["method"].unique())
    figure, axes = plt.subplots(1, len(names), figsize=(2.9 * len(names), 3.6))
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        part = table[table["dataset"] == name]
        numbers = sorted(part["cells"].unique())
        for i, method in enumerate(order):
            r = part[part["method"] == method].groupby("cells")["r"]
            x = np.arange(len(numbers)) + 0.04 * (i - len(order) / 2)
            style = {"color": "0.6", "linestyle": "--"} if method == ZERO_SHOT else {}
            style |= {"color": "#0b7a6f", "linewidth": 2.5} if method == CLOSED else {}
            axis.errorbar(x, r.mean(), r.std(), label=method, capsize=2, marker="o", ms=3, **style)
        axis.set_title(name, fontsize=10)
        axis.set_xticks(range(len(numbers)), [str(n) for n in numbers])
        axis.set_xlabel("own cells with protein")
    np.atleast_1d(axes)[0].set_ylabel("mean per-protein Pearson (CLR)")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.03), ncols=5,
        fontsize=8, frameon=False,
    )  # fmt: skip
    figure.text(
        0.5, 0.005, f"Bars: standard deviation over draws. {ran_on}", ha="center", fontsize=6
    )
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with citeseq/")
    parser.add_argument("checkpoints", type=Path, help="folder with fold_a and fold_b")
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="NAME=FOLDER",
        help="further folders of folds, such as models without pretraining",
    )  # fmt: skip
    parser.add_argument("--gradient", action="store_true", help="gradient training too (slow)")
    parser.add_argument("--cells", nargs="+", type=int, default=CELLS)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--test-cells", type=int, default=500, help="most cells to predict a draw")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "few_shot.csv")
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "images" / "few_shot.png")
    given = parser.parse_args()
    also = dict(entry.split("=", 1) for entry in given.also)
    table = measure(
        given.data,
        given.checkpoints,
        {name: Path(folder) for name, folder in also.items()},
        cells=tuple(given.cells),
        count=given.draws,
        most=given.test_cells,
        with_gradient=given.gradient,
    )
    model = load_checkpoint(given.checkpoints / "fold_a")
    ran_on = (
        f"Model {model.info.name} ({given.checkpoints.name}, fold_a {model.digest}), "
        f"napari-sclinguist {scl.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} CPU cores, {time.strftime('%Y-%m-%d')}"
    )
    given.results.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.results, index=False, float_format="%.4f")
    plot(table, given.image, ran_on)
    wide = table.groupby(["dataset", "cells", "method"], sort=False)["r"].agg(["mean", "std"])
    print(wide.round(3).unstack("method").to_string())
    print(table.groupby(["method", "cells"], sort=False)["seconds"].median().round(1).to_string())
    print(ran_on)


if __name__ == "__main__":
    main()
