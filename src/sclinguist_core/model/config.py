"""What a translator is made of: sizes, normalisation, version of the format."""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any

from sclinguist_core.data.preprocess import RNA_NORMALIZATIONS
from sclinguist_core.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslatorConfig:
    """Sizes of a `Translator`.

    Attributes
    ----------
    gene_dim
        Width of the gene embeddings; they serve as the weights of the linear read, as tokens and
        as part of the protein queries.
    width
        Width of a latent.
    n_latents
        Latents that a cell is summarised in.
    n_heads
        Attention heads; divides `width`.
    n_layers
        Self-attention layers over the latents.
    value_dim
        Width of the value features of a token.
    clip
        Standardised expression is clipped to +- this.
    min_gene_std
        Genes are standardised by at least this standard deviation of ``log1p`` CP10k.
    dropout
        Dropout inside the latent layers, the decoder and the cell trunk.
    n_components
        Components of the cell state (`sclinguist_core.model.state`); 0 for a translator without.
    n_perceptrons
        Perceptrons that read the state, beside the regression.
    log_output
        Whether ``log1p`` counts are predicted too, from the state (needs `n_components`).
    full_weight_std
        Genes whose standard deviation of ``log1p`` CP10k is below this enter the linear read in
        proportion to it; 0 to weigh all alike.
    rna_normalization, protein_normalization
        Names in `sclinguist_core.data.preprocess`.
    gene_output
        Whether masked genes can be decoded, as pretraining on RNA does.
    protein_input
        Whether measured proteins can be read, as pretraining on protein does.
    adapter_cells, adapter_components
        Cells that fine-tuning keeps, and components of their expression
        (`sclinguist_core.model.adapter`); 0 before fine-tuning.
    """

    gene_dim: int = 192
    width: int = 64
    n_latents: int = 16
    n_heads: int = 4
    n_layers: int = 2
    value_dim: int = 16
    clip: float = 5.0
    min_gene_std: float = 0.15
    dropout: float = 0.2
    n_components: int = 0
    n_perceptrons: int = 2
    log_output: bool = False
    full_weight_std: float = 0.0
    rna_normalization: str = "log1p_cp10k_measured"
    protein_normalization: str = "clr"
    gene_output: bool = False
    protein_input: bool = False
    adapter_cells: int = 0
    adapter_components: int = 0

    def __post_init__(self) -> None:
        for name in ("gene_dim", "width", "n_latents", "n_heads", "value_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in (
            "n_layers",
            "n_components",
            "n_perceptrons",
            "full_weight_std",
            "adapter_cells",
            "adapter_components",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, found {getattr(self, name)}")
        if self.log_output and not self.n_components:
            raise ValueError("log_output: needs n_components, found 0")
        if self.width % self.n_heads:
            raise ValueError(
                f"n_heads: expected a divisor of width ({self.width}), found {self.n_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected 0 <= dropout < 1, found {self.dropout}")
        for name in ("clip", "min_gene_std"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected a positive number, found {getattr(self, name)}")
        if self.rna_normalization not in RNA_NORMALIZATIONS:
            raise ValueError(
                f"rna_normalization: expected one of {sorted(RNA_NORMALIZATIONS)}, "
                f"found {self.rna_normalization!r}"
            )
        if self.protein_normalization != "clr":
            raise ValueError(
                "protein_normalization: a translator is trained on 'clr', found "
                f"{self.protein_normalization!r}"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, source: str = "config") -> TranslatorConfig:
        """Build from a mapping; unknown keys are errors that name the nearest known one."""
        return dataclass_from_dict(cls, values, source=source)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as written to ``config.json``."""
        return dataclasses.asdict(self)


_LARGEST = 2.0**53
"""Beyond it whole numbers of JSON and YAML are no longer told apart."""


def dataclass_from_dict(cls: type, values: dict[str, Any], *, source: str) -> Any:
    """Fill a dataclass from a mapping, strictly.

    Raises
    ------
    InputError
        For a key that the dataclass lacks (the nearest name is given), or a refused value.
    """
    known = {field.name: field.type for field in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise InputError(f"{source}: unknown key {key!r}; did you mean {near!r}?")
    try:
        return cls(**{key: _checked(key, value, known[key]) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: {error}") from error


def _checked(key: str, value: Any, kind: Any) -> Any:
    """Refuse what is not of a field's kind; YAML takes ``1e-3`` for text, here it is a number."""
    if kind == "bool" and not isinstance(value, bool):
        raise ValueError(f"{key}: expected true or false, found {value!r}")
    if kind in ("str", "str | None"):
        if value is None and kind != "str":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{key}: expected text, found {value!r}")
        # YAML reads a bare 32 as a number; which texts are known is for the dataclass to say.
        return str(value)
    if kind not in ("int", "float"):
        return value
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    whole = kind == "int"
    usable = isinstance(number, int | float) and not isinstance(number, bool)
    # Compared, not converted: an int may be too long to become a float.
    if not usable or not -_LARGEST < number < _LARGEST:
        raise ValueError(f"{key}: expected a {'whole ' * whole}number, found {value!r}")
    if whole and number != int(number):
        raise ValueError(f"{key}: expected a whole number, found {value!r}")
    return int(number) if whole else number
