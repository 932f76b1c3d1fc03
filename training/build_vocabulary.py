"""Builds the gene and protein tables of ``sclinguist_core.vocabulary`` from public name lists.

    python training/build_vocabulary.py NAMES_FOLDER

``NAMES_FOLDER`` holds the lists below; the tables are written into
``src/sclinguist_core/vocabulary/tables``. Running it twice gives the same bytes.

Where each fact comes from
--------------------------
``hgnc_aliases.tsv.gz``           HGNC: approved, previous, alias symbols, Ensembl ids, CD numbers
``gene_ids_36601.tsv.gz``         10x Genomics reference GRCh38-2020-A: Ensembl ids and symbols
``mouse_human_orthologs.tsv.gz``  HCOP: orthologs with the number of sources that support each
``AbNames_totalseq.csv``          BioLegend TotalSeq lists (via AbNames): antigens, clones, symbols
``AbNames_citeseq.csv``           antibody clones used in published CITE-seq studies (via AbNames)
``curated_*.tsv``                 decided by hand; each row of these files says why. They are inputs
                                  too and win over every list.

Tables written
--------------
``genes.tsv.gz``        symbol, ensembl_id, other_ids (comma), source (hgnc or 10x)
``gene_names.tsv.gz``   name, kind (previous or alias), symbols (``|``; more than one: ambiguous)
``orthologs.tsv.gz``    mouse_symbol, mouse_id, human_symbols (``|``), n_sources
``targets.tsv.gz``      genes with a CD number, and the HGNC names of the curated targets' genes:
                        name, genes, aliases (``|``), source
``clones.tsv.gz``       antibody clones: clone
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import re
from collections import defaultdict
from pathlib import Path

TABLES = Path(__file__).resolve().parents[1] / "src/sclinguist_core/vocabulary/tables"
CD_NUMBER = re.compile(r"CDw?([1-9]\d{0,2})((?:[A-KM-QS-Z]\d?)?)", re.IGNORECASE)
LAST_CD_NUMBER = 371
# CDW2 ... of the first four mean another family; CD8B2 and CD84H1 are relatives, not CD antigens
NOT_CD = {"WDR26", "GRWD1", "WDR59", "WDR76", "CD8B2", "SLAMF9"}

Rows = list[list[str]]


def read(path: Path) -> list[dict[str, str]]:
    """Read a TSV or CSV with a header, compressed or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as handle:
        lines = (line for line in handle if not line.startswith("#"))
        return list(csv.DictReader(lines, delimiter="\t" if ".tsv" in path.name else ","))


def write(name: str, header: list[str], rows: Rows) -> None:
    """Write a gzipped TSV that is the same, byte for byte, for the same rows."""
    text = "\n".join("\t".join(row) for row in [header, *rows]) + "\n"
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as handle:
        handle.write(text.encode())
    (TABLES / name).write_bytes(buffer.getvalue())
    print(f"{name}: {len(rows)} rows, {len(buffer.getvalue()) / 1000:.0f} kB")


class Genes:
    """Approved symbols, ids and other names of human genes, HGNC first, 10x Genomics second."""

    def __init__(self, names: Path) -> None:
        self.ids: dict[str, str] = {}
        self.names: dict[str, dict[str, set[str]]] = {
            "previous": defaultdict(set),
            "alias": defaultdict(set),
        }
        self.source: dict[str, str] = {}
        self.other_ids: dict[str, list[str]] = defaultdict(list)
        for row in read(names / "hgnc_aliases.tsv.gz"):
            self.ids[row["symbol"]] = row["ensembl_id"] or self.ids.get(row["symbol"], "")
            self.source[row["symbol"]] = "hgnc"
            kind = {"ALIAS": "alias", "PREVIOUS_SYMBOL": "previous"}.get(row["kind"])
            if kind:
                self.names[kind][row["value"]].add(row["symbol"])
        self._add_10x(names / "gene_ids_36601.tsv.gz")
        for row in read(TABLES / "curated_genes.tsv"):
            if row["symbol"] not in self.ids:
                raise ValueError(f"curated_genes.tsv: {row['symbol']} is not a known symbol")
            self.names["previous"][row["name"]] = {row["symbol"]}

    def _add_10x(self, path: Path) -> None:
        with gzip.open(path, "rt") as handle:
            reference = [line.rstrip("\n").split("\t")[:2] for line in handle]
        symbol_of = self._symbols_by_id(dict(reference))
        in_reference = {ensembl for ensembl, _ in reference}
        approved = set(self.ids)
        for ensembl, symbol in reference:
            current = symbol_of.get(ensembl)
            if current is None and symbol not in approved:
                # an older id of a renamed gene, unless that gene is in the reference by itself
                former = self.names["previous"].get(symbol, set())
                if len(former) == 1 and self.ids[next(iter(former))] not in in_reference:
                    current = next(iter(former))
            if current is None:
                current = symbol
            if current not in self.ids or not self.ids[current]:
                self.ids[current] = ensembl
                self.source.setdefault(current, "10x")
            elif self.ids[current] != ensembl:
                self.other_ids[current].append(ensembl)
            if current != symbol and symbol not in approved:
                # what 10x calls this gene: its meaning there beats any alias of the same spelling
                self.names["previous"][symbol] = {current}

    def _symbols_by_id(self, reference: dict[str, str]) -> dict[str, str]:
        """Invert the ids; of two symbols with one id only that of the 10x reference keeps it."""
        symbol_of: dict[str, str] = {}
        for symbol, ensembl in self.ids.items():
            if ensembl and symbol_of.setdefault(ensembl, symbol) != symbol:
                loser = symbol
                if reference.get(ensembl) == symbol:
                    symbol_of[ensembl], loser = symbol, symbol_of[ensembl]
                self.ids[loser] = ""
        return symbol_of

    def write(self) -> None:
        """Write the two gene tables."""
        rows = [
            [symbol, self.ids[symbol], ",".join(self.other_ids[symbol]), self.source[symbol]]
            for symbol in sorted(self.ids)
        ]
        write("genes.tsv.gz", ["symbol", "ensembl_id", "other_ids", "source"], rows)
        names = []
        for kind, table in self.names.items():
            for name, symbols in table.items():
                if name in self.ids or (kind == "alias" and name in self.names["previous"]):
                    continue  # an approved symbol beats a previous one, which beats an alias
                names.append([name, kind, "|".join(sorted(symbols))])
        write("gene_names.tsv.gz", ["name", "kind", "symbols"], sorted(names))


