"""Gene and protein names: what a file calls them, and what we call them.

Imports neither torch nor scanpy; the tables are read when first asked for.
"""

from sclinguist_core.vocabulary.genes import GeneResolution, gene_table, resolve_genes
from sclinguist_core.vocabulary.proteins import (
    AmbiguousProteinError,
    Protein,
    UnknownProteinError,
    list_proteins,
    resolve_panel,
    resolve_protein,
)

__all__ = [
    "AmbiguousProteinError",
    "GeneResolution",
    "Protein",
    "UnknownProteinError",
    "gene_table",
    "list_proteins",
    "resolve_genes",
    "resolve_panel",
    "resolve_protein",
]
