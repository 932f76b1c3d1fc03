"""What takes names: of proteins, genes, cells and files."""

from __future__ import annotations

import random
from pathlib import Path

from faults.small import Small
from fuzzing.names import any_text, odd_name, odd_names
from fuzzing.target import Target, Values


def proteins(folder: Path, small: Small) -> Target:
    """Look up a protein."""
    from sclinguist_core.vocabulary.proteins import list_proteins, resolve_protein

    known = list_proteins().index.tolist()

    def run(name: str) -> None:
        protein = resolve_protein(name)
        assert resolve_protein(protein.name).name == protein.name

    return Values(draw=lambda chance: odd_name(known, chance), run=run)


def panels(folder: Path, small: Small) -> Target:
    """Look up the antibodies of a panel."""
    from sclinguist_core.vocabulary.proteins import list_proteins, resolve_panel

    known = list_proteins().index.tolist()

    def run(names: list[str]) -> None:
        assert len(resolve_panel(names)) == len(names)

    return Values(draw=lambda chance: odd_names(known, chance), run=run)


def genes(folder: Path, small: Small) -> Target:
    """Look up genes."""
    from sclinguist_core.vocabulary.genes import gene_table, resolve_genes

    table = gene_table()
    ids = table["ensembl_id"]
    known = [*table.index[::50], *ids[ids != ""][::50]]

    def run(names: list[str]) -> None:
        symbols = resolve_genes(names).symbols
        assert len(symbols) == len(names)
        assert set(symbols) <= {"", *table.index}

    return Values(draw=lambda chance: odd_names(known, chance), run=run)


def protein_lists(folder: Path, small: Small) -> Target:
    """Read what ``--proteins`` is given: names, or ``@FILE``."""
    from sclinguist_core.cli.predict import protein_names
    from sclinguist_core.inference.prepare import select_proteins
    from sclinguist_core.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(small.model)
    path = folder / "names.txt"

    def draw(chance: random.Random) -> tuple[bool, str]:
        names = odd_names(checkpoint.protein_names, chance, 4)
        text = chance.choice((",", ", ", "\n", "# no\n")).join(names)
        return chance.random() < 0.5, text

    def run(given: tuple[bool, str]) -> None:
        in_file, text = given
        if in_file:
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        chosen = select_proteins(checkpoint, protein_names(f"@{path}" if in_file else text))
        assert len(set(chosen.tolist())) == len(chosen) > 0

    return Values(draw=draw, run=run)


def paths(folder: Path, small: Small) -> Target:
    """Open and name inputs and outputs that are called anything."""
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.data.write import check_output
    from sclinguist_core.errors import InputError
    from sclinguist_core.model.checkpoint import checkpoint_folder

    suffixes = ("", ".h5ad", ".h5", ".zarr", ".mtx", ".png", ".gz")

    def run(name: str) -> None:
        path = folder / name.lstrip("/~")
        for use in (open_section, check_output, checkpoint_folder):
            try:
                use(path)
            except InputError as error:
                last = error
        raise last

    return Values(draw=lambda chance: any_text(chance) + chance.choice(suffixes), run=run)


def barcodes(folder: Path, small: Small) -> Target:
    """Write and read a table whose cells and genes are called anything."""
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.data.write import write_table

    def draw(chance: random.Random) -> tuple[list[str], list[str]]:
        cells, genes = ([any_text(chance) for _ in range(n)] for n in (6, 20))
        return cells, genes

    def run(given: tuple[list[str], list[str]]) -> None:
        table = small.cells()[:6, :20].copy()
        table.obs_names, table.var_names = given
        del table.obsm["protein"]
        section = open_section(write_table(table, folder / "cells.h5ad"))
        assert section.table.obs_names.tolist() == given[0]

    return Values(draw=draw, run=run)