def write_orthologs(names: Path, genes: Genes) -> None:
    """Keep, for each mouse gene, the human gene(s) with the most sources.

    Of equally supported ones the one of the same name is taken; where none has it all are kept,
    and the mouse gene is ambiguous.
    """
    symbol_of = {ensembl: symbol for symbol, ensembl in genes.ids.items() if ensembl}
    best: dict[tuple[str, str], tuple[int, set[str]]] = {}
    for row in read(names / "mouse_human_orthologs.tsv.gz"):
        human = symbol_of.get(row["human_id"])
        if human is None:
            human = row["human_symbol"]
            former = genes.names["previous"].get(human, set())
            if human not in genes.ids and len(former) == 1:
                human = next(iter(former))
            if human not in genes.ids:
                continue
        key = row["mouse_symbol"], row["mouse_id"]
        sources = int(row["n_sources"])
        count, symbols = best.get(key, (0, set()))
        if sources > count:
            best[key] = sources, {human}
        elif sources == count:
            symbols.add(human)
    rows = []
    for (symbol, ensembl), (sources, humans) in sorted(best.items()):
        chosen = {symbol.upper()} if symbol.upper() in humans else humans
        rows.append([symbol, ensembl, "|".join(sorted(chosen)), str(sources)])
    header = ["mouse_symbol", "mouse_id", "human_symbols", "n_sources"]
    write("orthologs.tsv.gz", header, rows)


def cd_name(text: str) -> str:
    """Return a name in the spelling of CD numbers (``CD158e1``), or ``""``."""
    found = CD_NUMBER.fullmatch(text)
    if not found or int(found[1]) > LAST_CD_NUMBER:
        return ""
    return f"CD{found[1]}{found[2].lower()}"


def write_targets(names: Path) -> None:
    """Name every gene that has a CD number by it, and collect the aliases of all targets.

    Where HGNC knows several CD numbers of a gene, the one of the TotalSeq lists is taken, then the
    one that is the gene's symbol, then the shortest, then the highest (the newest).
    """
    curated = read(TABLES / "curated_proteins.tsv")
    owner: dict[str, str] = {}
    for row in curated:
        genes, aliases = row["genes"].split(";"), row["aliases"].split("|")
        if row["kind"] in ("protein", "complex"):
            owned = genes if len(genes) == 1 else [gene for gene in genes if gene in aliases]
            for gene in owned:
                owner.setdefault(gene, row["name"])
    taken = {row["name"] for row in curated}
    totalseq: dict[str, set[str]] = defaultdict(set)
    for row in read(names / "AbNames_totalseq.csv"):
        if "Human" in row["Reactivity"]:
            totalseq[row["HGNC_SYMBOL"]].add(cd_name(row["Antigen"].split(" ")[0]))
    spellings: dict[str, list[str]] = defaultdict(list)
    for row in read(names / "hgnc_aliases.tsv.gz"):
        spellings[row["symbol"]].append(row["value"])
    rows = []
    for symbol, values in sorted(spellings.items()):
        numbers = sorted({cd_name(value) for value in values} - {""})
        numbers.sort(
            key=lambda cd: (
                cd not in totalseq[symbol],
                cd != cd_name(symbol),
                len(cd),
                -int(CD_NUMBER.fullmatch(cd)[1]),
            )
        )
        name = owner.get(symbol, "")
        if not name and numbers and symbol not in NOT_CD and numbers[0] not in taken:
            name = numbers[0]
        if name:
            aliases = sorted({value for value in values if "|" not in value} - {symbol, name})
            rows.append([name, symbol, "|".join(aliases), "HGNC"])
    write("targets.tsv.gz", ["name", "genes", "aliases", "source"], rows)


def write_clones(names: Path) -> None:
    """List antibody clones, so that ``CD3_UCHT1`` can be read as CD3."""
    clones = set()
    for file in ("AbNames_totalseq.csv", "AbNames_citeseq.csv"):
        for row in read(names / file):
            clones.update(re.split(r"[\s(),]+", row["Clone"]))
    usual = re.compile(r"(?=.*\d)[A-Za-z0-9][A-Za-z0-9./-]{2,}")
    rows = [[clone] for clone in sorted(clones) if usual.fullmatch(clone) and not cd_name(clone)]
    write("clones.tsv.gz", ["clone"], rows)


def main() -> None:
    """Parse the argument and write every table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", type=Path, help="folder with the name lists")
    names = parser.parse_args().names
    genes = Genes(names)
    genes.write()
    write_orthologs(names, genes)
    write_targets(names)
    write_clones(names)


if __name__ == "__main__":
    main()
