"""``sclinguist annotate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sclinguist_core.cli.common import (
    BatchSizeOption,
    BinSizeOption,
    DeviceOption,
    InputArgument,
    LayerOption,
    ModelOption,
    SeedOption,
    TableOutput,
    noun,
    open_input,
    run_with_bar,
)
from sclinguist_core.cli.embed import ContextOption

if TYPE_CHECKING:
    from sclinguist_core.data.section import Section
    from sclinguist_core.inference.annotate import Annotation


def annotate(
    source: InputArgument,
    output: TableOutput,
    reference: Annotated[
        list[Path],
        typer.Option("--reference", "-r", help="Labelled cells with RNA; repeat it to pool."),
    ],
    labels: Annotated[str, typer.Option(help="Column of the reference's obs with the labels.")],
    min_confidence: Annotated[
        float, typer.Option(help="Rows below it are 'unassigned'; 0 to 1.")
    ] = 0.5,
    novel: Annotated[
        str, typer.Option(help="Rows far from the reference: reject or keep.")
    ] = "reject",
    correct: Annotated[
        str, typer.Option(help="Shift between INPUT and reference: none or center (half-way).")
    ] = "none",
    context: ContextOption = "none",
    truth: Annotated[
        str | None,
        typer.Option(help="Column of INPUT's obs with true labels: print how right it is."),
    ] = None,
    model: ModelOption = "bundled",
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = None,
    layer: LayerOption = None,
    bin_size: BinSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Annotate cell types by a labelled reference; nothing is trained."""
    from sclinguist_core.data.readers import open_sections
    from sclinguist_core.data.write import section_table, write_table
    from sclinguist_core.errors import InputError
    from sclinguist_core.inference.annotate import annotate_iter, attach, labels_of

    if novel not in ("reject", "keep"):
        raise InputError(f"novel {novel!r}: expected reject or keep.")
    section = open_input(source, output, layer=layer, bin_size=bin_size)
    true = None if truth is None else labels_of(section.table, truth, section.name)
    steps = annotate_iter(
        section,
        open_sections(reference),
        labels,
        min_confidence=min_confidence,
        reject_novel=novel == "reject",
        correct=correct,
        context=context,
        model=model,
        device=device,
        batch_size=batch_size,
        seed=seed,
    )
    annotation = run_with_bar(steps, unit=noun(section))
    # Scored before writing: a truth that does not fit leaves nothing behind.
    figures = None if true is None else _scores(annotation, true)
    table = section_table(section)
    attach(table, annotation)
    write_table(table, output)
    typer.echo(_describe(section, annotation), err=True)
    if figures is not None:
        typer.echo(figures, err=True)
    typer.echo(output)


def _describe(section: Section, annotation: Annotation) -> str:
    """Say in a few lines what was found and what to beware of."""
    import pandas as pd

    info = annotation.info
    counts = pd.Series(annotation.cell_type).value_counts()
    lines = [
        f"{section.name}: {section.n_obs:,} {noun(section)}, reference "
        f"{' + '.join(info['references'])} with {len(annotation.labels)} cell types, model "
        f"{info['model']} ({info['model_digest']}), {info['device']}, {info['seconds']:.1f} s",
        ", ".join(f"{n:,} {name}" for name, n in counts.items()),
    ]
    lines += [f"Note: {sentence}" for sentence in annotation.warnings]
    return "\n".join(lines)


def _scores(annotation: Annotation, truth: object) -> str:
    """Compare with true labels, in all and by label."""
    import numpy as np

    from sclinguist_core.evaluation.annotation import score_annotation

    scores = score_annotation(
        np.asarray(truth, dtype=object),
        annotation.best,
        annotation.assigned,
        annotation.labels,
        annotation.confidence,
    )
    s = scores.summary
    lines = [
        f"Against the true labels ({s['cells']:.0f} cells of types that the reference has): "
        f"accuracy {s['accuracy']:.3f}, macro-F1 {s['macro_f1']:.3f}; {s['coverage']:.1%} "
        f"assigned, accuracy of those {s['accuracy_assigned']:.3f}; calibration error "
        f"{s['calibration_error']:.3f}",
    ]
    if s["new_cells"]:
        lines.append(
            f"{s['new_cells']:.0f} cells are of types that the reference lacks; "
            f"{s['new_rejected']:.1%} of them are unassigned"
        )
    return "\n".join([*lines, scores.per_class.to_string(float_format="%.3f")])
