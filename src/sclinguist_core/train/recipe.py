"""Recipes: what to train on and how, in YAML, checked strictly."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from sclinguist_core.errors import InputError
from sclinguist_core.model.config import TranslatorConfig, dataclass_from_dict
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.model.sct_config import SctConfig
from sclinguist_core.train.augment import Augmentation
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.handover import ROLES
from sclinguist_core.train.masking import Masking
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.run_folder import plain
from sclinguist_core.train.sources import DataEntry, expand_path, expand_store, read_entry

_SECTIONS = {
    "model": TranslatorConfig,
    "fit": FitConfig,
    "augmentation": Augmentation,
    "masking": Masking,
    "trainer": TrainerConfig,
}
ARCHITECTURES = {"translator": TranslatorConfig, "hyena": HyenaConfig, "sct": SctConfig}
"""What `Recipe.architecture` may be, and the sizes that go with it."""
_ONLY_STAGE = {"hyena": "post-pretrain", "sct": "pretrain-rna"}
"""The one stage of architectures that have no other."""
DATA_LISTS = ("paired", "rna", "protein", "validate")
_DEEPEST = 50
"""Brackets within brackets; recipes need three."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One training run.

    Attributes
    ----------
    name
        Name of the model.
    paired
        Data sets with RNA and antibodies of the same cells.
    rna
        Data sets with RNA alone; pretraining learns from them, and they widen the gene list and
        its statistics.
    protein
        Data sets with antibodies alone, for pretraining.
    validate
        Paired data sets that are not trained on but scored, for early stopping and the choice of
        the best weights.
    hold_out
        Names of data sets that are left out.
    init
        Checkpoint or run folder of earlier stages: ``rna``, ``protein``.
    architecture
        ``translator``, ``hyena`` for that of the published scLinguist, or ``sct`` for that of
        sCellTransformer.
    model, fit, augmentation, masking, trainer
        Sizes, schedule, augmentation, what pretraining hides, devices and the like.
    """

    name: str
    paired: tuple[DataEntry, ...] = ()
    rna: tuple[DataEntry, ...] = ()
    protein: tuple[DataEntry, ...] = ()
    validate: tuple[DataEntry, ...] = ()
    hold_out: tuple[str, ...] = ()
    init: Mapping[str, str] = field(default_factory=dict)
    architecture: str = "translator"
    model: TranslatorConfig | HyenaConfig | SctConfig = field(default_factory=TranslatorConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    masking: Masking = field(default_factory=Masking)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        if self.init and self.architecture == "sct":
            raise ValueError(
                "init: sct is trained on RNA alone, expected no earlier stage; leave it out."
            )
        if not (self.paired or self.rna or self.protein):
            raise ValueError("paired, rna, protein: expected at least one file, found none")
        trained = {Path(entry.path) for entry in (*self.paired, *self.rna, *self.protein)}
        for entry in self.validate:
            if Path(entry.path) in trained:
                raise ValueError(
                    f"validate: {entry.path} is trained on as well; list it in one place"
                )

    @property
    def translator(self) -> TranslatorConfig:
        """Sizes of a translator.

        Raises
        ------
        InputError
            If the recipe is one of another architecture.
        """
        if not isinstance(self.model, TranslatorConfig):
            raise InputError(
                f"architecture: {self.architecture!r} cannot be trained in this stage, expected "
                f"'translator'; use {_ONLY_STAGE[self.architecture]}."
            )
        return self.model

    def entries(self) -> tuple[DataEntry, ...]:
        """All data sets, in the order of the recipe."""
        return (*self.paired, *self.rna, *self.protein, *self.validate)

    def to_yaml(self) -> str:
        """Write the recipe out, with every value; `read_recipe` reads it back."""
        values: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in DATA_LISTS:
                value = [entry.to_plain() for entry in value]
            values[f.name] = plain(value)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def read_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides (``fit.steps=100``).

    Data paths may hold environment variables (``${SCLINGUIST_DATA}/pbmc.h5ad``); relative ones are
    seen from the recipe's folder, those of overrides from the current one.

    Raises
    ------
    InputError
        For anything that is not understood, naming the nearest known key.
    """
    path = Path(path)
    try:
        values = _parsed(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such recipe, expected a YAML file.") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected YAML, found: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, found {type(values).__name__}.")
    for override in overrides:
        _apply(values, override)
    _check_keys(values, [f.name for f in fields(Recipe)], str(path))
    # Relative paths mean the same wherever the command is started.
    path = path.absolute()
    for key in DATA_LISTS:
        listed = values.get(key) or []
        if not isinstance(listed, list):
            raise InputError(f"{path}: {key}: expected a list of paths, found {listed!r}.")
        entries = (read_entry(entry, path, key) for entry in listed)
        values[key] = tuple(one for entry in entries for one in expand_store(entry))
    values["hold_out"] = _names(values.get("hold_out") or [], path)
    values["init"] = _init(values.get("init") or {}, path)
    return _build(values, str(path))


def _parsed(text: str) -> Any:
    """Read YAML that is not nested deeply, which would take the parser minutes."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:
            raise ValueError(f"brackets nested more than {_DEEPEST} deep")
    return yaml.safe_load(text)


def _names(listed: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(listed, list):
        raise InputError(f"{path}: hold_out: expected a list of names, found {listed!r}.")
    return tuple(map(str, listed))


def _init(folders: Any, path: Path) -> dict[str, str]:
    if not isinstance(folders, dict):
        raise InputError(
            f"{path}: init: expected the keys rna and protein with folders, found {folders!r}."
        )
    _check_keys(folders, ROLES, f"{path} (init)")
    return {role: expand_path(str(folder), path) for role, folder in folders.items()}


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
    try:
        value = _parsed(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"override {override!r}: expected a YAML value after =, found "
            f"{' '.join(str(error).split())}"
        ) from error
    place[last] = _from_here(value) if key.split(".")[0] in (*DATA_LISTS, "init") else value


def _from_here(value: Any) -> Any:
    """See paths of the command line from the folder in which it is given."""
    if isinstance(value, str):
        # "~" and "${VARIABLE}" are put in later; joined to a folder they would be lost.
        return value if value.startswith(("~", "$")) else str(Path.cwd() / value)
    if isinstance(value, list):
        return [_from_here(item) for item in value]
    if isinstance(value, dict):
        return {k: _from_here(v) if k in ("path", *ROLES) else v for k, v in value.items()}
    return value


def _check_keys(values: Mapping[str, Any], known: Sequence[str], source: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise InputError(f"{source}: unknown key {key!r}; did you mean {near!r}?")


def _build(values: dict[str, Any], source: str) -> Recipe:
    architecture = values.get("architecture", "translator")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise InputError(
            f"{source}: architecture {architecture!r}, expected one of {', '.join(ARCHITECTURES)}."
        )
    for key, owner in {**_SECTIONS, "model": ARCHITECTURES[architecture]}.items():
        section = values.get(key) or {}
        if not isinstance(section, dict):
            raise InputError(f"{source}: {key}: expected keys and values, found {section!r}.")
        # YAML has lists where frozen dataclasses have tuples.
        part = {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
        values[key] = dataclass_from_dict(owner, part, source=f"{source} ({key})")
    recipe: Recipe = dataclass_from_dict(Recipe, values, source=source)
    return recipe
