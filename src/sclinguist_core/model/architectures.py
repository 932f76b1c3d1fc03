"""The networks that a checkpoint can hold, by the name that stands in its ``config.json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
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
_REPEATED = frozenset({"n_layers", "n_perceptrons", "bridge_layers", "filter_depth", "n_halvings"})
"""Sizes that say how often a part is there, each with tensors of its own."""
_WIDTHS = frozenset(
    {
        "gene_dim", "width", "n_latents", "value_dim", "n_components", "adapter_cells",
        "adapter_components", "token_width", "stem_width", "stem_taps", "feed_forward_width",
        "expansion", "short_width", "position_features", "filter_width",
    }
)  # fmt: skip
"""Sizes that are sides of weight matrices."""
_SLACK = 16
"""No pair of sides need be the sides of one matrix."""
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


def check_sizes(
    config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], *, source: Path
) -> None:
    """Refuse sizes that a file of weights cannot fill, before a network of them is set up.

    Parameters
    ----------
    config
        Sizes of the network, as a file states them.
    shapes
        Shapes of the tensors in the file of weights.
    source
        That file, for the error message.

    Raises
    ------
    InputError
        If the network would have more layers than there are tensors, or a matrix that is far
        larger than all of them together.
    """
    n_values = sum(map(math.prod, shapes.values()))
    sizes = dataclasses.asdict(config)
    widths = {name: sizes[name] for name in sorted(_WIDTHS & set(sizes))}
    limits = {name: len(shapes) for name in sorted(_REPEATED & set(sizes))}
    for name, most in (limits | dict.fromkeys(widths, n_values)).items():
        if sizes[name] > most:
            raise _too_large(source, f"{name} is {sizes[name]:,}", shapes, n_values)
    *_, second, first = sorted(widths.values())
    # Memory for the published architecture is not taken before its weights are read.
    if first * second > _SLACK * n_values and not isinstance(config, HyenaConfig):
        raise _too_large(source, f"widths are {first:,} and {second:,}", shapes, n_values)


def _too_large(
    source: Path, found: str, shapes: Mapping[str, tuple[int, ...]], n_values: int
) -> InputError:
    return InputError(
        f"{source}: holds {len(shapes):,} tensors of {n_values:,} values, while in config.json "
        f"{found}, expected files that belong together; install or train the checkpoint again."
    )


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
    with torch.device("cpu"):  # real also where the rest is set up without memory
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
