"""Checkpoints: a folder of plain files, written whole or not at all, read strictly.

``model.safetensors``  weights (float16 on disk unless asked otherwise)
``config.json``        format version, sizes, normalisations, training data sets
``genes.tsv``          symbol, Ensembl id, reference share, mean, standard deviation
``proteins.tsv``       name, coding genes, kind; where known trust and held-out Pearson, for cells
                       and for spots
``card.md``            what it is, what it was trained on, how well it does
``calibration.json``   optional: `sclinguist_core.model.calibration`
``familiarity.safetensors``  optional: `sclinguist_core.model.familiarity`
``conditioning.safetensors``  optional: `sclinguist_core.model.conditioning`; not in the digest,
                       since predictions from RNA do not depend on it

Nothing in it is code: no pickle is read, ever.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from sclinguist_core.data.numbers import SAFE_PRECISION
from sclinguist_core.errors import InputError
from sclinguist_core.files import holder, replace_folder, sync, sync_names
from sclinguist_core.model import calibration as calibrations
from sclinguist_core.model import conditioning as conditionings
from sclinguist_core.model import familiarity as familiarities
from sclinguist_core.model.architectures import (
    HYENA,
    TRANSLATOR,
    ModelConfig,
    build_network,
    check_sizes,
    read_config,
)
from sclinguist_core.model.config import dataclass_from_dict
from sclinguist_core.model.tensor_file import read_weights, stated_shapes, writing_tensors
from sclinguist_core.reading import check_path, opened, read_json, reading
from sclinguist_core.resources import bundled_checkpoint, checkpoints_dir

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sclinguist_core.model.translator import Translator

FORMAT_VERSION = 1
UNIT = "SD of the training reference (CLR)"
_REMEDY = "install or train the checkpoint again"
_DIGEST_BYTES = 2**24
_FILES = ("model.safetensors", "config.json", "genes.tsv", "proteins.tsv", "card.md")
_OPTIONAL_FILES = (calibrations.FILE, familiarities.FILE)
_OURS = frozenset({*_FILES, *_OPTIONAL_FILES, conditionings.FILE})
_OF_THE_SYSTEM = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that a file browser leaves in any folder."""
_GENE_NAMES, _GENE_FIGURES = ("symbol", "ensembl_id"), ("reference_share", "mean", "std")
_PROTEIN_COLUMNS = ("name", "genes", "kind")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What ``config.json`` holds.

    Attributes
    ----------
    name
        Name of the model.
    architecture
        Name in `sclinguist_core.model.architectures`.
    model
        Sizes, of that architecture.
    format_version
        Of the folder layout.
    unit
        Unit of the predictions.
    training_datasets
        Names of the data sets that the weights have seen.
    created_with
        Versions of the packages that wrote it.
    stage
        Training stage that it comes from. Pretraining on one modality (``pretrain-rna``,
        ``pretrain-protein``) gives a start for training, not a predictor.
    """

    name: str
    model: ModelConfig
    architecture: str = TRANSLATOR
    format_version: int = FORMAT_VERSION
    unit: str = UNIT
    training_datasets: tuple[str, ...] = ()
    created_with: dict[str, str] = field(default_factory=dict)
    stage: str = "post-pretrain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model with everything that prediction needs.

    Attributes
    ----------
    model
        The network, in evaluation mode, float32, on the CPU.
    info
        Name, sizes, training data.
    genes, proteins
        The tables described in the module, one row a gene or protein.
    card
        Markdown.
    digest
        SHA-256 of weights, configuration and tables, first 12 hexadecimal digits; "" before it
        is saved.
    path
        Folder; None before it is saved.
    calibration
        Slopes, intervals and trust, by context; None where nothing was held out.
    familiarity
        Reference of the out-of-distribution score; None where there is none.
    conditioning
        How errors of proteins go together, by context; None where that was not fitted.
    """

    model: nn.Module
    info: CheckpointInfo
    genes: pd.DataFrame
    proteins: pd.DataFrame
    card: str
    digest: str = ""
    path: Path | None = None
    calibration: calibrations.Calibration | None = None
    familiarity: familiarities.Familiarity | None = None
    conditioning: conditionings.Conditioning | None = None

    @property
    def translator(self) -> Translator:
        """The network, for what only a translator can do.

        Raises
        ------
        InputError
            If it is of another architecture.
        """
        if self.info.architecture != TRANSLATOR:
            raise InputError(
                f"model {self.info.name!r}: its architecture is {self.info.architecture}, expected "
                f"a {TRANSLATOR} for this; use the bundled model, or one that was fine-tuned from "
                "it."
            )
        return cast("Translator", self.model)

    @property
    def symbols(self) -> list[str]:
        """Genes of the model, canonical symbols."""
        return self.genes["symbol"].tolist()

    @property
    def gene_share(self) -> np.ndarray:
        """Reference expression of the genes, shape (V,), sums to 1."""
        return self.genes["reference_share"].to_numpy(np.float64)

    @property
    def protein_names(self) -> list[str]:
        """Canonical protein names, in the order of the predictions."""
        return self.proteins["name"].tolist()


