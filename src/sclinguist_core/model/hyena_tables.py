"""The authors' tables of gene and protein positions, in our names.

Genes stand there by Ensembl id and get their current symbols. Proteins stand there in capitals,
some as antibodies are called and most by their UniProt mnemonic (``GTPBA``); a mnemonic may well be
another protein's alias (``MRP1``), so a name is only replaced where nothing speaks against it.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.reading import plain_file
from sclinguist_core.vocabulary.genes import gene_table, resolve_genes
from sclinguist_core.vocabulary.proteins import Protein, find_product

_ENSEMBL_ID = re.compile(r"ENSG\d+(\.\d+)?")
_GENES_FOR = "gene_order.csv, with a column of Ensembl ids and one row a gene position"
_PROTEINS_FOR = "protein_index_map.csv, with the columns name and index (0, 1, ...)"


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneOrder:
    """Genes by position.

    Attributes
    ----------
    path
        File that they stand in.
    table
        Columns of ``genes.tsv``. Statistics of expression are not published: every gene has the
        same share, mean 0 and standard deviation 1, and the architecture asks for none of them.
    n_known
        Genes whose id has a current symbol; the others go by their id.
    """

    path: Path
    table: pd.DataFrame
    n_known: int

    @property
    def note(self) -> str:
        """Describe it in one sentence."""
        others = ", the others go by their Ensembl id" * (self.n_known < len(self.table))
        return f"{self.n_known:,} of {len(self.table):,} genes have a current symbol{others}."

    @classmethod
    def none(cls) -> GeneOrder:
        """No genes, for a decoder alone."""
        return cls(path=Path(), table=_gene_rows([], []), n_known=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProteinOrder:
    """Proteins by position.

    Attributes
    ----------
    path
        File that they stand in.
    table
        Columns of ``proteins.tsv``, and ``published_name``.
    n_known
        Proteins that the vocabulary knows; the others go by their published name, without a gene.
    """

    path: Path
    table: pd.DataFrame
    n_known: int

    @property
    def note(self) -> str:
        """Describe it in one sentence."""
        renamed = int((self.table["name"] != self.table["published_name"]).sum())
        others = ", the others go by their published name" * (self.n_known < len(self.table))
        return (
            f"{self.n_known:,} of {len(self.table):,} proteins are known by name or gene "
            f"({renamed:,} renamed){others}."
        )

    @classmethod
    def none(cls) -> ProteinOrder:
        """No proteins, for an encoder alone."""
        return cls(path=Path(), table=_protein_rows([]), n_known=0)


def read_gene_order(path: str | Path) -> GeneOrder:
    """Read ``gene_order.csv``: the row is the position.

    Raises
    ------
    InputError
        If no column holds one Ensembl id a row, or an id comes twice.
    """
    path = Path(path)
    columns = list(zip(*_rows(path, _GENES_FOR)[1:], strict=True))
    ids = next((column for column in columns if all(map(_ENSEMBL_ID.fullmatch, column))), None)
    if ids is None:
        raise InputError(
            f"{path}: found no column that holds Ensembl ids (ENSG...) alone, expected the "
            f"authors' {_GENES_FOR}."
        )
    bare = [name.partition(".")[0] for name in ids]
    _check_distinct(path, bare, "gene")
    # By id alone: two ids have two symbols, or none.
    symbols = resolve_genes(bare, species="human").symbols
    n_known = int((symbols != "").sum())
    names, taken = [], set(symbols)
    for symbol, ensembl in zip(symbols, bare, strict=True):
        first = symbol != "" and symbol in taken
        taken.discard(symbol)
        names.append(symbol if first else ensembl)
    return GeneOrder(path=path, table=_gene_rows(names, bare), n_known=n_known)


def read_protein_order(path: str | Path) -> ProteinOrder:
    """Read ``protein_index_map.csv``.

    Raises
    ------
    InputError
        If the columns are missing, the indices are not 0, 1, ..., or a name comes twice.
    """
    path = Path(path)
    header, *rows = _rows(path, _PROTEINS_FOR)
    missing = {"name", "index"} - set(header)
    if missing:
        raise InputError(
            f"{path}: found the columns {', '.join(header)[:80]}, expected the authors' "
            f"{_PROTEINS_FOR}."
        )
    name, index = header.index("name"), header.index("index")
    by_index = {row[index].strip(): row[name].strip() for row in rows}
    published = [by_index.get(str(i), "") for i in range(len(rows))]
    if "" in published:
        raise InputError(
            f"{path}: found no protein of index {published.index('')}, expected each of 0 to "
            f"{len(rows) - 1} once; give the authors' {_PROTEINS_FOR}."
        )
    _check_distinct(path, published, "protein")
    symbols = gene_table().index
    known = [find_product(each) for each in published]
    proteins = _without_collisions(published, known, symbols)
    n_known = sum(found is not None for found in known)
    return ProteinOrder(
        path=path,
        table=_protein_rows(list(zip(published, proteins, strict=True))),
        n_known=n_known,
    )


def _rows(path: Path, expected: str) -> list[list[str]]:
    """Header and rows of a CSV file, all of one length."""
    try:
        with plain_file(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected the authors' {expected} ({error}).") from error
    if len(rows) < 2 or len({len(row) for row in rows}) > 1:
        raise InputError(
            f"{path}: found {len(rows)} lines, expected a header and rows of as many values: the "
            f"authors' {expected}."
        )
    return rows


def _check_distinct(path: Path, names: list[str], what: str) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{path}: the {what} {name} is there {count} times, expected one position a {what}; "
            "give the authors' own table."
        )


def _without_collisions(
    published: list[str], known: list[Protein | None], symbols: pd.Index
) -> list[Protein]:
    """Give each position a name of its own.

    A canonical name goes to the position that is published under it; else, of several, to the one
    that is spelled most like it, else to the first. The others keep their published names, and a
    gene only where they are called by its symbol: an alias has turned out not to be certain.
    """
    taken = set(published)
    claims: dict[str, list[int]] = {}
    for i, found in enumerate(known):
        if found is not None and found.name not in taken:
            claims.setdefault(found.name, []).append(i)
    renamed = {
        min(rows, key=lambda i: (_letters(published[i]) != _letters(name), i)): name
        for name, rows in claims.items()
    }
    proteins = []
    for i, (name, found) in enumerate(zip(published, known, strict=True)):
        if found is not None and (found.name == name or i in renamed):
            proteins.append(found)
        else:
            proteins.append(Protein(name, (name,) if name in symbols else (), "protein"))
    return proteins


def _letters(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.casefold())


def _gene_rows(symbols: list[str], ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "symbol": symbols,
            "ensembl_id": ids,
            "reference_share": 1.0 / max(len(symbols), 1),
            "mean": 0.0,
            "std": 1.0,
        }
    )


def _protein_rows(proteins: list[tuple[str, Protein]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (found.name, ";".join(found.genes), found.kind, published)
            for published, found in proteins
        ],
        columns=["name", "genes", "kind", "published_name"],
    )
