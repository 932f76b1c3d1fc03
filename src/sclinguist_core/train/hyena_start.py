"""Start the published architecture from its earlier stages, as its authors do.

From pretraining on RNA comes the encoder, from pretraining on protein the decoder; the bridge is
new. A checkpoint that has all parts gives all that the other role does not. Positions come with the
weights: a gene or protein is known by nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.model.architectures import HYENA
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_config import HyenaConfig

logger = logging.getLogger(__name__)

_SIDES = {"rna": "encoder", "protein": "decoder"}
_LENGTHS = {"encoder": "n_genes", "decoder": "n_proteins"}
_OF_THE_BRIDGE = ("bridge_layers",)
# What a part does not have (lengths are checked one by one), or that is a matter of training.
_FREE = ("n_genes", "n_proteins", "bridge_dropout", "parts", *_OF_THE_BRIDGE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What earlier stages give.

    Attributes
    ----------
    parts
        Checkpoint that each part of the network comes from.
    genes, proteins
        Tables of positions; None where they are free.
    """

    parts: Mapping[str, Checkpoint] = field(default_factory=dict)
    genes: pd.DataFrame | None = None
    proteins: pd.DataFrame | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(dict.fromkeys(source.info.name for source in self.parts.values()))

    def fill(self, model: HyenaTranslator) -> None:
        """Copy the parts into a network, in place."""
        for part, source in self.parts.items():
            getattr(model, part).load_state_dict(getattr(source.model, part).state_dict())
            logger.info("%s: taken over from %s", part, source.path)


def read_start(folders: Mapping[str, str | Path], config: HyenaConfig) -> Start:
    """Load what a recipe starts from.

    Parameters
    ----------
    folders
        Checkpoint (or run) folder of the roles ``rna`` and ``protein``; may be empty.
    config
        Sizes that the recipe asks for.

    Raises
    ------
    InputError
        If a folder holds another architecture, lacks the part that its role is there for, or has
        other sizes.
    """
    sources = {role: load_checkpoint(folder) for role, folder in folders.items()}
    parts: dict[str, Checkpoint] = {}
    for role, source in sources.items():
        side = _SIDES[role]
        found = source.info.model
        if not isinstance(found, HyenaConfig) or side not in found.parts:
            held = found.parts if isinstance(found, HyenaConfig) else (source.info.architecture,)
            raise InputError(
                f"init.{role}: {source.path} holds {', '.join(held)}, expected the {side} of the "
                f"published architecture ({HYENA}); give what `sclinguist import-checkpoint` made."
            )
        parts[side] = source
        for part in found.parts:
            parts.setdefault(part, source)
        for given in found.parts if len(sources) == 1 else (side,):
            _check_sizes(role, source, given, found, config)
    encoder, decoder = parts.get("encoder"), parts.get("decoder")
    if "bridge" in parts and (parts["bridge"] not in (encoder, decoder) or encoder is not decoder):
        # A bridge fits the encoder and decoder that it was trained between.
        del parts["bridge"]
    return Start(
        parts=parts,
        genes=None if encoder is None else encoder.genes,
        proteins=None if decoder is None else decoder.proteins,
    )


def _check_sizes(
    role: str, source: Checkpoint, part: str, found: HyenaConfig, wanted: HyenaConfig
) -> None:
    names = [f.name for f in fields(HyenaConfig) if f.name not in _FREE]
    names += [_LENGTHS[part]] if part in _LENGTHS else _OF_THE_BRIDGE
    for name in names:
        ours, theirs = getattr(wanted, name), getattr(found, name)
        if ours != theirs:
            raise InputError(
                f"init.{role}: {source.path} has {name} {theirs}, expected {ours} as in the "
                f"recipe; set model.{name}={theirs}."
            )
