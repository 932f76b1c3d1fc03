"""The networks that a checkpoint can hold, by the name that stands in its ``config.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.model.sct_config import SctConfig

if TYPE_CHECKING:
    from torch import nn

    from sclinguist_core.model.translator import Translator

TRANSLATOR = "translator"
HYENA = "hyena"
SCT = "sct"

ModelConfig = TranslatorConfig | HyenaConfig | SctConfig
_CONFIGS: dict[str, type[ModelConfig]] = {
    TRANSLATOR: TranslatorConfig,
    HYENA: HyenaConfig,
    SCT: SctConfig,
}


def read_config(architecture: object, values: dict[str, Any], *, source: str) -> ModelConfig:
    """Sizes of a network, from plain values.

    Parameters
    ----------
    architecture
        Its name.
    values
        As `to_dict` of a configuration returns them.
    source
        File that they stand in, for the error message.

    Raises
    ------
    InputError
        If the architecture or a key is unknown.
    """
    found = _CONFIGS.get(architecture) if isinstance(architecture, str) else None
    if found is None:
        raise InputError(
            f"{source}: architecture {architecture!r}, expected one of {', '.join(_CONFIGS)}; "
            "install a release of napari-sclinguist that knows it."
        )
    return found.from_dict(values, source=f"{source} (model)")


def build_network(config: ModelConfig, genes: pd.DataFrame, proteins: pd.DataFrame) -> nn.Module:
    """Set up the network that a checkpoint's weights are loaded into.

    Parameters
    ----------
    config
        Its sizes, which tell the architecture.
    genes, proteins
        Tables of the checkpoint; a translator reads them, the others know positions alone.
    """
    if isinstance(config, TranslatorConfig):
        return build_translator(config, genes, proteins)
    if isinstance(config, HyenaConfig):
        import torch

        from sclinguist_core.model.hyena import HyenaTranslator

        # Without memory: 285 million random numbers would be drawn to be replaced.
        with torch.device("meta"):
            return HyenaTranslator(config)
    from sclinguist_core.model.sct import SctModel

    return SctModel(config)


def build_translator(
    config: TranslatorConfig, genes: pd.DataFrame, proteins: pd.DataFrame
) -> Translator:
    """Set up an untrained network for given genes and proteins.

    Parameters
    ----------
    config
        Sizes.
    genes
        Columns ``symbol``, ``mean``, ``std`` (of ``log1p`` CP10k).
    proteins
        Columns ``name``, ``genes`` (symbols joined by ";").
    """
    import torch

    from sclinguist_core.model.translator import Translator

    position = {symbol: i for i, symbol in enumerate(genes["symbol"])}
    rows, columns, values = [], [], []
    for row, coding in enumerate(proteins["genes"]):
        found = [position[gene] for gene in coding.split(";") if gene in position]
        rows += [row] * len(found)
        columns += found
        values += [1.0 / max(len(found), 1)] * len(found)
    protein_genes = torch.sparse_coo_tensor(
        torch.tensor([rows, columns], dtype=torch.int64),
        torch.tensor(values, dtype=torch.float32),
        (len(proteins), len(genes)),
        check_invariants=True,
    )
    model = Translator(config, len(genes), len(proteins), protein_genes.coalesce())
    model.gene_mean.copy_(torch.from_numpy(genes["mean"].to_numpy(np.float32)))
    # A gene that hardly varies in the reference must not shout when it is seen once.
    std = np.maximum(genes["std"].to_numpy(np.float32), config.min_gene_std)
    model.gene_std.copy_(torch.from_numpy(std))
    if config.full_weight_std > 0:
        weight = np.minimum(genes["std"].to_numpy(np.float32) / config.full_weight_std, 1.0)
        model.gene_weight.copy_(torch.from_numpy(weight))
    return model
