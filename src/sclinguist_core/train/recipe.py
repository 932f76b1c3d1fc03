"""Recipes: what to train on and how, in YAML, checked strictly."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sclinguist_core.errors import InputError
from sclinguist_core.model.config import TranslatorConfig, dataclass_from_dict
from sclinguist_core.train.augment import Augmentation
from sclinguist_core.train.fit import FitConfig

_SECTIONS = {"model": TranslatorConfig, "fit": FitConfig, "augmentation": Augmentation}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One training run.

    Attributes
    ----------
    name
        Name of the model.
    paired
        Files with RNA and antibodies of the same cells.
    rna
        Files with RNA alone; they widen the gene list and its statistics.
    model, fit, augmentation
        Sizes, schedule, augmentation.
    """

    name: str
    paired: tuple[str, ...]
    rna: tuple[str, ...] = ()
    model: TranslatorConfig = field(default_factory=TranslatorConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if not self.paired:
            raise ValueError("paired: expected at least one file, found none")


def read_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides (``fit.steps=100``).

    Data paths may hold environment variables (``${SCLINGUIST_DATA}/pbmc.h5ad``); relative ones are
    seen from the recipe's folder.

    Raises
    ------
    InputError
        For anything that is not understood, naming the nearest known key.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such recipe, expected a YAML file.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected YAML, found: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, found {type(values).__name__}.")
    for override in overrides:
        _apply(values, override)
    for key in ("paired", "rna"):
        listed = values.get(key, [])
        if not isinstance(listed, list):
            raise InputError(f"{path}: {key}: expected a list of paths, found {listed!r}.")
        values[key] = tuple(_data_path(path, str(entry)) for entry in listed)
    return _build(values, str(path))


def _data_path(recipe: Path, entry: str) -> str:
    expanded = os.path.expandvars(entry)
    if "$" in expanded:
        raise InputError(
            f"{recipe}: {entry}: the environment variable in it is not set, expected the folder "
            "of the data; set it, or write the path out."
        )
    return str(recipe.parent / Path(expanded).expanduser())


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {override!r}: expected key=value, such as fit.steps=100.")
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError(f"override {override!r}: {parent!r} holds a value, not keys.")
    place[last] = yaml.safe_load(text)


def _build(values: dict[str, Any], source: str) -> Recipe:
    known = [*_SECTIONS, "name", "paired", "rna"]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise InputError(f"{source}: unknown key {key!r}; did you mean {near!r}?")
    for key, owner in _SECTIONS.items():
        part = dict(values.get(key) or {})
        if isinstance(part.get("spot_cells"), list):
            part["spot_cells"] = tuple(part["spot_cells"])
        values[key] = dataclass_from_dict(owner, part, source=f"{source} ({key})")
    return dataclass_from_dict(Recipe, values, source=source)