def check_checkpoint_target(folder: Path | str) -> Path:
    """Refuse a folder that `save_checkpoint` would not replace, before work is spent.

    What is replaced is removed, so a checkpoint that other things were put beside is refused too.

    Raises
    ------
    InputError
        If something else than a checkpoint has the name already.
    """
    folder = Path(folder)
    if not folder.exists():
        return folder
    if not _has_our_config(folder):
        raise InputError(
            f"{folder}: exists and is not a checkpoint of this package, expected a new folder or "
            "an earlier checkpoint; choose another name."
        )
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in _OURS | _OF_THE_SYSTEM or not path.is_file()
    )
    if others:
        shown = ", ".join(others[:5]) + ", ..." * (len(others) > 5)
        raise InputError(
            f"{folder}: is a checkpoint that holds {shown} besides, expected nothing but what is "
            "replaced; move that elsewhere or choose another name."
        )
    return folder


def _has_our_config(folder: Path) -> bool:
    """Whether ``config.json`` is ours, of whatever version: other projects have such a file too."""
    try:
        values = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and "format_version" in values


def save_checkpoint(checkpoint: Checkpoint, folder: Path | str, *, half: bool = True) -> Path:
    """Write a checkpoint folder: to a temporary name first, then renamed.

    Parameters
    ----------
    checkpoint
        What to write.
    folder
        Where; an existing checkpoint there is replaced after the new one is complete.
    half
        Store weights as float16 (half the size; they are float32 again after loading). The
        published architecture is stored as float32 in any case: its filters are made from
        positions that half precision cannot tell apart.
    """
    import torch

    folder = check_checkpoint_target(folder)
    half = half and checkpoint.info.architecture != HYENA
    dtype = torch.float16 if half else torch.float32
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Resolved, so that a link keeps pointing to its folder, which is what is replaced.
    final = Path(os.path.realpath(folder))
    with holder(final) as spare:
        new = spare / final.name
        new.mkdir()
        _write_files(checkpoint, new, dtype)
        sync(new)
        replace_folder(new, final)
        sync_names(final.parent)
    return folder


