"""Leave one data set out: the model and all baselines on data sets that none of them saw.

    python training/benchmarks/leave_one_out.py DATA [--runs runs/bundled] [--jobs 2]

Each test set is predicted by the checkpoint of the fold of ``training/train_bundled.py`` that held
it out; the baselines learn from the very sets that this checkpoint was trained on. Beside the
full input every method gets a random panel of 500 genes and a quarter of the depth. A last task is
a pair of donors: pbmc10k alone teaches all methods, pbmc5k is predicted. For it the bundled recipe
is trained with all other paired sets held out; the checkpoint stays in ``RUNS/only_pbmc10k``.

For the figures against log1p counts, methods are fitted to them: the baselines once more (but for
the trees), the model by a reading of what the CLR leaves out, learnt from the training cells
(:mod:`sclinguist_core.evaluation.count_reading`).

Writes to ``docs/results``: ``leave_one_out.csv``, ``leave_one_out_per_protein.csv``,
``leave_one_out_losses.csv``, ``leave_one_out.md``, and the plot; with fewer than all test sets
(by choice, or since one failed) ``leave_one_out_partial`` instead. A figure in brackets is a 95 %
bootstrap interval over cells; it does not cover other donors.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path

import pandas as pd

from sclinguist_core.data.section import RnaCounts
from sclinguist_core.evaluation.benchmark_config import BenchmarkConfig
from sclinguist_core.evaluation.benchmark_report import (
    benchmark_figure,
    loss_table,
    markdown_table,
    number,
)
from sclinguist_core.evaluation.learners import FOUR, MEAN_OF_FOUR, TREES
from sclinguist_core.evaluation.methods import MODEL, LearnerMethods
from sclinguist_core.evaluation.results import Benchmark
from sclinguist_core.evaluation.runner import Runner
from sclinguist_core.evaluation.tasks import Task, open_cells
from sclinguist_core.files import replacing
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.train.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))
from train_bundled import train  # noqa: E402  (a script beside this folder)

RESULTS = ROOT / "docs" / "results"
MAIN = ("pbmc1k", "pbmc5k", "pbmc10k", "teaseq_pbmc", "eccite_pbmc", "bmmc_neurips2021")
OTHERS = ("pbmc_wide_panel", "pbmc_5prime", "cd8_gse100866", "cbmc")
RNA_ONLY = ("pbmc1k_v3", "pbmc1k_v2", "pbmc1k_5prime")
PAIR = ("pbmc10k", "pbmc5k")
PANEL_OF_14 = (
    "CD3", "CD4", "CD8", "CD14", "CD15", "CD16", "CD19", "CD25", "CD45RA", "CD45RO", "CD56",
    "CD127", "CD279", "TIGIT",
)  # fmt: skip
"""The antibodies of the 10x panel: figures that were published elsewhere are over these."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One test set; everything that a worker process needs to know.

    Where the folder of the checkpoint does not exist, the bundled recipe is trained, with these
    `overrides`, on the sets in `train`.
    """

    data: Path
    test: str
    train: tuple[str, ...]
    checkpoint: Path
    config: BenchmarkConfig
    part: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What is predicted, and how if that is special."""
        return f"{self.test} {self.part}".strip()


