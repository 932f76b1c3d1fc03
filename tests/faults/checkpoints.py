"""Model folders that are damaged, or were put together to do harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from faults.fault import Make
from faults.makers import cases
from faults.small import N_GENES, Small


def _config(change: Callable[[dict[str, Any]], Any]) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("model", folder)
        content = json.loads((root / "config.json").read_text())
        changed = change(content)
        (root / "config.json").write_text(json.dumps(content if changed is None else changed))
        return root

    return make


def _size(name: str, value: Any) -> Make:
    return _config(lambda content: content["model"].__setitem__(name, value))


def _key(name: str, value: Any) -> Make:
    return _config(lambda content: content.__setitem__(name, value))


def _weights(
    change: Callable[[dict[str, np.ndarray]], None], file: str = "model.safetensors"
) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("model", folder)
        tensors = load_file(root / file) if (root / file).is_file() else {}
        change(tensors)
        save_file(tensors, root / file)
        return root

    return make


def _each(value: Any) -> Callable[[dict[str, np.ndarray]], None]:
    """Put a value into the first number of every tensor."""

    def change(tensors: dict[str, np.ndarray]) -> None:
        for name, values in tensors.items():
            values = values.copy()
            values.reshape(-1)[:1] = value
            tensors[name] = values

    return change


def _cast(dtype: Any) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors |= {name: values.astype(dtype) for name, values in tensors.items()}

    return change


def _without_first(tensors: dict[str, np.ndarray]) -> None:
    del tensors[min(tensors)]


def _with_another(tensors: dict[str, np.ndarray]) -> None:
    tensors["more"] = np.zeros(3, np.float16)


def _wider(tensors: dict[str, np.ndarray]) -> None:
    name = max(tensors, key=lambda name: tensors[name].size)
    tensors[name] = np.zeros((*tensors[name].shape, 2), np.float16)


def _wide_but_thin(tensors: dict[str, np.ndarray]) -> None:
    """As many values as one side of a matrix that does not fit into memory."""
    tensors["more"] = np.zeros(200_000, np.float16)


def _very_wide(folder: Path, small: Small) -> Path:
    root = _weights(_wide_but_thin)(folder, small)
    content = json.loads((root / "config.json").read_text())
    content["model"] |= {"width": 200_000, "gene_dim": 200_000, "n_heads": 1}
    (root / "config.json").write_text(json.dumps(content))
    return root


def _table(file: str, change: Callable[[list[list[str]]], None]) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("model", folder)
        rows = [line.split("\t") for line in (root / file).read_text().splitlines()]
        change(rows)
        (root / file).write_text("\n".join("\t".join(row) for row in rows) + "\n")
        return root

    return make


def _cell(column: int, value: str) -> Callable[[list[list[str]]], None]:
    return lambda rows: rows[1].__setitem__(column, value)


def _bytes(file: str, content: bytes) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("model", folder)
        (root / file).write_bytes(content)
        return root

    return make


def _familiarity(**tensors: np.ndarray) -> Make:
    return _weights(lambda found: found.update(tensors), "familiarity.safetensors")


def _sct(sizes: dict[str, Any]) -> Make:
    def change(content: dict[str, Any]) -> None:
        content |= {"architecture": "sct", "model": sizes}

    return _config(change)


_CONFIG = {
    "unknown architecture": (
        _key("architecture", "transformer-9000"),
        "expected one of translator",
    ),
    "architecture that is a list": (_key("architecture", ["translator"]), "expected one of"),
    "name that is a list": (_key("name", ["a"]), "name: expected text"),
    "name that is true": (_key("name", True), "name: expected text"),
    "unit that is a list": (_key("unit", ["SD"]), "unit: expected text"),
    "data sets that are a number": (_key("training_datasets", 5), "expected a list of names"),
    "data sets of numbers": (_key("training_datasets", [5]), "expected a list of names"),
    "format of another version": (_key("format_version", 2), "format version 2, expected 1"),
    "format of text": (_key("format_version", "1"), "expected 1"),
    "a key that nobody knows": (_key("code", "import os"), "unknown key 'code'"),
    "an array": (_config(lambda content: [content]), "'model' section"),
    "sizes that are text": (_key("model", "large"), "'model' section"),
    "a size that nobody knows": (_size("depth", 3), "unknown key 'depth'"),
    "a size of text": (_size("width", "wide"), "width: expected a whole number"),
    "a size of null": (_size("width", None), "width: expected a whole number"),
    "a size of 0": (_size("width", 0), "width: expected at least 1"),
    "a negative size": (_size("n_layers", -1), "n_layers: expected at least 0"),
    "a size of 400 digits": (_size("width", 10**400), "width: expected a whole number"),
    "width of 10^9": (_size("width", 10**9), "width is 1,000,000,000"),
    "10^9 layers": (_size("n_layers", 10**9), "n_layers is 1,000,000,000"),
    "10^9 latents": (_size("n_latents", 10**9), "n_latents is 1,000,000,000"),
    "gene width of 10^9": (_size("gene_dim", 10**9), "gene_dim is 1,000,000,000"),
    "10^9 perceptrons": (_size("n_perceptrons", 10**9), "n_perceptrons is 1,000,000,000"),
    "10^9 components": (_size("n_components", 10**9), "n_components is 1,000,000,000"),
    "10^9 cells of an adapter": (_size("adapter_cells", 10**9), "adapter_cells is 1,000,000,000"),
    "width of 10^9, one head": (
        _config(lambda c: c["model"].update({"width": 10**9, "n_heads": 1})),
        "width is",
    ),
    "widths that only a vector has": (_very_wide, "widths are 200,000 and 200,000"),
    "heads that do not divide": (_size("n_heads", 3), "n_heads: expected a divisor"),
    "other heads than the weights'": (_size("n_latents", 3), "weights do not fit"),
    "10^9 halvings": (_sct({"n_halvings": 10**9}), "n_halvings: expected at most"),
    "10^9 layers of the published architecture": (
        _config(lambda c: c.update({"architecture": "hyena", "model": {"n_layers": 10**9}})),
        "n_layers is 1,000,000,000",
    ),
    "another architecture": (_sct({}), "."),
}
_TENSORS = {
    "a NaN in each": (_weights(_each(np.nan)), "NaN or infinite"),
    "an infinity in each": (_weights(_each(np.inf)), "NaN or infinite"),
    "a missing tensor": (_weights(_without_first), "weights do not fit"),
    "a tensor more": (_weights(_with_another), "weights do not fit"),
    "another shape": (_weights(_wider), "weights do not fit"),
    "no tensor": (_weights(dict.clear), "tensors|weights do not fit"),
    "not safetensors": (_bytes("model.safetensors", b"PK\x03\x04" * 100), "as safetensors"),
    "profiles of NaN": (
        _familiarity(log_profiles=np.full((2, N_GENES), np.nan, np.float16), levels=np.arange(3.0)),
        "familiarity",
    ),
    "profiles of other genes": (
        _familiarity(log_profiles=np.zeros((2, 3), np.float16), levels=np.arange(3.0)),
        "familiarity",
    ),
    "profiles without levels": (_familiarity(log_profiles=np.zeros((2, N_GENES))), "familiarity"),
    "levels of whole numbers in two dimensions": (
        _familiarity(log_profiles=np.zeros((2, N_GENES)), levels=np.zeros((2, 2), int)),
        "familiarity",
    ),
    "errors of nothing": (
        _weights(lambda t: t.update({"cells.loadings": np.zeros(3)}), "conditioning.safetensors"),
        "conditioning",
    ),
    "calibration of text": (_bytes("calibration.json", b"text"), "calibration"),
    "calibration of lists": (
        _bytes("calibration.json", b'{"format_version": 1, "contexts": {"cells": []}}'),
        "calibration",
    ),
}
_TABLES = {
    "mean of text": (_table("genes.tsv", _cell(3, "high")), "finite numbers in mean"),
    "mean of NaN": (_table("genes.tsv", _cell(3, "nan")), "finite numbers in mean"),
    "spread of infinity": (_table("genes.tsv", _cell(4, "inf")), "finite numbers in std"),
    "genes without a column": (
        _table("genes.tsv", lambda rows: rows[0].__setitem__(0, "gene")),
        "missing ..symbol",
    ),
    "a gene less": (_table("genes.tsv", lambda rows: rows.pop()), "weights do not fit"),
    "a protein less": (_table("proteins.tsv", lambda rows: rows.pop()), "."),
    "unequal lines": (_table("genes.tsv", lambda rows: rows[1].append("x\ty")), "finite numbers"),
    "genes that are no text": (_bytes("genes.tsv", b"\xff\xfe\x00" * 99), "tab-separated"),
    "card that is no text": (_bytes("card.md", b"\xff\xfe\x9c"), "as text"),
}

FAULTS = [
    *cases("hostile configurations", _CONFIG, command="model"),
    *cases("damaged weights", _TENSORS, command="model"),
    *cases("damaged tables of a model", _TABLES, command="model"),
    *cases(
        "damaged weights",
        {"whole numbers": (_weights(_cast(np.int16)), "for 12 cells")},
        command="model",
        ends="goes on",
    ),
    *cases(
        "hostile configurations",
        {"name that is a number": (_key("name", 3), "model 3 ")},
        command="model",
        ends="goes on",
    ),
]