def _write_files(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    weights = {
        name: tensor.detach().cpu().to(dtype).contiguous()
        for name, tensor in checkpoint.model.state_dict().items()
    }
    with writing_tensors():
        save_file(weights, folder / "model.safetensors")
    config = {
        "name": checkpoint.info.name,
        "architecture": checkpoint.info.architecture,
        "format_version": checkpoint.info.format_version,
        "unit": checkpoint.info.unit,
        "training_datasets": list(checkpoint.info.training_datasets),
        "created_with": checkpoint.info.created_with,
        "stage": checkpoint.info.stage,
        "model": checkpoint.info.model.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    for name, table in (("genes", checkpoint.genes), ("proteins", checkpoint.proteins)):
        table.to_csv(
            folder / f"{name}.tsv", sep="\t", index=False, float_format="%.6g",
            lineterminator="\n",
        )  # fmt: skip
    (folder / "card.md").write_text(checkpoint.card, "utf-8")
    if checkpoint.calibration is not None:
        calibrations.write_calibration(checkpoint.calibration, folder)
    if checkpoint.familiarity is not None:
        checkpoint.familiarity.save(folder)
    if checkpoint.conditioning is not None:
        conditionings.write_conditioning(checkpoint.conditioning, folder)
    # safetensors writes for the owner alone; a model is there to be shared.
    for path in folder.iterdir():
        path.chmod((folder / "config.json").stat().st_mode & 0o777)


def checkpoint_folder(model: str | Path) -> Path:
    """Folder of a model: ``"bundled"``, a checkpoint folder, or the run folder that holds one.

    Raises
    ------
    InputError
        If there is no checkpoint, naming which file is missing, or a file in it is a link that
        leads out.
    """
    folder = bundled_checkpoint() if str(model) == "bundled" else check_path(Path(model))
    if not folder.is_dir():
        raise InputError(
            f"model {str(model)!r}: expected 'bundled' or a checkpoint folder, found no such "
            "folder; `sclinguist models` lists what is installed"
        )
    inside = folder / "checkpoint"
    if inside.is_dir() and not (folder / "config.json").is_file():
        folder = inside
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: not a checkpoint, found no {', '.join(missing)}; expected a folder with "
            f"{', '.join(_FILES)}"
        )
    _check_links(folder)
    return folder


def _check_links(folder: Path) -> None:
    """Refuse links that lead out: a model from elsewhere is not to show what lies here.

    Some installers link what they install to a cache of theirs, which is as it should be.
    """
    root = Path(os.path.realpath(folder))
    if root.is_relative_to(os.path.realpath(checkpoints_dir())):
        return
    for name in sorted(_OURS):
        target = Path(os.path.realpath(folder / name))
        if not target.is_relative_to(root):
            raise InputError(
                f"{folder / name}: is a link to {target}, expected a plain file: copy the model "
                "with what its links lead to (cp -rL)."
            )


def read_info(folder: Path) -> CheckpointInfo:
    """Read ``config.json`` strictly; unknown keys and other format versions are refused."""
    path = folder / "config.json"
    values = read_json(path, remedy=_REMEDY)
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise InputError(
            f"{path}: expected an object with a 'model' section, found none; {_REMEDY}"
        )
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {version!r}, expected {FORMAT_VERSION}; install the release "
            "of napari-sclinguist that wrote it, or train again"
        )
    architecture = values.get("architecture", TRANSLATOR)
    values["model"] = read_config(architecture, values["model"], source=str(path))
    datasets = values.get("training_datasets", [])
    if not isinstance(datasets, list) or not all(isinstance(name, str) for name in datasets):
        raise InputError(
            f"{path}: training_datasets: expected a list of names, found {datasets!r}; {_REMEDY}"
        )
    values["training_datasets"] = tuple(datasets)
    return dataclass_from_dict(CheckpointInfo, values, source=str(path))