def main() -> None:
    """Run the jobs, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with citeseq/ and rna_only/")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bundled")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these test sets alone")
    parser.add_argument("--genes", type=int, default=500, help="0: no small panel")
    parser.add_argument("--depth", type=float, default=0.25, help="1: no thinning")
    parser.add_argument("--repeats", type=int, default=2, help="draws of the poorer inputs")
    parser.add_argument("--no-trees", action="store_true", help="leave out gradient boosting")
    parser.add_argument("--no-pair", action="store_true", help="leave out pbmc10k -> pbmc5k")
    parser.add_argument("--only-pair", action="store_true", help="nothing but pbmc10k -> pbmc5k")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE",
        help="overrides of the recipe with which the folds were trained, for pbmc10k alone",
    )  # fmt: skip
    parser.add_argument(
        "--rewrite", action="store_true", help="losses, Markdown and plot anew from --results"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    if arguments.no_pair and arguments.only_pair:
        raise SystemExit("--no-pair and --only-pair leave nothing to do; give one of them")
    if arguments.rewrite:
        write(read(arguments.results), arguments.results, "leave_one_out")
        return
    started = time.perf_counter()
    config = BenchmarkConfig(
        learners=FOUR if arguments.no_trees else (*FOUR, TREES),
        totalvi=False,
        log1p=True,
        n_genes=arguments.genes or None,
        depth=arguments.depth,
        repeats=arguments.repeats,
        device="cpu",
    )
    wanted = () if arguments.only_pair else tuple(arguments.only or (*MAIN, *OTHERS))
    unknown = sorted(set(wanted) - {*MAIN, *OTHERS})
    if unknown:
        raise SystemExit(f"--only: found {', '.join(unknown)}, expected {', '.join(MAIN + OTHERS)}")
    jobs = plan(arguments.data, arguments.runs, wanted, config, pair=not arguments.no_pair)
    jobs = [dataclasses.replace(job, overrides=tuple(arguments.set)) for job in jobs]
    # The longest first, so that no process is left alone with it at the end.
    queue = sorted(jobs, key=lambda job: (job.part == "", job.test != "bmmc_neurips2021"))
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        done = dict(pool.imap_unordered(attempt, queue))
    parts = [done[job.name] for job in jobs if job.name in done and done[job.name] is not None]
    failed = [job.name for job in jobs if done.get(job.name) is None]
    if not parts:
        raise SystemExit("every job failed; see the messages above")
    result = Benchmark(
        summary=pd.concat([part.summary for part in parts], ignore_index=True),
        per_protein=pd.concat([part.per_protein for part in parts], ignore_index=True),
        warnings=tuple(dict.fromkeys(w for part in parts for w in part.warnings)),
    )
    whole = {*MAIN, *OTHERS} <= set(wanted) and not arguments.no_pair and not failed
    stem = "leave_one_out" if whole else "leave_one_out_partial"
    write(result, arguments.results, stem)
    print((arguments.results / f"{stem}.md").read_text("utf-8"))
    print(f"{time.perf_counter() - started:.0f} s with {arguments.jobs} processes")
    if failed:
        raise SystemExit(f"failed, and not in the tables: {', '.join(failed)}")


def plan(
    data: Path, runs: Path, wanted: tuple[str, ...], config: BenchmarkConfig, *, pair: bool
) -> list[Job]:
    """Find the fold that held each set out."""
    folds = {}
    for folder in sorted(runs.glob("fold_*")):
        if folder.is_dir():
            seen = load_checkpoint(folder).info.training_datasets
            held_out = set(MAIN + OTHERS) - set(seen)
            folds |= dict.fromkeys(held_out, (folder, tuple(n for n in MAIN + OTHERS if n in seen)))
    missing = [name for name in wanted if name not in folds]
    if missing:
        raise SystemExit(f"{runs}: no fold held out {', '.join(missing)}; run train_bundled.py")
    jobs = [
        Job(data=data, test=name, train=folds[name][1], checkpoint=folds[name][0], config=config)
        for name in wanted
    ]
    if pair:
        teacher, test = PAIR
        jobs.append(
            Job(
                data=data,
                test=test,
                train=(teacher,),
                checkpoint=runs / f"only_{teacher}",
                config=dataclasses.replace(config, n_genes=None, depth=1.0),
                part=f"from {teacher} alone",
            )
        )
    return jobs


def attempt(job: Job) -> tuple[str, Benchmark | None]:
    """Run one job; an error of one test set must not cost the figures of the others."""
    try:
        return job.name, work(job)
    except (Exception, SystemExit):  # train_bundled says so where a folder does not fit
        print(f"{job.name}: failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return job.name, None


def work(job: Job) -> Benchmark:
    """Run one job with one thread."""
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {job.name}: %(message)s")
    for noisy in ("torch", "lightning", "fontTools", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    rna_only = [open_rna(job.data / "rna_only" / f"{name}.h5ad") for name in RNA_ONLY]
    task = Task(
        train=[open_cells(job.data / "citeseq" / f"{name}.h5ad") for name in job.train],
        test=open_cells(job.data / "citeseq" / f"{job.test}.h5ad"),
        part=job.part,
    )
    started = time.process_time()
    runner = FoldRunner(job.config, checkpoint_of(job), rna_only)
    runner.task(task)
    logging.info("%.0f s of CPU time", time.process_time() - started)
    return runner.result()


def checkpoint_of(job: Job) -> Checkpoint:
    """Load the checkpoint of a job, or train it; it has seen the job's training sets alone."""
    checkpoint = load_checkpoint(job.checkpoint) if not job.part else only(job)
    seen = set(checkpoint.info.training_datasets) - set(RNA_ONLY)
    if seen != set(job.train):
        raise SystemExit(
            f"{job.checkpoint}: trained on {', '.join(sorted(seen))}, expected {job.train}"
        )
    return checkpoint


