"""Texts and pickles that are made to run code, to take for ever, or to overflow a stack."""

from __future__ import annotations

import zipfile
from pathlib import Path

from faults.fault import Make
from faults.makers import cases
from faults.small import Small


def _text(source: str, inside: str, content: bytes) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy(source, folder)
        (root / inside).write_bytes(content)
        return root

    return make


def _pickle(content: bytes, method: int = zipfile.ZIP_STORED) -> Make:
    """Write a torch.save archive around a pickle."""

    def make(folder: Path, small: Small) -> Path:
        path = folder / "finetune.ckpt"
        with zipfile.ZipFile(path, "w", compression=method) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("../../escaped", "x")
        return path

    return make


def _laughs() -> bytes:
    """Pickle a dict that takes itself over ten million times."""
    return b"\x80\x02}q\x00" + b"(h\x00h\x00h\x00h\x00l" * 500_000 + b"."


def _recipe(text: str) -> Make:
    def make(folder: Path, small: Small) -> Path:
        path = folder / "recipe.yaml"
        path.write_text(text)
        return path

    return make


def _scales(content: bytes) -> Make:
    return _text("visium", "spatial/scalefactors_json.json", content)


_NESTED = b"[" * 200_000
_NESTED_OBJECT = b'{"a":' * 200_000
_YAML_LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)
) + "name: laughs\npaired: *a59\n"  # fmt: skip
_OS_SYSTEM = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."

_JSON = {
    "scale factors nested 200,000 deep": (_scales(_NESTED), "JSON"),
    "scale factor of 5,000 digits": (
        _scales(b'{"spot_diameter_fullres": ' + b"9" * 5_000 + b"}"),
        "JSON",
    ),
    "scale factor of 400 digits": (
        _scales(b'{"spot_diameter_fullres": ' + b"9" * 400 + b"}"),
        "a very large number",
    ),
    "zarr.json nested 200,000 deep": (_text("zarr", "zarr.json", _NESTED_OBJECT), "JSON"),
    "array's zarr.json nested 200,000 deep": (
        _text("zarr", "X/data/zarr.json", _NESTED_OBJECT),
        "JSON",
    ),
}
_MODEL = {
    "safetensors header nested 200,000 deep": (
        _text(
            "model", "model.safetensors", len(_NESTED).to_bytes(8, "little") + _NESTED
        ),
        "as safetensors",
    ),
    "config.json nested 200,000 deep": (_text("model", "config.json", _NESTED), "JSON"),
    "config.json of 5,000 digits": (
        _text("model", "config.json", b'{"format_version": ' + b"9" * 5_000 + b"}"),
        "JSON",
    ),
    "weights that are a pickle": (_text("model", "model.safetensors", _OS_SYSTEM), "safetensors"),
}  # fmt: skip
_IMPORTED = {
    "pickle that calls the shell": (_pickle(_OS_SYSTEM), "expected a dict with weights"),
    "pickle that copies itself 2 million times": (_pickle(_laughs()), "steps"),
    "pickle nested 10^6 deep": (
        _pickle(b"\x80\x02" + b"(" * 10**6 + b"t" * 10**6 + b"."),
        "data.pkl",
    ),
    "compressed pickle of 256 MB": (
        _pickle(bytes(2**28), zipfile.ZIP_DEFLATED),
        "compressed, or longer",
    ),
    "no archive": (_recipe("no archive"), "zip archive"),
}
_RECIPES = {
    "2^60 items": (_recipe(_YAML_LAUGHS), "."),
    "nested 10,000 deep": (_recipe("a: " + "[" * 10_000), "YAML"),
    "a Python object": (_recipe("name: !!python/object/apply:os.system ['true']\n"), "YAML"),
    "a number of 5,000 digits": (_recipe("name: a\nfit: {steps: " + "9" * 5_000 + "}\n"), "."),
    "a list as a name": (_recipe("name: [a]\npaired: [a.h5ad]\n"), "name: expected text"),
    "a list as a layer": (
        _recipe("name: a\npaired: [{path: a.h5ad, layer: [1]}]\n"),
        "layer: expected text",
    ),
    "keys that are no text": (_recipe("1: 2\nnull: 3\n"), "unknown key 1"),
    "no keys": (_recipe("- a\n- b\n"), "expected keys and values"),
    "bytes that are no text": (
        lambda folder, small: _bytes(folder / "recipe.yaml", b"\xff\xfe\x00a" * 9),
        "YAML",
    ),
}


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


FAULTS = [
    *cases("nesting and long numbers", _JSON),
    *cases(
        "nesting and long numbers",
        {name: _JSON[name] for name in ("array's zarr.json nested 200,000 deep",)},
        command="stream",
    ),
    *cases("nesting and long numbers", _MODEL, command="model"),
    *cases("hostile checkpoints of others", _IMPORTED, command="import"),
    *cases("hostile recipes", _RECIPES, command="recipe"),
]
