"""Fit how the errors of a checkpoint's proteins go together, and add that to its folder.

    python training/fit_conditioning.py DATA [--runs runs/bundled] [--checkpoint FOLDER]

Errors come from data sets that the checkpoints of the folds did not see, calibrated on the other
sets (`training/train_bundled.py` trains them). Only ``conditioning.safetensors`` is written:
weights, predictions from RNA and the checkpoint's digest stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sclinguist_core.data.readers import open_section
from sclinguist_core.evaluation.conditioning import fit_conditioning
from sclinguist_core.evaluation.held_out import collect, collect_agreement
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.model.conditioning import FILE, digest, write_conditioning
from sclinguist_core.resources import checkpoints_dir

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Collect held-out errors, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with citeseq/ and rna_only/")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bundled")
    parser.add_argument("--checkpoint", type=Path, default=checkpoints_dir() / "bundled")
    arguments = parser.parse_args()
    folds = [load_checkpoint(p) for p in sorted(arguments.runs.glob("fold_?")) if p.is_dir()]
    names = sorted({name for fold in folds for name in fold.info.training_datasets})
    sections = [open_section(arguments.data / "citeseq" / f"{name}.h5ad") for name in names]
    cache = arguments.runs / "held_out"
    records = collect(folds, sections, cache)
    rna = [open_section(path) for path in sorted((arguments.data / "rna_only").glob("*.h5ad"))]
    agreement = collect_agreement(folds, rna, cache)
    checkpoint = load_checkpoint(arguments.checkpoint)
    conditioning = fit_conditioning(records, agreement, checkpoint.protein_names)
    write_conditioning(conditioning, arguments.checkpoint)
    again = load_checkpoint(arguments.checkpoint)
    if again.digest != checkpoint.digest or again.conditioning is None:
        raise SystemExit(f"{arguments.checkpoint}: its digest changed, expected it to stay")
    for context, factors in again.conditioning.items():
        print(f"{context}: {factors.known.sum()} of {len(factors.noise)} proteins")
    print(f"{arguments.checkpoint / FILE}: {digest(again.conditioning)}")


if __name__ == "__main__":
    main()