def _read_table(path: Path, texts: tuple[str, ...], numbers: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a table that must have some columns of text, and some of finite numbers."""
    with opened(path) as file, reading(path, "a tab-separated table", remedy=_REMEDY):
        table = pd.read_csv(
            file,
            sep="\t",
            keep_default_na=False,
            na_values={},
            dtype=dict.fromkeys(texts, str),
            float_precision=SAFE_PRECISION,
        )
    missing = [name for name in (*texts, *numbers) if name not in table.columns]
    if missing:
        raise InputError(
            f"{path}: expected columns {', '.join((*texts, *numbers))}; missing {missing}; "
            f"{_REMEDY}"
        )
    if table.empty:  # what a protein model says of genes; pandas takes nothing for text
        return table.astype(dict.fromkeys(numbers, np.float64))
    wrong = [
        name
        for name in numbers
        if table[name].dtype.kind not in "iuf" or not np.isfinite(table[name]).all()
    ]
    if wrong:
        raise InputError(
            f"{path}: expected finite numbers in {', '.join(wrong)}, found others; {_REMEDY}"
        )
    return table


def read_proteins(folder: Path) -> pd.DataFrame:
    """Read ``proteins.tsv``: one row a protein that the model predicts."""
    return _read_table(folder / "proteins.tsv", _PROTEIN_COLUMNS)


def read_card(folder: Path) -> str:
    """Read ``card.md``."""
    path = folder / "card.md"
    with opened(path) as file, reading(path, "text", remedy=_REMEDY):
        return file.read().decode("utf-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointSummary:
    """A checkpoint without its weights: what can be told before PyTorch is imported.

    Attributes
    ----------
    folder, info, genes, proteins, card
        See `Checkpoint`.
    """

    folder: Path
    info: CheckpointInfo
    genes: pd.DataFrame
    proteins: pd.DataFrame
    card: str


def read_summary(model: str | Path = "bundled") -> CheckpointSummary:
    """Read everything of a checkpoint but its weights.

    Raises
    ------
    InputError
        See `load_checkpoint`.
    """
    folder = checkpoint_folder(model)
    return CheckpointSummary(
        folder=folder,
        info=read_info(folder),
        genes=_read_table(folder / "genes.tsv", _GENE_NAMES, _GENE_FIGURES),
        proteins=read_proteins(folder),
        card=read_card(folder),
    )


def load_checkpoint(model: str | Path = "bundled") -> Checkpoint:
    """Load a checkpoint strictly: every weight must be there, with its shape, and none besides.

    Parameters
    ----------
    model
        ``"bundled"``, a checkpoint folder, or the folder of a training run.

    Raises
    ------
    InputError
        If a file is missing or does not fit the others.
    """
    summary = read_summary(model)
    folder, info = summary.folder, summary.info
    genes, proteins = summary.genes, summary.proteins
    weights_path = folder / "model.safetensors"
    check_sizes(info.model, stated_shapes(weights_path), source=weights_path)
    network = build_network(info.model, genes, proteins)
    weights = read_weights(weights_path)
    # A network that was set up without memory takes the tensors of the file as they are.
    unfilled = any(parameter.is_meta for parameter in network.parameters())
    try:
        network.load_state_dict(weights, strict=True, assign=unfilled)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise InputError(
            f"{weights_path}: weights do not fit config.json, genes.tsv and proteins.tsv "
            f"({first}); {_REMEDY}"
        ) from error
    network.eval()
    return Checkpoint(
        model=network,
        info=info,
        genes=genes,
        proteins=proteins,
        card=summary.card,
        digest=_digest(folder),
        path=folder,
        calibration=calibrations.read_calibration(folder, len(proteins)),
        familiarity=familiarities.read_familiarity(folder, len(genes)),
        conditioning=conditionings.read_conditioning(folder, len(proteins)),
    )


def update_digest(digest: hashlib._Hash, path: Path) -> None:
    """Add a file to a hash, a part at a time: weights may be larger than memory is to spare."""
    with path.open("rb") as file:
        while part := file.read(_DIGEST_BYTES):
            digest.update(part)


def _digest(folder: Path) -> str:
    """Hash everything in a checkpoint that decides its predictions."""
    digest = hashlib.sha256()
    for name in (*_FILES, *_OPTIONAL_FILES):
        if name != "card.md" and (name in _FILES or (folder / name).is_file()):
            update_digest(digest, folder / name)
    return digest.hexdigest()[:12]