def only(job: Job) -> Checkpoint:
    """Train the bundled recipe on the paired sets of a job, or load what that gave before."""
    os.environ["SCLINGUIST_DATA"] = str(job.data.resolve())
    recipe = read_recipe(ROOT / "training" / "bundled.yaml", job.overrides)
    others = tuple(entry.name for entry in recipe.paired if entry.name not in job.train)
    return train(recipe, others, job.checkpoint)


def open_rna(path: Path) -> RnaCounts:
    """RNA counts of a file."""
    from sclinguist_core.data.readers import open_section

    return open_section(path).rna()


class FoldRunner(Runner):
    """Baselines get the RNA-only sets too, and log1p figures come from fits to log1p."""

    def __init__(self, config: BenchmarkConfig, checkpoint: Checkpoint | None, rna_only) -> None:
        super().__init__(config, checkpoint, None, lambda words: logging.info(words))
        self.rna_only = rna_only

    def _learners(self, task: Task, proteins) -> LearnerMethods:
        return LearnerMethods(
            task,
            proteins,
            methods=self.config.learners,
            rna_only=self.rna_only,
            log1p=self.config.log1p,
            seed=self.config.seed,
        )


def write(result: Benchmark, folder: Path, stem: str) -> None:
    """Write tables, Markdown and plot."""
    folder.mkdir(parents=True, exist_ok=True)
    losses = folds_alone(result).losses()
    tables = {"": result.summary, "_per_protein": result.per_protein, "_losses": losses}
    for suffix, table in tables.items():
        with replacing(folder / f"{stem}{suffix}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")
    with replacing(folder / f"{stem}.md") as temporary:
        temporary.write_text(markdown(result), "utf-8")
    folds = folds_alone(result)
    if folds.summary.empty:
        return
    figure = benchmark_figure(folds, methods=methods_of(folds.summary))
    for suffix in ("png", "svg"):
        with replacing(folder / f"{stem}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, dpi=150, facecolor="white")


def read(folder: Path) -> Benchmark:
    """Read the tables of an earlier run."""
    tables = [
        pd.read_csv(folder / f"leave_one_out{suffix}.csv").fillna({"part": ""})
        for suffix in ("", "_per_protein")
    ]
    return Benchmark(summary=tables[0], per_protein=tables[1])


def folds_alone(result: Benchmark) -> Benchmark:
    """Leave the pair of donors out: its test set is one of the folds' too."""
    tables = (result.summary, result.per_protein)
    summary, per_protein = (table[table["part"] == ""] for table in tables)
    return Benchmark(summary=summary, per_protein=per_protein)


def methods_of(summary: pd.DataFrame) -> list[str]:
    """Methods with a figure, worst first."""
    full = summary[summary["input"] == "full"]
    main = full[full["dataset"].isin(MAIN)]
    main = full if main.empty else main
    return list(main.groupby("method")["pearson_clr"].mean().dropna().sort_values().index)


def mean_over(result: Benchmark, proteins, column: str, names) -> pd.DataFrame:
    """Mean per-protein figure by method (rows) and data set (columns) on the full input."""
    rows = result.per_protein
    rows = rows[(rows["input"] == "full") & rows["dataset"].isin(names)]
    rows = rows[(rows["part"] == "")] if len(rows) else rows
    if proteins is not None:
        rows = rows[rows["protein"].isin(proteins)]
    wide = rows.groupby(["method", "dataset"], sort=False)[column].mean().unstack()
    wide = wide[[name for name in names if name in wide]]
    wide.columns.name = None
    return wide.assign(mean=wide.mean(axis=1)).sort_values("mean", ascending=False)


def markdown(result: Benchmark) -> str:
    """Report in Markdown."""
    there = list(dict.fromkeys(result.summary.loc[result.summary["part"] == "", "dataset"]))
    main = [name for name in MAIN if name in there]
    others = [name for name in OTHERS if name in there]
    parts = [
        "# Leave one data set out\n\nWritten by `training/benchmarks/leave_one_out.py`. Mean over "
        "proteins of the Pearson correlation across cells, single cells. The model is the fold "
        "that did not see the data set; baselines learnt from the same training sets, each from "
        "the choice of them that did best in leaving one *training* set out.\n",
    ]
    if main:
        parts += ["## Against CLR, all proteins that a training set measured\n"]
        parts += [markdown_table(with_intervals(result, main))]
    sentences = leads(result, main)
    if sentences:
        parts += ["\nThe model's lead, with the 95 % interval of a paired bootstrap over cells:\n"]
        parts += [f"- {sentence}" for sentence in sentences]
    if others:
        parts += ["\n## Against CLR, further data sets\n"]
        parts += [markdown_table(with_intervals(result, others))]
    columns = (("CLR", "pearson_clr"), ("log1p counts", "pearson_log1p"))
    for title, column in columns if main else ():
        parts += [f"\n## Against {title}, the 14 proteins of the 10x panel\n"]
        table = mean_over(result, PANEL_OF_14, column, main)
        parts += [markdown_table(table.reset_index())]
    if main:
        parts += ["\n## Against log1p counts, all proteins that a training set measured\n"]
        parts += ["Methods are fitted to log1p counts here, but for gradient boosting.\n"]
        table = mean_over(result, None, "pearson_log1p", main)
        parts += [markdown_table(table.reset_index())]
    losses = folds_alone(result).losses()
    losses = losses[losses["dataset"].isin(main or others)]
    if len(losses):
        parts += [
            "\n## Poorer inputs\n\nMean over the data sets of the first table; loss against the "
            "full input, on the proteins that a method can predict from both. (Total count is that "
            "of the measured antibodies: RNA does not matter to it.)\n",
            markdown_table(loss_table(losses).reset_index()),
        ]
    pair = result.summary[(result.summary["part"] != "") & (result.summary["input"] == "full")]
    if len(pair):
        teacher, test = PAIR
        rows = result.per_protein
        rows = rows[(rows["part"] != "") & (rows["input"] == "full")]
        table = rows.groupby("method")[["pearson_clr", "pearson_log1p"]].mean()
        table = table.sort_values("pearson_clr", ascending=False).reset_index()
        parts += [f"\n## {teacher} to {test} ({rows['protein'].nunique()} proteins)\n"]
        parts += [markdown_table(table)]
    parts += ["\n## Proteins\n"]
    names = result.datasets
    parts += [f"- {n} ({len(result.proteins(n))}): {', '.join(result.proteins(n))}" for n in names]
    return "\n".join(parts) + "\n"


def with_intervals(result: Benchmark, names) -> pd.DataFrame:
    """Lay out the headline with its interval."""
    rows = result.summary
    rows = rows[(rows["input"] == "full") & (rows["part"] == "") & rows["dataset"].isin(names)]
    order = mean_over(result, None, "pearson_clr", names)
    cells = {
        (row.method, row.dataset): (
            f"{number(row.pearson_clr)} ({number(row.pearson_clr_low, 2)} to "
            f"{number(row.pearson_clr_high, 2)}; {row.n_proteins})"
            if row.n_proteins
            else "–"
        )
        for row in rows.itertuples()
    }
    table = pd.DataFrame({"method": order.index})
    for name in order.columns.drop("mean"):
        table[name] = [cells.get((method, name), "–") for method in order.index]
    table["mean"] = order["mean"].to_numpy()
    return table


def leads(result: Benchmark, names) -> list[str]:
    """Put the model beside the best single baseline and beside the mean of four."""
    sentences = []
    rows = result.summary
    rows = rows[(rows["input"] == "full") & (rows["part"] == "")]
    for name in names:
        table = rows[rows["dataset"] == name].set_index("method")
        if MODEL not in table.index:
            continue
        single = table.drop([MODEL, MEAN_OF_FOUR], errors="ignore")
        single = single[single["n_proteins"] == table.loc[MODEL, "n_proteins"]]
        best = str(single["pearson_clr"].idxmax())
        beside = [
            f"{method} {table.loc[method, 'lead']:+.3f} "
            f"({table.loc[method, 'lead_low']:+.3f} to {table.loc[method, 'lead_high']:+.3f})"
            for method in (best, MEAN_OF_FOUR)
            if method in table.index
        ]
        sentences.append(f"{name}: over {' and over '.join(beside)}")
    return sentences


if __name__ == "__main__":
    main()
